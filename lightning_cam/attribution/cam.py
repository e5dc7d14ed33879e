"""Grad-CAM: where a layer's features speak for a column.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. With activations A (D channels) and the score y of a column,

    alpha = pool(dy/dA),    heatmap = ReLU(sum_k alpha_k A^k).

**The pooling must be named**, for the field disagrees. `"spacetime"` averages the gradient over
t, h, w: one weight a channel (captum, torch-cam, pytorch-grad-cam). `"space"` averages over h, w:
one weight a channel and time step (SlowFast, mmaction2, and Eq. 1 of recurrent Grad-CAM). They
agree where global average pooling and one linear layer follow, and differ elsewhere.

The cost is one forward and the tail's backward: the graph starts at the target layer, whatever
parameters are frozen, and no gradient reaches a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.ops import at_least_float32, gradients, resize_heatmap
from lightning_cam.errors import UserError

Pool = Literal["space", "spacetime"]


@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM for 3-D networks and for frames folded into the batch, or run one by one.

    Args:
        layer: target layer, a name in `model.layers` or any dotted module name; None: the first.
        pool: `"space"`, `"spacetime"`, or None: `"space"` where the layer sees single frames,
            `"spacetime"` for 5-D activations.
        relu: keep the positive part; False returns the signed map.

    Example:
        >>> explain(model, GradCAM(layer="layer3", pool="space"), clip).heatmap
    """

    title: ClassVar[str] = "Grad-CAM"

    layer: str | None = None
    pool: Pool | None = None
    relu: bool = True

    def __post_init__(self) -> None:
        if self.pool not in ("space", "spacetime", None):
            raise ValueError(f'pool must be "space", "spacetime" or None, got {self.pool!r}')

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor | None) -> Tensor:
        name, layer = model.layer(self.layer)
        with capture(layer, leaf=True) as calls:
            outputs = model.forward(clip)
        check_run(name, calls)
        score = model.score(outputs, outputs.argmax(1) if target is None else target)
        pool = self.pool or ("spacetime" if calls[0].ndim == 5 else "space")
        model.notes.update(layer=name, pool=f"gradient pooled over {pool}")
        gradient = in_time(model, gradients(score, calls), len(clip))
        cam = weighted_sum(in_time(model, calls, len(clip)), pooled(gradient, pool))
        return resize_heatmap(cam.relu() if self.relu else cam, clip.shape[2:])


def check_run(name: str, calls: list[Tensor]) -> None:
    """Raise a `UserError` for a layer that the forward did not run."""
    if not calls:
        raise UserError(f"layer {name!r} is not run by the model's forward; choose another")


def in_time(model: Explainable, calls: list[Tensor], batch: int) -> Tensor:
    """All calls of a layer as one `(B, D, t, h, w)`: a loop over frames runs it once a frame."""
    return torch.cat([at_least_float32(model.fold(call, batch)) for call in calls], dim=2)


def pooled(gradient: Tensor, pool: Pool) -> Tensor:
    """Channel weights `(B, D, t)` of gradients `(B, D, t, h, w)`; alike for all t in spacetime."""
    weights = gradient.mean((3, 4))
    return weights if pool == "space" else weights.mean(2, keepdim=True).expand_as(weights)


def weighted_sum(activation: Tensor, weights: Tensor) -> Tensor:
    """Signed map `(B, t, h, w)` of activations `(B, D, t, h, w)` and weights `(B, D, t)`."""
    return torch.einsum("bdt,bdthw->bthw", weights, activation.detach())
