"""Schedules and optimisers of a run that goes on: a checkpoint says how far they are, no more.

PyTorch saves their settings among their state, and would take `T_max`, `gamma`, weight decay and
the like from the file. They are this run's: the user's, or follow from the length of the training.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

_TORCH = "torch.optim.lr_scheduler"
# How far a schedule of torch is.
_PROGRESS = frozenset({
    "last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial",
    "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i",
})  # fmt: skip
_PARTS = "_schedulers"  # of a schedule that is made of others
_CYCLED = ("momentum", "betas")


@runtime_checkable
class _Closed(Protocol):
    """A schedule whose rates follow from the step alone, though it computes each from the last."""

    last_epoch: int
    _last_lr: list[float]
    optimizer: Optimizer

    def _get_closed_form_lr(self) -> list[float]: ...


def keep_schedule(given: MutableMapping[str, Any], schedule: Any) -> bool:
    """Put a schedule's own settings in the place of those in a state that it is to take over.

    Of a class that is not torch's, the settings are what its constructor takes.

    Args:
        given: the state; gets the settings.
        schedule: as this run has built it.

    Returns:
        Whether any was another.
    """
    own = schedule.state_dict()
    named = inspect.signature(type(schedule).__init__).parameters
    torchs = type(schedule).__module__ == _TORCH
    changed = False
    for key in own.keys() - _PROGRESS - {_PARTS}:
        if torchs or key in named or key == "base_lrs":
            changed |= key in given and given[key] != own[key]
            given[key] = own[key]
    if torchs:
        for key in given.keys() - own.keys():
            del given[key]
    if _PARTS in own and _PARTS in given:
        for state, part in zip(given[_PARTS], schedule._schedulers, strict=True):
            changed |= keep_schedule(state, part)
    return changed


def follow(schedule: Any) -> None:
    """Give the optimiser the rates that a schedule with other settings has at this step."""
    if isinstance(schedule, _Closed):
        schedule._last_lr = schedule._get_closed_form_lr()
        for group, rate in zip(schedule.optimizer.param_groups, schedule._last_lr, strict=True):
            group["lr"] = rate


Options = Sequence[Mapping[str, Any]]


def options_of(optimizer: Optimizer) -> Options:
    """The settings of each group of weights."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def keep_options(optimizer: Optimizer, own: Options, schedules: Sequence[Any]) -> None:
    """Put back the settings that an optimiser had before it took over a state.

    The learning rate is state where a schedule moves it, as is momentum where one cycles it.

    Args:
        optimizer: after it did.
        own: what `options_of` gave before.
        schedules: of the run.
    """
    moving = [schedule for schedule in schedules if schedule.optimizer is optimizer]
    cycled = any(isinstance(s, CyclicLR | OneCycleLR) and s.cycle_momentum for s in moving)
    state = {"params", *(("lr",) if moving else ()), *(_CYCLED if cycled else ())}
    for group, options in zip(optimizer.param_groups, own, strict=True):
        for key in group.keys() - options.keys() - state:
            del group[key]
        group.update({key: value for key, value in options.items() if key not in state})
