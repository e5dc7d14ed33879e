"""Is what a map keeps enough? How much of a clip the answer needs, and what it loses without.

The sufficient share is read off an insertion curve, which costs nothing where insertion is measured
as well. The average drop shows the clip through the map itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lightning_cam.attribution.checks import ready
from lightning_cam.attribution.explainable import Explainable, Target
from lightning_cam.attribution.fields import Share
from lightning_cam.attribution.perturbation import Reference, Runner, answers, reference
from lightning_cam.attribution.tensors import pick
from lightning_cam.metrics.deletion_insertion import Curve
from lightning_cam.metrics.explained import Direction, Explained, Measure
from lightning_cam.metrics.measures import InsertionArea


def sufficient_share(curve: Curve, share: float = 0.5) -> Tensor:
    """The smallest share of a clip's units with which the score reaches `share` of the clip's own.

    Between two points of the curve it runs straight.

    Args:
        curve: of `insertion`.
        share: of the clip's own score, its last point.

    Returns:
        `(B,)` in [0, 1]; 0 where what insertion starts from reaches it already, NaN for a clip
        whose own score is 0.

    Raises:
        ValueError: the curve is that of a deletion.
    """
    if curve.clip_first:
        raise ValueError("the sufficient share is read off an insertion curve; pass insertion(...)")
    ratio = curve.score / curve.score[:, -1:]
    first = (ratio >= share).long().argmax(1, keepdim=True)  # 0 if none is: the clip's own is 0
    before = (first - 1).clamp(min=0)
    low, high = ratio.gather(1, before), ratio.gather(1, first)
    part = torch.where(first > before, (share - low) / (high - low), 0)
    begin, end = curve.fraction[before], curve.fraction[first]
    found = (begin + part * (end - begin))[:, 0]
    return torch.where(curve.score[:, -1] == 0, torch.nan, found)


class Drop(NamedTuple):
    """What clips lose when they are seen through their maps, `(B,)` each.

    Attributes:
        drop: max(0, p - p_h) / p in per cent.
        increase: 1 where p_h > p.
        heat: the map's mean, of 0 to 1: how much of the clip was kept.
    """

    drop: Tensor
    increase: Tensor
    heat: Tensor


def average_drop(
    model: Explainable,
    clip: Tensor,
    heatmap: Tensor,
    target: Target | None = None,
    *,
    hidden: Reference = "black",
    outputs: Tensor | None = None,
) -> Drop:
    """What the score loses when a clip is seen through its map (Chattopadhay et al., WACV 2018).

    The map h runs from 0 to 1 over a clip, and the clip becomes x h + x' (1 - h). A map that keeps
    everything loses nothing: read the drop beside `heat`. Costs one forward (two without
    `outputs`).

    Args:
        model: see `explain`.
        clip: `(B, C, T, H, W)` in model space.
        heatmap: `(B, T, H, W)`.
        target: as in `explain`; None: the predicted columns.
        hidden: x', see `attribution.perturbation.reference`.
        outputs: the network's for the clip `(B, K)`, if they are known.

    Returns:
        NaN for maps that are the same everywhere or not finite. Of columns that are no classes, the
        drop is in per cent of the column's amount.
    """
    with ready(model, clip) as (model, clip):
        runner = Runner(model, clip)
        outputs = runner.forward(clip.clone()) if outputs is None else outputs.to(clip.device)
        columns = model.resolve(target, outputs)
        score = pick(answers(model, outputs), columns)
        heat = _unit_range(model, heatmap.to(clip.device, clip.dtype))
        through = torch.lerp(reference(model, clip, hidden), clip, heat.nan_to_num()[:, None])
        seen = pick(answers(model, runner.forward(through)), columns)
    kept = model.without_padding(heat).sum((1, 2, 3)) / _voxels(model, heat)
    none = kept.isnan()
    drop = 100 * ((score - seen) / score.abs()).clamp(min=0)
    increase = (seen > score).float()
    return Drop(drop.masked_fill(none, torch.nan), increase.masked_fill(none, torch.nan), kept)


def _unit_range(model: Explainable, heatmap: Tensor) -> Tensor:
    """Maps from 0 to 1 over their valid frames; NaN where they are the same everywhere."""
    valid = model.valid_for(heatmap)
    padded = torch.zeros_like(heatmap, dtype=torch.bool)
    if valid is not None:
        padded |= ~valid[:, :, None, None]
    low = heatmap.masked_fill(padded, torch.inf).amin((1, 2, 3), keepdim=True)
    high = heatmap.masked_fill(padded, -torch.inf).amax((1, 2, 3), keepdim=True)
    span = high - low
    found = (heatmap - low) / torch.where((span > 0) & span.isfinite(), span, torch.nan)
    return found.masked_fill(padded, 0)


def _voxels(model: Explainable, heatmap: Tensor) -> Tensor:
    """`(B,)`, how many voxels lie in valid frames."""
    return model.without_padding(torch.ones_like(heatmap)).sum((1, 2, 3))


@dataclass(frozen=True)
class SufficientShare(InsertionArea):
    """The share of a clip that suffices for half of its score, see `sufficient_share`.

    Lower is better. Settings are those of `InsertionArea`; set alike, both read the same curve.

    Args:
        share: of the clip's own score.
    """

    share: Share = 0.5

    title = "Sufficient share"
    better: ClassVar[Direction] = "lower"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolved.order != "most" or self.normalised:
            raise ValueError(
                "the sufficient share is one of the clip's own score, hottest voxels first; leave "
                "order and normalised as they are"
            )

    def area(self, curve: Curve) -> Tensor:
        return sufficient_share(curve, self.share)


@dataclass(frozen=True)
class AverageDrop(Measure):
    """What the score loses when a clip is seen through its map, in per cent, see `average_drop`.

    Lower is better, beside a low `heat`. `increase` is 1 where the score rises: its mean over clips
    is the average increase.

    Args:
        hidden: what stands where the map is 0: black, mean, blur, rise or zoom.
    """

    hidden: Reference = "black"

    title = "Average drop, %"
    better: ClassVar[Direction] = "lower"
    needs = frozenset({"model", "clip", "map"})
    number_titles: ClassVar[Mapping[str, str]] = {"heat": "mean heat"}

    @property
    def settings(self) -> str:
        return "" if self.hidden == "black" else f"hidden={self.hidden}"

    def __call__(self, explained: Explained) -> Tensor:
        e = explained.explanation
        found = average_drop(
            explained.model,
            explained.clip,
            e.heatmap,
            e.target,
            hidden=self.hidden,
            outputs=e.outputs,
        )
        explained.numbers.update(increase=found.increase, heat=found.heat)
        return found.drop
