"""Whether two functions do the same, as far as can be told without running them.

A forward is often made anew for each batch, as a lambda or within a function, so that its place in
memory says nothing. Two are the same where their code is and what they hold: numbers and small
tensors by value, functions by their code, all else by being the very same thing.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SMALL = 4096  # numbers of a tensor that is compared by value


def identity(value: Any, within: frozenset[int] = frozenset()) -> Hashable:
    """Equal for two things that do the same.

    Args:
        value: a function, what it holds, or what it is given.
        within: of what it is a part, by place in memory: a function may hold itself.
    """
    if id(value) in within:
        return "itself"
    inner = within | {id(value)}
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return type(value).__name__, value
    if isinstance(value, Tensor) and _listed(value):
        return str(value.dtype), tuple(value.shape), tuple(value.detach().flatten().tolist())
    if isinstance(value, np.ndarray) and value.size <= _SMALL and value.dtype.kind in "biuf":
        return str(value.dtype), value.shape, tuple(value.flatten().tolist())
    if isinstance(value, slice):
        return "slice", identity((value.start, value.stop, value.step), inner)
    if isinstance(value, Mapping):
        return tuple((identity(k, inner), identity(v, inner)) for k, v in value.items())
    if isinstance(value, tuple | list):
        return type(value).__name__, tuple(identity(each, inner) for each in value)
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        held = (cells, value.__defaults__, value.__kwdefaults__)
        return value.__code__, identity(held, inner)
    if isinstance(value, types.MethodType):
        return identity(value.__func__, inner), identity(value.__self__, inner)
    if isinstance(value, partial):
        return identity((value.func, value.args, value.keywords), inner)
    try:
        return _Same(value)
    except TypeError:  # it takes no weak reference: a range, a number of numpy
        return type(value), value if isinstance(value, Hashable) else _Held(value)


def _listed(value: Tensor) -> bool:
    """Whether a tensor's numbers can be listed, and are few."""
    dense = not value.is_nested and value.layout == torch.strided
    return dense and not (value.is_meta or value.is_quantized) and value.numel() <= _SMALL


class _Held:
    """Equal where it is the very same thing; held, lest another come to its place in memory."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.value is other.value


class _Same:
    """Equal where it is the very same thing, and never where that is gone, and holds nothing."""

    def __init__(self, value: object) -> None:
        self.there, self.place = weakref.ref(value), id(value)

    def __hash__(self) -> int:
        return self.place

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or (mine := self.there()) is None:
            return self is other
        return mine is other.there()


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # of a name that is not bound yet
        return False
    return True
