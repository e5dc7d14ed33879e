"""What a data set holds: its classes, the clips of each part, and what is wrong with it."""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.rows import Arrays, Clips, Packed, Texts, packed
from lightning_cam.data.video.identity import Copies, Identity, identity
from lightning_cam.errors import DataError

State = tuple[int, ...] | str | None  # see `SeenFolders`
Held = TypeVar("Held")
_COLUMNS = ("kind", "what", "why", "label")  # of a problem


@dataclass(frozen=True)
class Problem:
    """Something in a data set that cannot be used, or should not be there.

    Attributes:
        kind: "missing" (listed, but not on disk), "unlisted" (the reverse), "label" (of no class,
            or against the folder), "row" (of a list, that makes no sense), "unreadable", ...
        what: the file, or the row of a list.
        why: in words, with a remedy.
        label: the name of its class, where `what` does not say it.
    """

    kind: str
    what: str
    why: str
    label: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


class Problems(Packed[Problem]):
    """Problems in arrays.

    Args:
        columns: what each attribute of them is.
    """

    def __init__(self, columns: Sequence[Texts]) -> None:
        self.columns = columns

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> Problems:
        """Problems that are there as objects."""
        return cls([Texts.of([getattr(p, name) for p in problems]) for name in _COLUMNS])

    def __len__(self) -> int:
        return len(self.columns[0])

    def _at(self, at: int) -> Problem:
        return Problem(*(column[at] for column in self.columns))

    def arrays(self) -> Arrays:
        """Arrays of numbers that tell them."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, column in zip(_COLUMNS, self.columns, strict=True):
            arrays |= column.arrays(f"problems.{name}")
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Problems:
        """What `arrays` told. Errors as of `Texts.from_arrays`."""
        columns = [Texts.from_arrays(arrays, f"problems.{name}") for name in _COLUMNS]
        if len({*map(len, columns)}) > 1:
            raise ValueError("the columns of the problems are of several lengths")
        return cls(columns)


class Divided(Generic[Held]):
    """A data set in three parts, and what was found wrong with it."""

    train: Sequence[Held]
    val: Sequence[Held]
    test: Sequence[Held]
    problems: Sequence[Problem]

    def part(self, name: str) -> Sequence[Held]:
        """What "train", "val" or "test" holds."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


@dataclass(frozen=True)
class Listing(Divided[Clip]):
    """A data set before any video is opened.

    Attributes:
        classes: names in the order of their labels.
        train, val, test: the clips of each part; what is listed but absent is not among them.
        problems: what was found on the way.
        notes: what is as it should be, and yet to be said.
        sources: the files and folders that it was made of, and the state each was in, see
            `SeenFolders`: while none changes, it stays as it is. None where nobody knows.
    """

    classes: list[str]
    train: Sequence[Clip]
    val: Sequence[Clip]
    test: Sequence[Clip]
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()
    sources: Mapping[str, State] | None = field(default=None, compare=False)


def without_leaks(listing: Listing) -> Listing:
    """The listing with every video in one part only, and once there.

    A video of two parts stays where it is evaluated (test before val before train), for a part that
    was trained on measures nothing. A validation part that serves for testing too is one part.
    Each clip that goes becomes a problem: "leak", or "label" of one that has two labels.
    """
    same = listing.val is listing.test or _paths(listing.val) == _paths(listing.test)
    parts = {part: packed(listing.part(part)) for part in ("test", "val", "train")}
    if same:
        del parts["val"]
    suspects = _suspects([*parts.values()])
    kept: dict[Identity, tuple[str, Clip]] = {}
    copies: Copies[tuple[str, Clip]] = Copies()
    problems = [*listing.problems]
    for part, (clips, which) in zip(parts, zip(parts.values(), suspects, strict=True), strict=True):
        stays = np.ones(len(clips), bool)
        for n in np.flatnonzero(which).tolist():
            clip = clips[n]
            key = identity(clip.path)
            at = kept.get(key) or copies.find(clip.path)
            copy = at is not None and key not in kept
            if at is None or (copy and at[0] == part and at[1].classes == clip.classes):  # no harm
                kept[key] = (part, clip)
                copies.add(clip.path, (part, clip))
                continue
            stays[n] = False
            problems.append(_shared(clip, part, *at, classes=listing.classes))
        parts[part] = _selected(clips, stays)
    if same:
        parts["val"] = parts["test"]
    train, val, test = (parts[part] for part in ("train", "val", "test"))
    return replace(listing, train=train, val=val, test=test, problems=problems)


