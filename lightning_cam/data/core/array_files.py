"""Arrays from files that anybody may have written: a file takes the memory that it has bytes for.

NumPy believes what a file says of itself. A megabyte of `.npz` may unfold to gigabytes, and some
letters in the head of an array ask for any number of them.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import IO

import numpy as np

from lightning_cam.data.core.arrays import Array

MOST_BYTES = 2**27  # of the arrays of a `.npz`, unfolded; bit-packed masks have 8 pixels in each
_MOST_ARRAYS = 1000


def load_array(path: Path) -> Array:
    """The array of a `.npy` file.

    Raises:
        ValueError: it cannot be read, or is not one array of numbers; says why in one line.
    """
    try:
        with _opened(path) as file:
            return _read(file, path.stat().st_size)
    except Exception as error:  # NumPy's parser has its own of many kinds
        raise ValueError(_reason(error)) from error


def load_arrays(
    path: Path, only: Container[str] | None = None, most: int | None = None
) -> dict[str, Array]:
    """The arrays of a `.npz` file by their names.

    Args:
        path: of the file.
        only: names of those that are read; None: all.
        most: bytes to which it may unfold; None: `MOST_BYTES`.

    Raises:
        ValueError: it cannot be read, holds anything but arrays of numbers, or unfolds to more;
            says why in one line.
    """
    most = MOST_BYTES if most is None else most
    try:
        with _opened(path) as whole, zipfile.ZipFile(whole) as archive:
            records = archive.infolist()
            size = sum(record.file_size for record in records)
            if size > most or len(records) > _MOST_ARRAYS:
                raise ValueError(
                    f"it holds {len(records)} arrays of {size >> 20} MiB, more than "
                    f"{_MOST_ARRAYS} or {most >> 20} MiB"
                )
            arrays = {}
            for record in records:
                name = record.filename.removesuffix(".npy")
                if only is None or name in only:
                    with archive.open(record) as file:
                        arrays[name] = _read(file, record.file_size)
    except Exception as error:  # zip, zlib, NumPy and the system all have their own
        raise ValueError(_reason(error)) from error
    return arrays


def _opened(path: Path) -> IO[bytes]:
    if path.exists() and not path.is_file():  # a pipe or a device may have no end
        raise ValueError("it is not a file")
    return path.open("rb")


def _read(file: IO[bytes], size: int) -> Array:
    """One array, if the file has as many bytes as its head says."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    held = size - file.tell()
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, not numbers")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"an array {shape} of {dtype} has {held} bytes")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
