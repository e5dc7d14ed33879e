"""A file that `torch.save` wrote, looked at before anything in it is loaded.

A small file must not become a large object. So records are stored as they are, their sizes add up
to no more than the file's, and the pickle in it takes no more steps than a large network needs and
calls nothing but what puts tensors and containers together. And PyTorch must read the records that
were looked at: a file with two directories, or two names of one record, is refused.
"""

from __future__ import annotations

import mmap
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from lightning_cam.errors import CheckpointError, PickledCodeError
from lightning_cam.pickles import Part, follow

_STEPS = 1_000_000  # of the pickle; a network of a thousand tensors with its optimiser takes 10^5
_CALLED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch\._utils _rebuild_(parameter|tensor|tensor_v2)"
    r"|torch (Size|device|\w+Storage|b?float\d+|double|half|u?int\d+|long|bool|complex\d+)"
    r"|(builtins|__builtin__) (set|complex)"
)
_TENSORS = "torch._utils _rebuild_"  # begins what is called with tensors and numbers of a file
_SHARED = 8  # tensors may claim so many times the bytes that there are
_DAMAGED = "truncated or damaged; take another checkpoint"
# How an archive ends: behind its directory, with longer numbers, where these are, and always.
_LONG_END, _LOCATOR, _END = map(struct.Struct, ("<4sQ2H2L4Q", "<4sLQL", "<4s4H2LH"))
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of before PyTorch 1.6 begin


def load_tensors(path: Path, *, old: bool = False) -> Any:
    """What `torch.save` wrote, onto the CPU, running none of its code.

    Args:
        path: the file; anybody may have written it.
        old: whether it may have the format of before PyTorch 1.6, as torchvision's files have.

    Raises:
        CheckpointError: see `check_archive`; or it is damaged, or a few numbers stand for many.
    """
    check_archive(path, old=old)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on pickle protocols
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror or e}") from e
    except Exception as e:  # torch answers broken files with whatever its parser stumbles over
        raise CheckpointError(f"{path}: {_DAMAGED}") from e
    _check_tensors(loaded, path)
    return loaded


def check_archive(path: Path, *, old: bool = False) -> None:
    """Whether a file holds what `torch.save` writes of tensors and plain values, and no more.

    Args:
        path: the file.
        old: whether it may have the format of before PyTorch 1.6.

    Raises:
        CheckpointError: it does not, and must not be loaded.
    """
    if path.exists() and not path.is_file():  # a pipe or a device may have no end
        raise CheckpointError(f"{path}: not a file")
    try:
        with path.open("rb") as file:
            head = file.read(len(_OLD))
            if old and head == _OLD:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    for _ in range(5):  # two numbers, the machine, the object, its storages
                        _check_pickle(cast(IO[bytes], data), path)
                return
            if head[:2] != b"PK":
                raise CheckpointError(f"{path}: not a checkpoint")
            _check_ending(file, path)
            with zipfile.ZipFile(file) as archive:
                pickled, sizes = _contents(archive, path)
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as e:
        raise CheckpointError(f"{path}: {_DAMAGED}") from e
    _check_pickle(pickled, path, sizes)


def _check_ending(file: BinaryIO, path: Path) -> None:
    """Whether an archive has one directory of its records, where every reader finds it."""
    size = file.seek(0, 2)
    file.seek(max(size - _LONG_END.size - _LOCATOR.size - _END.size, 0))
    tail = file.read()
    try:
        end, (*_, length, start, _) = size - _END.size, _END.unpack(tail[-_END.size :])
        named = end  # where the directory is said to end
        locator = tail[-_LOCATOR.size - _END.size : -_END.size]
        if locator[:4] == b"PK\6\7":
            end -= _LOCATOR.size + _LONG_END.size
            named = _LOCATOR.unpack(locator)[2]
            *_, length, start = _LONG_END.unpack(tail[: _LONG_END.size])
    except struct.error as e:
        raise CheckpointError(f"{path}: {_DAMAGED}") from e
    if named != end or start + length != end:
        raise CheckpointError(f"{path}: {_DAMAGED}")


