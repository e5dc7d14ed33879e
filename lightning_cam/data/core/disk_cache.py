"""Decoded videos on a local disk: `data.cache=disk`.

An entry holds what `ClipReader.steps` gives: every step of a video at the data's rate, resized, in
uint8. What is drawn anew in each epoch (the window, the crop, mirroring, colours) is done to it as
to decoded frames, so samples are the same bit for bit. A window is a stretch of the file, read into
memory: a file that shrinks meanwhile is then no more than a short read.

Entries are shared by all processes of a machine. Their names go by the video's files (path, size,
time of change) and by what its pixels depend on; whatever changes makes other entries. They appear
when they are complete, and what does not fit its own sums is made anew. When the cache is as large
as it may be, nothing is added, and nothing is removed: remove the folder, whenever you like.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lightning_cam.data import memory
from lightning_cam.data.core.clips import ClipReader, Seed, Steps
from lightning_cam.data.video.info import VideoInfo
from lightning_cam.data.video.sampling import Indices, Mask
from lightning_cam.errors import VideoReadError, WriteError
from lightning_cam.files import cannot_write, open_to_append, whole_file

_GIGABYTE = 10**9
_LONGEST = 2**28  # bytes of an entry, which is in memory while it is made
_FREE = 0.1  # share of the disk that is left to others
_SIZES = "sizes"  # a file of the sizes of all entries that were added
_MAGIC = b"lightning_cam clip 1\n"
_HEAD = 2**14  # bytes that are read at first
_DATA = Path(__file__).parents[1]


class _NotKeptError(Exception):
    """A video that has no place in the cache."""


class _Head(NamedTuple):
    """What an entry says of its steps, and where they begin."""

    info: VideoInfo
    indices: Indices
    sums: NDArray[np.uint64]
    shape: tuple[int, int, int]  # of a step, (h, w, C)
    start: int


@dataclass(eq=False)
class DiskCache:
    """The cache of one data module, in all of its processes.

    Args:
        folder: where it lies; None: a folder of the user's own among temporary files ($TMPDIR).
        gigabytes: that it may have, whoever filled it.
    """

    folder: str | None
    gigabytes: float

    def __post_init__(self) -> None:
        self.place = Path(self.folder or "")
        # Whether it is used, and whether it takes more: one word for all loader processes.
        self._state = torch.ones(2, dtype=torch.uint8).share_memory_()
        self._seen = self._total = 0  # bytes of the file of sizes, and the sum of its numbers
        self._known: tuple[ClipReader, str] | None = None
        try:
            if self.folder is None:
                self.place = _own_folder() / "clips"
            self.place.mkdir(parents=True, exist_ok=True)
            open_to_append(self.place / _SIZES).close()
        except (WriteError, OSError) as error:
            self._give_up(error)

    def window(self, reader: ClipReader, path: Path, seed: Seed | None) -> tuple[Steps, Mask]:
        """The steps of one clip, as `reader.window` gives them."""
        if not self._state[0]:
            return reader.window(path, seed)
        try:
            entry = self._entry(reader, path)
        except OSError:  # which reading it says better
            return reader.window(path, seed)
        if found := _kept(entry, reader, path, seed):
            return found
        try:
            steps = self._made(entry, reader, path)
        except (_NotKeptError, VideoReadError):  # or damaged somewhere else than in this window
            return reader.window(path, seed)
        positions, valid = reader.positions(len(steps.indices), seed)
        return steps.at(positions), valid

    def _entry(self, reader: ClipReader, path: Path) -> Path:
        """The file of a video's steps."""
        if self._known is None or self._known[0] is not reader:
            code = _code(type(reader)), av.__version__, cv2.__version__, torch.__version__
            about = json.dumps([reader.decoding, code], default=str)
            self._known = reader, hashlib.sha256(about.encode()).hexdigest()[:16]
        name = hashlib.sha256()
        for source in reader.sources(path):
            for line in _state_of(source):
                name.update(line.encode("utf-8", "surrogateescape") + b"\0")
        digest = name.hexdigest()[:32]
        return self.place / self._known[1] / digest[:2] / f"{digest[2:]}.clip"

    def _made(self, entry: Path, reader: ClipReader, path: Path) -> Steps:
        """All steps of a video, which are now kept.

        Raises:
            _NotKeptError: they must not be; no more than a frame was decoded.
        """
        if not self._state[1]:
            raise _NotKeptError

        def select(video: VideoInfo) -> Indices:
            steps = reader.all_steps(video)
            height, width = reader.transform.size(video.height, video.width)
            self._require_room(len(steps) * height * width * reader.transform.channels)
            return steps

        steps = reader.steps(path, select)
        try:
            size = _write(entry, steps)
            with open_to_append(self.place / _SIZES) as sizes:
                sizes.write(np.int64(size).tobytes())
        except (WriteError, OSError) as error:
            self._give_up(error)
        return steps

    def _require_room(self, size: int) -> None:
        """Raise a `_NotKeptError` where so many bytes would be too many."""
        if size > _LONGEST:
            raise _NotKeptError
        try:
            self.place.mkdir(parents=True, exist_ok=True)  # which may have been removed
            self._count()
            disk = shutil.disk_usage(self.place)
        except (WriteError, OSError) as error:
            self._give_up(error)
            raise _NotKeptError from error
        if self._total + size > self.gigabytes * _GIGABYTE:
            self._stop_adding(f"has the {self.gigabytes:g} GB that data.cache_gb allows")
        elif disk.free - size < _FREE * disk.total:
            self._stop_adding("has filled its disk up to the last tenth, which it leaves free")

    def _count(self) -> None:
        """Add up what all processes have added since."""
        with open_to_append(self.place / _SIZES) as sizes:
            if os.fstat(sizes.fileno()).st_size < self._seen:  # it is another one
                self._seen = self._total = 0
            sizes.seek(self._seen)
            new = sizes.read()
        new = new[: len(new) // 8 * 8]
        self._seen += len(new)
        self._total += int(np.frombuffer(new, np.int64).sum())

    def _stop_adding(self, why: str) -> None:
        if self._state[1]:
            self._state[1] = 0
            warnings.warn(
                f"the cache of clips in {str(self.place)!r} {why}: the other clips are decoded in "
                "every epoch; remove that folder if old clips are in it, or choose a larger disk, "
                "data.cache_folder=DIR",
                stacklevel=2,
            )
        raise _NotKeptError

    def _give_up(self, error: WriteError | OSError) -> None:
        """Go on without the cache."""
        if self._state[0]:
            self._state[0] = 0
            if isinstance(error, OSError):
                error = cannot_write(self.place, error)
            warnings.warn(
                "clips are decoded in every epoch, data.cache=disk has no place: "
                f"{error}, data.cache_folder=DIR",
                stacklevel=2,
            )


def _own_folder() -> Path:
    """A folder among temporary files that no other user can have filled."""
    own = Path(tempfile.gettempdir(), f"lightning_cam-{os.getuid()}")
    own.mkdir(mode=0o700, exist_ok=True)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise WriteError(f"{own} may be somebody else's; choose another")
    return own


def _code(reader: type) -> str:
    """The digest of the code that makes pixels: another may make others."""
    modules = (sys.modules[each.__module__] for each in reader.__mro__)
    own = {Path(file) for module in modules if (file := vars(module).get("__file__"))}
    found = hashlib.sha256()
    for path in sorted({*(_DATA / "video").glob("*.py"), _DATA / "core" / "transforms.py", *own}):
        found.update(path.read_bytes())
    return found.hexdigest()


def _state_of(path: Path) -> Iterator[str]:
    """What tells a file, or a folder of images, from what it was before."""
    where = str(path.absolute())
    if path.is_dir():
        with os.scandir(path) as entries:
            images = sorted((entry.name, entry.stat()) for entry in entries)
    else:
        images = [("", path.stat())] if path.exists() else []
    yield where
    for name, found in images:
        yield f"{name} {found.st_size} {found.st_mtime_ns}"


def _write(entry: Path, steps: Steps) -> int:
    """Write an entry; return its bytes."""
    pixels, info = steps.frames.permute(0, 2, 3, 1).contiguous().numpy(), steps.info
    about = {
        "num_frames": info.num_frames, "fps": info.fps, "height": info.height,
        "width": info.width, "container": info.container, "shape": pixels.shape,
    }  # fmt: skip
    text = json.dumps(about).encode() + b"\n"
    arrays = (info.times.astype(np.float64), steps.indices.astype(np.int64), _sums(pixels))
    head = text + b"".join(part.tobytes() for part in arrays)
    with whole_file(entry) as file:
        file.write(_MAGIC + np.array([len(head), zlib.crc32(head)], np.uint32).tobytes() + head)
        file.write(pixels.data)
        return file.tell()


def _kept(
    entry: Path, reader: ClipReader, path: Path, seed: Seed | None
) -> tuple[Steps, Mask] | None:
    """The steps of one clip from an entry; None where there is none, or it is broken."""
    try:
        with FileIO(entry) as file:
            head = _head(file, path)
            positions, valid = reader.positions(len(head.indices), seed)
            first, last = int(positions.min()), int(positions.max()) + 1
            pixels = memory.empty((last - first, *head.shape), np.uint8)
            step = pixels[0].nbytes
            given = os.preadv(file.fileno(), [pixels.numpy().data], head.start + first * step)
            if given < pixels.nbytes or (_sums(pixels.numpy()) != head.sums[first:last]).any():
                return None
    except (KeyError, OSError, TypeError, ValueError):
        return None
    steps = Steps(pixels.permute(0, 3, 1, 2), head.indices[first:last], head.info)
    return steps.at(positions - first), valid


def _head(file: FileIO, path: Path) -> _Head:
    """What an entry begins with.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    data, size = file.read(_HEAD), os.fstat(file.fileno()).st_size
    lead, at = len(_MAGIC), len(_MAGIC) + 8
    length, check = np.frombuffer(data, np.uint32, 2, lead).tolist()
    if not data.startswith(_MAGIC) or at + length > size:
        raise ValueError("it is none")
    data += file.read(max(at + length - len(data), 0))
    head = data[at : at + length]
    if zlib.crc32(head) != check:
        raise ValueError("it is damaged")
    text, _, arrays = head.partition(b"\n")
    about = json.loads(text)
    (steps, *shape), count = about["shape"], about["num_frames"]
    if size != at + length + steps * int(np.prod(shape)):
        raise ValueError("it is cut short")
    times = np.frombuffer(arrays, np.float64, count).copy()
    indices, sums = np.frombuffer(arrays, np.int64, 2 * steps, 8 * count).reshape(2, -1)
    info = VideoInfo(
        str(path), count, about["fps"], about["height"], about["width"], times, about["container"]
    )
    height, width, channels = shape
    return _Head(info, indices.copy(), sums.view(np.uint64), (height, width, channels), at + length)


def _sums(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A sum of each step (n, h, w, C), by which one that was not written is told."""
    flat = pixels.reshape(len(pixels), -1)
    cut = flat.shape[1] // 8 * 8
    words = np.array([row[:cut].view(np.uint64).sum() for row in flat], np.uint64)
    return words + flat[:, cut:].sum(1, dtype=np.uint64)
