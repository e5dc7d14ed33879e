"""ROAD: hidden voxels are filled in from those around them, so that a clip stays like a clip.

Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022.
Black holes are something no network has seen, and their outline tells what was there. Here each
hidden voxel becomes the weighted mean of its neighbours in the frame, 1/6 for those beside, above
and below it and 1/12 for the diagonal ones, hidden ones included: a system of linear equations,
whose solution is smooth and exact on linear ramps. Over time as well, the same voxel of the frames
before and after weighs 1/6. At the border the weights of the neighbours that there are sum to 1. A
little noise on top hides that these voxels are smooth.

The paper solves the equations with a sparse solver, on the CPU. Here they are solved by conjugate
gradients, on the clip's device and for all clips of a batch: first of a clip of half the height and
width (and so on), whose solution is a start that is right but for fine detail.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_COARSEST = 4  # rows or columns
_ITERATIONS = 40  # on each grid: within 1e-3 of the range of the solution of 112 x 112
NOISE = 0.01  # of a clip's range


def imputed(
    clip: Tensor, hidden: Tensor, *, time: bool = False, noise: float = NOISE, seed: int = 0
) -> Tensor:
    """A clip whose hidden voxels are filled in from those around them.

    Args:
        clip: `(B, C, T, H, W)`.
        hidden: `(B, T, H, W)` bool.
        time: look at the frames before and after as well.
        noise: standard deviation of what is added, a share of the clip's range.
        seed: of the noise, which is the same for all clips.

    Returns:
        `(B, C, T, H, W)`: voxels that are not hidden as they were. A frame that is hidden as a
        whole gets the mean colour of what is left of the clip (over time it blends into its
        neighbours), a clip that is hidden as a whole its own.
    """
    away = hidden[:, None].to(clip.device)
    seen = torch.where(away.flatten(1).all(1).view(-1, 1, 1, 1, 1), True, ~away)
    total = (clip.double() * seen).sum((2, 3, 4), keepdim=True)
    mean = (total / seen.sum((2, 3, 4), keepdim=True)).to(clip)
    values = torch.where(away, mean, clip)
    # About the mean, where rounding is finest.
    found = _solved(values - mean, away, time) + mean
    span = clip.amax((1, 2, 3, 4), keepdim=True) - clip.amin((1, 2, 3, 4), keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    grain = torch.randn(clip.shape[1:], generator=generator).to(clip)
    return torch.where(away, found + noise * span * grain, clip)


def _solved(values: Tensor, away: Tensor, time: bool) -> Tensor:
    """The equations' solution.

    Args:
        values: `(B, C, T, H, W)`, 0 where hidden.
        away: `(B, 1, T, H, W)` bool, what is hidden.
        time: see `imputed`.
    """
    start = values
    if min(values.shape[3:]) > _COARSEST:
        seen = (~away).to(values)
        share = _halved(seen)
        coarse = _halved(values * seen) / share.clamp(min=1e-6)
        coarse = _solved(coarse * (share > 0), share == 0, time)
        size = values.shape[2:]
        up = F.interpolate(coarse, size, mode="trilinear", align_corners=False)
        start = torch.where(away, up, values)
    return _conjugate_gradients(start, away.to(values), time)


def _halved(clip: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; of fewer at an odd border."""
    return F.avg_pool3d(clip, (1, 2, 2), ceil_mode=True, count_include_pad=False)


def _conjugate_gradients(start: Tensor, away: Tensor, time: bool) -> Tensor:
    """Improve what is hidden, `away` = 1, of a start `(B, C, T, H, W)` whose rest is known."""
    weight = _neighbours(torch.ones_like(away), time)

    def lack(x: Tensor) -> Tensor:  # how far neighbours are from each hidden voxel, weighed
        return away * (_neighbours(x, time) - weight * x)

    def inner(a: Tensor, b: Tensor) -> Tensor:  # for each clip and channel
        return (a * b).sum((2, 3, 4), keepdim=True)

    x, rest = start.clone(), lack(start)
    step, size = rest, inner(rest, rest)
    for _ in range(_ITERATIONS):
        moved = -lack(step)
        curved = inner(step, moved)
        length = size / curved.clamp(min=1e-30)
        x = x + length * step
        rest = rest - length * moved
        before, size = size, inner(rest, rest)
        step = rest + size / before.clamp(min=1e-30) * step
    return x


def _neighbours(x: Tensor, time: bool) -> Tensor:
    """Weighted sums of each voxel's neighbours: (S S' - 1) / 3 with S = (1/2, 1, 1/2) per axis."""
    both = (_three(_three(x, 3), 4) - x) / 3
    return both + (_three(x, 2) - x) / 3 if time else both


def _three(x: Tensor, axis: int) -> Tensor:
    """Each voxel and half of those beside it along an axis."""
    n = x.shape[axis]
    found = x.clone()
    found.narrow(axis, 1, n - 1).add_(x.narrow(axis, 0, n - 1), alpha=0.5)
    found.narrow(axis, 0, n - 1).add_(x.narrow(axis, 1, n - 1), alpha=0.5)
    return found
