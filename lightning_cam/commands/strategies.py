"""By which strategies several processes cannot train here, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_cam.errors import ConfigError
from lightning_cam.training.build import TARGET

_PARTS = ("fsdp", "deepspeed", "modelparallel", "xlafsdp")  # each process has a part of the network
_COPIES = ("ddp_spawn", "ddp_fork", "ddp_notebook")


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
    if name.startswith(_COPIES) or settings.get("start_method", "popen") != "popen":
        raise ConfigError(
            f"{typed} trains in copies of this process, from which it learns neither the best "
            "checkpoint nor that they were stopped; take trainer.strategy=ddp"
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
