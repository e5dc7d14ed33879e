"""In what order the units of a clip change: voxels, blocks or whole frames, ranked by heat."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.metrics.protocol import Protocol


def change_steps(
    model: Explainable, heatmap: Tensor, protocol: Protocol, steps: int
) -> tuple[Tensor, Tensor]:
    """With which step each voxel changes, `(B, T, H, W)` from 1 to S; and the tied share `(B,)`."""
    size = heatmap.shape[1:]
    unit = protocol.unit
    if isinstance(unit, str):
        unit = (1, 1, 1) if unit == "voxel" else (1, size[1], size[2])
    block = tuple(min(n, m) for n, m in zip(unit, size, strict=True))
    heat, kept = _units(model, heatmap, block)
    units = heat[0].numel()
    if steps > units:
        raise ValueError(
            f"steps={steps} is more than the clip's {units} units; choose {units} or fewer"
        )
    cuts = torch.arange(1, steps + 1, device=heat.device)
    # One order for all clips: what a clip gets does not depend on its batch.
    generator = torch.Generator().manual_seed(protocol.seed)
    shuffled = torch.randperm(units, generator=generator).to(heat.device)
    buckets, tied = [], []
    for row_heat, row_kept in zip(heat.flatten(1), kept.flatten(1), strict=True):
        values = row_heat[shuffled] if protocol.order == "most" else -row_heat[shuffled]
        values = values.masked_fill(~row_kept[shuffled], -torch.inf)
        values, order = values.sort(descending=True, stable=True)
        n = int(row_kept.sum())
        if protocol.voxels is None:
            last = cuts * n // steps
        else:  # of clips with padding proportionally fewer
            last = (cuts * protocol.voxels).clamp(max=units) * n // units
        rank = torch.empty_like(order)
        rank[shuffled[order]] = torch.arange(units, device=order.device)
        bucket = torch.searchsorted(last, rank, right=True) + 1
        buckets.append(bucket.clamp(max=steps).to(torch.int32))
        equal = values[1:n] == values[: n - 1]
        same = F.pad(equal, (1, 0)) | F.pad(equal, (0, 1))
        tied.append(same.float().mean() if n > 1 else same.new_zeros((), dtype=torch.float))
    found = torch.stack(buckets).view_as(heat)
    for axis, n in enumerate(block, 1):
        if n > 1:
            found = found.repeat_interleave(n, axis).narrow(axis, 0, size[axis - 1])
    return found, torch.stack(tied)


def _units(model: Explainable, heatmap: Tensor, block: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Each unit's heat, the mean over its valid frames, and whether it has any: `(B, t, h, w)`."""
    valid = model.valid_for(heatmap)
    kept = torch.ones_like(heatmap, dtype=torch.bool)
    if valid is not None:
        kept &= valid[..., None, None]
    if block == (1, 1, 1):
        return heatmap, kept

    def mean(values: Tensor) -> Tensor:  # in float64, or units of equal heat would not be equal
        options = {"ceil_mode": True, "count_include_pad": False}
        return F.avg_pool3d(values.double()[:, None], block, **options)[:, 0]

    share = mean(kept)
    heat = mean(heatmap * kept) / share.clamp(min=1e-12)
    return heat.to(heatmap.dtype), share > 0
