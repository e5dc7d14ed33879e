"""The measures of deletion, insertion and localisation: each a column of every table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, Literal

from torch import Tensor

from lightning_cam.attribution.fields import Count, CountOrZero, Finite, Seed
from lightning_cam.metrics.deletion_insertion import Curve, Ends, deletion, insertion
from lightning_cam.metrics.explained import CurveMeasure, Direction, Explained, Measure
from lightning_cam.metrics.localisation import energy_inside, pointing_hits, temporal_iou
from lightning_cam.metrics.protocol import Hiding, PerturbationUnit, Protocol


@dataclass(frozen=True)
class _Area(CurveMeasure):
    """Area under a curve of `deletion` or `insertion`; settings as for `InsertionArea`."""

    protocol: Protocol | str = "default"
    reference: Hiding | None = None
    steps: Count | None = None
    unit: PerturbationUnit | None = None
    order: Literal["most", "least"] | None = None
    voxels: Count | None = None
    raw: bool | None = None
    seed: Seed | None = None
    batch: Count | None = None
    bf16: bool | None = None
    normalised: bool = False

    needs = frozenset({"model", "clip", "map"})
    number_titles: ClassVar[Mapping[str, str]] = {"tied": "tied ranks"}
    _which: ClassVar[Literal["deleted", "inserted"]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.resolved  # noqa: B018 (says now what makes no sense)

    @cached_property
    def resolved(self) -> Protocol:
        """The protocol with what was changed."""
        names = {f.name for f in fields(Protocol)}
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}
        given[self._which] = self.reference
        known = {name: value for name, value in given.items() if value is not None}
        return Protocol.of(self.protocol, **known)

    @property
    def settings(self) -> str:
        return f"{self.resolved.words}{', normalised' * self.normalised}"

    def curve(self, explained: Explained) -> Curve:
        how = deletion if self._which == "deleted" else insertion
        heatmap, target = explained.explanation.heatmap, explained.explanation.target
        ends = self._ends(explained)
        curve = explained.once(  # what else is read off the same curve costs no forwards
            ("curve", self._which, self.resolved, tuple(target.tolist()), _digest(heatmap)),
            lambda: how(
                explained.model, explained.clip, heatmap, protocol=self.resolved, ends=ends
            ),
        )
        explained.numbers["tied"] = curve.tied
        return curve

    def _ends(self, explained: Explained) -> Ends:
        """The curve's ends, which all maps of a clip's column and the other measure share."""
        model, e, protocol = explained.model, explained.explanation, self.resolved
        frames = protocol.frame_wise
        key = "ends", tuple(e.target.tolist()), protocol.raw, protocol.bf16, protocol.batch, frames
        ends = explained.once(
            key,
            lambda: Ends.of(
                model, explained.clip, e.target, protocol=protocol, kinds=(), outputs=e.outputs
            ),
        )
        ends = explained.shared[key] = ends.with_references(model, protocol, (self._which,))
        return ends

    def area(self, curve: Curve) -> Tensor:
        return curve.normalised_auc if self.normalised else curve.auc

    def scored(self, classes: bool, column: str) -> str:
        if classes and self.resolved.raw:
            return f"score of {column}"
        return super().scored(classes, column)

    @property
    def axis(self) -> str:
        first = "hottest" if self.resolved.order == "most" else "coldest"
        changed = "hidden" if self._which == "deleted" else "brought back"
        return f"share of the clip {changed}, {first} first"


def _digest(tensor: Tensor) -> bytes:
    """Stands for a tensor's numbers."""
    return hashlib.blake2b(tensor.detach().cpu().numpy().tobytes()).digest()


@dataclass(frozen=True)
class DeletionArea(_Area):
    """Area under the score while the hottest units of a clip are hidden, see `deletion`.

    Settings as for `InsertionArea`; `reference` is what hidden voxels become. Lower is better, with
    `order="least"` higher.
    """

    title = "Deletion"
    _which = "deleted"

    @property
    def better(self) -> Direction:
        return "lower" if self.resolved.order == "most" else "higher"


@dataclass(frozen=True)
class InsertionArea(_Area):
    """Area under the score while the hottest units come back, see `insertion`.

    Higher is better, with `order="least"` lower. `tied`, the share of the units that were ranked at
    random, is among the numbers.

    Args:
        protocol: the name of one, or a `Protocol`.
        reference: what insertion starts from.
        steps, unit, order, voxels, raw, seed, batch, bf16: of the protocol; None: as it has them.
        normalised: take `Curve.normalised_auc`, for scores that are not probabilities.

    Raises:
        ValueError: a setting makes no sense.
    """

    title = "Insertion"
    _which = "inserted"

    @property
    def better(self) -> Direction:
        return "higher" if self.resolved.order == "most" else "lower"


@dataclass(frozen=True)
class PointingHit(Measure):
    """Whether the hottest voxel lies on what acts, see `pointing_hits`.

    Args:
        region: "actor", or a part of the ground truth.
        tolerance: pixels by which the region is grown.
        per: "clip": one hottest voxel; "frame": one in each frame, averaged.
        tolerance_t: frames by which the region is grown, before and after.
        shape: of the growth: "square" or "disc".
    """

    region: str = "actor"
    tolerance: CountOrZero = 0
    per: Literal["clip", "frame"] = "clip"
    tolerance_t: CountOrZero = 0
    shape: Literal["square", "disc"] = "square"

    better: ClassVar[Direction] = "higher"
    needs = frozenset({"map", "truth"})

    @property
    def title(self) -> str:
        return f"Pointing at the {self.region}"

    def __call__(self, explained: Explained) -> Tensor:
        truth = explained.truth(self.region)
        return pointing_hits(
            explained.heat,
            truth,
            self.tolerance,
            self.per,
            tolerance_t=self.tolerance_t,
            shape=self.shape,
            judged=explained.judged,
        )


@dataclass(frozen=True)
class EnergyShare(Measure):
    """The share of the heat on what acts, or in the time of the action, see `energy_inside`.

    That of the actor puts the shares on its parts, where the data know any, among the numbers, each
    under the part's name.

    Args:
        region: "actor", "action", or a part of the ground truth.
    """

    region: str = "actor"

    better: ClassVar[Direction] = "higher"
    needs = frozenset({"map", "truth"})

    @property
    def title(self) -> str:
        return f"Energy {'in' if self.region == 'action' else 'on'} the {self.region}"

    def __call__(self, explained: Explained) -> Tensor:
        heat, judged = explained.heat, explained.judged
        for part in explained.parts if self.region == "actor" else ():
            explained.numbers[part] = energy_inside(heat, explained.truth(part), judged)
        return energy_inside(heat, explained.truth(self.region), judged)


@dataclass(frozen=True)
class ActionIoU(Measure):
    """How well the frames with much heat agree with the time of the action, see `temporal_iou`.

    Args:
        threshold: share of the strongest frame's energy from which on a frame counts.
    """

    threshold: Finite = 0.5

    title = "IoU with the action"
    better: ClassVar[Direction] = "higher"
    needs = frozenset({"map", "truth"})

    def __call__(self, explained: Explained) -> Tensor:
        truth = explained.truth("action")
        return temporal_iou(explained.heat, truth, self.threshold, explained.judged)
