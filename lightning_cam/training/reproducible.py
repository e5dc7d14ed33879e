"""Small callbacks of a training run."""

from __future__ import annotations

import time

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cam.errors import say


class ReseedEpochs(Callback):
    """Sets torch's generators at each training epoch from (seed, epoch, rank).

    So dropout in epoch 7 is the same whether the run came there in one go or was resumed: a run
    resumed from an epoch boundary ends bit for bit like an uninterrupted one, and no generator
    state has to be saved.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        words = (self.seed, trainer.current_epoch, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))


class EpochLines(Callback):
    """One line an epoch, where there is no terminal for a progress bar."""

    def __init__(self) -> None:
        self.began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()  # a run resumed within an epoch has no epoch start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        shown = (
            "train/loss", "train/acc", "val/loss", "val/acc", "val/map",
            "val/depth/abs_rel", "val/pose/ate",
        )  # fmt: skip
        numbers = "  ".join(f"{key} {float(values[key]):.3f}" for key in shown if key in values)
        seconds = time.perf_counter() - self.began
        epochs = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else "?"
        say(f"epoch {trainer.current_epoch + 1}/{epochs}  {numbers}  {seconds:.1f} s")
