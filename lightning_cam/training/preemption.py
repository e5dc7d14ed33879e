"""A training ends where it can go on: between two batches or clips, on all ranks at the same one.

Lightning saves within the handler of a signal, in the middle of whatever a rank is doing: one rank
then waits for the others to save, and they for its gradient.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lightning_cam.attribution.fields import Count, Positive, check_fields
from lightning_cam.stops import TerminatedError
from lightning_cam.training.meeting import several, speaks_gloo
from lightning_cam.training.saving import LastCheckpoint

_MANY = 2**31  # more batches than any loader has


class PreemptedError(TerminatedError):
    """A training has ended because it was asked to.

    Attributes:
        epoch: in which it was, from 1; 0 before its first batch.
        step: optimiser steps that are done.
        saved: whether it goes on from there.
    """

    def __init__(self, epoch: int, step: int, saved: bool) -> None:
        super().__init__(epoch, step, saved)
        self.epoch, self.step, self.saved = epoch, step, saved

    def __str__(self) -> str:
        if not self.epoch:
            return "before training"
        return f"in epoch {self.epoch}, step {self.step}: {'saved' if self.saved else 'not saved'}"


@dataclass(frozen=True)
class Within:
    """When checkpoints are saved within an epoch; None for never.

    Attributes:
        every_minutes: after so many minutes since the last one.
        every_steps: after so many optimiser steps.

    Raises:
        ArgumentError: such numbers make no sense.
    """

    every_minutes: Positive | None = None
    every_steps: Count | None = None

    def __post_init__(self) -> None:
        check_fields(self)


_NEVER = Within()


class Preemption(Callback):
    """Ends a training that is asked to, and saves it in between.

    A signal only leaves a mark (`ask`). All ranks look at the marks of all, by one small reduction
    behind every batch of training, before every one of validation, and before every clip that is
    explained; if there is one, they save `last.ckpt` together and leave by `PreemptedError`.

    Args:
        last: saves.
        within: when to save within an epoch.
    """

    def __init__(self, last: LastCheckpoint, within: Within = _NEVER) -> None:
        self.last, self.within = last, within
        self.asked = False
        self._there = False  # there is a training: its epoch and step are known
        self._new = False  # something has been trained that no checkpoint has
        self._saved_at, self._saved_step = 0.0, 0
        self._common = 0  # batches of validation that every rank has yet to come to
        self._group: Any = None
        self._device = torch.device("cpu")  # where the marks are reduced

    def ask(self) -> None:
        """End the training as soon as it can go on from there."""
        self.asked = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer._signal_connector = _NoHandlers(trainer)
        # Of the network's own group a GPU would have to be waited for, at every batch.
        if several(trainer) and dist.get_backend() != "gloo":
            if speaks_gloo(trainer):
                self._group = dist.new_group(backend="gloo")
            else:
                self._device = trainer.strategy.root_device
        self.look(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._there = trainer.ckpt_path is not None
        self._note_saved(trainer)
        self.look(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._largest(trainer, self.asked)[0]:  # the end of the last epoch was saved
            self._leave(trainer, not self.last.refused)
        self._note_saved(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._there = self._new = True
        asked, due = self._largest(trainer, self.asked, self._is_due(trainer))
        if asked:
            _finish(trainer, *batch)
            self._leave(trainer, self.last.save_within(trainer))
        if due and not trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            self.last.save_within(trainer)
            self._note_saved(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else None
        own = min(sum(trainer.num_val_batches if batches is None else batches), _MANY)
        # Ranks may have different numbers of clips to evaluate.
        self._common = -self._largest(trainer, -int(own))[0]

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._common -= 1
        if self._common >= 0:
            self.look(trainer)

    def look(self, trainer: Trainer) -> None:
        """Save and leave if any rank was asked to. All ranks come here together.

        Raises:
            PreemptedError: one was.
        """
        if trainer.state.fn != "fit" or not self._largest(trainer, self.asked)[0]:
            return
        self._leave(trainer, self.last.save_within(trainer) if self._new else self._there)

    def _is_due(self, trainer: Trainer) -> bool:
        since = (
            (self.within.every_steps, trainer.global_step - self._saved_step),
            (self.within.every_minutes, (time.monotonic() - self._saved_at) / 60),
        )
        return any(limit is not None and passed >= limit for limit, passed in since)

    def _note_saved(self, trainer: Trainer) -> None:
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _leave(self, trainer: Trainer, saved: bool) -> NoReturn:
        epoch = trainer.current_epoch + 1 if self._there else 0
        raise PreemptedError(epoch, trainer.global_step, saved)

    def _largest(self, trainer: Trainer, *own: int) -> list[int]:
        """Of each number the largest of all ranks."""
        if not several(trainer):
            return list(own)
        numbers = torch.tensor(own, dtype=torch.int64, device=self._device)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, self._group)
        return numbers.tolist()


def _finish(trainer: Trainer, *batch: Any) -> None:
    """Do what Lightning does behind a batch when its callbacks are done, and nobody does later.

    That is the hook of the network itself, and the batch's row for the logger.
    """
    call._call_lightning_module_hook(trainer, "on_train_batch_end", *batch)
    trainer._logger_connector.on_batch_end()
    trainer._logger_connector.update_train_step_metrics()


def look_between_clips(trainer: Trainer) -> None:
    """Let a training end here that is asked to; all ranks come here together.

    Raises:
        PreemptedError: it was.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Preemption):
            callback.look(trainer)


class _NoHandlers(_SignalConnector):
    """In place of Lightning's, which save and speak to other ranks within a signal."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False
