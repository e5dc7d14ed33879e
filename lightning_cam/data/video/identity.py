"""When two paths are one video, and every video below folders once.

One rule for all data sets: a video is its file on disk, or folder of images, whatever links lead to
it; a copy is a file of the same name and the same bytes, or a folder of such images.
"""

from __future__ import annotations

import errno
import filecmp
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from lightning_cam.data.video import frame_folders as images
from lightning_cam.data.video.frame_folders import is_frame_folder

T = TypeVar("T")

Identity = tuple[int, int] | str  # device and file number, or a path that leads nowhere
_SYSTEM_FILES = ("Thumbs.db",)
_READ = 16  # images of a folder whose bytes are compared


class Entries(NamedTuple):
    """What is below some folders: videos and other files, and what cannot be told."""

    files: list[tuple[Path, Path]]  # the folder asked for, and a file or folder of images below it
    again: list[tuple[Path, Path]]  # a link, and where what it leads to was found
    closed: list[tuple[Path, OSError]]  # a folder that must not be read


def identity(path: Path) -> Identity:
    """What all links to a file or folder have in common, hard links included."""
    try:
        found = path.stat()
    except OSError:
        return str(path)
    return found.st_dev, found.st_ino


class Copies(Generic[T]):
    """Finds of videos that come one after another those that are copies of earlier ones.

    Nothing is looked into as long as no two videos have the same name.
    """

    def __init__(self) -> None:
        self._alone: dict[str, tuple[Path, T] | None] = {}  # by name; None: looked into
        self._looks: dict[tuple[object, ...], list[tuple[Path, T]]] = {}

    def find(self, path: Path) -> T | None:
        """What was told of an earlier video that this one is a copy of; None if there is none."""
        if path.name not in self._alone:
            return None
        if first := self._alone[path.name]:
            self._alone[path.name] = None
            self._looks.setdefault(_look(first[0]), []).append(first)
        alike = self._looks.get(_look(path), ())
        return next((told for other, told in alike if is_copy(path, other)), None)

    def add(self, path: Path, told: T) -> None:
        """Remember a video, and what to tell of it."""
        if path.name in self._alone:
            self._looks.setdefault(_look(path), []).append((path, told))
        else:
            self._alone[path.name] = (path, told)


def _look(path: Path) -> tuple[object, ...]:
    """What copies have in common, cheap to tell."""
    try:
        if not path.is_dir():
            return path.name, path.stat().st_size
        names = images.names(path)
        return (
            path.name,
            len(names),
            *((names[0], (path / names[0]).stat().st_size) if names else ()),
        )
    except OSError:
        return (path.name,)


def is_copy(path: Path, other: Path) -> bool:
    """Whether two files have the same name and bytes, or two folders the same name and images."""
    if path.name != other.name:
        return False
    if path.is_dir() and other.is_dir():
        names = images.names(path)
        return names == images.names(other) and same_images(path, other, names)
    return path.is_file() and other.is_file() and _same_bytes(path, other)


def same_images(folder: Path, other: Path, names: Sequence[str]) -> bool:
    """Whether the images of these names are the same in two folders, links to each other or copies.

    All have to be of the same size, and the bytes of some, evenly spread, are compared.
    """
    spread = [names[n * len(names) // _READ] for n in range(_READ)] if len(names) > _READ else names
    try:
        return (
            bool(names)
            and all(
                (folder / name).stat().st_size == (other / name).stat().st_size
                for name in (*spread, *names)  # those first that tell most
            )
            and all(_same_bytes(folder / name, other / name) for name in spread)
        )
    except OSError:
        return False


def _same_bytes(path: Path, other: Path) -> bool:
    try:
        size = path.stat().st_size
        return 0 < size == other.stat().st_size and (
            path.samefile(other) or filecmp.cmp(path, other, shallow=False)
        )
    except OSError:
        return False


def everything_below(
    folders: Iterable[Path], look: Callable[[Path], object] = lambda _: None
) -> Entries:
    """All files and folders of images below some folders, through links, but each once.

    What is really there comes before what links lead to, so a link never takes a class's video
    away. A link to a folder above, or to one that was seen, is not followed. What systems leave
    everywhere is passed over.

    Args:
        folders: to look below.
        look: is told each folder before it is looked into, and that of what a link leads to; not
            a folder of images, which is a video.
    """
    tops = list(folders)
    above = {identity(parent) for top in tops for parent in top.resolve().parents}
    seen: dict[Identity, Path] = {}
    real: deque[tuple[Path, Path]] = deque((top, top) for top in tops if not top.is_symlink())
    links = deque((top, top) for top in tops if top.is_symlink())
    entries = Entries([], [], [])
    while real or links:
        top, path = real.popleft() if real else links.popleft()
        key = identity(path)
        if key in seen or (key in above and path.is_symlink()):
            entries.again.append((path, seen.get(key, path.resolve())))
            continue
        seen[key] = path
        if path.is_dir() and (path == top or not is_frame_folder(path)):
            look(path)
            try:
                found = [(top, entry) for entry in within(path) if is_shown(entry)]
            except OSError as error:
                entries.closed.append((path, error))
                continue
            real.extendleft(pair for pair in reversed(found) if not pair[1].is_symlink())
            for _, link in (led := [pair for pair in found if pair[1].is_symlink()]):
                look((path / link.readlink()).parent)
            links.extend(led)
        else:
            entries.files.append((top, path))
    return entries


def within(folder: Path) -> list[Path]:
    """What is in a folder, by name.

    Raises:
        OSError: it must not be read; or its names may, but not what they stand for (`chmod 644`).
    """
    found = sorted(folder.iterdir())
    within_reach(folder)
    return found


def within_reach(folder: str | Path) -> None:
    """Raise an OSError for a folder whose names may be read, but not what they stand for."""
    if not os.access(folder, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def is_shown(entry: Path) -> bool:
    """Whether an entry of a folder is other than what systems leave everywhere."""
    return not entry.name.startswith(".") and entry.name not in _SYSTEM_FILES
