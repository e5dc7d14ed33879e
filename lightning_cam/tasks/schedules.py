"""Learning-rate schedules that know how long the training is."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from lightning_cam.errors import ConfigError

# What PyTorch's schedules call their length, the first that fits.
_LENGTH_NAMES = ("total_steps", "T_max", "total_iters")


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    pct_start: float = 0.15,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> LRScheduler:
    """Smith's one-cycle schedule with each parameter group's own lr as its maximum.

    The lr follows half a cosine up and half a cosine down, as in PyTorch's `OneCycleLR`. It differs
    in three ways: groups keep their ratio (a pretrained trunk its smaller lr), momentum stays as it
    is, and a run resumed with another length follows the new length instead of stopping.

    Args:
        optimizer: its lr is the maximum.
        total_steps: length in optimiser steps; beyond it the lr stays at its end.
        pct_start: share of the steps in which the lr rises.
        div_factor: maximum / initial lr.
        final_div_factor: initial / final lr.
    """
    low, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    top = pct_start * total_steps - 1  # the step with the maximal lr, as PyTorch counts
    end = total_steps - 1

    def between(start: float, stop: float, share: float) -> float:
        return stop + (start - stop) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))

    def factor(step: int) -> float:
        if step <= top:
            return between(low, 1.0, step / top if top > 0 else 1.0)
        return between(1.0, last, (step - top) / (end - top) if end > top else 1.0)

    return LambdaLR(optimizer, factor)


def drop(
    optimizer: Optimizer, total_steps: int, at: float = 0.75, factor: float = 0.1
) -> LRScheduler:
    """The lr as it is, and `factor` of it after a share `at` of the training."""
    return LambdaLR(optimizer, lambda step: 1.0 if step < at * total_steps else factor)


def build_schedule(
    schedule: Callable[..., LRScheduler], optimizer: Optimizer, total_steps: float
) -> LRScheduler:
    """Calls a partial schedule, handing it the number of steps under the name it has for it.

    Raises:
        ConfigError: the schedule needs a length and the training has none, or it would level the
            lr of groups that differ.
    """
    names = inspect.signature(schedule).parameters
    bound: dict[str, Any] = schedule.keywords if isinstance(schedule, partial) else {}
    length = next((name for name in _LENGTH_NAMES if name in names), None)
    if length is None or length in bound:
        built = schedule(optimizer)
    elif math.isinf(total_steps):
        raise ConfigError(
            f"the schedule needs a length ({length}) but the training has no end; set "
            f"trainer.max_epochs, trainer.max_steps or the schedule's {length}"
        )
    else:
        built = schedule(optimizer, **{length: int(total_steps)})
    groups = optimizer.param_groups
    # OneCycleLR overwrites every group's lr with its own maximum.
    if isinstance(built, OneCycleLR) and len(groups) > len({g["max_lr"] for g in groups}):
        raise ConfigError(
            "OneCycleLR with one max_lr undoes trunk_lr_factor; use "
            "lightning_cam.tasks.schedules.one_cycle"
        )
    return built


def scheduled(
    task: L.LightningModule,
    optimizer: Optimizer,
    schedule: Callable[..., LRScheduler] | None,
) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns: the optimiser, its lr stepped after every batch.

    Raises:
        ConfigError: see `build_schedule`.
    """
    if schedule is None:
        return optimizer
    built = build_schedule(schedule, optimizer, task.trainer.estimated_stepping_batches)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": built, "interval": "step"}}


def trainable(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters to train.

    Raises:
        ConfigError: there are none.
    """
    found = [p for p in parameters if p.requires_grad]
    if not found:
        raise ConfigError("no parameter of the network requires gradients: nothing to train")
    return found
