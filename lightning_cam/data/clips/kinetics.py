"""Kinetics-400 (and 600, 700): DeepMind's lists of YouTube clips, and the clips one could get.

    <root>/{train,validate,test}.csv                     label,youtube_id,time_start,time_end,split
    <root>/<part>/<label>/<youtube_id>_<start>_<end>.mp4      seconds with six digits

Copies differ, so the lists may lie in `annotations`, the parts be called `val`, `videos_train`
and the like, class folders have `_` for blanks or be absent, and files be named by the id alone.
No copy is complete, for videos vanish: what is absent is counted, and the classes are those of
the training list whatever is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.clips.kinetics_lists import (
    Files,
    ListedVideo,
    VideoList,
    places_of,
    read_list,
)
from lightning_cam.data.core.listing import Listing, Problem
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.rows import Clips, Texts
from lightning_cam.data.core.seen_folders import SeenFolders
from lightning_cam.data.core.selection import (
    check_separator,
    label_of,
    labels_in,
    select_classes,
)
from lightning_cam.errors import DataError

LAYOUT = (
    "<root>/{train,validate,test}.csv and <root>/train/<label>/<youtube_id>_<start>_<end>.mp4, "
    "seconds with six digits"
)
PART_NAMES = {"train": ("train",), "val": ("validate", "val", "validation"), "test": ("test",)}
MEAN, STD = [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]
_NO_TEST = "the test part has no labels or no clips: the validation part serves for testing"


class Meaning(NamedTuple):
    """What a text for labels means."""

    unknown: str  # a label that the training list does not have; "" without any
    wanted: bool  # whether it is of a class, and none is unknown
    label: int  # -1 of one that is not wanted, and of several
    labels: tuple[int, ...]  # for each class, where there may be several
    keys: set[str]  # of the folders in which its files may be


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
        rows = {part: read_list(path, look) for part, path in lists.items()}
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
        if not rows:
            return Clips(Texts.empty(0), Texts.empty(0))
        there = _folder(look, part)
        folder, files = there or look.root / part, Files(there, look)
        places, stems = places_of(rows, files)
        means, of = self._meanings(rows.labels, names, classes)
        keys = [*map(label_key, files.folders)]
        fits = np.array([[not n or key in m.keys for n, key in enumerate(keys)] for m in means])
        found, right = places >= 0, np.zeros(len(rows), bool)
        right[found] = fits[of[found], files.where[places[found]]]  # in the folder of its label
        unlisted = files.but(places)
        wanted = np.array([m.wanted for m in means])[of]
        odd = np.array([m.unknown != "" for m in means])[of] | (wanted & ~right)
        if files.copies:
            odd |= [len(files.all_of(place)) > 1 for place in places.tolist()]

        def short(place: int) -> str:
            return look.relative(folder / files.paths[place])

        for n in np.flatnonzero(odd).tolist():
            every = files.all_of(int(places[n]))
            fitting = [place for place in every if fits[of[n], files.where[place]]]
            if fitting:
                places[n], right[n] = fitting[0], True
            look.problems += _misfits(
                rows[n], means[of[n]], folder.name, [*map(short, every)], [*map(short, fitting[:1])]
            )
        look.problems += [
            Problem("unlisted", short(place), f"not in the {part} list; it is not used")
            for place in unlisted
        ]
        taken = right & wanted
        places, of = places[taken], of[taken]
        return Clips(
            Texts.of([files.paths[place] for place in places.tolist()], f"{folder}/"),
            Texts.of([*compress(stems, taken.tolist())]),
            np.array([m.label for m in means])[of],
            several=np.array([m.labels for m in means], np.int8)[of],
            inodes=files.inodes[places],
        )

    def _meanings(
        self, texts: Sequence[str], names: list[str], classes: list[str]
    ) -> tuple[list[Meaning], NDArray[np.int64]]:
        """What texts for labels mean, and which of these meanings each has, (n,).

        Args:
            texts: of a list.
            names: all labels there are.
            classes: those that are wanted, in order.
        """
        numbers = {text: n for n, text in enumerate(dict.fromkeys(texts))}
        means = []
        for text in numbers:
            labels = labels_in(text, self.separator)
            unknown = next((label for label in labels if label not in names), "")
            told = None if unknown else label_of(labels, classes, self.separator)
            one = {"label": -1, "labels": () if self.separator is None else (0,) * len(classes)}
            keys = {*map(label_key, (text, *labels))}
            means.append(Meaning(unknown, told is not None, **{**one, **(told or {})}, keys=keys))
        return means, np.array([numbers[text] for text in texts], np.int64)


def _misfits(
    row: ListedVideo, means: Meaning, folder: str, found: Sequence[str], right: Sequence[str]
) -> Iterator[Problem]:
    """What is wrong with a row or with its files.

    Args:
        row: of a list.
        means: its label.
        folder: of its part.
        found: the files of its name.
        right: the one of them that is taken, if any.
    """
    if means.unknown:
        why = f"{means.unknown!r} is not a label of the training list; correct the row"
        yield Problem("label", row.where, why)
    elif right and means.wanted:
        for other in found:
            if other not in right:
                yield Problem("unlisted", other, f"a copy of {right[0]}; remove it")
    elif found and means.wanted:
        yield Problem("label", found[0], f"{row.where} says {row.label!r}; move it there")
    elif means.wanted:
        what = f"{folder}/{row.label}/{row.stems[0]}.mp4"
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
