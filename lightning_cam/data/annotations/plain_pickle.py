"""Pickles that hold plain containers and arrays of numbers: nothing in them can run.

A pickle is a program. This reader knows the names in `_KNOWN` and has a few lines of its own for
each: NumPy is never called with what a file says, and all else is refused before it is imported.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.pickles import follow

_NUMBERS = re.compile(r"[biuf][1248]")


def load_plain_pickle(path: Path) -> Any:
    """The content of a pickle: None, numbers, text, bytes, lists, tuples, dicts, arrays.

    Arrays are `PickledArray`. Text of Python 2 is read as Latin-1.

    Raises:
        ValueError: it is not a pickle, or holds anything else; says why in one line.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            for _ in follow(cast(IO[bytes], data)):
                pass  # it raises for what Python would not survive
            return _Unpickler(file, encoding="latin1").load()
    except Exception as error:  # damaged pickles raise of many kinds
        said = " ".join(str(error).split())[:200]
        raise ValueError(said or type(error).__name__) from error


class PickledArray:
    """An array of numbers, as a pickle holds it."""

    def __init__(self, *_: Any) -> None:
        self.numbers: Array = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_column, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, (bytes, str)):
            raise ValueError("an array of Python objects, which are not read")
        raw = data.encode("latin1") if isinstance(data, str) else data
        self.numbers = _array(raw, dtype, shape, bool(by_column))


class _DType:
    """What kind of numbers an array has."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise ValueError(f"an array of {code!r}, which are no numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"numbers in the order {state[1]!r}")
        self.order = state[1]


def _array(data: bytes, dtype: _DType, shape: Any, by_column: bool) -> Array:
    """An array, if the file has as many bytes as it says."""
    whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    numbers = np.dtype(dtype.order + dtype.code)
    if not whole or len(shape) > 8 or math.prod(shape) * numbers.itemsize != len(data):
        raise ValueError(f"an array {shape} of {dtype.code} has {len(data)} bytes")
    return np.frombuffer(data, numbers).reshape(shape, order="F" if by_column else "C")


def _scalar(dtype: _DType, data: bytes | str) -> int | float:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return _array(raw, dtype, (), False).item()


def _from_buffer(data: bytes, dtype: _DType, shape: Any, order: str) -> PickledArray:
    made = PickledArray()
    made.numbers = _array(bytes(data), dtype, shape, order == "F")
    return made


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes, as protocols before 3 write them."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """As protocols before 3 write those of an empty array."""
    return b""


_KNOWN = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", PickledArray),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise ValueError(f"it asks for {module}.{name}, which is not read")
        return _KNOWN[module, name]
