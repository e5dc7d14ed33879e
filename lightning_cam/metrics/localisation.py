"""Does the heat lie where, and when, the evidence is? Functions, and torchmetrics around them.

Ground truth is a mask `(B, T, H, W)` of the object or an interval `(B, T)` of the action. A clip
without heat or without ground truth has no score (NaN); the metrics count it and leave it out.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


def pointing_hits(
    heatmap: Tensor, mask: Tensor, tolerance: int = 0, per: Literal["clip", "frame"] = "clip"
) -> Tensor:
    """Pointing game (Zhang et al., ECCV 2016): does the hottest voxel lie on the object?

    Args:
        heatmap: `(B, T, H, W)`.
        mask: `(B, T, H, W)` bool.
        tolerance: pixels by which the mask is grown, in a square neighbourhood.
        per: `"clip"`: one argmax over t, h, w; `"frame"`: one in each frame that has a mask and
            heat, averaged.

    Returns:
        `(B,)` in [0, 1]. Ties count by the share of maximal voxels that hit, the expected value of
        a random choice; NaN where there is nothing to score.
    """
    _check(heatmap, mask)
    if tolerance:
        size = 2 * tolerance + 1
        mask = F.max_pool2d(mask.float(), size, stride=1, padding=tolerance) > 0
    dims = (1, 2, 3) if per == "clip" else (2, 3)
    top = heatmap == heatmap.amax(dims, keepdim=True)
    hits = (top & mask).sum(dims) / top.sum(dims)
    scored = mask.any(-1).any(-1), heatmap.amax((2, 3)) > 0  # (B, T) each
    if per == "clip":
        return torch.where(scored[0].any(1) & scored[1].any(1), hits, torch.nan)
    return torch.where(scored[0] & scored[1], hits, torch.nan).nanmean(1)


def energy_inside(heatmap: Tensor, mask: Tensor) -> Tensor:
    """Energy-based pointing game (Score-CAM, CVPRW 2020): the heat's share inside the mask.

    Args:
        heatmap: `(B, T, H, W)`; negative values count as none.
        mask: `(B, T, H, W)` bool, or `(B, T)` for an interval of time. For a map that is constant
            the result is the mask's share of the volume.

    Returns:
        `(B,)` in [0, 1]; NaN for a map without heat or an empty mask.
    """
    if mask.ndim == 2:
        mask = mask[:, :, None, None].expand_as(heatmap)
    _check(heatmap, mask)
    heat = heatmap.clamp(min=0).double()
    share = (heat * mask).sum((1, 2, 3)) / heat.sum((1, 2, 3))
    return torch.where(mask.any(-1).any(-1).any(-1), share, torch.nan).float()


def temporal_iou(heatmap: Tensor, action: Tensor, threshold: float = 0.5) -> Tensor:
    """IoU of the action interval with the frames whose energy reaches `threshold` of the peak.

    Args:
        heatmap: `(B, T, H, W)`; a frame's energy is its sum of positive heat.
        action: `(B, T)` bool.
        threshold: share of the strongest frame's energy.

    Returns:
        `(B,)`; NaN for a map without heat or a clip without action.
    """
    energy = heatmap.clamp(min=0).sum((2, 3))  # (B, T)
    peak = energy.amax(1, keepdim=True)
    found = energy >= threshold * peak
    iou = (found & action).sum(1) / (found | action).sum(1)
    return torch.where((peak[:, 0] > 0) & action.any(1), iou, torch.nan)


class _ClipMean(Metric):
    """Mean of a per-clip score over all clips and ranks; clips without a score are counted."""

    full_state_update = False
    higher_is_better = True
    total: Tensor
    scored: Tensor
    unscored: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("total", "scored", "unscored"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def _add(self, scores: Tensor) -> None:
        known = ~scores.isnan()
        self.total += scores[known].sum()
        self.scored += known.sum()
        self.unscored += (~known).sum()

    def compute(self) -> Tensor:
        """Mean over scored clips; NaN before the first."""
        return self.total / self.scored


class PointingGame(_ClipMean):
    """Mean of `pointing_hits` over clips."""

    def __init__(
        self, tolerance: int = 0, per: Literal["clip", "frame"] = "clip", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.tolerance, self.per = tolerance, per

    def update(self, heatmap: Tensor, mask: Tensor) -> None:
        """Add a batch, see `pointing_hits`."""
        self._add(pointing_hits(heatmap, mask, self.tolerance, self.per))


class EnergyPointingGame(_ClipMean):
    """Mean of `energy_inside` over clips."""

    def update(self, heatmap: Tensor, mask: Tensor) -> None:
        """Add a batch, see `energy_inside`."""
        self._add(energy_inside(heatmap, mask))


class TemporalIoU(_ClipMean):
    """Mean of `temporal_iou` over clips."""

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold

    def update(self, heatmap: Tensor, action: Tensor) -> None:
        """Add a batch, see `temporal_iou`."""
        self._add(temporal_iou(heatmap, action, self.threshold))


def _check(heatmap: Tensor, mask: Tensor) -> None:
    if heatmap.shape != mask.shape or heatmap.ndim != 4:
        raise ValueError(
            f"expected heatmap and mask of one shape (B, T, H, W), got {tuple(heatmap.shape)} and "
            f"{tuple(mask.shape)}"
        )
