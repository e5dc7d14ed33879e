"""The index of a data set: its listing in a file, made by one process and read by all others.

It says which folders and lists it was made of, and in which state they were (`SeenFolders`): who
reads it asks for the state of these few, not of the clips, and takes it only if none has changed.
A damaged one is none.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.data.core.array_files import load_arrays
from lightning_cam.data.core.arrays import Array
from lightning_cam.data.core.listing import Listing, Problems
from lightning_cam.data.core.rows import Clips, Texts
from lightning_cam.data.core.seen_folders import HIDDEN, state
from lightning_cam.errors import WriteError
from lightning_cam.files import make_folder, whole_file
from lightning_cam.locks import behind_the_first

PATIENCE = 600.0  # seconds of waiting for a process that lists
LEAST = 10_000  # clips: fewer are listed as fast as an index is read
_PARTS = ("train", "val", "test")
_DATA = Path(__file__).parents[1]  # whose code makes listings


class Index:
    """The index of one data set, as one class lists it by some settings.

    It lies in the root, where all who have the data find it, or, where that must not be written to,
    in the user's folder for caches.

    Args:
        root: of the data set, as it is given: the clips' paths begin with it.
        listed_by: settings on which the listing depends.
        cls: whose `list_clips` makes it.
    """

    def __init__(self, root: str, listed_by: Mapping[str, Any], cls: type) -> None:
        self.root = str(Path(root))
        settings = json.dumps([cls.__module__, cls.__qualname__, listed_by], default=_plain)
        self._about = {"root": self.root, "settings": settings, "code": _code(cls)}
        self._key = hashlib.sha256(f"{self.root}\0{settings}".encode()).hexdigest()[:16]
        where = hashlib.sha256(os.fsencode(os.path.realpath(self.root))).hexdigest()[:16]
        self._key_of_user = f"{where}-{self._key}"  # another folder may be as the root is given

    @property
    def places(self) -> Iterator[Path]:
        """Where it may lie."""
        yield Path(self.root, HIDDEN, "index", f"{self._key}.npz")
        if caches := _caches():
            yield caches / f"{self._key_of_user}.npz"

    def once(self, make: Callable[[], Listing]) -> Listing:
        """The listing as it is, or as it is made; by one process, while others wait for it."""
        if listing := self.read():
            return listing
        with self._behind_the_first():
            listing = self.read()
            if listing is None:
                listing = make()
                self.write(listing)
        return listing

    @contextmanager
    def _behind_the_first(self) -> Iterator[None]:
        """Wait for the first process that lists, see `locks.behind_the_first`.

        That of all machines where the user's folder for caches has locks, else of this machine.
        """
        user = f"lightning_cam-{os.getuid()}"
        with ExitStack() as held:
            for folder in filter(None, (_caches(), Path(tempfile.gettempdir(), user))):
                try:
                    lock = make_folder(folder) / f"{self._key_of_user}.lock"
                    held.enter_context(behind_the_first(lock, PATIENCE))
                    break
                except (OSError, WriteError):  # the next, or none: each lists for itself
                    continue
            yield

    def read(self) -> Listing | None:
        """The listing as it is; None where there is no index of it."""
        for path in self.places:
            try:
                if listing := self._read(path):
                    return listing
            except (KeyError, OSError, TypeError, ValueError):  # it is damaged, or gone
                continue
        return None

    def _read(self, path: Path) -> Listing | None:
        if not path.is_file():
            return None
        arrays = load_arrays(path, most=path.stat().st_size)  # nothing in it is compressed
        told = json.loads(arrays["about"].tobytes())
        if {key: told[key] for key in self._about} != self._about:
            return None
        for source, was in told["sources"].items():
            now = state(source, self.root)
            if (list(now) if isinstance(now, tuple) else now) != was:
                return None
        parts = {
            part: Clips.from_arrays(arrays, part) for part in _PARTS if f"{part}.labels" in arrays
        }
        train, test = parts["train"], parts["test"]
        val = parts.get("val", test)
        problems = Problems.from_arrays(arrays)
        return Listing(told["classes"], train, val, test, problems, tuple(told["notes"]))

    def write(self, listing: Listing) -> None:
        """Keep a listing, if it is of many clips and somebody knows when it is out of date.

        Of several processes that write it at once, the last one's remains: all are whole.
        """
        parts = {part: listing.part(part) for part in _PARTS}
        if parts["val"] is parts["test"]:
            del parts["val"]
        if listing.sources is None or sum(map(len, parts.values())) < LEAST:
            return
        arrays: dict[str, Array] = {}
        for part, clips in parts.items():
            if not isinstance(clips, Clips) or not isinstance(clips.truths, Texts):
                return
            arrays |= clips.arrays(part)
        told = {"classes": listing.classes, "notes": listing.notes, "sources": listing.sources}
        about = json.dumps({**self._about, **told}).encode()
        arrays |= {
            "about": np.frombuffer(about, np.uint8),
            **Problems.of(listing.problems).arrays(),
        }
        for path in self.places:
            try:
                with whole_file(path) as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
                return
            except WriteError:  # the next place, or none: it is listed anew each time
                continue


def _caches() -> Path | None:
    """The user's folder for indices, where somebody says which it is."""
    home = os.environ.get("HOME", "")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache"))
    return caches / "lightning_cam" / "index" if caches.is_absolute() else None


def _plain(value: Any) -> Any:
    """A setting of a class of its own, such as OmegaConf's, in plain containers."""
    return dict(value) if isinstance(value, Mapping) else list(value)


@cache
def _code(cls: type) -> str:
    """The digest of the code that lists: another may list otherwise."""
    listing = [each for each in cls.__mro__ if "list_clips" in vars(each)]
    files = (getattr(sys.modules[each.__module__], "__file__", None) for each in listing)
    own = {Path(file) for file in files if file}  # none of what was typed
    found = hashlib.sha256()
    for path in sorted({*_DATA.rglob("*.py"), *_DATA.rglob("*.yaml"), *own}):
        found.update(path.read_bytes())
    return found.hexdigest()
