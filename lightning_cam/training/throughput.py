"""How fast a training is, and whether it waits for its data."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cam.training.skipped_clips import batch_as_mapping


class Throughput(Callback):
    """Logs of each epoch, by the clock of the first process:

    - `speed/clips_per_s`: clips of all processes that were trained on in a second,
    - `speed/data_wait`: the share of the time that passed before a batch was there,
    - `speed/gpu_gb`: the most memory of its GPU that was in use, in 10^9 bytes.
    """

    def __init__(self) -> None:
        self._begin(0.0)

    def _begin(self, now: float) -> None:
        self.began = self.ready = now
        self.waited, self.clips = 0.0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(time.perf_counter())
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if not self.began:  # a run that goes on within an epoch has no epoch start
            self._begin(now)
        self.waited += now - self.ready
        self.clips += len(batch_as_mapping(batch)["video"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.ready = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = self.ready - self.began  # of training alone: validation comes before this
        if seconds <= 0:
            return
        found = {
            "speed/clips_per_s": self.clips * trainer.world_size / seconds,
            "speed/data_wait": self.waited / seconds,
        }
        if pl_module.device.type == "cuda":
            found["speed/gpu_gb"] = torch.cuda.max_memory_allocated(pl_module.device) / 1e9
        pl_module.log_dict(found, rank_zero_only=True)
        self.began = 0.0
