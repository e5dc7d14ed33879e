"""Where ranks wait for each other's work, however long it takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

PATIENCE = timedelta(days=1)  # with each other, from one meeting to the next


class Meeting:
    """All ranks come together here before they speak to each other.

    A collective gives up on a rank that is later than the time-out of its process group, half an
    hour, or as short as somebody has set it to find a rank that hangs. Work of which one rank may
    have much more than another is waited for here first.

    This is a process group of its own, over gloo: who waits does not keep a GPU busy, and hears at
    once that the process of another rank has ended.
    """

    def __init__(self) -> None:
        self._group: Any = None

    def join(self, trainer: pl.Trainer) -> None:
        """Make the group, where there are several ranks. All come here together."""
        self._group = None
        if several(trainer):
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    def wait(self) -> None:
        """Wait until all ranks are here; a process alone goes on.

        Raises:
            RuntimeError: the process of another rank has ended.
        """
        if self._group is not None:
            dist.all_reduce(torch.zeros(1), group=self._group)


def several(trainer: pl.Trainer) -> bool:
    """Whether the trainer has other ranks to speak to."""
    return trainer.world_size > 1 and dist.is_available() and dist.is_initialized()