def _contents(archive: zipfile.ZipFile, path: Path) -> tuple[bytes, dict[str, int]]:
    """The one pickle of an archive whose records are sound, and the sizes of its storages."""
    records = archive.infolist()
    if archive.comment or not records or min(r.header_offset for r in records) != 0:
        raise CheckpointError(f"{path}: not a checkpoint (there is more in it than torch writes)")
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise CheckpointError(
                f"{path}: refused: its record {record.filename!r} is compressed; checkpoints are "
                "stored as they are"
            )
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise CheckpointError(f"{path}: refused: its records claim more bytes than the file has")
    names = [record.filename.lower() for record in records]  # torch takes DATA.PKL for data.pkl
    pickles = [r.filename for r in records if r.filename.lower().endswith(".pkl")]
    if len(set(names)) < len(names) or [name.split("/")[1:] for name in pickles] != [["data.pkl"]]:
        raise CheckpointError(f"{path}: not a checkpoint (not one data.pkl)")
    sizes = {record.filename.partition("/data/")[2]: record.file_size for record in records}
    return archive.read(pickles[0]), sizes


def _check_pickle(
    pickled: bytes | IO[bytes], path: Path, sizes: Mapping[str, int] | None = None
) -> None:
    try:
        for step, part in enumerate(follow(pickled)):
            if step > _STEPS:
                raise _too_many(path)
            if part.kind == "name" and not _CALLED.fullmatch(part.value):
                raise PickledCodeError(
                    f"{path}: refused: it holds pickled code ({'.'.join(part.value.split())}); "
                    "only tensors and plain values are loaded"
                )
            if part.kind == "call":
                _check_call(*part.parts, path=path)
            if part.kind == "stored" and sizes is not None:
                _check_stored(part.parts[0].parts, sizes, path)
    except (ValueError, UnicodeError, MemoryError) as e:
        raise CheckpointError(f"{path}: {_DAMAGED}") from e


def _check_call(called: Part, given: Part, *more: Part, path: Path) -> None:
    """Whether a call puts a tensor or a container together: no container of a tensor's numbers."""
    name = called.value if called.kind == "name" else ""
    if called.kind == "call":  # what was made gets attributes
        sound = given.kind == "dict"
    elif name.endswith("OrderedDict"):  # it is filled afterwards
        sound = given.kind == "tuple" and not given.parts
    else:
        plain = all(part.kind not in ("call", "stored") for part in given.parts)
        sound = given.kind == "tuple" and (plain or name.startswith(_TENSORS))
    if not sound or more:
        raise PickledCodeError(
            f"{path}: refused: it holds pickled code (a call of {name or 'what it made'} that "
            "torch does not write); only tensors and plain values are loaded"
        )


def _check_stored(told: Sequence[Part], sizes: Mapping[str, int], path: Path) -> None:
    """Whether a record has as many numbers as the pickle says: PyTorch may read on behind it."""
    if len(told) != 5 or told[1].kind != "name" or told[4].kind != "int":
        return  # which PyTorch refuses
    if told[4].value * _width(told[1].value) != sizes.get(str(told[2].value), 0):
        raise CheckpointError(f"{path}: {_DAMAGED}")


@cache
def _width(storage: str) -> int:
    """Bytes of a number in what a pickle calls "torch FloatStorage" or the like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are deprecated, and what `torch.save` writes
        kind = getattr(torch, storage.split()[-1], None)
        return getattr(kind, "dtype", torch.uint8).itemsize


def _check_tensors(loaded: object, path: Path) -> None:
    """Whether tensors that were loaded have numbers of their own for what their shapes claim.

    Raises:
        CheckpointError: a few numbers stand for many, which would become memory when copied.
    """
    claimed, held = 0, {}
    for tensor in _tensors(loaded, path):
        if tensor.layout != torch.strided:
            raise CheckpointError(f"{path}: refused: it holds tensors that are not dense")
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        claimed += tensor.nbytes
        if tensor.nbytes > storage.nbytes():
            raise CheckpointError(
                f"{path}: refused: a tensor of shape {tuple(tensor.shape)} has only "
                f"{storage.nbytes()} bytes"
            )
    if claimed > _SHARED * sum(held.values()):  # of tied weights the same bytes serve twice
        raise CheckpointError(f"{path}: refused: its tensors are all views of the same few bytes")


def _tensors(loaded: object, path: Path) -> list[Tensor]:
    """Every tensor in nested containers, once.

    Raises:
        CheckpointError: they hold too many values, counted as often as they are named: whoever
            copies a list that is ten times in a list, ten times in a list, ... makes all of them.
    """
    found, waiting, left = {}, [loaded], _STEPS
    while waiting:
        node = waiting.pop()
        if isinstance(node, Tensor):
            found[id(node)] = node
        elif isinstance(node, Mapping | list | tuple | set):
            left -= len(node)
            if left < 0:
                raise _too_many(path)
            waiting += node.values() if isinstance(node, Mapping) else node
    return [*found.values()]


def _too_many(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: refused: it holds more than {_STEPS} plain values; keep such lists in a file of "
        "their own"
    )
