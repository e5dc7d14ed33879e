"""How batches get from loader processes to their parent.

A DataLoader takes new shared memory for every tensor of every batch, which the system has to make
and both processes to map. Here the pixels of a batch lie in shared memory that a loader process
uses again when the parent has let go of them, and what is small is sent along.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SLOTS = 8  # of a loader process: more batches than it fetches ahead and a trainer holds
_SMALL = 2**14  # bytes of a tensor that is sent along


@dataclass
class Shipped:
    """A batch on its way from a loader process.

    Attributes:
        rest: all but the pixels; small tensors as arrays.
        memory: (n + 1,) or longer, uint8, shared by both processes: the pixels, and at its end 1 as
            long as they are in use.
        shape: of the pixels, which are uint8.
    """

    rest: dict[str, Any]
    memory: Tensor
    shape: tuple[int, ...]

    def batch(self) -> dict[str, Any]:
        """The batch, once: when nobody holds its pixels any more, others take their place."""
        array = self.memory.numpy()[: math.prod(self.shape)].reshape(self.shape)
        weakref.finalize(array, self._give_back).atexit = False
        return {"video": torch.from_numpy(array), **_as_tensors(self.rest)}

    def pin_memory(self) -> dict[str, Any]:
        """The batch in pinned memory, as a DataLoader asks for it that is to pin its batches."""
        pixels = self.memory[: math.prod(self.shape)].view(self.shape)
        batch = {"video": pixels, **_as_tensors(self.rest)}
        pinned = {k: v.pin_memory() if isinstance(v, Tensor) else v for k, v in batch.items()}
        self._give_back()
        return pinned

    def _give_back(self) -> None:
        self.memory[-1] = 0


@dataclass
class Slots:
    """The shared memory of a loader process."""

    _all: list[Tensor] = field(default_factory=list)

    def ship(self, pixels: Sequence[Tensor], rest: Mapping[str, Any]) -> Shipped | None:
        """Stack the pixels of a batch where the parent can read them.

        Args:
            pixels: of each sample, uint8 of one shape.
            rest: the batch without them.

        Returns:
            what the parent gets; None where too much is in use: it keeps its batches.
        """
        shape = (len(pixels), *pixels[0].shape)
        size = math.prod(shape)
        slot = next((s for s in self._all if len(s) > size and not s[-1]), None)
        if slot is None:
            if len(self._all) == _SLOTS:
                return None
            slot = torch.empty(size + 1, dtype=torch.uint8).share_memory_()
            self._all.append(slot)
        torch.stack([*pixels], out=slot[:size].view(shape))
        slot[-1] = 1
        return Shipped(_as_arrays(rest), slot, shape)


def _as_arrays(rest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.numpy() if isinstance(value, Tensor) and value.nbytes <= _SMALL else value
        for key, value in rest.items()
    }


def _as_tensors(rest: Mapping[str, Any]) -> dict[str, Any]:
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in rest.items()}
