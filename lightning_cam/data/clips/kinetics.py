"""Kinetics-400 (and 600, 700): DeepMind's lists of YouTube clips, and the clips one could get.

    <root>/{train,validate,test}.csv                     label,youtube_id,time_start,time_end,split
    <root>/<part>/<label>/<youtube_id>_<start>_<end>.mp4      seconds with six digits

Copies differ, so the lists may lie in `annotations`, the parts be called `val`, `videos_train`
and the like, class folders have `_` for blanks or be absent, and files be named by the id alone.
No copy is complete, for videos vanish: what is absent is counted, and the classes are those of
the training list whatever is there.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_cam.data.core.listing import Listing, Problem
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.rows import Clips, Packed, Texts
from lightning_cam.data.core.seen_folders import SeenFolders, inodes, video_stems
from lightning_cam.data.core.selection import (
    check_separator,
    label_of,
    labels_in,
    select_classes,
)
from lightning_cam.data.video.info import VIDEO_SUFFIXES
from lightning_cam.errors import DataError

LAYOUT = (
    "<root>/{train,validate,test}.csv and <root>/train/<label>/<youtube_id>_<start>_<end>.mp4, "
    "seconds with six digits"
)
PART_NAMES = {"train": ("train",), "val": ("validate", "val", "validation"), "test": ("test",)}
MEAN, STD = [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]
_NO_TEST = "the test part has no labels or no clips: the validation part serves for testing"
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


# A video on disk: the folder of its class, None directly in the part's folder; its path from the
# latter; the number of the file.
File = tuple[str | None, str, int]


class Meaning(NamedTuple):
    """What a text for labels means."""

    unknown: str  # one that the training list does not have
    label: dict[str, Any] | None  # as `label_of` tells it; None if it is of no class
    folders: set[str | None]  # in which its files may be


class Kinetics(VideoDataModule, listed_by=("lists", "separator")):
    """Kinetics-400, or any data in its layout.

    Classes are the labels of `train.csv` in alphabetical order. Where the test part has no labels
    or no clips, which is usual, the validation part serves for testing too, with a warning.

    Args:
        root: the folder of the parts.
        lists: the folder of the CSV files; None: `root`, or `annotations` in it.
        separator: what stands between the labels of a clip that has several, as in the label
            "walking;waving"; None: each has one.
        **options: settings of `VideoDataModule`; the defaults are those that torchvision's
            weights for Kinetics were trained with. `classes` may name some of the labels.
    """

    def __init__(
        self,
        root: str = "data/kinetics400",
        *,
        lists: str | None = None,
        separator: str | None = None,
        **options: Any,
    ) -> None:
        defaults = {"fps": 15.0, "resize": 128, "crop": 112, "mean": MEAN, "std": STD}
        super().__init__(root, **{**defaults, **options})
        self.lists = lists
        self.separator = check_separator(separator)

    def list_clips(self) -> Listing:
        look = SeenFolders(self.root)
        lists = _find_lists(look, self.lists)
        problems = look.problems
        rows = {part: _rows_of(path, look) for part, path in lists.items()}
        if not _folder(look, "test") or "test" not in rows or not all(rows["test"].labels):
            rows["test"] = VideoList("test")
        rows.setdefault("val", VideoList("val"))
        texts = {*rows["train"].labels}
        names = sorted({name for text in texts for name in labels_in(text, self.separator)})
        if "" in names or not names:
            lack = "has no labels" if rows["train"] else "has no rows"
            raise DataError(f"{str(lists['train'])!r} {lack}: get the list again")
        classes = select_classes(names, self.given_classes)
        parts = {part: self._match(rows[part], names, classes, part, look) for part in PART_NAMES}
        if shared := _also_evaluated(rows, problems):
            parts["train"] = parts["train"].take(
                np.array([clip_id not in shared for clip_id in parts["train"].ids], bool)
            )
        if not parts["train"] and not parts["val"]:
            raise DataError(
                f"none of the clips that {str(lists['train'])!r} names is at {self.root!r}: "
                f"expected {LAYOUT}; set data.root=FOLDER to the folder of the parts"
            )
        train, val, test = (parts[part] for part in ("train", "val", "test"))
        notes = () if test else (_NO_TEST,)
        return Listing(classes, train, val, test or val, problems, notes, look.sources)

    def _match(
        self, rows: VideoList, names: list[str], classes: list[str], part: str, look: SeenFolders
    ) -> Clips:
        """The clips of a part that are on disk; what does not fit becomes problems.

        Args:
            rows: of the part's list.
            names: all labels there are.
            classes: those that are wanted, in order.
            part: its name in `PART_NAMES`.
            look: of the root; its problems get more.
        """
        there = _folder(look, part)
        folder = there or look.root / part
        files = _files(there, look) if there and rows else {}
        known = self._meanings({*rows.labels}, names, classes, files)
        stems, chosen, labels = [], [], []
        for n, (stem, text) in enumerate(zip(rows.stems, rows.labels, strict=True)):
            found = files.pop(stem, None)
            if found is None:
                found = files.pop(stem := rows.ids[n], [])
            means = known[text]
            right = [file for file in found if file[0] in means.folders]
            if right and means.label:
                stems.append(stem)
                chosen.append(right[0])
                labels.append(means.label)
            if len(found) != 1 or not right or not means.label:
                look.problems += _misfits(rows[n], means, found, right, folder, look)
        look.problems += [
            Problem(
                "unlisted", look.relative(folder / path), f"not in the {part} list; it is not used"
            )
            for copies in files.values()
            for _, path, _ in copies
        ]
        several = self.separator is not None and bool(labels)
        return Clips(
            Texts.of([path for _, path, _ in chosen], f"{folder}/"),
            Texts.of(stems),
            -1 if several else [label["label"] for label in labels],
            several=np.array([label["labels"] for label in labels], np.int8) if several else None,
            inodes=[inode for _, _, inode in chosen],
        )

    def _meanings(
        self,
        texts: Iterable[str],
        names: list[str],
        classes: list[str],
        files: dict[str, list[File]],
    ) -> dict[str, Meaning]:
        """What texts for labels mean. Arguments as of `_match`, and the files that it finds."""
        alike: dict[str, set[str | None]] = defaultdict(set)
        for name in {file[0] for each in files.values() for file in each} - {None}:
            alike[label_key(name or "")].add(name)
        found = {}
        for text in texts:
            labels = labels_in(text, self.separator)
            unknown = next((label for label in labels if label not in names), "")
            label = None if unknown else label_of(labels, classes, self.separator)
            folders = {None}.union(*(alike[label_key(name)] for name in (text, *labels)))
            found[text] = Meaning(unknown, label, folders)
        return found


def _misfits(
    row: ListedVideo,
    means: Meaning,
    found: Sequence[File],
    right: Sequence[File],
    folder: Path,
    look: SeenFolders,
) -> Iterator[Problem]:
    """What is wrong with a row or with its files.

    Args:
        row: of a list.
        means: its label.
        found: the files of its name.
        right: those in the folder of its label.
        folder: in which they are.
        look: of the root.
    """
    short = [look.relative(folder / path) for _, path, _ in found]
    if means.unknown:
        why = f"{means.unknown!r} is not a label of the training list; correct the row"
        yield Problem("label", row.where, why)
    elif means.label is None:
        return
    elif right:
        at = found.index(right[0])
        for other in (*short[:at], *short[at + 1 :]):
            yield Problem("unlisted", other, f"a copy of {short[at]}; remove it")
    elif found:
        yield Problem("label", short[0], f"{row.where} says {row.label!r}; move it there")
    else:
        what = f"{folder.name}/{row.label}/{row.stems[0]}.mp4"
        yield Problem("missing", what, "listed, but not there; get it or go without")


def _also_evaluated(rows: dict[str, VideoList], problems: list[Problem]) -> set[str]:
    """What files of training rows may be called whose seconds another part has as well."""
    spans: dict[str, list[ListedVideo]] = defaultdict(list)
    for part in ("test", "val"):
        for row in rows[part]:
            spans[row.stems[1]].append(row)
    names: set[str] = set()
    for row in [rows["train"][n] for n, name in enumerate(rows["train"].ids) if name in spans]:
        start, end = row.seconds
        shared = [
            other
            for other in spans[row.stems[1]]
            if other.stems == row.stems or (other.seconds[0] < end and start < other.seconds[1])
        ]
        if shared:
            why = f"{row.stems[0]!r} shows what {shared[0].where} evaluates; it is not trained on"
            problems.append(Problem("leak", row.where, f"{why}; remove one of the rows"))
            names.update(row.stems)
    return names


def _rows_of(path: Path, look: SeenFolders) -> VideoList:
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
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error
    if absent := {_ID, _START, _END} - {*names}:
        raise DataError(
            f"{str(path)!r} has no column {', '.join(sorted(absent))}: get the list again"
        )
    for _, cells in lines:
        if len(cells) < len(names):
            cells += [""] * (len(names) - len(cells))
    places = {name: n for n, name in enumerate(names)}
    own, start, end = (places[key] for key in (_ID, _START, _END))
    labels = [""] * len(lines)
    if (label := places.get(_LABEL)) is not None:
        labels = [cells[label].strip() for _, cells in lines]
    ids = [cells[own].strip() for _, cells in lines]
    texts = {cells[place] for place in (start, end) for _, cells in lines}
    digits = {text: _six_digits(text) for text in texts}  # of few kinds
    stems = [
        f"{name}_{begin}_{stop}"
        if name and (begin := digits[cells[start]]) and (stop := digits[cells[end]])
        else ""
        for name, (_, cells) in zip(ids, lines, strict=True)
    ]
    return VideoList(path.name, [number for number, _ in lines], labels, stems, ids)


def _six_digits(seconds: str) -> str:
    """Whole seconds as names of files tell them; "" for no number."""
    try:
        return f"{int(float(seconds)):06d}"
    except (ValueError, OverflowError):
        return ""


def label_key(name: str) -> str:
    """What a label and the name of its folder have in common.

    Example:
        >>> key_of("Shooting_goal_(soccer)") == key_of('"shooting goal (soccer)"')
        True
    """
    return " ".join(name.strip("\"' ").replace("_", " ").lower().split())


def _find_lists(look: SeenFolders, given: str | None) -> dict[str, Path]:
    """The list of each part that has one; that of the training part always."""
    root = look.root
    if not root.is_dir():
        raise DataError(
            f"no Kinetics data at {str(root)!r}: expected {LAYOUT}; set data.root=FOLDER "
            "(see data/README.md)"
        )
    folders = [Path(given)] if given else [root, root / "annotations"]
    lists: dict[str, Path] = {}
    for part, names in PART_NAMES.items():
        for path in (folder / f"{name}.csv" for folder in folders for name in names):
            if look.is_file(path):
                lists.setdefault(part, path)
    if "train" not in lists:  # its labels are the classes
        raise DataError(
            f"no train.csv in {str(folders[0])!r}: unpack kinetics400.tar.gz there, or name the "
            "folder of the lists with data.lists=FOLDER"
        )
    return lists


def _folder(look: SeenFolders, part: str) -> Path | None:
    for name in PART_NAMES[part]:
        for folder in (look.root / name, look.root / f"videos_{name}"):
            if look.is_dir(folder):
                return folder
    return None


def _files(folder: Path, look: SeenFolders) -> dict[str, list[File]]:
    """Stem -> the videos with this name, directly in a part's folder or in its class folders."""
    files: dict[str, list[File]] = defaultdict(list)
    for entry in look.entries(folder):
        name = entry.name if entry.is_dir() else None
        videos = video_stems([entry] if name is None else look.entries(entry.path), VIDEO_SUFFIXES)
        below = "" if name is None else f"{name}/"
        paths = [f"{below}{video.name}" for video in videos]
        found = zip(repeat(name), paths, inodes(videos), strict=False)
        for stem, file in zip(videos.values(), found, strict=True):
            files[stem].append(file)
    return files