def _paths(clips: Sequence[Clip]) -> Texts:
    return clips.paths if isinstance(clips, Clips) else Texts.of([str(c.path) for c in clips])


def _selected(clips: Sequence[Clip], which: NDArray[np.bool_]) -> Sequence[Clip]:
    if isinstance(clips, Clips):
        return clips.take(which)
    return [clip for clip, stays in zip(clips, which.tolist(), strict=True) if stays]


def _suspects(parts: Sequence[Sequence[Clip]]) -> list[NDArray[np.bool_]]:
    """For each part which clips may be a video that is there twice: their number or name is."""
    names = [name for clips in parts for name in _paths(clips).names()]
    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    found = _again(np.concatenate([*map(_numbers, parts)])) | _again(hashes)
    return np.split(found, np.cumsum([*map(len, parts)])[:-1])


def _again(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of some numbers are there more than once."""
    _, where, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return counts[where] > 1


def _numbers(clips: Sequence[Clip]) -> NDArray[np.uint64]:
    """The numbers of the clips' files, (n,); alike, they may yet be on two disks.

    What a folder tells is not asked again, unless a file system makes it up, which some clips tell.
    """
    paths, numbers = _paths(clips), np.zeros(len(clips), np.uint64)
    if isinstance(clips, Clips):
        numbers[:] = clips.inodes
    told = np.flatnonzero(numbers)[:: len(numbers) // 16 + 1]
    if any(_inode(paths[n]) != numbers[n] for n in told.tolist()):
        numbers[:] = 0
    asked = np.flatnonzero(numbers == 0)
    numbers[asked] = [_inode(path) for path in paths.take(asked)]
    return numbers


def _inode(path: str) -> int:
    try:
        return Path(path).stat().st_ino
    except OSError:
        return 0


def _shared(clip: Clip, part: str, where: str, other: Clip, classes: Sequence[str]) -> Problem:
    if part != where:
        why = f"the same video as {str(other.path)!r} of the {where} part, where it stays"
        return Problem("leak", str(clip.path), f"{why}; remove one of them")
    kind = "copy" if clip.classes == other.classes else "label"
    names = ", ".join(repr(classes[label]) for label in other.classes)
    why = f"the same video as {str(other.path)!r}, class {names or 'none'}"
    return Problem(kind, str(clip.path), f"{why}, which is taken; remove one of them")


def hash_order(names: Iterable[str]) -> list[str]:
    """Names in an order that looks random, but depends on each name alone.

    The first n of it are a deterministic sample that changes little when names are added.
    """
    names, code = [*names], (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
    hashes = [hashlib.sha256(name.encode(*code)).digest() for name in names]
    first = np.frombuffer(b"".join(hashes), ">u8")[::4].astype(np.uint64)  # of four words
    order = np.argsort(first)
    if (np.diff(first[order]) == 0).any():  # names that are there twice
        return [name for _, name in sorted(zip(hashes, names, strict=True))]
    return np.array(names, object)[order].tolist()


def alike_classes(names: Sequence[str]) -> list[Problem]:
    """Classes whose names differ by case, form or blanks only: most likely one class."""
    seen: dict[str, str] = {}
    problems = []
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        first = seen.setdefault(key, name)
        if first != name:
            why = f"differs from the class {first!r} by case or form only; if they are one, merge"
            problems.append(Problem("label", name, f"{why} them"))
    return problems


def check_classes(found: Iterable[str], expected: Sequence[str] | None, where: str) -> list[str]:
    """The class names in the order of their labels: the expected ones, or the found ones sorted.

    Raises:
        DataError: they are not the same.
    """
    found = sorted(found)
    if expected is None:
        return found
    if set(expected) != set(found):
        raise DataError(
            f"the classes in {where} are {found}, but {sorted(expected)} are expected: set "
            "data.root=FOLDER to the data the checkpoint was trained on, or leave out data.classes="
        )
    return list(expected)
