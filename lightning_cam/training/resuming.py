"""What a run that goes on believes of its checkpoint.

Lightning takes over whatever a file holds for its loops, optimisers and schedules. Here a state
must have the form of the one it replaces: counts where there are counts, tensors of the shape of
their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from packaging.version import InvalidVersion, Version
from torch import Tensor
from torch.optim import Optimizer

from lightning_cam.errors import CheckpointError, UserError
from lightning_cam.training.run_settings import (
    Options,
    follow,
    keep_options,
    keep_schedule,
    options_of,
)

_OLDEST = "2.0"
# What optimisers of torch keep for every number of a weight.
_OF_WEIGHTS = (
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg",
    "acc_delta", "sum", "exp_inf", "ax", "prev", "step_size",
)  # fmt: skip
_PARTS = "_schedulers"  # of a schedule that is made of others
_RATES = ("base_lrs", "_last_lr")  # of a schedule


class CheckedResume(Callback):
    """Refuses a checkpoint from which this training cannot go on, before its first step.

    Whatever goes wrong between reading the checkpoint and the first step is said to be the
    checkpoint's, in one line.
    """

    def __init__(self) -> None:
        self._schedules: Any = None
        self._options: list[Options] = []  # of this run's optimisers
        self._changed: list[Any] = []  # schedules whose settings in the file are others
        self._begun = False

    def _restoring(self, trainer: Trainer) -> bool:
        return trainer.ckpt_path is not None and not self._begun

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loops = checkpoint.get("loops")
        given = loops.get("fit_loop") if isinstance(loops, Mapping) else None
        if not _counts_like(given, trainer.fit_loop.state_dict()):
            raise CheckpointError("its counts of epochs and steps are not those of a training")
        self._schedules = checkpoint.get("lr_schedulers")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._restoring(trainer):
            return
        own = [config.scheduler for config in trainer.lr_scheduler_configs]
        given = self._schedules
        fits = isinstance(given, Sequence) and len(given) == len(own)
        if not fits or not all(map(_schedule_like, given, own)):
            raise CheckpointError("its learning-rate schedule is of another kind than this run's")
        self._changed = [s for state, s in zip(given, own, strict=True) if keep_schedule(state, s)]
        self._options = [options_of(optimizer) for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restoring(trainer):
            schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
            for optimizer, options in zip(trainer.optimizers, self._options, strict=True):
                check_optimizer(optimizer)
                keep_options(optimizer, options, schedules)
            for schedule in self._changed:
                follow(schedule)
        self._begun = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if not self._restoring(trainer) or not isinstance(exception, Exception):
            return
        said = " ".join(str(exception).split())[:300]
        if isinstance(exception, UserError) and str(trainer.ckpt_path) in said:
            return
        what = said if isinstance(exception, UserError) else f"{type(exception).__name__}: {said}"
        raise CheckpointError(
            f"{trainer.ckpt_path}: this training cannot go on from it: {what}; leave resume out "
            "for a new run"
        ) from exception


def check_start(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without what Lightning would believe before any callback sees it.

    Raises:
        CheckpointError: it is not of a training that can go on.
    """
    try:
        version = Version(checkpoint["pytorch-lightning_version"])
    except (KeyError, TypeError, InvalidVersion) as e:
        raise CheckpointError("it does not say which Lightning wrote it") from e
    if version < Version(_OLDEST):
        raise CheckpointError(f"written by Lightning {version}, older than {_OLDEST}")
    states = checkpoint.get("callbacks")
    states = states if isinstance(states, Mapping) else {}
    # Lightning prints the names of those it does not know.
    named = {
        name: state
        for name, state in states.items()
        if isinstance(name, str) and name.isprintable() and isinstance(state, Mapping)
    }
    return {**checkpoint, "callbacks": named}


def _counts_like(given: Any, own: Mapping[str, Any]) -> bool:
    """Whether the counts of loops have the form of this trainer's.

    Other versions of Lightning may have other loops; of those that both have, the counts agree.
    """
    if not isinstance(given, Mapping) or "epoch_progress" not in given:
        return False
    return all(_count_like(given[key], own[key]) for key in given.keys() & own.keys())


def _count_like(given: Any, own: Any) -> bool:
    if isinstance(own, Mapping):  # an empty one is the user's hooks' to fill
        if not isinstance(given, Mapping) or (own and given.keys() != own.keys()):
            return False
        return all(_count_like(given[key], own[key]) for key in own)
    if isinstance(own, bool):
        return isinstance(given, bool)
    return type(given) is int and given >= 0


def _schedule_like(given: Any, own: Any) -> bool:
    """Whether the state of a schedule hides none of its methods and has its kinds of values."""
    if not isinstance(given, Mapping):
        return False
    now = own.state_dict()
    fixed = {*dir(type(own)), "optimizer"} - now.keys()
    rates = [n for key in _RATES if isinstance(given.get(key), list) for n in given[key]]
    finite = all(math.isfinite(n) for n in rates if isinstance(n, int | float))
    fits = all(_alike(given[k], now[k]) for k in given if k in now)
    if not finite or not fits or fixed & set(given):
        return False
    if _PARTS not in now:
        return True
    return _PARTS in given and all(map(_schedule_like, given[_PARTS], own._schedulers))


def _alike(given: Any, own: Any) -> bool:
    if isinstance(own, bool) or own is None:
        return own is None or isinstance(given, bool)
    if isinstance(own, int | float | Tensor):
        return isinstance(given, int | float) or (isinstance(given, Tensor) and given.numel() == 1)
    if isinstance(own, list | tuple):
        same = isinstance(given, list | tuple) and len(given) == len(own)
        return same and all(map(_alike, given, own))
    return isinstance(given, Mapping) if isinstance(own, Mapping) else type(given) is type(own)


def check_optimizer(optimizer: Optimizer) -> None:
    """Whether what an optimiser has taken over belongs to its weights.

    Raises:
        CheckpointError: it does not.
    """
    for weight, state in optimizer.state.items():
        for name in _OF_WEIGHTS:
            value = state.get(name)
            if value is not None and not (
                isinstance(value, Tensor) and value.shape == weight.shape
            ):
                raise CheckpointError(f"its optimizer's {name!r} is of weights of another shape")
        if not _is_count(state.get("step", 0)):
            raise CheckpointError("its optimizer's 'step' is not a number of steps")
    for group in optimizer.param_groups:
        for name, own in optimizer.defaults.items():
            value = group.get(name)
            numbers = value if isinstance(value, list | tuple) else [value]
            finite = all(math.isfinite(n) for n in numbers if isinstance(n, int | float))
            if not finite or not (value is None or own is None or _alike(value, own)):
                raise CheckpointError(f"its optimizer's {name!r} is {str(value)[:40]!r}")


def _is_count(value: Any) -> bool:
    if isinstance(value, Tensor):
        return (
            value.numel() == 1 and not value.is_complex() and bool(value.isfinite() & (value >= 0))
        )
    return type(value) in (int, float) and 0 <= value < math.inf
