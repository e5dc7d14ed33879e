"""Does the heat lie where, and when, the evidence is? Functions, and torchmetrics around them.

Ground truth is a mask `(B, T, H, W)` of the object or an interval `(B, T)` of the action. A clip
without heat or without ground truth has no score (NaN); the metrics count it and leave it out.

Annotations are sparse: `judged` `(B, T)` marks the frames whose truth is known. The others are
left out, with their heat: an unjudged frame is not an empty one.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


def pointing_hits(
    heatmap: Tensor,
    mask: Tensor,
    tolerance: int = 0,
    per: Literal["clip", "frame"] = "clip",
    *,
    tolerance_t: int = 0,
    shape: Literal["square", "disc"] = "square",
    judged: Tensor | None = None,
) -> Tensor:
    """Pointing game (Zhang et al., ECCV 2016): does the hottest voxel lie on the object?

    Args:
        heatmap: `(B, T, H, W)`.
        mask: `(B, T, H, W)` bool.
        tolerance: pixels by which the mask is grown.
        per: `"clip"`: one argmax over t, h, w; `"frame"`: one in each frame that has a mask and
            heat, averaged.
        tolerance_t: frames by which the mask is grown, before and after.
        shape: what hits: `"square"`: at most `tolerance` rows and columns off the mask; `"disc"`:
            nearer than `tolerance` pixels, as in TorchRay, where it is 15 of 224.
        judged: `(B, T)` bool, the frames that count; None: all.

    Returns:
        `(B,)` in [0, 1]. Ties count by the share of maximal voxels that hit, the expected value of
        a random choice; NaN where there is nothing to score.
    """
    heatmap, mask = known(heatmap, mask, judged)
    seen = mask.any(-1).any(-1)  # (B, T)
    mask = grown(mask, tolerance, tolerance_t, shape)
    dims = (1, 2, 3) if per == "clip" else (2, 3)
    top = heatmap == heatmap.amax(dims, keepdim=True)
    if judged is not None:
        top = top & _frames(judged, top)
    hits = (top & mask).sum(dims) / top.sum(dims)
    warm = heatmap.amax((2, 3)) > 0  # (B, T)
    if per == "clip":
        return torch.where(seen.any(1) & warm.any(1), hits, torch.nan)
    return torch.where(seen & warm, hits, torch.nan).nanmean(1)


def grown(
    mask: Tensor,
    tolerance: int,
    tolerance_t: int = 0,
    shape: Literal["square", "disc"] = "square",
) -> Tensor:
    """A mask `(B, T, H, W)` with what lies near it, see `pointing_hits`."""
    if shape not in ("square", "disc"):
        raise ValueError(f'shape must be "square" or "disc", got {shape!r}')
    if min(tolerance, tolerance_t) < 0:
        raise ValueError(f"tolerances are 0 or more, got {tolerance} and {tolerance_t}")
    near = mask[:, None].float()
    if shape == "disc" and tolerance > 1:
        away = torch.arange(1 - tolerance, tolerance, device=mask.device)
        disc = (away**2 + away[:, None] ** 2 < tolerance**2).float()
        near = F.conv3d(near, disc[None, None, None], padding=(0, tolerance - 1, tolerance - 1))
        near = (near > 0.5).float()
        tolerance = 0
    reach = (tolerance_t, *2 * (0 if shape == "disc" else tolerance,))
    near = F.max_pool3d(near, [2 * n + 1 for n in reach], stride=1, padding=reach)
    return near[:, 0] > 0


def energy_inside(heatmap: Tensor, mask: Tensor, judged: Tensor | None = None) -> Tensor:
    """Energy-based pointing game (Score-CAM, CVPRW 2020): the heat's share inside the mask.

    Args:
        heatmap: `(B, T, H, W)`; negative values count as none.
        mask: `(B, T, H, W)` bool, or `(B, T)` for an interval of time. For a map that is constant
            the result is the mask's share of the volume.
        judged: `(B, T)` bool, the frames that count; None: all.

    Returns:
        `(B,)` in [0, 1]; NaN for a map without heat or an empty mask.
    """
    heatmap, mask = known(heatmap, mask, judged)
    heat, double = heatmap.clamp(min=0), torch.float64
    share = (heat * mask).sum((1, 2, 3), dtype=double) / heat.sum((1, 2, 3), dtype=double)
    return torch.where(mask.any(-1).any(-1).any(-1), share, torch.nan).float()


def temporal_iou(
    heatmap: Tensor, action: Tensor, threshold: float = 0.5, judged: Tensor | None = None
) -> Tensor:
    """IoU of the action interval with the frames whose energy reaches `threshold` of the peak.

    Args:
        heatmap: `(B, T, H, W)`; a frame's energy is its sum of positive heat.
        action: `(B, T)` bool.
        threshold: share of the strongest frame's energy.
        judged: `(B, T)` bool, the frames that count; None: all.

    Returns:
        `(B,)`; NaN for a map without heat or a clip without action.
    """
    energy = heatmap.clamp(min=0).sum((2, 3))  # (B, T)
    counted = torch.ones_like(action) if judged is None else judged.to(action.device)
    energy, action = energy.masked_fill(~counted, 0), action & counted
    peak = energy.amax(1, keepdim=True)
    found = (energy >= threshold * peak) & counted
    iou = (found & action).sum(1) / (found | action).sum(1)
    return torch.where((peak[:, 0] > 0) & action.any(1), iou, torch.nan)


def known(heatmap: Tensor, mask: Tensor, judged: Tensor | None) -> tuple[Tensor, Tensor]:
    """Heat and mask, both `(B, T, H, W)`, with neither in frames that are not judged.

    Args:
        heatmap: `(B, T, H, W)`.
        mask: `(B, T, H, W)` bool, or `(B, T)` for an interval of time.
        judged: `(B, T)` bool; None: all.

    Raises:
        ValueError: shapes do not fit.
    """
    if mask.ndim == 2 and heatmap.ndim == 4:
        mask = mask[:, :, None, None].expand_as(heatmap)
    if heatmap.shape != mask.shape or heatmap.ndim != 4:
        raise ValueError(
            f"expected heatmap and mask of one shape (B, T, H, W), got {tuple(heatmap.shape)} and "
            f"{tuple(mask.shape)}"
        )
    if judged is None:
        return heatmap, mask
    frames = _frames(judged, heatmap)
    if bool(frames.all()):
        return heatmap, mask
    return heatmap.masked_fill(~frames, 0), mask & frames


def _frames(judged: Tensor, like: Tensor) -> Tensor:
    """`(B, T, 1, 1)` on the device of a map."""
    if judged.shape != like.shape[:2]:
        raise ValueError(
            f"expected judged (B, T) = {tuple(like.shape[:2])}, got {tuple(judged.shape)}"
        )
    return judged.to(like.device, torch.bool)[:, :, None, None]


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
        self,
        tolerance: int = 0,
        per: Literal["clip", "frame"] = "clip",
        *,
        tolerance_t: int = 0,
        shape: Literal["square", "disc"] = "square",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tolerance, self.per, self.tolerance_t, self.shape = tolerance, per, tolerance_t, shape

    def update(self, heatmap: Tensor, mask: Tensor, judged: Tensor | None = None) -> None:
        """Add a batch, see `pointing_hits`."""
        how: dict[str, Any] = {"tolerance_t": self.tolerance_t, "shape": self.shape}
        self._add(pointing_hits(heatmap, mask, self.tolerance, self.per, **how, judged=judged))


class EnergyPointingGame(_ClipMean):
    """Mean of `energy_inside` over clips."""

    def update(self, heatmap: Tensor, mask: Tensor, judged: Tensor | None = None) -> None:
        """Add a batch, see `energy_inside`."""
        self._add(energy_inside(heatmap, mask, judged))


class TemporalIoU(_ClipMean):
    """Mean of `temporal_iou` over clips."""

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold

    def update(self, heatmap: Tensor, action: Tensor, judged: Tensor | None = None) -> None:
        """Add a batch, see `temporal_iou`."""
        self._add(temporal_iou(heatmap, action, self.threshold, judged))
