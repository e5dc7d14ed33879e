"""One command's work, shared by the processes that srun or torchrun has started for it.

The rule, of clips that are explained and of cells of a study: the n-th of N processes takes every
N-th piece of all the work, not of what is left. So they agree without a word, whenever each starts
and whichever of them dies; nobody waits for another. What each has finished stands in its journal,
and the last to finish, which finds that nothing is left, writes what is of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lightning_cam.training.ranks import processes

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Share:
    """What of a command's work is this process's: all of it, where there is no other.

    Attributes:
        rank: of this process, from 0 on.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def of_command(cls) -> Share:
        """That of this process.

        Raises:
            ConfigError: the environment contradicts itself.
        """
        return cls(*processes())

    @property
    def alone(self) -> bool:
        return self.count == 1

    def of(self, work: Sequence[Piece]) -> Sequence[Piece]:
        """The pieces that are this process's."""
        return work[self.rank :: self.count]

    def __str__(self) -> str:
        """What begins a line about it: "process 2 of 4: ", or nothing where there is no other."""
        return "" if self.alone else f"process {self.rank + 1} of {self.count}: "


ALONE = Share()
