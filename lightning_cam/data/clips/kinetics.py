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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cam.data.core.listing import Listing, Problem
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.rows import Clips, Row
from lightning_cam.data.core.seen_folders import SeenFolders, inode, video_stem
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


class File(NamedTuple):
    """A video on disk."""

    folder: str | None  # of its class; None directly in the part's folder
    path: str
    inode: int


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
        if not _folder(look, "test") or not all(row.label for row in rows.get("test", ())):
            rows["test"] = []
        names = sorted({n for row in rows["train"] for n in labels_in(row.label, self.separator)})
        if "" in names or not names:
            lack = "has no labels" if rows["train"] else "has no rows"
            raise DataError(f"{str(lists['train'])!r} {lack}: get the list again")
        classes = select_classes(names, self.given_classes)
        parts = {
            part: self._match(rows.get(part, []), names, classes, part, look) for part in PART_NAMES
        }
        shared = _also_evaluated(rows, problems)
        parts["train"] = [row for row in parts["train"] if row.clip_id not in shared]
        if not parts["train"] and not parts["val"]:
            raise DataError(
                f"none of the clips that {str(lists['train'])!r} names is at {self.root!r}: "
                f"expected {LAYOUT}; set data.root=FOLDER to the folder of the parts"
            )
        train, val, test = (Clips.of_rows(parts[part]) for part in ("train", "val", "test"))
        notes = () if test else (_NO_TEST,)
        return Listing(classes, train, val, test or val, problems, notes, look.sources)

    def _match(
        self,
        rows: Sequence[ListedVideo],
        names: list[str],
        classes: list[str],
        part: str,
        look: SeenFolders,
    ) -> list[Row]:
        """The clips of a part that are on disk; what does not fit becomes problems.

        Args:
            rows: of the part's list.
            names: all labels there are.
            classes: those that are wanted, in order.
            part: its name in `PART_NAMES`.
            look: of the root; its problems get more.
        """
        problems, short = look.problems, look.relative
        folder = _folder(look, part)
        files = _files(folder, look) if folder and rows else {}
        known = {text: self._meaning(text, names, classes) for text in {row.label for row in rows}}
        named = {file.folder for each in files.values() for file in each}
        keys = {name: label_key(name or "") for name in named}
        clips = []
        for row in rows:
            found = files.pop(row.stems[0], None) or files.pop(row.stems[1], [])
            unknown, label, folders = known[row.label]
            if unknown:
                why = f"{unknown!r} is not a label of the training list; correct the row"
                problems.append(Problem("label", row.where, why))
                continue
            if label is None:
                continue
            right = [f for f in found if f.folder is None or keys[f.folder] in folders]
            if right:
                path = right[0].path
                stem = path.rpartition("/")[2].rpartition(".")[0]
                clips.append(Row(path, stem, **label, inode=right[0].inode))
                for copy in (file for file in found if file is not right[0]):
                    why = f"a copy of {short(path)}; remove it"
                    problems.append(Problem("unlisted", short(copy.path), why))
            elif found:
                why = f"{row.where} says {row.label!r}; move it there"
                problems.append(Problem("label", short(found[0].path), why))
            else:
                what = f"{(folder or Path(part)).name}/{row.label}/{row.stems[0]}.mp4"
                problems.append(
                    Problem("missing", what, "listed, but not there; get it or go without")
                )
        problems += [
            Problem("unlisted", short(file.path), f"not in the {part} list; it is not used")
            for copies in files.values()
            for file in copies
        ]
        return clips

    def _meaning(
        self, text: str, names: list[str], classes: list[str]
    ) -> tuple[str, dict[str, Any] | None, set[str]]:
        """Of a text for labels: an unknown one, what `label_of` says, keys of its folders."""
        labels = labels_in(text, self.separator)
        unknown = next((label for label in labels if label not in names), "")
        folders = {label_key(name) for name in (text, *labels)}
        return unknown, label_of(labels, classes, self.separator), folders


def _also_evaluated(rows: dict[str, list[ListedVideo]], problems: list[Problem]) -> set[str]:
    """What files of training rows may be called whose seconds another part has as well."""
    spans: dict[str, list[ListedVideo]] = defaultdict(list)
    for part in ("test", "val"):
        for row in rows.get(part, ()):
            spans[row.stems[1]].append(row)
    names: set[str] = set()
    for row in rows["train"]:
        if row.stems[1] not in spans:
            continue
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


def _rows_of(path: Path, look: SeenFolders) -> list[ListedVideo]:
    """The rows of a list; those that make no sense become problems.

    A list without a single label, as of a test part, gives rows with the label "".

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    problems = look.problems
    rows: dict[tuple[str, str], ListedVideo] = {}
    look.saw(path)
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = csv.reader(file, skipinitialspace=True)
            if (names := next(lines, None)) is None:
                raise DataError(f"{str(path)!r} is empty: get the list again")
            absent = {_ID, _START, _END} - set(names)
            if absent:
                raise DataError(
                    f"{str(path)!r} has no column {', '.join(sorted(absent))}: get the list again"
                )
            places = {name: n for n, name in enumerate(names)}
            own, start, end = (places[key] for key in (_ID, _START, _END))
            label = places.get(_LABEL)
            name = path.name
            for line in filter(None, lines):
                line += [""] * (len(names) - len(line))
                where = f"{name}:{lines.line_num}"
                stems = _stems(line[own], line[start], line[end])
                if stems is None:
                    why = "it lacks an id or its seconds; correct the row or remove it"
                    problems.append(Problem("row", where, why))
                elif stems in rows:
                    why = f"{stems[0]!r} is in {rows[stems].where} already; remove this row"
                    problems.append(Problem("row", where, why))
                else:
                    text = "" if label is None else line[label].strip()
                    rows[stems] = ListedVideo(text, stems, where)
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error
    labelled = [row for row in rows.values() if row.label]
    if not labelled:
        return list(rows.values())
    why = "it lacks a label; correct the row or remove it"
    problems += [Problem("row", row.where, why) for row in rows.values() if not row.label]
    return labelled


def _stems(name: str, start: str, end: str) -> tuple[str, str] | None:
    name = name.strip()
    try:
        long = f"{name}_{int(float(start)):06d}_{int(float(end)):06d}"
    except (ValueError, OverflowError):
        return None
    return (long, name) if name else None


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
        for file in [entry] if name is None else look.entries(entry.path):
            if stem := video_stem(file.name, VIDEO_SUFFIXES):
                files[stem].append(File(name, file.path, inode(file)))
    return files
