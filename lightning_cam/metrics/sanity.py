"""Does a map depend on what the network has learnt? Sanity checks by model randomisation.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. The network's stages get random
weights one after the other, from the head down, and the map of the same column is made anew each
time. A map that stays as it was did not come from the weights.

How alike is too alike? Two clips' maps of one method are alike as well (a method may always draw
the centre, or the moving edges), so an absolute threshold gives wrong verdicts. What counts is the
*excess*: the rank correlation with the map before, minus that of two different clips' maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.fields import Count, Seed
from lightning_cam.attribution.method import Attribution
from lightning_cam.metrics.explained import Direction, Explained, Measure
from lightning_cam.metrics.explaining_again import (
    TooManyForwardsError,
    map_again,
    say_left_out,
)
from lightning_cam.metrics.random_weights import drawn, stages, with_weights
from lightning_cam.metrics.ranks import spearman
from lightning_cam.metrics.statistics import Statistics, mean_interval

_CELLS = 14, 255  # of height and width, and of time, for ranks: some 50 000 voxels


@dataclass(frozen=True)
class Randomised:
    """How alike maps stay while a network's weights are drawn anew.

    Attributes:
        stages: names, from the head down; with each, those before it are random as well.
        similarity: `(B, K)`, rank correlation with the map before, after each of K stages; NaN
            where either map is the same everywhere.
        ssim: `(B,)`, structural similarity of the frames of both maps after the last stage.
        between: `(B,)`, rank correlation of the maps of two different clips; NaN without another.
    """

    stages: tuple[str, ...]
    similarity: Tensor
    ssim: Tensor
    between: Tensor

    @property
    def excess(self) -> Tensor:
        """`(B, K)`, the similarity beyond that of two clips' maps."""
        return self.similarity - self.between[:, None]


def randomisation(
    model: Explainable,
    method: Attribution,
    clip: Tensor,
    target: Tensor,
    other: Tensor | None = None,
    *,
    most: int = 8,
    seed: int = 0,
    limit: int | None = None,
    weights: Mapping[str, Any] | None = None,
) -> Randomised:
    """Explain clips again and again while the network's stages get random weights.

    Signed maps are compared where the method has them (`Attribution.both_signs`): behind a ReLU
    most maps of a random network are 0, and the few that are left are no sample. Maps are averaged
    over cells of `T x 14 x 14` before they are ranked. Padded frames do not count.

    Costs the method K + 1 times, K <= `most`, and once more for the other clips.

    Args:
        model: see `explain`.
        method: makes the maps.
        clip: `(B, C, T, H, W)` in model space.
        target: `(B,)`, the columns.
        other: another clip for each `(B, C, T, H, W)`, explained for its own highest column.
        most: how many stages.
        seed: of the random weights: the same for all clips and methods.
        limit: forwards an explanation may take; None: any number.
        weights: what `random_weights` gave for this network.

    Raises:
        TooManyForwardsError: the method takes more.
    """
    method = method.both_signs
    found = weights or random_weights(model, clip, most, seed)
    kept = _valid(model, clip)

    first = map_again(model, method, clip, target, limit)
    cells = _cells(first)
    places = _cells(kept.to(first)) > 0.5
    between = torch.full((len(clip),), torch.nan, device=first.device)
    if other is not None:
        between = spearman(cells, _cells(map_again(model, method, other, None, limit)), places)
    similarity, last = [], first
    random: dict[str, Tensor] = {}
    for stage in found.values():
        random |= stage
        with with_weights(model.module, random):
            last = map_again(model, method, clip, target, limit)
        similarity.append(spearman(cells, _cells(last), places))
    return Randomised(
        tuple(found),
        torch.stack(similarity, 1).float(),
        _ssim(first, last, kept[:, :, 0, 0]),
        between.float(),
    )


def random_weights(
    model: Explainable, clip: Tensor, most: int = 8, seed: int = 0
) -> dict[str, dict[str, Tensor]]:
    """Random weights of a network's stages, stage from the head down -> name -> tensor."""
    parts = stages(model, clip, most)
    weights = drawn(model.module, parts, seed)
    return {part.name: each for part, each in zip(parts, weights, strict=True)}


def _valid(model: Explainable, clip: Tensor) -> Tensor:
    """`(B, T, H, W)` bool: voxels of valid frames."""
    return model.without_padding(torch.ones_like(clip[:, 0])) > 0


def _cells(heatmap: Tensor) -> Tensor:
    """`(B, N)` float64, the means of a map's cells."""
    space, time = _CELLS
    frames, height, width = heatmap.shape[1:]
    size = min(time, frames), min(space, height), min(space, width)
    return F.adaptive_avg_pool3d(heatmap.double()[:, None], size).flatten(1)


