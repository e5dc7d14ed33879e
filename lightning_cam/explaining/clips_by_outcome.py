"""Clips of a data set, chosen by whether the network is right, nearly right or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from lightning_cam.attribution import Explainable
from lightning_cam.data.core.clips import finished
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.clip_explanations import network_outputs, probabilities
from lightning_cam.interfaces import Batch, Task
from lightning_cam.progress import progress
from lightning_cam.stops import left_to_parent
from lightning_cam.viz import outcome

_BATCH = 4  # little is read in vain when enough clips are found


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


@dataclass(frozen=True)
class Look:
    """What a network makes of a clip.

    Attributes:
        index: of the clip in its data set.
        ranked: (class, probability), highest first; empty if the clip cannot be read.
        label: the true class; None where nobody knows it.
    """

    index: int
    ranked: Sequence[tuple[str, float]]
    label: str | None

    @property
    def kind(self) -> str:
        """One of `viz.OUTCOMES`; "" if the clip cannot be read or has no true class."""
        return outcome(self.ranked, self.label)


def check_classes(task: Task, dataset: SampleDataset[Any], order: Sequence[int], key: str) -> None:
    """Whether it can be asked if the network is right.

    Args:
        task: the network.
        dataset: the clips.
        order: indices of those that count.
        key: the setting that asks: "select=wrong".

    Raises:
        ConfigError: the data know no true classes, or the network's columns are not classes.
    """
    model = task.explainable()
    if model.probability != "softmax" or model.heads:
        raise ConfigError(f"{key} needs a network whose outputs are classes, one a clip")
    if all(dataset.clips[i].label < 0 for i in order):
        raise ConfigError(f"{key} needs true classes, which these clips do not have")


def looks_at(
    task: Task, dataset: SampleDataset[Any], order: Sequence[int], workers: int = 0
) -> Iterator[list[Look]]:
    """What the network makes of clips, in this order, a few at once.

    Args:
        task: the network: `task.explainable(batch)`, in eval mode.
        dataset: clips.
        order: indices of the clips to look at.
        workers: loader processes.
    """
    loader = DataLoader(
        Subset(dataset, list(order)),
        _BATCH,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=left_to_parent,
    )
    batches = iter(loader)
    for first in range(0, len(order), _BATCH):
        indices = order[first : first + _BATCH]
        try:
            looks = _looks(task, indices, next(batches))
        except Exception:  # one clip of them, or all together are too much
            looks = [_look_alone(task, dataset, index) for index in indices]
        yield looks


def select_clips(
    task: Task,
    dataset: SampleDataset[Any],
    order: Sequence[int],
    kinds: Sequence[str],
    count: int | None,
    workers: int = 0,
) -> Selection:
    """Look at clips until there are enough of each kind.

    Args:
        task: the network: `task.explainable(batch)`, in eval mode.
        dataset: labelled clips.
        order: indices of the clips to look at, in this order.
        kinds: of `viz.OUTCOMES`.
        count: how many of each kind; None for all.
        workers: loader processes.

    Raises:
        ConfigError: the data know no true classes, or the network's columns are not classes.
    """
    check_classes(task, dataset, order, f"select={', '.join(kinds)}")
    found: dict[str, list[int]] = {kind: [] for kind in kinds}
    unreadable: list[int] = []
    looked = 0
    with progress("looking", len(order)) as advance:
        for looks in looks_at(task, dataset, order, workers):
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


def _looks(task: Task, indices: Sequence[int], batch: Batch) -> list[Look]:
    """What the network makes of each clip of a batch."""
    batch = finished(move_data_to_device(batch, task.device))
    model = task.explainable(batch)
    logits = network_outputs(model, batch["video"])
    return [
        Look(index, [], None) if error else _look(model, index, row, label)
        for index, error, row, label in zip(
            indices, batch["error"], logits, batch["label"].tolist(), strict=True
        )
    ]


def _look_alone(task: Task, dataset: SampleDataset[Any], index: int) -> Look:
    """What the network makes of one clip; nothing if that fails, which explaining it will say."""
    try:
        return _looks(task, [index], collate([dataset[index]]))[0]
    except Exception:
        return Look(index, [], None)


def _look(model: Explainable, index: int, row: Tensor, label: int) -> Look:
    ranked = sorted(probabilities(model, row[None]), key=lambda pair: -pair[1])
    return Look(index, ranked, model.name(label) if label >= 0 else None)
