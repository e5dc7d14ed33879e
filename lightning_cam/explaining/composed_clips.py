"""Clips put together from clips that the network is sure of, see `data.core.composed`.

What the network gets wrong is left out, and so are composed clips in which it no longer sees the
explained class: where the evidence is, is known only of what the network recognises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as from_zero
from typing import Any

import numpy as np

from lightning_cam.data.core.composed import ARRANGEMENTS, ComposedClip, ComposedDataset
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import ConfigError, DataError, say, why
from lightning_cam.explaining.clip_explanations import network_outputs
from lightning_cam.explaining.looks import Look, SharedLooks, check_classes, looks_at
from lightning_cam.interfaces import Task
from lightning_cam.progress import progress

SURE = 0.5  # probability of the true class from which on a clip is taken
LEAST = 0.1  # of the explained class in the composed clip


@dataclass(frozen=True)
class Composed:
    """Clips that were put together.

    Attributes:
        dataset: the clips, in the order in which they were found.
        groups: those of `Arrangement.places` -> indices of their clips.
    """

    dataset: ComposedDataset
    groups: dict[str, list[int]]


def compose_clips(
    task: Task,
    dataset: SampleDataset[Any],
    order: Sequence[int],
    kind: str,
    count: int,
    *,
    name: str = "",
    workers: int = 0,
    shared: SharedLooks | None = None,
) -> Composed:
    """Put clips together, and say how many were looked at and left out.

    Each clip that the network is sure of is explained once in each group, among others that are
    drawn from all it is sure of by then. The same arguments give the same clips.

    Args:
        task: the network, on its device.
        dataset: labelled clips.
        order: indices of the clips to look at, in this order.
        kind: one of `ARRANGEMENTS`.
        count: how many of each group.
        name: with which the names of the clips end: their spectrum.
        workers: loader processes.
        shared: what other processes know of the clips.

    Raises:
        ConfigError: the network has no classes, the data no labels, or the network does not take
            such clips.
        DataError: the network is sure of too few clips.
    """
    check_classes(task, dataset, order, f"compose={kind}")
    how = ARRANGEMENTS[kind]
    rows: list[ComposedClip] = []
    groups: dict[str, list[int]] = {group: [] for group in how.places}
    sure, lost = _SureClips(dataset, looks_at(task, dataset, order, workers, shared)), 0
    with progress(f"composing {kind}", count * len(groups)) as advance:
        sure.find(count, how.parts)
        if len(sure.classes) < how.parts:
            raise DataError(
                f"compose={kind} needs clips of {how.parts} classes of which the network is sure "
                f"(right, with a probability of {SURE} and more), and among {sure.looked} clips "
                f"there are {len(sure.classes)}; train longer, or choose another data.split="
            )
        for turn in from_zero():
            if all(len(of) == count for of in groups.values()) or not sure.find(turn + 1):
                break
            parts = sure.draw(turn, how.parts)
            for group, places in how.places.items():
                if len(groups[group]) == count:
                    continue
                row = _row(dataset, parts, places[turn % len(places)], (name, group))
                if not _recognised(task, ComposedDataset([row], dataset, how), kind):
                    lost += 1
                    continue
                groups[group].append(len(rows))
                rows.append(row)
                advance(1)
    left_out = f"{lost} more left out, in which the network no longer sees the explained class"
    found = f"{len(rows)} {kind} clips{f' of {name.upper()}' if name else ''}"
    say(f"{found} from {len(sure.found)} of {sure.looked} that the network is sure of; {left_out}")
    if not rows:
        raise DataError(f"no {kind} clip is recognised; choose another compose= or data.split=")
    return Composed(ComposedDataset(rows, dataset, how), groups)


class _SureClips:
    """The clips that the network is sure of, looked for as they are needed.

    Attributes:
        found: their indices.
        looked: how many clips were looked at.
    """

    def __init__(self, dataset: SampleDataset[Any], looks: Iterator[list[Look]]) -> None:
        self.dataset = dataset
        self.found: list[int] = []
        self.looked = 0
        self._more = self._looking(looks)

    def _looking(self, looks: Iterator[list[Look]]) -> Iterator[int]:
        for of_batch in looks:
            for look in of_batch:
                self.looked += 1
                if look.kind == "correct" and look.ranked[0][1] >= SURE:
                    yield look.index

    def find(self, count: int, classes: int = 0) -> bool:
        """Look until there are so many, of so many classes; whether there are."""
        while len(self.found) < count or len(self.classes) < classes:
            index = next(self._more, None)
            if index is None:
                return False
            self.found.append(index)
        return True

    @property
    def classes(self) -> set[int]:
        return {self.dataset.clips[i].label for i in self.found}

    def draw(self, turn: int, count: int) -> list[int]:
        """The clip whose turn it is, and others at random, so many in all, of different classes."""
        random = np.random.default_rng(turn)
        drawn: dict[int, int] = {}
        for i in (self.found[turn], *random.permutation(self.found).tolist()):
            drawn.setdefault(self.dataset.clips[i].label, i)
        return list(drawn.values())[:count]


def _row(
    dataset: SampleDataset[Any], parts: Sequence[int], place: int, words: Sequence[str]
) -> ComposedClip:
    """A clip that explains the first of these parts, which stands at a place among the others.

    Its name ends with the words, those of its parts only with the first.
    """
    explained, *others = parts
    own = [dataset.clips[i].clip_id.removesuffix(f"_{words[0]}") for i in parts]
    end = " ".join(filter(None, words))
    return ComposedClip(
        clip_id="+".join(own) + (f"_{end}" if end else ""),
        label=dataset.clips[explained].label,
        parts=(*others[:place], explained, *others[place:]),
        place=place,
    )


def _recognised(task: Task, one: ComposedDataset, kind: str) -> bool:
    """Whether the network sees the explained class in the only clip of a data set.

    Raises:
        ConfigError: it does not take such clips at all.
    """
    batch = collate([one[0]])
    if batch["error"][0]:
        return False
    try:
        model = task.explainable(batch)
        outputs = network_outputs(model, batch["video"].to(task.device))
        answer = model.probabilities(outputs)
    except Exception as error:
        raise ConfigError(
            f"the network takes no {kind} clips ({why(error)}); choose compose=joined"
        ) from error
    return bool(answer[0, one.clips[0].label] >= LEAST)
