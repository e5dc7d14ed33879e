"""Memory that is used again.

Memory for the pixels of a batch comes from the system anew each time, page by page, and goes back
at once, which takes longer than to compute them. Here it is used for the next batch as soon as
nobody holds a tensor of it any more.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

_LEAST = 2**17  # bytes: what is smaller the allocator keeps itself
_MOST = 2**27  # bytes that wait to be used again
_MOST_IN_WORKER = 2**25  # of each of many loader processes

_free: deque[NDArray[np.uint8]] = deque()


def empty(shape: Sequence[int], dtype: DTypeLike) -> Tensor:
    """A tensor on the CPU, of any content.

    Of NumPy's memory, which comes in larger pages than torch's where the system has any.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LEAST:
        return torch.from_numpy(np.empty(shape, dtype))
    memory = _found(size)
    array = memory[:size].view(dtype).reshape(shape)
    # The storage of a tensor holds `array`; what shares that storage holds it as well.
    weakref.finalize(array, _take_back, memory).atexit = False
    return torch.from_numpy(array)


def _found(size: int) -> NDArray[np.uint8]:
    """Memory of a size, used before or new."""
    for _ in range(len(_free)):
        try:
            memory = _free.popleft()
        except IndexError:  # another thread was faster
            break
        if size <= memory.nbytes <= 2 * size:
            return memory
        _free.append(memory)
    return np.empty(size, np.uint8)


def _take_back(memory: NDArray[np.uint8]) -> None:
    most = _MOST if get_worker_info() is None else _MOST_IN_WORKER
    if memory.nbytes <= most:
        _free.append(memory)
    while sum(kept.nbytes for kept in tuple(_free)) > most:
        _free.popleft()
