"""Grad-CAM: where a layer's features speak for a column.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. With activations A (D channels) and the score y of a column,

    alpha = pool(dy/dA),    heatmap = ReLU(sum_k alpha_k A^k).

**The pooling must be named**, for the field disagrees. `"spacetime"` averages the gradient over
t, h, w: one weight a channel (captum, torch-cam, pytorch-grad-cam). `"space"` averages over h, w:
one weight a channel and time step (SlowFast, mmaction2, and Eq. 1 of recurrent Grad-CAM). They
agree where global average pooling and one linear layer follow, and differ elsewhere.

**Padding** (`Explainable.valid`). Steps that hold no valid frame do not count in the mean over
space-time, and padded frames get exactly 0. They are blanked after resizing: blanking the steps
before would dim the last valid frames. So where t < T, these still take up some of the padded steps
beside them.

The cost is one forward and the tail's backward: the graph starts at the target layer, whatever
parameters are frozen, and no gradient reaches a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.method import LayerAttribution
from lightning_cam.attribution.tensors import at_least_float32, gradients, resize_heatmap
from lightning_cam.errors import UserError

Pool = Literal["space", "spacetime"]


@dataclass(frozen=True)
class GradCAM(LayerAttribution):
    """Grad-CAM for 3-D networks and for frames folded into the batch, or run one by one.

    Of a layer that one forward runs several times (the ReLU of a ResNet block), the last run is
    explained, see `last_calls`.

    Args:
        layer: target layer, a name in `model.layers` or any dotted module name; None: the first.
        pool: `"space"`, `"spacetime"`, or None: `"space"` where the layer sees single frames,
            `"spacetime"` for 5-D activations.
        relu: keep the positive part; False returns the signed map.

    Example:
        >>> explain(model, GradCAM(layer="layer3", pool="space"), clip).heatmap
    """

    title = "Grad-CAM"

    pool: Pool | None = None
    relu: bool = True

    @property
    def both_signs(self) -> GradCAM:
        return replace(self, relu=False)

    def __post_init__(self) -> None:
        if self.pool not in ("space", "spacetime", None):
            raise ValueError(f'pool must be "space", "spacetime" or None, got {self.pool!r}')

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return recorded_from(model, clip, self.layer)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        cam = layer_map(model, self.first(model, clip), clip, target, self.pool).signed
        return resize_heatmap(cam.relu() if self.relu else cam, clip.shape[2:])


class LayerMap(NamedTuple):
    """What a layer says about a column.

    Attributes:
        signed: `(B, t, h, w)`, the sum over channels of weight times activation.
        activation: `(B, D, t, h, w)`.
        gradient: of the score, alike.
        score: `(B,)`, what was explained of the columns.
    """

    signed: Tensor
    activation: Tensor
    gradient: Tensor
    score: Tensor


def recorded_from(model: Explainable, clip: Tensor, layer: str | None) -> Forward:
    """A run whose graph starts at a layer.

    Args:
        model: what to look into.
        clip: `(B, C, T, H, W)`.
        layer: as in `Explainable.layer`.

    Returns:
        The outputs, and as "layer" the layer's `last_calls`.
    """
    name, module = model.layer(layer)
    with capture(module, leaf=True) as calls:
        outputs = model.forward(clip)
    model.notes.update(layer=name)
    return Forward(outputs, {"layer": last_calls(model, name, calls, clip)})


def layer_map(
    model: Explainable,
    forward: Forward,
    clip: Tensor,
    target: Tensor,
    pool: Pool | Literal["none"] | None,
) -> LayerMap:
    """The signed map of a layer, and what it is made of, by the tail's backward.

    Args:
        model: what to look into.
        forward: of the clip, `recorded_from` the layer.
        clip: `(B, C, T, H, W)`.
        target: `(B,)`.
        pool: see `GradCAM`; "none" does not pool the gradient (HiResCAM, Draelos and Carin, 2020).
    """
    calls = forward.captured["layer"]
    score = model.score(forward.outputs, target)
    pool = pool or ("spacetime" if calls[0].ndim == 5 else "space")
    said = "gradient not pooled" if pool == "none" else f"gradient pooled over {pool}"
    model.notes.update(pool=said)
    gradient = in_time(model, gradients(score, calls), len(clip))
    activation = in_time(model, calls, len(clip)).detach()
    if pool == "none":
        signed = (gradient * activation).sum(1)
    else:
        signed = weighted_sum(activation, pooled(gradient, pool, model.valid_for(clip)))
    return LayerMap(signed, activation, gradient, score.detach())


def last_calls(model: Explainable, name: str, calls: list[Tensor], clip: Tensor) -> list[Tensor]:
    """The calls of a layer that make up its map of the clip.

    A loop over the T frames runs a layer on `(B, D, h, w)`, k times a frame: that is the last of
    each k calls, to be joined in time. Any other layer has seen the whole clip in every call: that
    is the last one, of a ReLU shared within a ResNet block the block's output.

    Raises:
        UserError: if the forward did not run the layer.
        ValueError: if the calls are not maps.
    """
    if not calls:
        raise UserError(f"layer {name!r} is not run by the model's forward; choose another")
    a_frame, rest = divmod(len(calls), clip.shape[2])
    looped = calls[a_frame - 1 :: a_frame] if a_frame and not rest else []
    # A 5-D map with t=1 is not a single frame: a 3-D network has pooled time away.
    one_frame = calls[-1].ndim != 5 and model.fold(calls[-1], len(clip)).shape[2] == 1
    alike = len({call.shape for call in looped}) == 1
    return looped if one_frame and alike else calls[-1:]


def in_time(model: Explainable, calls: list[Tensor], batch: int) -> Tensor:
    """One `(B, D, t, h, w)` of the whole clip, or of the frames one by one."""
    return torch.cat([at_least_float32(model.fold(call, batch)) for call in calls], dim=2)


def pooled(gradient: Tensor, pool: Pool, valid: Tensor | None = None) -> Tensor:
    """Channel weights `(B, D, t)` of gradients `(B, D, t, h, w)`; alike for all t in spacetime.

    With `valid` `(B, T)` the mean over space-time is that of the steps with a valid frame.
    """
    weights = gradient.mean((3, 4))
    if pool == "space":
        return weights
    if valid is None or valid.all():
        return weights.mean(2, keepdim=True).expand_as(weights)
    counts = F.adaptive_avg_pool1d(valid.to(weights), weights.shape[2])[:, None] > 0  # (B, 1, t)
    mean = (weights * counts).sum(2, keepdim=True) / counts.sum(2, keepdim=True).clamp(min=1)
    return mean.expand_as(weights)


def weighted_sum(activation: Tensor, weights: Tensor) -> Tensor:
    """Signed map `(B, t, h, w)` of activations `(B, D, t, h, w)` and weights `(B, D, t)`."""
    return torch.einsum("bdt,bdthw->bthw", weights, activation.detach())
