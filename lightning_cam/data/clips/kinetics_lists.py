"""The lists and folders of Kinetics as they come; see `kinetics`."""

from __future__ import annotations

import csv
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.listing import Problem
from lightning_cam.data.core.rows import Packed
from lightning_cam.data.core.seen_folders import SeenFolders, inodes, video_stems
from lightning_cam.data.video.info import VIDEO_SUFFIXES
from lightning_cam.errors import DataError

_ID, _START, _END, _LABEL = "youtube_id", "time_start", "time_end", "label"


class ListedVideo(NamedTuple):
    """A row of a list that makes sense."""

    label: str  # "" in a list without labels
    stems: tuple[str, str]  # what its file may be called
    where: str  # the list and the line

    @property
    def seconds(self) -> tuple[int, int]:
        """Where in its video it begins and ends."""
        start, end = self.stems[0].rsplit("_", 2)[1:]
        return int(start), int(end)


class VideoList(Packed[ListedVideo]):
    """The rows of a list, column by column.

    Args:
        name: of the list.
        lines: where in it they are.
        labels: "" in a list without labels.
        stems: what their files may be called.
        ids: what else.
    """

    def __init__(
        self,
        name: str,
        lines: Sequence[int] = (),
        labels: Sequence[str] = (),
        stems: Sequence[str] = (),
        ids: Sequence[str] = (),
    ) -> None:
        self.name, self.lines = name, lines
        self.labels, self.stems, self.ids = labels, stems, ids

    def __len__(self) -> int:
        return len(self.ids)

    def _at(self, at: int) -> ListedVideo:
        stems = self.stems[at], self.ids[at]
        return ListedVideo(self.labels[at], stems, f"{self.name}:{self.lines[at]}")

    def without(self, places: Container[int]) -> VideoList:
        """All rows but some."""
        left = [n for n in range(len(self)) if n not in places]
        labels, stems, ids = (
            [column[n] for n in left] for column in (self.labels, self.stems, self.ids)
        )
        return VideoList(self.name, [self.lines[n] for n in left], labels, stems, ids)


class Files:
    """The videos of a part, directly in its folder or in its class folders.

    Args:
        folder: of the part, if there is one.
        look: of the root.

    Attributes:
        folders: of classes; the first, "", is the part's.
        where: (n,) number of the folder of each video.
        paths: of each, from the part's folder.
        stems: their names without suffix.
        inodes: (n,) their numbers.
        places: of each stem; the first, if there are several.
        copies: of each stem that is there several times, all its places.
    """

    def __init__(self, folder: Path | None, look: SeenFolders) -> None:
        self.folders = [""]
        self.paths: list[str] = []
        self.stems: list[str] = []
        numbers: list[int] = []
        where: list[int] = []
        for entry in look.entries(folder) if folder else ():
            inside, below = [entry], ""
            if entry.is_dir():
                inside, below = look.entries(entry.path), f"{entry.name}/"
                self.folders.append(entry.name)
            videos = video_stems(inside, VIDEO_SUFFIXES)
            self.paths += [below + video.name for video in videos]
            self.stems += videos.values()
            numbers += inodes(videos)
            where += [len(self.folders) - 1 if below else 0] * len(videos)
        self.where, self.inodes = np.array(where, np.int64), np.array(numbers, np.uint64)
        self.places: dict[str, int] = {}
        self.copies: dict[str, list[int]] = {}
        for n, stem in enumerate(self.stems):
            if (first := self.places.setdefault(stem, n)) != n:
                self.copies.setdefault(stem, [first]).append(n)

    def all_of(self, place: int) -> list[int]:
        """The places of all videos with the name of one; -1: of none."""
        return [] if place < 0 else self.copies.get(self.stems[place], [place])

    def but(self, places: NDArray[np.int64]) -> list[int]:
        """The places of all videos but those of the names that some have; -1: of none."""
        left = np.ones(len(self.stems), bool)
        left[places[places >= 0]] = False
        firsts = [n for n in np.flatnonzero(left).tolist() if self.places[self.stems[n]] == n]
        return [place for first in firsts for place in self.all_of(first)]


def places_of(rows: VideoList, files: Files) -> tuple[NDArray[np.int64], list[str]]:
    """The place of each row's file, (n,), -1 where there is none; and its stem."""
    stems = [*rows.stems]
    places = [files.places.get(stem, -1) for stem in stems]
    taken = {-1}
    for n in [n for n, place in enumerate(places) if place < 0]:
        place = files.places.get(rows.ids[n], -1)
        if place not in taken:
            places[n], stems[n] = place, rows.ids[n]
            taken.add(place)
    return np.array(places, np.int64), stems


def read_list(path: Path, look: SeenFolders) -> VideoList:
    """The rows of a list; those that make no sense become problems.

    A list without a single label, as of a test part, gives rows with the label "".

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    look.saw(path)
    rows = _table(path)
    first: dict[str, int] = {}
    odd = [n for n, stem in enumerate(rows.stems) if not stem or first.setdefault(stem, n) != n]
    for n in odd:
        why = "it lacks an id or its seconds; correct the row or remove it"
        if stem := rows.stems[n]:
            why = f"{stem!r} is in {rows[first[stem]].where} already; remove this row"
        look.problems.append(Problem("row", rows[n].where, why))
    if odd:
        rows = rows.without({*odd})
    if any(rows.labels) and not all(rows.labels):
        why = "it lacks a label; correct the row or remove it"
        nameless = [n for n, label in enumerate(rows.labels) if not label]
        look.problems += [Problem("row", rows[n].where, why) for n in nameless]
        rows = rows.without({*nameless})
    return rows


def _table(path: Path) -> VideoList:
    """The rows of a list as they stand; the stem of one that makes no sense is "".

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            if (names := next(reader, None)) is None:
                raise DataError(f"{str(path)!r} is empty: get the list again")
            if absent := {_ID, _START, _END} - {*names}:
                raise DataError(
                    f"{str(path)!r} has no column {', '.join(sorted(absent))}: get the list again"
                )
            columns = {name: n for n, name in enumerate(names)}
            own, start, end = (columns[name] for name in (_ID, _START, _END))
            label = columns.get(_LABEL)
            lines, labels, ids, begins, ends = [], [], [], [], []
            for cells in filter(None, reader):
                if len(cells) < len(names):
                    cells += [""] * (len(names) - len(cells))
                lines.append(reader.line_num)
                labels.append("" if label is None else cells[label].strip())
                ids.append(cells[own].strip())
                begins.append(cells[start])
                ends.append(cells[end])
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error
    digits = {text: _six_digits(text) for text in {*begins, *ends}}  # few, of many rows
    stems = [
        f"{name}_{begin}_{end}" if name and begin and end else ""
        for name, begin, end in zip(
            ids, map(digits.__getitem__, begins), map(digits.__getitem__, ends), strict=True
        )
    ]
    return VideoList(path.name, lines, labels, stems, ids)


def _six_digits(seconds: str) -> str:
    """Whole seconds as names of files tell them; "" for no number."""
    try:
        return f"{int(float(seconds)):06d}"
    except (ValueError, OverflowError):
        return ""
