"""Do a map's amounts say what the score does? Infidelity and sensitivity-n.

Both hide random parts of a clip and compare what the map says of them, the sum of its heat there,
with what the score does. They look at a map's amounts, where deletion and insertion look at its
order alone. The score is the column, of classes the logit: attributions add up there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_cam.attribution.checks import ready
from lightning_cam.attribution.explainable import Explainable, Target
from lightning_cam.attribution.fields import Cells, Count, Fraction, Seed
from lightning_cam.attribution.perturbation import Reference, Runner, answers, reference
from lightning_cam.attribution.tensors import pick
from lightning_cam.errors import ArgumentError
from lightning_cam.metrics.explained import Direction, Explained, Measure
from lightning_cam.metrics.ranks import pearson


def infidelity(
    model: Explainable,
    clip: Tensor,
    heatmap: Tensor,
    target: Target | None = None,
    *,
    samples: int = 50,
    hidden: Reference = "black",
    normalised: bool = True,
    seed: int = 0,
) -> Tensor:
    """Infidelity (Yeh et al., NeurIPS 2019): the mean of (I . h - (S(x) - S(x - I)))^2.

    I takes a random box of space and time to the reference: its sides are uniform from one voxel to
    half of the clip's. The map stands for each of the C channels, divided by C. The boxes are the
    same for all clips. Costs `samples` + 1 forwards.

    Args:
        model: see `explain`.
        clip: `(B, C, T, H, W)` in model space.
        heatmap: `(B, T, H, W)`.
        target: as in `explain`; None: the predicted columns.
        samples: how many boxes.
        hidden: what is in the box, see `attribution.perturbation.reference`.
        normalised: scale each map as fits best: most maps have a scale without a meaning.
        seed: of the boxes.

    Returns:
        `(B,)`, 0 is best; in units of the score, squared. NaN for maps that are not finite, and
        where `normalised` for those without heat in any box.
    """
    with ready(model, clip) as (model, clip):
        other, heat = reference(model, clip, hidden), heatmap.to(clip.device).double()
        boxes = _boxes(samples, clip.shape[2:], seed).to(clip.device)
        fall = _falls(model, clip, other, boxes[:, None].expand(-1, len(clip), -1, -1, -1), target)
        density = (heat * (clip - other).double().mean(1)).flatten(1)  # (B, N)
        said = (boxes.flatten(1).double() @ density.T).T  # (B, S)
    if normalised:
        said = said * ((said * fall).sum(1) / said.square().sum(1))[:, None]
    return (said - fall).square().mean(1).float()


def sensitivity_n(
    model: Explainable,
    clip: Tensor,
    heatmap: Tensor,
    target: Target | None = None,
    *,
    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.5),
    subsets: int = 100,
    unit: tuple[int, int, int] | None = None,
    hidden: Reference = "black",
    seed: Seed = 0,
) -> Tensor:
    """Sensitivity-n (Ancona et al., ICLR 2018): does a subset's heat tell what hiding it costs?

    For each n, random subsets of n blocks are hidden, and the heat's sum over a subset is
    correlated (Pearson) with the fall of the score, over the subsets. 1 for every n for a linear
    network and gradient x (input - reference). Costs `len(shares) * subsets` + 1 forwards.

    Args:
        model, clip, heatmap, target, hidden, seed: as for `infidelity`.
        shares: of the blocks that are hidden: n, at least one.
        subsets: of each n.
        unit: a block's frames, rows and columns; None: 2, H/8 and W/8.

    Returns:
        `(B, len(shares))` from -1 to 1; NaN where a map or the score does not change.
    """
    with ready(model, clip) as (model, clip):
        heat = model.without_padding(heatmap.to(clip.device)).double()
        labels = _labels(clip.shape[2:], unit).to(clip.device)  # (T, H, W)
        units = int(labels.max()) + 1
        valid = model.without_padding(torch.ones_like(heat))
        whole = _sums(valid, labels, units) > 0  # (B, U)
        hide = torch.cat(
            [_subsets(whole, share, subsets, seed + k) for k, share in enumerate(shares)]
        )  # (shares * subsets, B, U)
        other = reference(model, clip, hidden)
        fall = _falls(model, clip, other, hide, target, labels)
        said = torch.einsum("sbu,bu->bs", hide.double(), _sums(heat, labels, units))
    pairs = (each.unflatten(1, (len(shares), subsets)).flatten(0, 1) for each in (said, fall))
    return pearson(*pairs).unflatten(0, (len(clip), len(shares))).float()


def _falls(
    model: Explainable,
    clip: Tensor,
    other: Tensor,
    hide: Tensor,
    target: Target | None,
    labels: Tensor | None = None,
) -> Tensor:
    """`(B, S)` float64, what the score loses by each of S changes.

    Args:
        model: is ready.
        clip, other: `(B, C, T, H, W)`.
        hide: bool, the voxels that are hidden `(S, B, T, H, W)`; with labels blocks `(S, B, U)`.
        target: as in `explain`.
        labels: `(T, H, W)`, the block of each voxel.
    """
    runner = Runner(model, clip)
    outputs = runner.forward(clip.clone())
    columns = model.resolve(target, outputs)
    whole = pick(answers(model, outputs, raw=True), columns)

    def fill(rows: Tensor, start: int) -> None:
        for row, each in zip(rows, hide[start : start + len(rows)], strict=True):
            voxels = each if labels is None else each[:, labels]
            torch.where(voxels[:, None], other, clip, out=row)

    found = answers(model, runner(len(hide), fill).flatten(0, 1), raw=True)
    left = pick(found, columns.repeat(len(hide))).unflatten(0, (len(hide), -1))
    return (whole - left).double().T


def _boxes(count: int, size: torch.Size, seed: int) -> Tensor:
    """Random boxes `(count, T, H, W)` bool."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.ones(count, *size, dtype=torch.bool)
    for axis, n in enumerate(size):
        side = (1 + torch.rand(count, generator=generator) * max(1, n // 2)).long().clamp(max=n)
        start = (torch.rand(count, generator=generator) * (n - side + 1)).long()
        place = torch.arange(n)
        within = (place >= start[:, None]) & (place < (start + side)[:, None])
        inside &= within.view(count, *(n if k == axis else 1 for k in range(3)))
    return inside


def _labels(size: torch.Size, unit: tuple[int, int, int] | None) -> Tensor:
    """The number of each voxel's block, `(T, H, W)`."""
    frames, height, width = size
    block = unit or (min(2, frames), max(1, height // 8), max(1, width // 8))
    t, y, x = (torch.arange(n) // step for n, step in zip(size, block, strict=True))
    rows, columns = int(y[-1]) + 1, int(x[-1]) + 1
    return (t[:, None, None] * rows + y[:, None]) * columns + x


def _sums(values: Tensor, labels: Tensor, units: int) -> Tensor:
    """Sums of `(B, T, H, W)` over blocks, `(B, U)`."""
    empty = values.new_zeros(len(values), units)
    return empty.index_add(1, labels.flatten(), values.flatten(1))


def _subsets(whole: Tensor, share: float, count: int, seed: int) -> Tensor:
    """Random subsets of each clip's blocks, `(count, B, U)` bool.

    Args:
        whole: `(B, U)` bool, the blocks that a clip has.
        share: of them that a subset takes.
        count: how many subsets.
        seed: one order of all blocks for all clips: what a clip gets depends on no other.
    """
    draws = torch.rand(count, whole.shape[1], generator=torch.Generator().manual_seed(seed))
    draws = draws.to(whole.device)[:, None].masked_fill(~whole, torch.inf)
    sizes = (share * whole.sum(1)).round().long().clamp(min=1)  # (B,)
    last = draws.sort(2).values.gather(2, (sizes - 1).expand(count, -1)[..., None])
    return draws <= last


@dataclass(frozen=True)
class Infidelity(Measure):
    """How far a map's amounts are from what the score does, see `infidelity`. Lower is better.

    Args:
        samples: how many boxes are hidden, each a forward.
        hidden: what is in a box: black, mean, blur, rise or zoom.
        normalised: scale each map as fits best.
        seed: of the boxes.
    """

    samples: Count = 50
    hidden: Reference = "black"
    normalised: bool = True
    seed: Seed = 0

    title = "Infidelity"
    better: ClassVar[Direction] = "lower"
    needs = frozenset({"model", "clip", "map"})

    @property
    def settings(self) -> str:
        return f"{self.samples} boxes, {self.hidden}{'' if self.normalised else ', not scaled'}"

    def __call__(self, explained: Explained) -> Tensor:
        e = explained.explanation
        return infidelity(
            explained.model,
            explained.clip,
            e.heatmap,
            e.target,
            samples=self.samples,
            hidden=self.hidden,
            normalised=self.normalised,
            seed=self.seed,
        )


@dataclass(frozen=True)
class SensitivityN(Measure):
    """Whether the heat of subsets of blocks tells what hiding them costs, see `sensitivity_n`.

    The mean over the sizes of subsets; that of each stands beside it, `at_10` for 10%. Higher is
    better.

    Args:
        shares: of the blocks that are hidden.
        subsets: of each size, each a forward.
        unit: a block's frames, rows and columns; None: 2, H/8 and W/8.
        hidden: what hidden voxels become: black, mean, blur, rise or zoom.
        seed: of the subsets.
    """

    shares: tuple[Fraction, ...] = (0.01, 0.05, 0.1, 0.2, 0.5)
    subsets: Count = 100
    unit: Cells | None = None
    hidden: Reference = "black"
    seed: Seed = 0

    title = "Sensitivity-n"
    better: ClassVar[Direction] = "higher"
    needs = frozenset({"model", "clip", "map"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shares:
            raise ArgumentError("shares must be one share of the clip or more, got ()")

    @property
    def settings(self) -> str:
        return f"{self.subsets} subsets, {self.hidden}"

    def __call__(self, explained: Explained) -> Tensor:
        e = explained.explanation
        found = sensitivity_n(
            explained.model,
            explained.clip,
            e.heatmap,
            e.target,
            shares=self.shares,
            subsets=self.subsets,
            unit=self.unit,
            hidden=self.hidden,
            seed=self.seed,
        )
        for share, each in zip(self.shares, found.unbind(1), strict=True):
            explained.numbers[f"at_{100 * share:g}"] = each
        return found.nanmean(1)
