"""Does the order of a map's voxels agree with the mask? Average precision and IoU in space-time.

Voxels of equal heat stand at the same place of the order: measures have the value that is expected
of a random choice among them, so that no map gains by the order of its memory.

What a map of the same heat everywhere has, `chance`, is the mask's share s of the clip for the
average precision, and s / (2 - s) for the IoU of equal volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_cam.attribution.fields import Finite
from lightning_cam.attribution.tensors import finite_rows
from lightning_cam.metrics.explained import Direction, Explained, Measure
from lightning_cam.metrics.localisation import known


def average_precision(heatmap: Tensor, mask: Tensor, judged: Tensor | None = None) -> Tensor:
    """Average precision of the map's voxels as findings of the mask's; needs no threshold.

    The mean over the mask's voxels of the precision among all voxels that are at least as hot:
    1 if all of them are hotter than all others, the mask's share for a map without any order.

    Args:
        heatmap: `(B, T, H, W)`, of either sign.
        mask: `(B, T, H, W)` bool, or `(B, T)` for an interval of time.
        judged: `(B, T)` bool, the frames that count; None: all.

    Returns:
        `(B,)` in [0, 1]; NaN for a map without heat or that is not finite, and an empty mask.
    """
    heat, hit, scored = _voxels(heatmap, mask, judged)
    heat, order = heat.sort(1, descending=True)
    hit = hit.gather(1, order)
    ends = torch.cat([heat[:, 1:] != heat[:, :-1], torch.ones_like(hit[:, :1])], 1)
    places = torch.arange(heat.shape[1], device=heat.device)
    # Each voxel counts with the last one of its heat.
    last = places.where(ends, heat.shape[1]).flip(1).cummin(1).values.flip(1)
    precision = hit.double().cumsum(1) / (places + 1)
    found = (precision.gather(1, last) * hit).sum(1) / hit.sum(1)
    return torch.where(scored, found, torch.nan).float()


def rank_accuracy(heatmap: Tensor, mask: Tensor, judged: Tensor | None = None) -> Tensor:
    """The mask's share of the hottest voxels, of which as many are taken as the mask has.

    Arguments and result as for `average_precision`.
    """
    heat, hit, scored = _voxels(heatmap, mask, judged)
    return torch.where(scored, _hits(heat, hit) / hit.sum(1), torch.nan).float()


def iou(
    heatmap: Tensor,
    mask: Tensor,
    threshold: Literal["area"] | float = "area",
    per: Literal["clip", "frame"] = "clip",
    judged: Tensor | None = None,
) -> Tensor:
    """Intersection over union of the hot voxels with the mask, in space-time or in space.

    Args:
        heatmap: `(B, T, H, W)`.
        mask: `(B, T, H, W)` bool, or `(B, T)` for an interval of time.
        threshold: which voxels are hot: `"area"`: the hottest, as many as the mask has; a number:
            those from this share of the hottest one's heat on.
        per: `"clip"`: of the whole clip (ST-IoU); `"frame"`: of each frame that has a mask and
            heat, averaged (S-IoU).
        judged: `(B, T)` bool, the frames that count; None: all.

    Returns:
        `(B,)` in [0, 1]; NaN where there is nothing to score.

    Raises:
        ValueError: the threshold is neither.
    """
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold != "area" and not (number and 0 < threshold <= 1):
        raise ValueError(f'threshold must be "area" or within 0 (excluded) and 1, got {threshold}')
    if per == "frame":
        heatmap, mask = known(heatmap, mask, judged)
        rows = heatmap.flatten(0, 1)[:, None], mask.flatten(0, 1)[:, None]
        return iou(*rows, threshold).unflatten(0, mask.shape[:2]).nanmean(1)
    heat, hit, scored = _voxels(heatmap, mask, judged)
    if threshold == "area":
        common, size = _hits(heat, hit), hit.sum(1)
    else:
        hot = heat >= threshold * heat.amax(1, keepdim=True)
        common, size = (hot & hit).sum(1), hot.sum(1)
    return torch.where(scored, common / (size + hit.sum(1) - common), torch.nan).float()


def _voxels(heatmap: Tensor, mask: Tensor, judged: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Heat and mask `(B, N)`, -inf and False where not judged, and which clips can be scored."""
    heat, hit = known(heatmap.detach(), mask, judged)
    scored = (heat.amax((1, 2, 3)) > 0) & finite_rows(heat)
    scored &= hit.flatten(1).any(1)
    if judged is not None:
        heat = heat.masked_fill(~judged.to(heat.device, torch.bool)[:, :, None, None], -torch.inf)
    return heat.flatten(1), hit.flatten(1), scored


def _hits(heat: Tensor, hit: Tensor) -> Tensor:
    """`(B,)` float64: how many of the hottest voxels, as many as the mask has, lie in the mask."""
    size = hit.sum(1, keepdim=True)
    least = heat.sort(1, descending=True).values.gather(1, (size - 1).clamp(min=0))
    above, equal = heat > least, heat == least
    room = size[:, 0] - above.sum(1)  # for those that are as hot as the last one taken
    return (above & hit).sum(1) + room * ((equal & hit).sum(1).double() / equal.sum(1))


def _share(explained: Explained, truth: Tensor) -> Tensor:
    """`(B,)`, the truth's share of what is judged."""
    heat, mask = known(explained.heat, truth, explained.judged)
    voxels = explained.judged.sum(1) * heat[0, 0].numel()
    return mask.flatten(1).sum(1) / voxels


@dataclass(frozen=True)
class AveragePrecision(Measure):
    """Whether the voxels of what acts are hotter than the others, see `average_precision`.

    Beside it stand `chance`, what a map of the same heat everywhere has, and `rank_accuracy`.

    Args:
        region: "actor", "action", or a part of the ground truth.
    """

    region: str = "actor"

    better: ClassVar[Direction] = "higher"
    needs = frozenset({"map", "truth"})
    number_titles: ClassVar[dict[str, str]] = {"rank_accuracy": "rank accuracy"}

    @property
    def title(self) -> str:
        return f"Average precision of the {self.region}"

    def __call__(self, explained: Explained) -> Tensor:
        heat, truth, judged = explained.heat, explained.truth(self.region), explained.judged
        found = average_precision(heat, truth, judged)
        explained.numbers["chance"] = _share(explained, truth).where(~found.isnan(), torch.nan)
        explained.numbers["rank_accuracy"] = rank_accuracy(heat, truth, judged)
        return found


@dataclass(frozen=True)
class MaskIoU(Measure):
    """How well the hot voxels cover what acts, in space-time or in space, see `iou`.

    Args:
        region: "actor", or a part of the ground truth.
        threshold: "area": as many voxels as the region has; or a share of the hottest one's heat.
        per: "clip": the whole clip; "frame": each frame, averaged.
    """

    region: str = "actor"
    threshold: Literal["area"] | Finite = "area"
    per: Literal["clip", "frame"] = "clip"

    better: ClassVar[Direction] = "higher"
    needs = frozenset({"map", "truth"})

    @property
    def title(self) -> str:
        return f"IoU with the {self.region}{', frame by frame' * (self.per == 'frame')}"

    @property
    def settings(self) -> str:
        return "" if self.threshold == "area" else f"threshold={self.threshold}"

    def __call__(self, explained: Explained) -> Tensor:
        truth = explained.truth(self.region)
        return iou(explained.heat, truth, self.threshold, self.per, explained.judged)
