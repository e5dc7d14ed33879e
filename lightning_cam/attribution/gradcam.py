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

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.calls import in_time, joined_by, on_frames, shape_of, told_apart
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.fields import Names
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.method import Cost, LayerAttribution
from lightning_cam.attribution.steps import steps_of
from lightning_cam.attribution.tensors import fold_frames, gradients_of_groups, resize_heatmap
from lightning_cam.errors import UserError

Pool = Literal["space", "spacetime"]

_NAMES = {4: '"(b t) d h w"', 5: '"b d t h w"'}  # as layers are taken without a layout
_AT_ONCE = 2**22  # numbers of resized channels held at once (16 MB)


@dataclass(frozen=True)
class GradientCAM(LayerAttribution):
    """A method that makes its map of a layer's features and of the score's gradient to them.

    One forward and the tail's backward. Its field `relu` keeps the positive part of the map. Of
    several layers the signed maps are resized to the clip and summed before that.
    """

    layer: str | Names | None = None  # type: ignore[assignment]  # `target_layers` has them

    @property
    @abstractmethod
    def relu(self) -> bool: ...

    @property
    def target_layers(self) -> tuple[str | None, ...]:
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return recorded_from(model, clip, *self.target_layers)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        found = layer_maps(model, self.first(model, clip), clip, target, self.target_layers)
        if len(found) > 1:
            summed = self._summed(model, found, clip)
            return summed.relu() if self.relu else summed
        signed = on_frames(model, self.signed(model, found[0]), self.target_layers[0])
        return model.resized(signed.relu() if self.relu else signed, clip)

    def _summed(self, model: Explainable, found: Sequence[LayerMap], clip: Tensor) -> Tensor:
        maps: list[Tensor] = []
        pools: dict[str | None, None] = {}
        for layer, each in zip(self.target_layers, found, strict=True):
            signed = on_frames(model, self.signed(model, each), layer)
            maps.append(resize_heatmap(signed, clip.shape[2:]))
            pools[model.notes.get("pool")] = None
        model.notes.update(pool=" and ".join(filter(None, pools)))
        return torch.stack(maps).sum(0)

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    @property
    def both_signs(self) -> GradientCAM:
        return replace(self, relu=False)  # type: ignore[call-arg]  # a field of all that derive

    @abstractmethod
    def signed(self, model: Explainable, found: LayerMap) -> Tensor:
        """The map `(B, t, h, w)` before the ReLU."""


