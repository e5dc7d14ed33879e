"""What a checkpoint holds of an epoch that is not over, besides what Lightning and loaders write.

Lightning saves neither the metrics of the epoch so far nor the gradients between two optimiser
steps, and takes a validation that was stopped for one that is over.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_cam.errors import CheckpointError
from lightning_cam.training.epoch_metrics import (
    add_logged,
    checked_logged,
    kept,
    log_again,
    logged_of,
    set_metrics,
    state_of,
    used_metrics,
)
from lightning_cam.training.skipped_clips import gather

KEY = "epoch_so_far"


class MidEpoch(Callback):
    """Lets a training go on within an epoch as if it had never stopped.

    - The metrics of the epoch so far are saved, and the gradients of an optimiser step that several
      batches make; each of every rank.
    - A validation that is due or going on is done again, whole, where Lightning would leave it out.
      So is the end of an epoch whose batches are all done. This holds where all steps are done.
    - With another number of processes, which share its clips otherwise, the epoch begins again, and
      this is said. Where its batches are all done only its metrics of training are lost.
    """

    def __init__(self) -> None:
        self._validated = (-1, -1)  # the epoch and the batch after which validation ended
        self._of_training: set[str] = set()  # metrics that training had updated before validation
        self._given: dict[str, Any] | None = None  # by a checkpoint, to be taken up
        self._logged: dict[str, Any] = {}  # what was logged: Lightning has no place for it yet
        self._to_validate: int | None = None  # steps behind which validation is still to come
        self._lent = 0  # steps, without which Lightning would not begin: all are done

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not _within_epoch(trainer):
            return
        self._open_validation(trainer, checkpoint["loops"]["fit_loop"])
        self._take_up_logged(trainer)
        used = dict(used_metrics(pl_module))
        if trainer.validating and trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready:
            used = {name: used[name] for name in self._of_training if name in used}
        own = {
            "metrics": {name: state_of(metric) for name, metric in used.items()},
            "logged": {**self._logged, **logged_of(trainer)},
            "gradients": _gradients_of(trainer, pl_module),
        }
        checkpoint[KEY] = gather(trainer, [own])

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        ranks = checkpoint.get(KEY, [])
        if not isinstance(ranks, list):
            raise CheckpointError("what it holds of its epoch is none")
        counts = checkpoint["loops"]["fit_loop"]
        validation = counts["epoch_loop.val_loop.batch_progress"]["current"]
        if validation["ready"] > validation["processed"]:
            self._to_validate = checkpoint["global_step"]
        if not ranks or len(ranks) == trainer.world_size:
            self._given = ranks[trainer.global_rank] if ranks else None
            return
        epoch = counts["epoch_progress"]["current"]["processed"] + 1
        batches = counts["epoch_loop.batch_progress"]
        in_step = batches["current"]["ready"] > batches["current"]["processed"]
        if batches["is_last_batch"] and not in_step:
            what = "its metrics of training are lost, and its batches are all done"
        else:
            _begin_again(counts)
            what = "the epoch begins again, and some of its clips are trained on twice"
        if trainer.is_global_zero:
            warnings.warn(
                f"{trainer.ckpt_path} was saved within epoch {epoch} with a world size of "
                f"{len(ranks)}, which is {trainer.world_size} now: {what}; to go on with it as it "
                f"was, take a world size of {len(ranks)}",
                stacklevel=2,
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.max_steps == self._to_validate and trainer.enable_validation:
            self._lend(trainer, 1)

    def _lend(self, trainer: Trainer, steps: int) -> None:
        trainer.fit_loop.epoch_loop.max_steps += steps
        self._lent += steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.fit_loop._load_combined_loader_states()  # the loader would, at its first batch
        if self._given is None:
            return
        try:
            set_metrics(pl_module, self._given["metrics"])
            _set_gradients(pl_module, self._given["gradients"])
            self._logged = checked_logged(pl_module, self._given["logged"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise CheckpointError(
                f"what it holds of its epoch is of another network ({said})"
            ) from error
        self._given = None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._take_up_logged(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._of_training = {name for name, _ in used_metrics(pl_module)}
        if not trainer.sanity_checking:
            self._lend(trainer, -self._lent)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._validated = trainer.current_epoch, _done(trainer)
            # There are metrics again, on which a learning rate may depend.
            trainer.fit_loop._restarting = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_up_logged(trainer)
        for key, held in self._logged.items():  # which nothing after the stop has logged
            log_again(trainer, pl_module, key, held)
        self._logged = {}

    def _take_up_logged(self, trainer: Trainer) -> None:
        """Add what was logged before to what is logged now, where there is any of it."""
        for key in self._logged.keys() & trainer.fit_loop.epoch_loop._results.keys():
            add_logged(trainer, key, self._logged.pop(key))

    def _open_validation(self, trainer: Trainer, counts: dict[str, Any]) -> None:
        """Change counts so that Lightning does what is still to be done after the newest batch."""
        loop = trainer.fit_loop.epoch_loop
        batches = counts["epoch_loop.batch_progress"]
        validation = counts["epoch_loop.val_loop.batch_progress"]
        done, ready = batches["current"]["processed"], batches["current"]["ready"]
        if ready > done:  # in the middle of a step, which is done again
            return
        due = _validation_follows(trainer)
        if due and self._validated != (trainer.current_epoch, done):
            for part in ("total", "current"):
                _all_completed(batches[part])
                # Lightning takes up a validation that it believes to be at its first batch.
                validation[part] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            validation["is_last_batch"] = False
            return
        for part in ("total", "current"):
            _all_completed(validation[part])
        last = loop._num_ready_batches_reached()
        if last and not due and batches["current"]["completed"] < done:
            for part in ("total", "current"):
                _all_completed(batches[part])
            if not loop._should_accumulate():
                counts["epoch_loop.state_dict"]["_batches_that_stepped"] += 1


def _done(trainer: Trainer) -> int:
    """How many batches of the epoch are done."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current
    return batches.processed  # type: ignore[attr-defined]


