"""SIDU for video: a layer's features as masks, weighted by similarity and by uniqueness.

Muddamsetty et al., "SIDU: Similarity Difference and Uniqueness Method for Explainable AI", ICIP
2020; Bayer et al., RRPR 2022. Every channel A^k of a layer, binarised and then resized, is a mask
M_k. With the network's answers P_k = f(x M_k) and P_0 = f(x),

    SD_k = exp(-(P_0 - P_k)^2 / (2 sigma^2))     at the explained class: the answer is still there
    U_k  = sum_j |P_k - P_j|, scaled to 0..1     over all classes: no other mask does the same
    S    = 2/N sum_k SD_k U_k M_k

A channel that is 0 everywhere hides the whole clip and marks nothing: it is left out. Channels
whose masks are equal share one forward. So the cost is at most one forward a channel, and one.

The map is 0, and a warning says so, where no mask stands out: of features behind a ReLU with
`threshold < 0`, say, all masks are 1 everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_cam.attribution.doubt import Doubt
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.feature_masks import FeatureMaskAttribution
from lightning_cam.attribution.fields import Count, Finite, Positive
from lightning_cam.attribution.perturbation import answers


@dataclass(frozen=True)
class SIDU(FeatureMaskAttribution):
    """SIDU with the binarised channels of a layer.

    Adds "lost" `(B,)` to `Explanation.numbers`: how much of the answer is lost under the mask that
    keeps most of it, 1 - max SD.

    Args:
        layer: target layer, a name in `model.layers` or any dotted module name; None: the first.
        threshold: features above it are 1. `"quantile:0.9"` takes for each channel its own, so
            that every mask shows the same share of the clip.
        batch: rows that go through the network together; None: as many as fill the device.
        sigma: of the similarity difference, for probabilities; for networks whose columns are no
            classes, in units of each column's root mean square change under the masks.
        sd: `"class"` compares the explained column, as the published code does; `"vector"` the
            whole answer, `exp(-|P_0 - P_k| / (2 sigma^2))`.
        raw: the columns of a classifier rather than its probabilities, as the published code for
            video does with its 3D-ResNet (with logits SD is often 0 throughout).
        bf16: run the network under bfloat16 autocast.

    Example:
        >>> explain(model, SIDU(layer="layer4"), clip).heatmap
    """

    title = "SIDU"
    finds = ("lost",)
    doubts = (Doubt("lost", "every mask of the layer loses {lost:.0%} of the answer, or more"),)

    threshold: Finite | str = 0.5
    batch: Count | None = None
    sigma: Positive = 0.25
    sd: Literal["class", "vector"] = "class"
    raw: bool = False
    bf16: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._quantile()

    @classmethod
    def bayer2022(cls, layer: str | None = None, threshold: Finite | str = 0.5) -> SIDU:
        """The published code of Bayer et al. for its 3D-ResNet: logits, features above 0.5."""
        return cls(layer, threshold, raw=True)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        def score(rows: Tensor, b: int) -> Tensor:
            return model.score(rows, target[b].expand(len(rows)))[:, None]  # (M, 1)

        return self._maps(model, clip, score)[:, 0]

    def columns(self, model: Explainable, clip: Tensor) -> Tensor:
        """The heatmaps of all K columns from the same masks, `(B, K, T, H, W)`.

        To be called within `explaining(model.module)`, or on a network in eval mode.
        """
        return self._maps(model, clip, lambda rows, _: rows)

    def _maps(
        self,
        model: Explainable,
        clip: Tensor,
        score: Callable[[Tensor, int], Tensor],
    ) -> Tensor:
        """Heatmaps `(B, R, T, H, W)` of R scores a clip: `score((M, K), b) -> (M, R)` of clip b."""
        outputs, features = self.first(model, clip).outputs, self.features(model, clip)
        shown = f"threshold {self.threshold}"
        model.notes.update(threshold=shown)
        masks = [self._masks(of_clip) for of_clip in features]
        found = self.under(model, clip, [m.shapes for m in masks], stretched=False)  # (M, B, K)
        maps, lost = [], []
        for b, of_clip in enumerate(masks):
            # row 0 is the clip itself
            rows = torch.cat([outputs[b, None], found[: len(of_clip.shapes), b]])
            answer = answers(model, rows, raw=self.raw).double()
            similar, unique = self._weights(model, answer, score(answer, b), of_clip.count)
            lost.append(1 - similar.amax(0).amin())
            weights = (similar * unique[:, None]).to(features)
            if not bool((weights > 0).any()):
                low, high = (float(v) for v in features[b].aminmax())
                other = "explain.NAME.threshold=quantile:0.8"
                remedy = f"try {other}" if self._quantile() is None else "choose another layer"
                warnings.warn(
                    f"SIDU's map is 0: no mask of layer {model.notes['layer']!r} at {shown} stands "
                    f"out; its features lie from {low:.3g} to {high:.3g}, {remedy}",
                    stacklevel=2,
                )
            weights = weights * of_clip.count[:, None] * 2 / of_clip.count.sum()
            maps.append(_weighted(weights, of_clip.shapes))
        model.numbers["lost"] = torch.stack(lost)
        # Resizing is linear: the sum of the resized masks is the resized sum.
        heat = model.resized(torch.stack(maps, 1).flatten(0, 1), clip)
        return model.without_padding(heat).unflatten(0, (-1, len(clip))).transpose(0, 1)

    def _masks(self, features: Tensor) -> _Masks:
        """The different masks of one clip's features `(D, t, h, w)`, those that are 0 left out."""
        quantile, values = self._quantile(), features.flatten(1)
        if quantile is None:
            shapes = features > float(self.threshold)
        else:
            lower = 1 + int(quantile * (values.shape[1] - 1))
            shapes = features > values.kthvalue(lower, 1).values[:, None, None, None]
        shapes = shapes[shapes.flatten(1).any(1)]
        if not len(shapes):
            shapes = torch.zeros_like(features[:1], dtype=torch.bool)
        flat, count = shapes.flatten(1).unique(dim=0, return_counts=True)
        return _Masks(flat.unflatten(1, shapes.shape[1:]), count)

    def masks_of(self, features: Tensor) -> Tensor:
        return self._masks(features).shapes

    def _weights(
        self, model: Explainable, answer: Tensor, score: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """SD `(M, R)`, U `(M,)` of masks; answers `(1 + M, K)`, scores `(1 + M, R)`, P_0 first."""
        if model.probability is None:
            answer, score = answer / _change(answer, count), score / _change(score, count)
        found = answer[1:]
        distance = torch.cdist(found, found, compute_mode="donot_use_mm_for_euclid_dist")
        unique = distance @ count.to(distance)
        unique = (unique - unique.min()) / (unique.max() - unique.min() + 1e-13)
        if self.sd == "class":
            similar = torch.exp(-(score[1:] - score[:1]).square() / (2 * self.sigma**2))
        else:
            apart = (found - answer[:1]).norm(dim=1, keepdim=True)
            similar = torch.exp(-apart / (2 * self.sigma**2)).expand_as(score[1:])
        return similar, unique

    def _quantile(self) -> float | None:
        """q of `"quantile:q"`; None for a plain threshold."""
        if not isinstance(self.threshold, str):
            return None
        kind, _, value = self.threshold.partition(":")
        try:
            q = float(value)
        except ValueError:
            q = -1
        if kind != "quantile" or not 0 <= q < 1:
            raise ValueError(
                f'threshold must be a number or "quantile:q" with q from 0 to 1, got '
                f"{self.threshold!r}"
            )
        return q


@dataclass(frozen=True)
class _Masks:
    """Different masks `(M, t, h, w)`, and how many channels have each, `(M,)`."""

    shapes: Tensor
    count: Tensor


def _change(values: Tensor, count: Tensor) -> Tensor:
    """Root mean square change from row 0 of `(1 + M, R)`, row 1 + m counted `count[m]` times."""
    squares = (values[1:] - values[:1]).square()
    return ((count / count.sum()).to(values) @ squares).sqrt().clamp(min=1e-12)


def _weighted(weights: Tensor, shapes: Tensor) -> Tensor:
    """Sums `(R, t, h, w)` of masks `(M, t, h, w)` with weights `(M, R)`."""
    return (weights.T @ shapes.flatten(1).to(weights)).unflatten(1, shapes.shape[1:])
