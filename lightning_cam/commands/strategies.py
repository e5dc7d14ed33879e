"""By which strategies several processes cannot train here, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_cam.errors import ConfigError
from lightning_cam.training.build import TARGET

_PARTS = ("fsdp", "deepspeed", "modelparallel", "xlafsdp")  # each process has a part of the network
_COPIES = re.compile(r"^ddp_(spawn|fork|notebook)")


def started_anew(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's settings with processes that are started, where copies of this one are asked.

    Copies (`ddp_spawn`, `ddp_fork`, `ddp_notebook`) are for notebooks, which cannot be started a
    second time. A command can: its training is the same, and this process, the first of them,
    knows afterwards which checkpoint is best, and hears of a signal.
    """
    strategy = trainer.get("strategy")
    if isinstance(strategy, Mapping) and "start_method" in strategy:
        return {**trainer, "strategy": {**strategy, "start_method": "popen"}}
    if isinstance(strategy, str):
        return {**trainer, "strategy": _COPIES.sub("ddp", strategy)}
    return dict(trainer)


def starts_others(trainer: Mapping[str, Any]) -> bool:
    """Whether Lightning starts other processes, of a command that no launcher has started."""
    several = trainer.get("num_nodes", 1) != 1 or _devices(trainer) > 1
    return trainer.get("strategy", "auto") != "auto" or several


def _devices(trainer: Mapping[str, Any]) -> int:
    """How many of a machine a trainer takes; of what makes no sense, which it refuses, 1."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, str) and "," in devices:
        devices = [one for one in devices.split(",") if one.strip()]
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        return 1 if _on_cpu(trainer.get("accelerator")) else torch.cuda.device_count()
    return int(devices) if str(devices).isdecimal() else 1


def check_strategy(trainer: Mapping[str, Any]) -> None:
    """Before there is a folder.

    Args:
        trainer: its settings.

    Raises:
        ConfigError: the strategy is one that trains, saves or explains wrongly.
    """
    strategy = trainer.get("strategy", "auto")
    settings = strategy if isinstance(strategy, Mapping) else {}
    name = str(settings.get(TARGET, strategy)).rpartition(".")[2]
    typed = f"trainer.strategy={name}"
    if name.lower().startswith(_PARTS):
        raise ConfigError(
            f"{typed} puts a part of the network into each process, and checkpoints, and maps of "
            "the clips that each process explains, need the whole; take trainer.strategy=ddp"
        )
    if settings.get("static_graph"):
        raise ConfigError(
            f"{typed} with static_graph: processes can end with different weights (Lightning's "
            "issue 20704), and gradients cannot be accumulated; take trainer.strategy=ddp"
        )
    if trainer.get("sync_batchnorm") and _on_cpu(trainer.get("accelerator")):
        raise ConfigError(
            "trainer.sync_batchnorm=true is for GPUs, and this trains on the CPU; take "
            "trainer.sync_batchnorm=false"
        )


def _on_cpu(accelerator: object) -> bool:
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
