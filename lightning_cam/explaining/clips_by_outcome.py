"""Clips of a data set, chosen by whether the network is right, nearly right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
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
    chosen = ", ".join(kinds)
    if not task.explainable().softmax:
        raise ConfigError(f"select={chosen} needs a network whose outputs are classes")
    if all(dataset.clips[i].label < 0 for i in order):
        raise ConfigError(f"select={chosen} needs true classes, which these clips do not have")
    found: dict[str, list[int]] = {kind: [] for kind in kinds}
    unreadable: list[int] = []
    looked = 0
    loader = DataLoader(
        Subset(dataset, list(order)), _BATCH, num_workers=workers, collate_fn=collate
    )
    batches = iter(loader)
    with progress("looking", len(order)) as advance:
        for first in range(0, len(order), _BATCH):
            indices = order[first : first + _BATCH]
            try:
                looks = _kinds(task, next(batches))
            except Exception:  # one clip of them, or all together are too much
                looks = [_kind_alone(task, dataset, index) for index in indices]
            for index, kind in zip(indices, looks, strict=True):
                looked += 1
                if kind is None:
                    unreadable.append(index)
                elif kind in found and (count is None or len(found[kind]) < count):
                    found[kind].append(index)
                if count is not None and all(len(of) == count for of in found.values()):
                    return Selection(found, unreadable, looked)
            counts = ", ".join(f"{len(of)} {kind}" for kind, of in found.items())
            advance(len(indices), f"looking: {counts}")
    return Selection(found, unreadable, looked)


def _kinds(task: Task, batch: Batch) -> list[str | None]:
    """What the network makes of each clip of a batch, see `viz.outcome`; None if unreadable."""
    batch = finished(move_data_to_device(batch, task.device))
    model = task.explainable(batch)
    logits = network_outputs(model, batch["video"])
    return [
        None if error else _kind(model, logits[row], int(batch["label"][row]))
        for row, error in enumerate(batch["error"])
    ]


def _kind_alone(task: Task, dataset: SampleDataset[Any], index: int) -> str | None:
    """What the network makes of one clip; None if that fails, which explaining it will say."""
    try:
        return _kinds(task, collate([dataset[index]]))[0]
    except Exception:
        return None


def _kind(model: Explainable, row: Tensor, label: int) -> str:
    ranked = sorted(probabilities(model, row[None]), key=lambda pair: -pair[1])
    return outcome(ranked, model.name(label) if label >= 0 else None)
