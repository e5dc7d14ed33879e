"""HMDB51: human motions from movies and the web, with three official splits.

    <root>/<class>/<video>.avi
    <root>/testTrainMulti_7030_splits/<class>_test_split{1,2,3}.txt      rows "<video>.avi <flag>"

Flag 1 is for training, 2 for testing, 0 unused in that split. File names hold brackets, blanks
and ampersands, so they are compared, never matched as patterns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cam.data.core.listing import Listing, Problem
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.rows import Clips, Texts
from lightning_cam.data.core.seen_folders import SeenFolders, inodes, video_stems
from lightning_cam.data.core.selection import check_share, hold_out, select_classes
from lightning_cam.data.core.text_files import text_of
from lightning_cam.data.video.info import VIDEO_SUFFIXES
from lightning_cam.errors import ConfigError, DataError

SPLITS_FOLDER = "testTrainMulti_7030_splits"
LAYOUT = f"<root>/<class>/<video>.avi and <root>/{SPLITS_FOLDER}/<class>_test_split1.txt"
UNUSED_FLAG, TRAIN_FLAG, TEST_FLAG = "0", "1", "2"
# What follows the class in a name: body part, camera, people, view, quality, number.
_TAIL = re.compile(r"_[a-z]_(?:nm|cm)_np\d_[a-z]{2}_[a-z]{3}_\d+$")


class SplitRow(NamedTuple):
    """A row of a split list."""

    name: str  # of the class
    file: str
    flag: str

    @property
    def stem(self) -> str:
        """The file's name without suffix: a copy may have been converted."""
        return Path(self.file).stem


