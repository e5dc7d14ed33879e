"""What a network makes of clips before any is explained: looks, a batch at a time.

Several processes of a command share them, and none waits for another: each looks at every n-th
batch, and where it would run far ahead of the others, because one is late or has died, at those
that are missing. What is known of a batch is a file beside the explanations.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_cam.attribution import Explainable
from lightning_cam.data.core.clips import finished
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.clip_explanations import network_outputs, probabilities
from lightning_cam.explaining.clip_keys import key_of_row
from lightning_cam.explaining.sharing import ALONE, Share
from lightning_cam.files import write_text
from lightning_cam.interfaces import Batch, Task
from lightning_cam.stops import left_to_parent
from lightning_cam.viz import outcome

_BATCH = 4  # little is read in vain when enough clips are found
_AHEAD = 4  # batches that each process is ahead, at most, of the first that is missing


@dataclass(frozen=True)
class Look:
    """What a network makes of a clip.

    Attributes:
        index: of the clip in its data set.
        ranked: (class, probability) of the two likeliest; empty if the clip cannot be read.
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


class SharedLooks:
    """What the processes of a command know of clips, each batch in a file.

    Args:
        folder: of the files.
        share: of this process.
    """

    def __init__(self, folder: Path, share: Share) -> None:
        self.folder, self.share = folder, share

    @classmethod
    def of(cls, place: Path, facts: Mapping[str, Any], share: Share) -> SharedLooks:
        """Those of one network and its data.

        Args:
            place: where the folder lies.
            facts: what says which network and data, plain.
            share: of this process.
        """
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return cls(place / f".looks-{name}", share)

    def file(self, dataset: SampleDataset[Any], batch: Sequence[int]) -> Path:
        """Where it stands what is known of these clips, as they are now."""
        keys = [key_of_row(str(dataset.clips[i].clip_id), i, dataset) for i in batch]
        text = json.dumps(keys).encode("utf-8", "surrogateescape")
        return self.folder / f"{hashlib.sha256(text).hexdigest()[:24]}.json"

    def discard(self) -> None:
        """Remove the files: who needs one that is gone looks again."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(file: Path, batch: Sequence[int]) -> list[Look] | None:
    """What is known of a batch; None: nothing yet."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if rows is None or len(rows) != len(batch):
            return None
        return [
            Look(i, [(str(name), float(p)) for name, p in ranked], label)
            for i, (ranked, label) in zip(batch, rows, strict=True)
        ]
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def looks_at(
    task: Task,
    dataset: SampleDataset[Any],
    order: Sequence[int],
    workers: int = 0,
    shared: SharedLooks | None = None,
) -> Iterator[list[Look]]:
    """What the network makes of clips, in this order, a few at once.

    Args:
        task: the network: `task.explainable(batch)`, in eval mode.
        dataset: clips.
        order: indices of the clips to look at.
        workers: loader processes.
        shared: what other processes know of them.

    Raises:
        WriteError: the others cannot be told.
    """
    batches = [list(order[n : n + _BATCH]) for n in range(0, len(order), _BATCH)]
    looking = _Looking(task, dataset, batches, workers, shared)
    for n in range(len(batches)):
        while (looks := looking.known(n)) is None:
            looking.look(n)
        looking.forget(n)
        yield looks


class _Looking:
    """Looks at batches, by this process and others.

    Args:
        task, dataset, workers, shared: as of `looks_at`.
        batches: indices of the clips of each.
    """

    def __init__(
        self,
        task: Task,
        dataset: SampleDataset[Any],
        batches: Sequence[list[int]],
        workers: int,
        shared: SharedLooks | None,
    ) -> None:
        self.task, self.dataset, self.batches, self.shared = task, dataset, batches, shared
        self.share = ALONE if shared is None else shared.share
        self._own = deque(self.share.of(range(len(batches))))
        self._loader = iter(
            DataLoader(
                dataset,
                batch_sampler=[batches[n] for n in self._own],
                num_workers=workers,
                collate_fn=collate,
                worker_init_fn=left_to_parent,
            )
        )
        self._known: dict[int, list[Look]] = {}
        self._files: dict[int, Path] = {}

    def known(self, n: int) -> list[Look] | None:
        """The looks at a batch; None: nobody has looked yet."""
        if n not in self._known and self.shared is not None:
            if n not in self._files:
                self._files[n] = self.shared.file(self.dataset, self.batches[n])
            if looks := _read(self._files[n], self.batches[n]):
                self._known[n] = looks
        return self._known.get(n)

    def forget(self, n: int) -> None:
        """Let go of a batch that is not asked for again."""
        self._known.pop(n, None)
        self._files.pop(n, None)

    def look(self, first: int) -> None:
        """Look at one batch, where `first` is the first that is missing."""
        end = min(first + _AHEAD * self.share.count, len(self.batches))
        if self._own and self._own[0] < end:
            n = self._own.popleft()
            self._keep(n, self._next(n))
        else:
            # Not all at the same one: processes that have no more of their own begin apart.
            missing = [n for n in range(first, end) if self.known(n) is None]
            n = missing[self.share.rank % len(missing)] if missing else first
            self._keep(n, self._other(n))

    def _keep(self, n: int, looks: list[Look]) -> None:
        if self.shared is not None and n not in self._known:
            rows = [[look.ranked, look.label] for look in looks]
            write_text(self.shared.file(self.dataset, self.batches[n]), json.dumps(rows))
        self._known[n] = looks

    def _next(self, n: int) -> list[Look]:
        """Look at the next batch of the loader; whatever others know, it has to be taken out."""
        indices = self.batches[n]
        try:
            batch = next(self._loader)
            return self.known(n) or _looks(self.task, indices, batch)
        except Exception:  # one clip of them, or all together are too much
            return [_look_alone(self.task, self.dataset, index) for index in indices]

    def _other(self, n: int) -> list[Look]:
        """Look at a batch of another process."""
        indices = self.batches[n]
        try:
            return _looks(self.task, indices, collate([self.dataset[i] for i in indices]))
        except Exception:
            return [_look_alone(self.task, self.dataset, index) for index in indices]


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
    return Look(index, ranked[:2], model.name(label) if label >= 0 else None)
