"""What a data set holds: its classes, the clips of each part, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lightning_cam.data.core.clips import Clip
from lightning_cam.data.video.identity import Copies, Identity, identity
from lightning_cam.errors import DataError

Held = TypeVar("Held")


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
    """

    classes: list[str]
    train: list[Clip]
    val: list[Clip]
    test: list[Clip]
    problems: Sequence[Problem] = ()


def without_leaks(listing: Listing) -> Listing:
    """The listing with every video in one part only, and once there.

    A video of two parts stays where it is evaluated (test before val before train), for a part that
    was trained on measures nothing. A validation part that serves for testing too is one part.
    Each clip that goes becomes a problem: "leak", or "label" of one that has two labels.
    """
    same = [clip.path for clip in listing.val] == [clip.path for clip in listing.test]
    kept: dict[Identity, tuple[str, Clip]] = {}
    copies: Copies[tuple[str, Clip]] = Copies()
    parts: dict[str, list[Clip]] = {"test": [], "val": [], "train": []}
    problems = list(listing.problems)
    for part in parts:
        if part == "val" and same:
            continue
        for clip in listing.part(part):
            key = identity(clip.path)
            at = kept.get(key) or copies.find(clip.path)
            copy = at is not None and key not in kept
            if at is None or (copy and at[0] == part and at[1].classes == clip.classes):  # no harm
                kept[key] = (part, clip)
                copies.add(clip.path, (part, clip))
                parts[part].append(clip)
                continue
            problems.append(_shared(clip, part, *at, classes=listing.classes))
    if same:
        parts["val"] = parts["test"]
    return Listing(listing.classes, **parts, problems=problems)


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
    return sorted(names, key=lambda name: (hashlib.sha256(os.fsencode(name)).digest(), name))


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