class HMDB51(VideoDataModule, listed_by=("split", "val_share", "splits_folder")):
    """HMDB51 with one of its official splits.

    The splits have no validation part. It is held out of the training part by source movie (see
    `source_movie`), in an order that depends on the movies' names alone: no movie is on both
    sides, and leaving out classes or files moves no clip from one part to another.

    Args:
        root: folder of the class folders and of the split lists.
        split: 1, 2 or 3.
        val_share: of each class's training clips, about; above 0 and below 0.5.
        splits_folder: where the lists are; None: in or beside `root`.
        **options: settings of `VideoDataModule`; `classes` may name some of the 51.
    """

    def __init__(
        self,
        root: str = "data/hmdb51_org",
        *,
        split: int = 1,
        val_share: float = 0.1,
        splits_folder: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if split not in (1, 2, 3):
            raise ConfigError(f"data.split={split!r} must be 1, 2 or 3")
        check_share(val_share=val_share)
        self.split = split
        self.val_share = val_share
        self.splits_folder = splits_folder

    def list_clips(self) -> Listing:
        look = SeenFolders(self.root)
        folder = find_hmdb51(look)
        rows, problems = read_split(find_lists(folder, self.splits_folder, look), self.split, look)
        classes = select_classes(sorted({row.name for row in rows}), self.given_classes)
        found = _found(folder, look)
        problems += look.problems
        misplaced, strangers = _strangers(found, rows, classes)
        movies = [source_movie(row.file, row.name) for row in rows]
        held = _held(rows, movies, self.val_share)
        numbers = {movie: number for number, movie in enumerate(sorted(set(movies)))}
        parts: dict[str, list[tuple[SplitRow, os.DirEntry[str], int]]] = {
            "train": [], "val": [], "test": [],
        }  # fmt: skip
        for row, movie, for_validation in zip(rows, movies, held, strict=True):
            if row.flag == UNUSED_FLAG or row.name not in classes or row.stem in misplaced:
                continue
            file = found.get(row.name, {}).get(row.stem)
            if file is None:
                problems.append(_missing(row, folder))
                continue
            part = "test" if row.flag == TEST_FLAG else "val" if for_validation else "train"
            parts[part].append((row, file, numbers[movie]))
        problems += strangers
        train, val, test = (
            Clips(
                Texts.of([f"{row.name}/{file.name}" for row, file, _ in parts[part]], f"{folder}/"),
                Texts.of([row.stem for row, _, _ in parts[part]]),
                [classes.index(row.name) for row, _, _ in parts[part]],
                [group for _, _, group in parts[part]],
                inodes=inodes(file for _, file, _ in parts[part]),
            )
            for part in ("train", "val", "test")
        )
        return Listing(classes, train, val, test, problems, sources=look.sources)


def find_hmdb51(look: SeenFolders) -> Path:
    """The folder of the class folders of a root.

    Raises:
        DataError: there is none, or the archives are still packed.
    """
    for folder in (look.root / "hmdb51_org", look.root):
        if look.is_dir(folder):
            packed = sorted(entry.name for entry in folder.iterdir() if _is_rar(entry.name))
            if packed and not any(_class_folders(folder)):
                raise DataError(
                    f"{str(folder)!r} holds {len(packed)} packed files ({packed[0]}, ...): HMDB51 "
                    "is a RAR of one RAR per class, unpack them too (for f in *.rar; do unrar x "
                    '"$f"; done)'
                )
            return folder
    raise DataError(
        f"no HMDB51 data at {str(look.root)!r}: expected {LAYOUT}; unpack hmdb51_org.rar and the "
        "RAR files in it, and set data.root=FOLDER (see data/README.md)"
    )


def find_lists(folder: Path, given: str | None, look: SeenFolders) -> Path:
    """The folder of the split lists: the given one, or in or beside the class folders.

    Raises:
        DataError: there is none.
    """
    places = [Path(given)] if given else [folder / SPLITS_FOLDER, folder.parent / SPLITS_FOLDER]
    for place in places:
        if look.is_dir(place):
            return place
    raise DataError(
        f"no split lists at {str(places[0])!r}: unpack test_train_splits.rar there, or name their "
        "folder with data.splits_folder=FOLDER"
    )


def read_split(lists: Path, split: int, look: SeenFolders) -> tuple[list[SplitRow], list[Problem]]:
    """The rows of one split, ordered by class, and what is wrong with them.

    Raises:
        DataError: there are no such lists, or not a single row is in them.
    """
    end = f"_test_split{split}.txt"
    files = [path for path in sorted(lists.iterdir()) if path.name.endswith(end)]
    if not files:
        raise DataError(f"no lists <class>{end} in {str(lists)!r}: unpack test_train_splits.rar")
    rows: dict[tuple[str, str], SplitRow] = {}
    problems = []
    for path in files:
        name = path.name.removesuffix(end)
        look.saw(path)
        try:
            lines = text_of(path).splitlines()
        except OSError as error:
            why = f"it cannot be read ({error.strerror}): unpack test_train_splits.rar again"
            problems.append(Problem("row", path.name, why))
            continue
        for number, line in enumerate(lines, 1):
            words = line.rsplit(maxsplit=1)
            if not words:
                continue
            where = f"{path.name}:{number}"
            if len(words) != 2 or words[1] not in (UNUSED_FLAG, TRAIN_FLAG, TEST_FLAG):
                why = f"{line.strip()!r} is not '<video> <flag>' with flag 0, 1 or 2; mend the row"
                problems.append(Problem("row", where, why))
            elif (name, words[0]) in rows:
                why = f"{words[0]!r} is listed twice, the first row counts; remove this one"
                problems.append(Problem("row", where, why))
            else:
                rows[name, words[0]] = SplitRow(name, *words)
    if not rows:
        lack = f"make no sense, the first is {problems[0]}" if problems else "are empty"
        raise DataError(
            f"the lists <class>{end} in {str(lists)!r} {lack}: unpack test_train_splits.rar again"
        )
    return list(rows.values()), problems


def source_movie(file: str, name: str) -> str:
    """The text before the class name in a file's name, which names the movie it was cut from.

    Example:
        >>> source_movie("April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair")
        'April_09'
    """
    stem = _TAIL.sub("", Path(file).stem)
    return stem.removesuffix(f"_{name}")


def _held(rows: list[SplitRow], movies: list[str], share: float) -> list[bool]:
    """For each row, whether it is a training row to be held out for validation."""
    numbers = [n for n, row in enumerate(rows) if row.flag == TRAIN_FLAG]
    names = sorted({row.name for row in rows})
    labels = [names.index(rows[n].name) for n in numbers]
    chosen = hold_out(labels, [movies[n] for n in numbers], share)
    held = {n for n, yes in zip(numbers, chosen, strict=True) if yes}
    return [n in held for n in range(len(rows))]


def _class_folders(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name != SPLITS_FOLDER and not entry.name.startswith("."):
            yield entry


def _found(folder: Path, look: SeenFolders) -> dict[str, dict[str, os.DirEntry[str]]]:
    """Class folder -> stem of a video -> its file."""
    return {
        entry.name: {
            stem: file for file, stem in video_stems(look.entries(entry), VIDEO_SUFFIXES).items()
        }
        for entry in _class_folders(folder)
    }


def _is_rar(name: str) -> bool:
    return name.lower().endswith(".rar")


def _strangers(
    found: dict[str, dict[str, os.DirEntry[str]]], rows: list[SplitRow], classes: list[str]
) -> tuple[set[str], list[Problem]]:
    """Stems of files that lie in another class's folder only; and what no list knows."""
    home = {row.stem: row.name for row in rows}
    names = {row.name for row in rows}
    misplaced, problems = set(), []
    for name, files in found.items():
        if name not in names:
            problems.append(Problem("unlisted", name, "no split list is named after this folder"))
            continue
        for stem, file in files.items():
            owner = home.get(stem)
            if owner == name or not {name, owner} & set(classes):
                continue
            what = f"{name}/{file.name}"
            if owner is None or stem in found.get(owner, {}):
                problems.append(Problem("unlisted", what, "in no split list; it is not used"))
            else:
                misplaced.add(stem)
                why = f"listed as {owner}, but in the folder of {name}; move it"
                problems.append(Problem("label", what, why))
    return misplaced, problems


def _missing(row: SplitRow, folder: Path) -> Problem:
    if (folder / row.name).is_dir():
        why = "listed, but not there; unpack its class again"
    elif (folder / f"{row.name}.rar").exists():
        why = f"still packed; unpack {row.name}.rar"
    else:
        why = "its class folder is not there; unpack it, or choose others with data.classes=[NAME]"
    return Problem("missing", f"{row.name}/{row.file}", why)
