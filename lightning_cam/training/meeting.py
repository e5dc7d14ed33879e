"""Where ranks wait for each other's work, however long it takes."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

PATIENCE = timedelta(days=1)  # with each other, from one meeting to the next
_TO_CONNECT = timedelta(minutes=1)


class Meeting:
    """All ranks come together here before they speak to each other.

    A collective gives up on a rank that is later than the time-out of its process group, half an
    hour, or as short as somebody has set it to find a rank that hangs. Work of which one rank may
    have much more than another is waited for here first.

    This is a process group of its own, over gloo: who waits does not keep a GPU busy, and hears at
    once that the process of another rank has ended.
    """

    def __init__(self) -> None:
        self._trainer: pl.Trainer | None = None
        self._group: Any = None

    def join(self, trainer: pl.Trainer) -> None:
        """Make the group, where there are several ranks. All come here together."""
        self._trainer, self._group = trainer, None
        if several(trainer) and speaks_gloo(trainer):
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def patient(self) -> bool:
        """Whether the ranks have a group of their own here."""
        return self._group is not None

    def wait(self) -> None:
        """Wait until all ranks are here; a process alone goes on.

        Raises:
            RuntimeError: the process of another rank has ended.
        """
        if self._group is not None:
            dist.all_reduce(torch.zeros(1), group=self._group)
        elif self._trainer is not None:
            self._trainer.strategy.barrier()  # no longer than its collectives wait

    def share(self, own: Any) -> list[Any]:
        """What each rank brings along, by rank; where the ranks are not `patient`, one's own."""
        if self._group is None:
            return [own]
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, own, group=self._group)
        return parts


def several(trainer: pl.Trainer) -> bool:
    """Whether the trainer has other ranks to speak to."""
    return trainer.world_size > 1 and dist.is_available() and dist.is_initialized()


def speaks_gloo(trainer: pl.Trainer) -> bool:
    """Whether several ranks reach each other over gloo; all come here together, and all know.

    NCCL finds its own way between machines. Gloo takes the address that the machine's name has,
    which may be one that only the machine itself can reach.
    """
    if dist.get_backend() == "gloo":
        return True
    trainer.strategy.barrier()  # being late is no sign of being out of reach
    try:
        group: Any = dist.new_group(backend="gloo", timeout=_TO_CONNECT)
        dist.all_reduce(torch.zeros(1), group=group)
        said = ""
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
    reached = trainer.strategy.reduce_boolean_decision(not said)
    if said:
        warnings.warn(
            f"the processes do not reach each other over gloo ({said}), so they wait for each "
            "other's explanations only as long as a collective does; name the network between the "
            "machines: GLOO_SOCKET_IFNAME=eth0, as with NCCL_SOCKET_IFNAME",
            stacklevel=2,
        )
    return reached
