"""What a data set holds: its classes, the clips of each part, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_cam.data.core.clips import Clip
from lightning_cam.errors import DataError


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


@dataclass(frozen=True)
class Listing:
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

    def part(self, name: str) -> list[Clip]:
        """The clips of "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def hash_order(names: Iterable[str]) -> list[str]:
    """Names in an order that looks random, but depends on each name alone.

    The first n of it are a deterministic sample that changes little when names are added.
    """
    return sorted(names, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))


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
