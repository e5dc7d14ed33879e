"""Score-CAM: a layer's features, weighed by what the network answers when it sees them alone.

Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks",
CVPR workshop 2020. Every channel A^k of a layer, resized to the clip and stretched to 0..1, is a
mask m_k; with x' black, and f the score of a column,

    s_k = f(x m_k + x' (1 - m_k)) - f(x')
    heatmap = ReLU(sum_k w_k A^k),    w = softmax(s), or s itself

It needs no gradient. A channel that is the same everywhere marks nothing and is left out (published
codes count it: its mask is 0, and 0/0 elsewhere). Channels whose masks are equal share one forward.
So the cost is at most one forward a channel, and one (two for `weights="score"`).

**The softmax of raw logits is peaky**: of 512 channels a few get all the weight. That of
probabilities, which differ by less than 1, is nearly even, so that the map hardly depends on the
column. `weights="score"` has neither fault and does not depend on the unit, but its map is blank
where every mask scores below black.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.feature_masks import FeatureMaskAttribution, from_0_to_1
from lightning_cam.attribution.fields import Count
from lightning_cam.attribution.method import Cost
from lightning_cam.attribution.perturbation import answers, black

Weights = Literal["softmax", "score"]


@dataclass(frozen=True)
class ScoreCAM(FeatureMaskAttribution):
    """Score-CAM with the channels of a layer.

    Args:
        layer: target layer, a name in `model.layers` or any dotted module name; None: the first.
        weights: `"softmax"` of the scores, the paper's, or the `"score"` itself; None: softmax for
            classifiers, score for columns that are not classes, whose unit a softmax would ask.
        raw: score the columns of a classifier, as the paper does, rather than its probabilities.
        relu: keep the positive part; False returns the signed map.
        batch: rows that go through the network together; None: as many as fill the device.
        bf16: run the network under bfloat16 autocast.

    Example:
        >>> explain(model, ScoreCAM(layer="layer4", weights="score"), clip).heatmap
    """

    title = "Score-CAM"

    weights: Weights | None = None
    raw: bool = True
    relu: bool = True
    batch: Count | None = None
    bf16: bool = False

    @property
    def both_signs(self) -> ScoreCAM:
        return replace(self, relu=False)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        features = self.features(model, clip)
        found = [_Channels(of_clip) for of_clip in features]
        weights = self._weights(model)
        outputs = self.under(model, clip, [c.masks for c in found], stretched=True)
        scores = self._scores(model, outputs, target)  # (M, B)
        if weights == "score":
            hidden = black(model, clip).expand_as(clip).contiguous()
            nothing = self.runner(model, clip).forward(hidden)
            scores = scores - self._scores(model, nothing[None], target)
        maps = []
        for of_clip, score, channels in zip(features, scores.unbind(1), found, strict=True):
            each = score[channels.mask]  # (D',)
            each = each.softmax(0) if weights == "softmax" else each
            maps.append(torch.einsum("d,dthw->thw", each.to(of_clip), of_clip[channels.varied]))
        said = "softmax of the scores" if weights == "softmax" else "scores"
        model.notes.update(weights=f"{said} under {max(len(c.masks) for c in found)} masks")
        if not all(bool(c.varied.any()) for c in found):
            warnings.warn(
                f"Score-CAM's map is 0: every channel of layer {model.notes['layer']!r} is the "
                "same everywhere; choose another layer",
                stacklevel=2,
            )
        heat = torch.stack(maps)
        return model.resized(heat.relu() if self.relu else heat, clip)

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        forwards, _ = super().cost(model, clip)
        return Cost(forwards + (self._weights(model) == "score"))

    def masks_of(self, features: Tensor) -> Tensor:
        return _Channels(features).masks

    def _weights(self, model: Explainable) -> Weights:
        return self.weights or ("score" if model.probability is None else "softmax")

    def _scores(self, model: Explainable, outputs: Tensor, target: Tensor) -> Tensor:
        """Scores `(M, B)` of outputs `(M, B, K)`."""
        found = answers(model, outputs.flatten(0, 1), raw=self.raw)
        return model.score(found, target.repeat(len(outputs))).unflatten(0, outputs.shape[:2])


class _Channels:
    """The channels `(D, t, h, w)` of one clip that mark something.

    Attributes:
        varied: `(D,)` bool, which are not the same everywhere; D' of them.
        masks: the different ones among them, `(M, t, h, w)` from 0 to 1; one that is 0 if none is.
        mask: which mask each of the D' has, `(D',)`.
    """

    def __init__(self, features: Tensor) -> None:
        flat = features.flatten(1)
        self.varied = flat.amax(1) > flat.amin(1)
        shapes = from_0_to_1(features[self.varied]).flatten(1)
        unique, self.mask = shapes.unique(dim=0, return_inverse=True)
        if not len(unique):
            unique = torch.zeros_like(flat[:1])
        self.masks = unique.unflatten(1, features.shape[1:])
