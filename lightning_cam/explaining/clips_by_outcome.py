"""Clips of a data set, chosen by whether the network is right, nearly right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.explaining.looks import SharedLooks, check_classes, looks_at
from lightning_cam.interfaces import Task
from lightning_cam.progress import progress


@dataclass(frozen=True)
class Selection:
    """Clips, sorted by whether the network is right.

    Attributes:
        found: kind (one of `viz.OUTCOMES`) -> indices into the data set, in the order of visits.
        unreadable: indices of clips that could not be read on the way.
        looked: how many clips were looked at, these included.
    """

    found: dict[str, list[int]]
    unreadable: list[int]
    looked: int

    @property
    def indices(self) -> list[int]:
        """All of them, a kind after the other, the unreadable last."""
        return [*(i for of_kind in self.found.values() for i in of_kind), *self.unreadable]

    def shortfall(self, clips: int | Sequence[int]) -> str:
        """One line for the user where fewer were found than `clips` asks for, else ""."""
        if not isinstance(clips, int):
            parts = [f"{len(found)} {kind}" for kind, found in self.found.items()]
            return f"found {', '.join(parts)} among the {self.looked} clips asked for"
        if all(len(found) >= clips for found in self.found.values()):
            return ""
        parts = [f"{len(found)} of {clips} {kind}" for kind, found in self.found.items()]
        return f"found {', '.join(parts)} clips; looked at all {self.looked} of them"


def shuffled(indices: Sequence[int]) -> list[int]:
    """The indices in an order that is always the same, so that no class comes first."""
    order = np.random.default_rng(0).permutation(len(indices))
    return [indices[i] for i in order]


def select_clips(
    task: Task,
    dataset: SampleDataset[Any],
    order: Sequence[int],
    kinds: Sequence[str],
    count: int | None,
    workers: int = 0,
    shared: SharedLooks | None = None,
) -> Selection:
    """Look at clips until there are enough of each kind.

    Args:
        task: the network: `task.explainable(batch)`, in eval mode.
        dataset: labelled clips.
        order: indices of the clips to look at, in this order.
        kinds: of `viz.OUTCOMES`.
        count: how many of each kind; None for all.
        workers: loader processes.
        shared: what other processes know of the clips.

    Raises:
        ConfigError: the data know no true classes, or the network's columns are not classes.
    """
    check_classes(task, dataset, order, f"select={', '.join(kinds)}")
    found: dict[str, list[int]] = {kind: [] for kind in kinds}
    unreadable: list[int] = []
    looked = 0
    with progress("looking", len(order)) as advance:
        for looks in looks_at(task, dataset, order, workers, shared):
            for look in looks:
                looked += 1
                if not look.ranked:
                    unreadable.append(look.index)
                elif look.kind in found and (count is None or len(found[look.kind]) < count):
                    found[look.kind].append(look.index)
                if count is not None and all(len(of) == count for of in found.values()):
                    return Selection(found, unreadable, looked)
            counts = ", ".join(f"{len(of)} {kind}" for kind, of in found.items())
            advance(len(looks), f"looking: {counts}")
    return Selection(found, unreadable, looked)
