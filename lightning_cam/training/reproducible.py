"""Small callbacks of a training run."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cam.errors import say


class ReseedBatches(Callback):
    """Sets torch's generators for each batch of training from (seed, epoch, batch, rank).

    So dropout of batch 7 is the same whether the run came there in one go or was resumed, from the
    end of an epoch or from within one, and no generator's state has to be saved. They are set twice
    for a batch, before it is fetched and before its step, so that dropout is the same however many
    workers fetch.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fetch(trainer, pl_module)  # a run resumed within an epoch has no epoch start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set(trainer, pl_module, 0, 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._set(trainer, pl_module, batch_idx, 1)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._fetch(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fetch(trainer, pl_module)

    def _fetch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        self._set(trainer, pl_module, batches.processed, 0)  # type: ignore[attr-defined]

    def _set(self, trainer: Trainer, pl_module: LightningModule, batch: int, stage: int) -> None:
        words = (self.seed, trainer.current_epoch, batch, trainer.global_rank, stage)
        seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        if pl_module.device.type == "cpu":  # the next line takes 100 times longer where no GPU is
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)


class EpochLines(Callback):
    """One line an epoch, where there is no terminal for a progress bar."""

    def __init__(self) -> None:
        self.began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()  # a run resumed within an epoch has no epoch start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = trainer.callback_metrics  # of all ranks, which meet here
        if not trainer.is_global_zero:
            return
        shown = (
            "train/loss", "train/acc", "val/loss", "val/acc", "val/map",
            "val/depth/abs_rel", "val/pose/ate",
        )  # fmt: skip
        numbers = "  ".join(f"{key} {float(values[key]):.3f}" for key in shown if key in values)
        seconds = time.perf_counter() - self.began
        epochs = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else "?"
        epoch = trainer.current_epoch  # as files call it
        say(f"epoch_{epoch:03d} ({epoch + 1} of {epochs})  {numbers}  {seconds:.1f} s")