@dataclass(frozen=True)
class GradCAM(GradientCAM):
    """Grad-CAM for 3-D networks and for frames folded into the batch, or run one by one.

    Of a layer that one forward runs several times it is told what each run has seen, see `runs`:
    of the ReLU of a ResNet block the last one is explained, of pieces of the clip all are.

    Args:
        layer: target layer, a name in `model.layers` or any dotted module name; None: the first; of
            several, `["slow", "fast"]`, the signed maps are summed.
        pool: `"space"`, `"spacetime"`, or None: `"space"` where the layer sees single frames (its
            layout joins t to b), else `"spacetime"`.
        relu: keep the positive part; False returns the signed map.
        published: combine channels as the code of Bayer et al. (RRPR 2022) does: the sum of the
            gradient rather than its mean, and the positive part of each channel by itself, after
            it was resized with corners aligned, so that what speaks against the column takes
            nothing away.

    Example:
        >>> explain(model, GradCAM(layer="layer3", pool="space"), clip).heatmap
    """

    title = "Grad-CAM"

    pool: Pool | None = None
    relu: bool = True
    published: bool = False

    @classmethod
    def bayer2022(cls, layer: str | None = None) -> GradCAM:
        """The published code of Bayer et al. for its 3D-ResNet."""
        return cls(layer, "spacetime", published=True)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        if not self.published:
            return super().__call__(model, clip, target)
        found = layer_maps(model, self.first(model, clip), clip, target, self.target_layers)
        model.notes.update(published="each channel by itself")
        each = zip(found, self.target_layers, strict=True)
        maps = [self._published(model, of_layer, layer, clip) for of_layer, layer in each]
        return torch.stack(maps).sum(0) if len(maps) > 1 else maps[0]

    def _published(
        self, model: Explainable, found: LayerMap, layer: str | None, clip: Tensor
    ) -> Tensor:
        pool = pool_of(model, found, self.pool)
        weights = positions(found, pool) * pooled(found.gradient, pool, found.valid)
        channels = on_frames(model, weights[..., None, None] * found.activation, layer)
        size, heat = clip.shape[2:], channels.new_zeros(len(clip), *clip.shape[2:])
        for part in channels.split(max(1, _AT_ONCE // heat.numel()), 1):  # else all at this size
            large = F.interpolate(part, size=size, mode="trilinear", align_corners=True)
            heat += (large.relu() if self.relu else large).sum(1)
        return heat

    def signed(self, model: Explainable, found: LayerMap) -> Tensor:
        return signed_map(model, found, self.pool)


class LayerMap(NamedTuple):
    """A layer's features, and what a score makes of them.

    Attributes:
        activation: `(B, D, t, h, w)`.
        gradient: of the score, alike.
        score: `(B,)`, what was explained of the columns.
        valid: `(B, T)` or `(B, t)` bool, which frames or steps are not padding; None: all.
        single: whether the layer sees single frames.
    """

    activation: Tensor
    gradient: Tensor
    score: Tensor
    valid: Tensor | None
    single: bool


def recorded_from(model: Explainable, clip: Tensor, *layers: str | None) -> Forward:
    """A run whose graph starts at a layer, or at several.

    Args:
        model: what to look into.
        clip: `(B, C, T, H, W)`.
        layers: as in `Explainable.layer`.

    Returns:
        The outputs, and the layers' `map_calls`: of the first as "layer", then "layer 2", ...
    """
    with ExitStack() as stack:
        calls = {
            name: stack.enter_context(capture(module, leaf=True))
            for name, module in map(model.layer, layers)
        }
        outputs = model.forward(clip)
    model.notes.update(layer=" + ".join(calls))
    kept = [map_calls(model, name, found, clip) for name, found in calls.items()]
    if runs := dict.fromkeys(model.runs[name].text for name in calls if name in model.runs):
        model.notes.update(runs=" and ".join(runs))
    return Forward(outputs, {_key(number): found for number, found in enumerate(kept)})


def _key(number: int) -> str:
    return f"layer {number + 1}" if number else "layer"


def layer_map(
    model: Explainable, forward: Forward, clip: Tensor, target: Tensor, layer: str | None
) -> LayerMap:
    """The `layer_maps` of one layer."""
    return layer_maps(model, forward, clip, target, [layer])[0]


def layer_maps(
    model: Explainable,
    forward: Forward,
    clip: Tensor,
    target: Tensor,
    layers: Sequence[str | None],
) -> list[LayerMap]:
    """Layers' features and their gradients, by one backward of the tail.

    Args:
        model: what to look into.
        forward: of the clip, `recorded_from` the layers.
        clip: `(B, C, T, H, W)`.
        target: `(B,)`.
        layers: as in `Explainable.layer`.

    Raises:
        UserError: no gradient comes back from the score to places of a layer.
    """
    calls = [forward.captured[_key(number)] for number in range(len(layers))]
    score = model.score(forward.outputs, target)
    found = gradients_of_groups(score, calls)
    maps = []
    for layer, of_layer, gradient in zip(layers, calls, found, strict=True):
        if gradient is None:
            raise UserError(
                f"layer {layer!r} of {model.notes['layer']} has no gradient: the score does not "
                "depend on it; leave it out, such as explain.gradcam.layer=null"
            )
        maps.append(_layer_map(model, layer, of_layer, gradient, score.detach(), clip))
    return maps


def _layer_map(
    model: Explainable,
    layer: str | None,
    calls: list[Tensor],
    found: list[Tensor],
    score: Tensor,
    clip: Tensor,
) -> LayerMap:
    gradient = in_time(model, found, len(clip), layer)
    check_places(gradient, found, model.layer(layer)[0])
    activation = in_time(model, calls, len(clip), layer).detach()
    single = _single(model, calls[0], len(clip), layer)
    valid, runs = model.valid_for(clip), joined_by(model, layer)
    if valid is not None and runs is not None:
        valid = runs.valid(valid)
    return LayerMap(activation, gradient, score, valid, single)


def check_places(gradient: Tensor, found: list[Tensor], name: str) -> None:
    """Whether a gradient of 0 at all places is one at all tokens.

    Args:
        gradient: read as `(B, D, t, h, w)`.
        found: as the layer's runs have it.
        name: of the layer.

    Raises:
        UserError: tokens that are no places, such as a class token, alone reach the outputs.
    """
    fewer = gradient.numel() < sum(g.numel() for g in found)
    if fewer and not bool(gradient.any()) and any(bool(g.any()) for g in found):
        raise UserError(
            f"of layer {name!r} only the class token reaches the outputs, for it lies behind the "
            "last attention; take the norm before that, or a layer further in front"
        )


def signed_map(model: Explainable, found: LayerMap, pool: Pool | Literal["none"] | None) -> Tensor:
    """The sum over channels of weight times activation, `(B, t, h, w)`.

    Args:
        model: gets a note of what was pooled.
        found: a layer.
        pool: of the gradient, see `GradCAM`; "none" leaves it where it is, which is HiResCAM.
    """
    if pool == "none":
        model.notes.update(pool="gradient not pooled")
        return (found.gradient * found.activation).sum(1)
    pool = pool_of(model, found, pool)
    return weighted_sum(found.activation, pooled(found.gradient, pool, found.valid))


def pool_of(model: Explainable, found: LayerMap, pool: Pool | None) -> Pool:
    """Over what to pool at a layer, as `GradCAM` says; the model gets a note of it."""
    pool = pool or ("space" if found.single else "spacetime")
    model.notes.update(pool=f"gradient pooled over {pool}")
    return pool


def map_calls(model: Explainable, name: str, calls: list[Tensor], clip: Tensor) -> list[Tensor]:
    """The `told_apart` calls of a layer, which make a map no finer than the clip.

    Raises:
        UserError: the map is finer: the layer's axes are others than they were taken for.
    """
    kept = told_apart(model, name, calls, clip)
    if (runs := joined_by(model, name)) is not None:
        model.notes.update(runs=runs.text)
    if model.laid_out(name) is None and model.fold is fold_frames:
        found = shape_of(model, name, kept, clip)[2:]
        if finer(found, clip):
            raise UserError(
                f"layer {name!r} returns {tuple(kept[0].shape)}: taken for {_NAMES[kept[0].ndim]} "
                f"its map of {found} is finer than the clip of {tuple(clip.shape[2:])}, so its "
                "axes seem to be others; say which, for example Explainable.of(network, layers, "
                'layout="b t h w d"), or the same text as here if they are right'
            )
    return kept


def finer(found: Sequence[int], clip: Tensor) -> bool:
    """Whether a map (t, h, w) is finer than the clip `(B, C, T, H, W)`; padding adds a little."""
    return any(n > most / 0.95 + 2 for n, most in zip(found, clip.shape[2:], strict=True))


def _single(model: Explainable, call: Tensor, batch: int, layer: str | None) -> bool:
    """Whether a layer sees single frames, by what it returned."""
    if (layout := model.laid_out(layer)) is not None:
        return layout.single
    if call.ndim == 3:  # tokens, which a fold reads
        return len(call) != batch or model.folded(call, batch, layer).shape[2] == 1
    return call.ndim != 5  # one with t=1 is no frame: a 3-D network has pooled time away


def pooled(gradient: Tensor, pool: Pool, valid: Tensor | None = None) -> Tensor:
    """Channel weights `(B, D, t)` of gradients `(B, D, t, h, w)`; alike for all t in spacetime.

    With `valid` `(B, T)` the mean over space-time is that of the steps with a valid frame.
    """
    weights = gradient.mean((3, 4))
    if pool == "space":
        return weights
    if valid is None or valid.all():
        return weights.mean(2, keepdim=True).expand_as(weights)
    counts = steps_of(valid, weights.shape[2])[:, None].to(weights)  # (B, 1, t)
    mean = (weights * counts).sum(2, keepdim=True) / counts.sum(2, keepdim=True).clamp(min=1)
    return mean.expand_as(weights)


def positions(found: LayerMap, pool: Pool) -> Tensor:
    """How many positions of a layer are pooled: `(B, 1, 1)`, or one number for all clips."""
    t, h, w = found.activation.shape[2:]
    if pool == "space" or found.valid is None:
        return found.activation.new_tensor(h * w * (1 if pool == "space" else t))
    return h * w * steps_of(found.valid, t).sum(1)[:, None, None].to(found.activation)


def weighted_sum(activation: Tensor, weights: Tensor) -> Tensor:
    """Signed map `(B, t, h, w)` of activations `(B, D, t, h, w)` and weights `(B, D, t)`."""
    return torch.einsum("bdt,bdthw->bthw", weights, activation.detach())