def _within_epoch(trainer: Trainer) -> bool:
    """Whether some of the epoch's batches are done, and its end has not come."""
    epochs = trainer.fit_loop.epoch_progress.current
    going_on: bool = epochs.started > epochs.processed  # type: ignore[attr-defined]
    fits = trainer.state.fn == "fit" and not trainer.sanity_checking
    return fits and going_on and _done(trainer) > 0


def _validation_follows(trainer: Trainer) -> bool:
    """Whether the newest batch is one behind which a training that goes on validates."""
    fetcher, stops = trainer.fit_loop._data_fetcher, trainer.should_stop
    trainer.should_stop = False  # for which Lightning validates once more
    try:
        return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
    finally:
        trainer.should_stop = stops


def _begin_again(counts: dict[str, Any]) -> None:
    """Change counts so that an epoch that was going on begins again."""
    counts["state_dict"] = {}  # of the loaders
    for name, progress in counts.items():
        if name.startswith("epoch_loop.") and "current" in progress:
            progress["current"] = dict.fromkeys(progress["current"], 0)
    batches, epochs = counts["epoch_loop.batch_progress"], counts["epoch_progress"]
    batches["is_last_batch"] = False
    _all_completed(batches["total"])
    for part in ("total", "current"):
        _all_completed(epochs[part])


def _all_completed(counts: dict[str, int]) -> None:
    counts.update(dict.fromkeys(("ready", "started", "completed"), counts["processed"]))


def _gradients_of(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Gradients to which the next batch adds its own; none where an optimiser step is done."""
    in_step = trainer.fit_loop.epoch_loop.batch_progress.current.ready > _done(trainer)
    if in_step or not trainer.fit_loop._should_accumulate():
        return {}
    return {name: kept(p.grad) for name, p in module.named_parameters() if p.grad is not None}


def _set_gradients(module: nn.Module, given: Mapping[str, Tensor]) -> None:
    weights = dict(module.named_parameters())
    for name, gradient in given.items():
        weights[name].grad = gradient.to(weights[name])  # raises where the shape is another
