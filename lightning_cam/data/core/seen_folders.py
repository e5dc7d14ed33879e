"""One look at the folders and lists of a data set: what is there, and in which state it was."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from lightning_cam.data.core.listing import Problem, State
from lightning_cam.data.core.text_files import closed
from lightning_cam.data.video.identity import within_reach

HIDDEN = ".lightning_cam"  # folder in a data set's that is not of it
_SETTLED = 2_000_000_000  # ns after which no file system gives a second change the same time


class SeenFolders:
    """Looks into folders and files for who lists a data set, and remembers which, and their states.

    A state is (modified, changed, number of the file, bytes) of a file or folder, times in ns, None
    where there is none. A folder is modified when something in it comes, goes or is renamed, so the
    files in it need not be asked. Of the root the state is what is in it: the index may lie there.
    A state is taken before the look, so that a change during it makes another.

    Args:
        root: of the data set, to which problems are relative.

    Attributes:
        problems: folders that could not be read, and what else the caller adds.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.problems: list[Problem] = []
        self._states: dict[str, State] = {}
        self._settled = True
        self.saw(self.root)

    @property
    def sources(self) -> dict[str, State] | None:
        """The state of all that was seen; None where the same state may soon be another thing:
        something changed just now, or could not be read.
        """
        return self._states if self._settled else None

    def saw(self, path: str | Path) -> None:
        """Remember a file or folder, or that there is none, before a look at it."""
        key = str(path)
        if key in self._states:
            return
        found = state(key, root=str(self.root))
        self._states[key] = found
        if isinstance(found, tuple) and max(found[:2]) > time.time_ns() - _SETTLED:
            self._settled = False

    def is_dir(self, path: Path) -> bool:
        """Whether there is such a folder."""
        self.saw(path)
        return path.is_dir()

    def is_file(self, path: Path) -> bool:
        """Whether there is such a file."""
        self.saw(path)
        return path.is_file()

    def entries(self, folder: str | Path, *, ordered: bool = True) -> list[os.DirEntry[str]]:
        """What is in a folder; nothing, and a problem, where it must not be read.

        Args:
            folder: to look into.
            ordered: by name.
        """
        self.saw(folder)
        try:
            with os.scandir(folder) as found:
                entries = [entry for entry in found if entry.name != HIDDEN]
            within_reach(folder)
        except OSError as error:
            self.shut(Path(folder), error)
            return []
        for link in [entry for entry in entries if entry.is_symlink()]:
            self.saw(Path(folder, Path(link.path).readlink()).parent)  # may come and go there
        if ordered:
            entries.sort(key=attrgetter("name"))
        return entries

    def shut(self, folder: Path, error: OSError) -> None:
        """Remember a folder that could not be read, which for others or tomorrow it may be."""
        self._settled = False
        self.problems.append(closed(folder, self.root, error))

    def relative(self, path: str | Path) -> str:
        """A path below the root, as problems name it."""
        return Path(path).relative_to(self.root).as_posix()


def state(path: str, root: str) -> State:
    """The state of a file or folder now, see `SeenFolders`."""
    try:
        if path == root:
            with os.scandir(path) as entries:
                names = sorted(f"{e.name}{'/' * e.is_dir()}" for e in entries if e.name != HIDDEN)
            return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def inodes(entries: Iterable[os.DirEntry[str]]) -> list[int]:
    """The numbers of files that their folder tells; 0 for a link, which has that of another."""
    return [0 if entry.is_symlink() else entry.inode() for entry in entries]


def video_stems(
    entries: Iterable[os.DirEntry[str]], suffixes: tuple[str, ...]
) -> dict[os.DirEntry[str], str]:
    """The videos among what is in a folder, none of them hidden: their names without suffix."""
    return {
        entry: entry.name[: entry.name.rindex(".")]
        for entry in entries
        if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".")
    }