def _ssim(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """`(B,)`, mean over valid frames of maps that run from 0 to 1 over a clip."""
    window = 11 if a.shape[2] >= 64 else 7
    if min(a.shape[2:]) < window:
        return a.new_full((len(a),), torch.nan)
    a, b = (_unit(each, valid) for each in (a, b))
    frames = structural_similarity_index_measure(
        b.nan_to_num().flatten(0, 1)[:, None],
        a.nan_to_num().flatten(0, 1)[:, None],
        gaussian_kernel=False,
        kernel_size=window,
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(frames, Tensor)
    mean = (frames.unflatten(0, valid.shape) * valid).sum(1) / valid.sum(1)
    flat = (a.isnan() | b.isnan()).flatten(1).any(1)
    return mean.masked_fill(flat, torch.nan)


def _unit(heatmap: Tensor, valid: Tensor) -> Tensor:
    """Maps from 0 to 1 over their valid frames, 0 elsewhere; NaN where they are constant."""
    padded = ~valid[:, :, None, None]
    low = heatmap.masked_fill(padded, torch.inf).amin((1, 2, 3), keepdim=True)
    span = heatmap.masked_fill(padded, -torch.inf).amax((1, 2, 3), keepdim=True) - low
    return ((heatmap - low) / torch.where(span > 0, span, torch.nan)).masked_fill(padded, 0)


class Verdict(NamedTuple):
    """What many clips say together.

    Attributes:
        passes: whether maps depend on the weights; None where that cannot be said.
        why: in words.
        early: the excess after head and last block.
        last: after all stages.
    """

    passes: bool | None
    why: str
    early: Statistics
    last: Statistics


def verdict(
    early: Sequence[float], last: Sequence[float], between: Sequence[float], most: float = 0.1
) -> Verdict:
    """Whether a method passes the check, by the 95% intervals of its excess over clips.

    It passes if both intervals lie below `most`, and fails if one lies above it. It cannot be said
    where fewer than half of the clips have a value, and where two clips' maps are so alike that no
    map could exceed them by `most`: such maps do not even depend on the clip.

    Args:
        early: N clips' excess after head and last block, `excess_early`; NaN without one.
        last: after all stages, `excess_last`.
        between: the rank correlation of two clips' maps.
        most: the excess that passes.
    """
    found = mean_interval(early), mean_interval(last)
    alike = mean_interval(between)
    if any(2 * each.clips < each.clips + each.unscored or each.clips < 2 for each in found):
        few = min(each.clips for each in found)
        words = f"{few} of {len(early)} clips have maps to compare, fewer than half or than two"
        return Verdict(None, words, *found)
    if 1 - alike.mean < most:
        words = f"the maps of two clips are alike ({alike.mean:.2f}) whatever the weights"
        return Verdict(None, words, *found)
    words = ", ".join(
        f"{when} {each.low:+.2f} to {each.high:+.2f}"
        for when, each in zip(("after head and last block", "after all"), found, strict=True)
    )
    words = f"similarity beyond that of two clips' maps: {words}"
    if all(each.high < most for each in found):
        return Verdict(True, words, *found)
    if any(each.low > most for each in found):
        return Verdict(False, words, *found)
    return Verdict(None, f"{words}: more clips are needed", *found)


@dataclass(frozen=True)
class WeightRandomisation(Measure):
    """How much alike maps stay under random weights, beyond two clips' maps, see `randomisation`.

    The mean of the excess over the stages: the area under its curve. Beside it stand the excess
    after head and last block (`excess_early`) and after all stages (`excess_last`), from which
    `verdict` judges, `between`, and the similarity after each stage, `stage_1` being the head's.
    NaN where there is no other clip, as in the explanation of a single one.

    Args:
        stages: how many at most.
        seed: of the random weights.
        limit: forwards an explanation may take: a method that takes more has no value, and a
            warning says so. None: any number.
    """

    stages: Count = 8
    seed: Seed = 0
    limit: Count | None = 50

    title = "Similarity under random weights"
    better: ClassVar[Direction] = "lower"
    needs = frozenset({"model", "clip", "map", "other"})
    number_titles: ClassVar[Mapping[str, str]] = {
        "excess_early": "excess after head and last block",
        "excess_last": "excess after all stages",
        "between": "of two clips",
    }

    def __call__(self, explained: Explained) -> Tensor:
        e, model, clip = explained.explanation, explained.model, explained.clip
        none = torch.full((len(clip),), torch.nan)
        weights = explained.once(
            ("random weights", self.stages, self.seed),
            lambda: random_weights(model, clip, self.stages, self.seed),
        )
        try:
            found = randomisation(
                model, e.method, clip, e.target, explained.other, limit=self.limit, weights=weights
            )
        except TooManyForwardsError:
            say_left_out(e.method, self.limit, "random_weights")
            return none
        broken = ~e.heatmap.isfinite().flatten(1).all(1)
        excess = found.excess.masked_fill(broken[:, None], torch.nan)
        explained.numbers.update(
            excess_early=excess[:, min(1, excess.shape[1] - 1)],
            excess_last=excess[:, -1],
            between=found.between,
            ssim=found.ssim,
            **{f"stage_{k}": each for k, each in enumerate(found.similarity.unbind(1), 1)},
        )
        return excess.mean(1)
