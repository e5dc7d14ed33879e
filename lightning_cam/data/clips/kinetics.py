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
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.listing import Listing, Problem
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.selection import (
    check_separator,
    label_of,
    labels_in,
    select_classes,
)
from lightning_cam.data.core.text_files import entries_of
from lightning_cam.data.video.info import VIDEO_SUFFIXES
from lightning_cam.errors import DataError

LAYOUT = (
    "<root>/{train,validate,test}.csv and <root>/train/<label>/<youtube_id>_<start>_<end>.mp4, "
    "seconds with six digits"
)
PART_NAMES = {"train": ("train",), "val": ("validate", "val", "validation"), "test": ("test",)}
MEAN, STD = [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]
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


class File(NamedTuple):
    """A video on disk."""

    folder: str | None  # of its class; None directly in the part's folder
    path: Path


class Kinetics(VideoDataModule):
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
        lists = _find_lists(self.root, self.lists)
        problems: list[Problem] = []
        rows = {part: read_kinetics_list(path, problems) for part, path in lists.items()}
        if not _folder(self.root, "test") or not all(row.label for row in rows.get("test", ())):
            rows["test"] = []
        names = sorted({n for row in rows["train"] for n in labels_in(row.label, self.separator)})
        if "" in names or not names:
            lack = "has no labels" if rows["train"] else "has no rows"
            raise DataError(f"{str(lists['train'])!r} {lack}: get the list again")
        classes = select_classes(names, self.given_classes)
        parts = {
            part: self._match(rows.get(part, []), names, classes, part, problems)
            for part in PART_NAMES
        }
        shared = _also_evaluated(rows, problems)
        parts["train"] = [clip for clip in parts["train"] if clip.path.stem not in shared]
        if not parts["train"] and not parts["val"]:
            raise DataError(
                f"none of the clips that {str(lists['train'])!r} names is at {self.root!r}: "
                f"expected {LAYOUT}; set data.root=FOLDER to the folder of the parts"
            )
        if not parts["test"]:
            warnings.warn(
                "the test part has no labels or no clips: the validation part serves for testing",
                stacklevel=2,
            )
            parts["test"] = parts["val"]
        return Listing(classes, **parts, problems=problems)

    def _match(
        self,
        rows: Sequence[ListedVideo],
        names: list[str],
        classes: list[str],
        part: str,
        problems: list[Problem],
    ) -> list[Clip]:
        """The clips of a part that are on disk; what does not fit becomes problems.

        Args:
            rows: of the part's list.
            names: all labels there are.
            classes: those that are wanted, in order.
            part: its name in `PART_NAMES`.
            problems: gets more.
        """
        root = Path(self.root)
        folder = _folder(root, part)
        files = _files(folder, root, problems) if folder and rows else {}
        clips = []
        for row in rows:
            stem = next((stem for stem in row.stems if stem in files), None)
            found = files.pop(stem) if stem else []
            labels = labels_in(row.label, self.separator)
            if unknown := [label for label in labels if label not in names]:
                why = f"{unknown[0]!r} is not a label of the training list; correct the row"
                problems.append(Problem("label", row.where, why))
                continue
            if (label := label_of(labels, classes, self.separator)) is None:
                continue
            folders = {label_key(name) for name in (row.label, *labels)}
            right = [f for f in found if f.folder is None or label_key(f.folder) in folders]
            if right:
                clips.append(Clip(right[0].path, right[0].path.stem, **label))
                for copy in (file for file in found if file is not right[0]):
                    why = f"a copy of {_short(right[0].path, root)}; remove it"
                    problems.append(Problem("unlisted", _short(copy.path, root), why))
            elif found:
                why = f"{row.where} says {row.label!r}; move it there"
                problems.append(Problem("label", _short(found[0].path, root), why))
            else:
                what = f"{(folder or Path(part)).name}/{row.label}/{row.stems[0]}.mp4"
                problems.append(
                    Problem("missing", what, "listed, but not there; get it or go without")
                )
        problems += [
            Problem("unlisted", _short(file.path, root), f"not in the {part} list; it is not used")
            for copies in files.values()
            for file in copies
        ]
        return clips


