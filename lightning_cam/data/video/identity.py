"""When two paths are one video, and every video below folders once.

One rule for all data sets: a video is its file on disk, or folder of images, whatever links lead to
it; a copy is a file of the same name and the same bytes.
"""

from __future__ import annotations

import filecmp
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lightning_cam.data.video.frame_folders import is_frame_folder

Identity = tuple[int, int] | str  # device and file number, or a path that leads nowhere
_SYSTEM_FILES = ("Thumbs.db",)


class Entries(NamedTuple):
    """What is below some folders: videos and other files."""

    files: list[tuple[Path, Path]]  # the folder asked for, and a file or folder of images below it
    again: list[tuple[Path, Path]]  # a link, and where what it leads to was found


def identity(path: Path) -> Identity:
    """What all links to a file or folder have in common, hard links included."""
    try:
        found = path.stat()
    except OSError:
        return str(path)
    return found.st_dev, found.st_ino


def is_copy(path: Path, other: Path) -> bool:
    """Whether two files have the same name and the same bytes."""
    try:
        size = path.stat().st_size
        return (
            path.name == other.name
            and path.is_file()
            and other.is_file()
            and 0 < size == other.stat().st_size
            and filecmp.cmp(path, other, shallow=False)
        )
    except OSError:
        return False


def everything_below(folders: Iterable[Path]) -> Entries:
    """All files and folders of images below some folders, through links, but each once.

    What is really there comes before what links lead to, so a link never takes a class's video
    away. A link to a folder above, or to one that was seen, is not followed. What systems leave
    everywhere is passed over.
    """
    tops = list(folders)
    above = {identity(parent) for top in tops for parent in top.resolve().parents}
    seen: dict[Identity, Path] = {}
    real: deque[tuple[Path, Path]] = deque((top, top) for top in tops if not top.is_symlink())
    links = deque((top, top) for top in tops if top.is_symlink())
    entries = Entries([], [])
    while real or links:
        top, path = real.popleft() if real else links.popleft()
        key = identity(path)
        if key in seen or (key in above and path.is_symlink()):
            entries.again.append((path, seen.get(key, path.resolve())))
            continue
        seen[key] = path
        if path.is_dir() and (path == top or not is_frame_folder(path)):
            found = [(top, entry) for entry in sorted(path.iterdir()) if is_shown(entry)]
            real.extendleft(pair for pair in reversed(found) if not pair[1].is_symlink())
            links.extend(pair for pair in found if pair[1].is_symlink())
        else:
            entries.files.append((top, path))
    return entries


def is_shown(entry: Path) -> bool:
    """Whether an entry of a folder is other than what systems leave everywhere."""
    return not entry.name.startswith(".") and entry.name not in _SYSTEM_FILES
