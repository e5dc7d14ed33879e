"""The tally of clips that a training run could not read."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from lightning_cam.interfaces import Batch
from lightning_cam.training.meeting import several


class SkippedClips(Callback):
    """Counts clips that could not be read, names each once, and lists them at the end.

    Reads the "error" list of the batches; the data set has put something harmless in their place.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}  # what went wrong, naming the file -> how often

    def _collect(self, trainer: pl.Trainer, batch: Any) -> None:
        if trainer.sanity_checking:
            return
        for error in filter(None, batch_as_mapping(batch).get("error", ())):
            if error not in self.counts:
                warnings.warn(f"skipped: {error}", stacklevel=2)
            self.counts[error] = self.counts.get(error, 0) + 1

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *args: Any) -> None:
        self._collect(trainer, batch)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, *args: Any
    ) -> None:
        self._collect(trainer, batch)

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *args: Any) -> None:
        self._collect(trainer, batch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        counts: Counter[str] = Counter()
        for of_rank in gather(trainer, [self.counts]):
            counts.update(of_rank)
        self.counts = dict(counts)


def batch_as_mapping(batch: Any) -> Batch:
    """A batch by its keys; a tuple begins with the clips and their labels."""
    if not isinstance(batch, Mapping):
        batch = zip(("video", "label"), batch, strict=False)
    return cast(Batch, dict(batch))


def gather(trainer: pl.Trainer, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of all ranks, on every rank."""
    if not several(trainer):
        return records
    parts: list[Any] = [None] * trainer.world_size
    if dist.get_backend() == "nccl":
        torch.cuda.set_device(trainer.strategy.root_device)
    dist.all_gather_object(parts, records)
    return [record for part in parts for record in part]