def _also_evaluated(rows: dict[str, list[ListedVideo]], problems: list[Problem]) -> set[str]:
    """What files of training rows may be called whose seconds another part has as well."""
    spans: dict[str, list[ListedVideo]] = defaultdict(list)
    for part in ("test", "val"):
        for row in rows.get(part, ()):
            spans[row.stems[1]].append(row)
    names: set[str] = set()
    for row in rows["train"]:
        start, end = row.seconds
        shared = [
            other
            for other in spans.get(row.stems[1], ())
            if other.stems == row.stems or (other.seconds[0] < end and start < other.seconds[1])
        ]
        if shared:
            why = f"{row.stems[0]!r} shows what {shared[0].where} evaluates; it is not trained on"
            problems.append(Problem("leak", row.where, f"{why}; remove one of the rows"))
            names.update(row.stems)
    return names


def read_kinetics_list(path: Path, problems: list[Problem]) -> list[ListedVideo]:
    """The rows of a list; those that make no sense become problems.

    A list without a single label, as of a test part, gives rows with the label "".

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    rows: dict[tuple[str, str], ListedVideo] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = csv.DictReader(file, skipinitialspace=True)
            if lines.fieldnames is None:
                raise DataError(f"{str(path)!r} is empty: get the list again")
            absent = {_ID, _START, _END} - set(lines.fieldnames or ())
            if absent:
                raise DataError(
                    f"{str(path)!r} has no column {', '.join(sorted(absent))}: get the list again"
                )
            for line in lines:
                where = f"{path.name}:{lines.line_num}"
                stems = _stems(line)
                if stems is None:
                    why = "it lacks an id or its seconds; correct the row or remove it"
                    problems.append(Problem("row", where, why))
                elif stems in rows:
                    why = f"{stems[0]!r} is in {rows[stems].where} already; remove this row"
                    problems.append(Problem("row", where, why))
                else:
                    rows[stems] = ListedVideo((line.get(_LABEL) or "").strip(), stems, where)
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error
    labelled = [row for row in rows.values() if row.label]
    if not labelled:
        return list(rows.values())
    why = "it lacks a label; correct the row or remove it"
    problems += [Problem("row", row.where, why) for row in rows.values() if not row.label]
    return labelled


def _stems(line: dict[str, str | None]) -> tuple[str, str] | None:
    name = (line[_ID] or "").strip()
    try:
        start, end = (int(float(line[key] or "")) for key in (_START, _END))
    except (ValueError, OverflowError):
        return None
    return (f"{name}_{start:06d}_{end:06d}", name) if name else None


def label_key(name: str) -> str:
    """What a label and the name of its folder have in common.

    Example:
        >>> key_of("Shooting_goal_(soccer)") == key_of('"shooting goal (soccer)"')
        True
    """
    return " ".join(name.strip("\"' ").replace("_", " ").lower().split())


def _find_lists(root: str, given: str | None) -> dict[str, Path]:
    """The list of each part that has one; that of the training part always."""
    if not Path(root).is_dir():
        raise DataError(
            f"no Kinetics data at {root!r}: expected {LAYOUT}; set data.root=FOLDER "
            "(see data/README.md)"
        )
    folders = [Path(given)] if given else [Path(root), Path(root, "annotations")]
    lists: dict[str, Path] = {}
    for part, names in PART_NAMES.items():
        for path in (folder / f"{name}.csv" for folder in folders for name in names):
            if path.is_file():
                lists.setdefault(part, path)
    if "train" not in lists:  # its labels are the classes
        raise DataError(
            f"no train.csv in {str(folders[0])!r}: unpack kinetics400.tar.gz there, or name the "
            "folder of the lists with data.lists=FOLDER"
        )
    return lists


def _folder(root: str | Path, part: str) -> Path | None:
    for name in PART_NAMES[part]:
        for folder in (Path(root, name), Path(root, f"videos_{name}")):
            if folder.is_dir():
                return folder
    return None


def _files(folder: Path, root: Path, problems: list[Problem]) -> dict[str, list[File]]:
    """Stem -> the videos with this name, directly in a part's folder or in its class folders."""
    files: dict[str, list[File]] = defaultdict(list)
    for entry in entries_of(folder, root, problems):
        name = entry.name if entry.is_dir() else None
        for path in [entry] if name is None else entries_of(entry, root, problems):
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
                files[path.stem].append(File(name, path))
    return files


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
