"""Maps that a study measures beside the methods, to say what a measure's values are worth.

Random maps of each method's own grain, see `attribution.baselines`, and the ground truth as a map,
where a clip has any: a measure by which the truth is no better than noise cannot tell methods apart
on these clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_cam.attribution import Attribution, Explainable, RandomMap, TruthMap

_CLIPS = 1000  # seeds of one clip


@dataclass(frozen=True)
class Reference:
    """A map beside the methods.

    Attributes:
        grain: cells of random maps; None: the ground truth.
        seed: of random maps.
    """

    grain: tuple[int, ...] | None = None
    seed: int = 0

    @property
    def key(self) -> str:
        """Its cell in rows."""
        if self.grain is None:
            return "truth"
        return f"random {'x'.join(map(str, self.grain))} seed {self.seed}"

    def method(self, index: int, model: Explainable) -> Attribution | None:
        """What makes the map of one clip; None where that has no ground truth.

        Args:
            index: of the clip: each has noise of its own.
            model: bound to the clip.
        """
        if self.grain is None:
            return TruthMap() if model.truth is not None and bool(model.truth.any()) else None
        frames, height, width = self.grain
        return RandomMap(seed=_CLIPS * index + self.seed, cells=(frames, height, width))


def references_beside(grains: Iterable[Sequence[int]], seeds: int) -> list[Reference]:
    """What is measured beside methods of these grains; nothing for 0 seeds."""
    kinds = sorted({tuple(grain) for grain in grains})
    noise = [Reference(grain, seed) for grain in kinds for seed in range(seeds)]
    return [*noise, Reference()] if noise else []
