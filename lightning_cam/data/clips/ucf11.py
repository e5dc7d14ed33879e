"""UCF11 (YouTube Action).

    <root>/<class>/v_<prefix>_<group>/v_<prefix>_<group>_<clip>.mpg

A group is one actor, background and viewpoint, so its clips must stay on one side of a split.
Group numbers are per class, and the prefix is not the class (`walking/v_walk_dog_15`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.ground_truth import truth_path
from lightning_cam.data.core.listing import Listing, Problem, check_classes
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.text_files import entries_of
from lightning_cam.errors import DataError

ARCHIVES = ("UCF11_updated_mpg", "action_youtube_naudio")  # what the two official archives hold
UCF11_SUFFIXES = (".mpg", ".avi", ".mp4")
LAYOUT = "<root>/<class>/v_<name>_<group>/v_<name>_<group>_<clip>.mpg"
_GROUP = re.compile(r"v_.+_(\d+)")
_CLIP = re.compile(r"v_.+_(\d+)_(\d+)")


@dataclass(frozen=True)
class Split:
    """Which groups of every class serve for what. Disjoint."""

    train: frozenset[int]
    val: frozenset[int]
    test: frozenset[int]


def find_ucf11(root: str | Path) -> Path:
    """The folder of the class folders: `root`, or an unpacked archive in it.

    Raises:
        DataError: there is no such folder.
    """
    root = Path(root)
    for folder in (*(root / name for name in ARCHIVES), root):
        if folder.is_dir():
            return folder
    raise DataError(
        f"no UCF11 data at {str(root)!r}: expected {LAYOUT}; unpack UCF11_updated_mpg.rar and set "
        "data.root=FOLDER, or train on synthetic data with data=synthetic"
    )


def read_index(
    root: str | Path,
    classes: Sequence[str] | None = None,
    problems: list[Problem] | None = None,
) -> list[Clip]:
    """Every clip below `root`, ordered by class, group and clip number.

    Classes are the folders, in alphabetical order. Folders such as `Annotation` are skipped.

    Args:
        root: see `find_ucf11`.
        classes: the class names in the order of their labels, for instance a checkpoint's.
        problems: gets the videos whose names do not fit their folders, which are not used.

    Raises:
        DataError: nothing usable is there, or the classes differ.
    """
    folder = find_ucf11(root)
    problems = [] if problems is None else problems
    found = {
        entry.name: rows
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and (rows := sorted(_class_clips(entry, Path(root), problems)))
    }
    if not found:
        first = f" (found {problems[0]})" if problems else ""
        raise DataError(
            f"no videos ({', '.join(UCF11_SUFFIXES)}) in {str(folder)!r}: expected "
            f"{LAYOUT}{first}; set data.root=FOLDER to the folder that holds the class folders"
        )
    classes = check_classes(found, classes, repr(str(folder)))
    truths = folder.parent / "ground_truth"
    clips = []
    for label, name in enumerate(classes):
        for group, _, path in found[name]:
            truth = truth_path(truths, name, path.stem)
            clips.append(Clip(path, path.stem, label, group, truth if truth.is_file() else None))
    return clips


def _class_clips(
    folder: Path, root: Path, problems: list[Problem]
) -> Iterator[tuple[int, int, Path]]:
    """(group, clip, path) of a class folder's videos; strays become problems."""
    for group_folder in entries_of(folder, root, problems):
        match = _GROUP.fullmatch(group_folder.name)
        if match is None or not group_folder.is_dir():
            continue
        for path in entries_of(group_folder, root, problems):
            if path.suffix.lower() not in UCF11_SUFFIXES or path.name.startswith("."):
                continue
            numbers = _CLIP.fullmatch(path.stem)
            if numbers is None or int(numbers[1]) != int(match[1]):
                expected = f"{group_folder.name}_<clip>{path.suffix}"
                why = f"its name does not fit its folder: expected {expected}; rename or remove it"
                problems.append(Problem("stray", path.relative_to(root).as_posix(), why))
                continue
            yield int(numbers[1]), int(numbers[2]), path


def split_groups(
    groups: Sequence[int],
    *,
    val: Sequence[int],
    test: Sequence[int],
    train_groups: Sequence[int] | None = None,
    val_groups: Sequence[int] | None = None,
    test_groups: Sequence[int] | None = None,
) -> Split:
    """Assign groups to the three parts.

    Args:
        groups: all group numbers of the data set.
        val: validation groups unless given, for a set of 25 groups. A smaller set takes the last
            fifth (at least one group) for testing and the fifth before it for validation.
        test: test groups unless given, for a set of 25 groups.
        train_groups: given by the user; None for all that remain.
        val_groups: given by the user.
        test_groups: given by the user.

    Raises:
        DataError: a group is in two parts, in no class, or a part is empty.
    """
    groups = sorted(set(groups))
    if len(groups) < 25:
        fifth = max(1, len(groups) // 5)
        val, test = groups[-2 * fifth : -fifth], groups[-fifth:]
    given = {"train_groups": train_groups, "val_groups": val_groups, "test_groups": test_groups}
    parts = {name: set(part) for name, part in given.items() if part is not None}
    for name, part in parts.items():
        if missing := sorted(part - set(groups)):
            raise DataError(f"{name} names groups {missing}, but the data has {groups}")
    for name, default in (("test_groups", test), ("val_groups", val), ("train_groups", groups)):
        if name not in parts:
            parts[name] = set(default).difference(*parts.values())
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := sorted(parts[f"{one}_groups"] & parts[f"{other}_groups"]):
            raise DataError(f"groups {both} are in both {one}_groups and {other}_groups: pick one")
    if empty := [name for name, part in parts.items() if not part]:
        raise DataError(
            f"no groups are left for {', '.join(empty)}: the data has groups {groups}, "
            "set train_groups, val_groups and test_groups"
        )
    return Split(*(frozenset(parts[f"{name}_groups"]) for name in ("train", "val", "test")))


class UCF11(VideoDataModule):
    """UCF11, or any data in its layout.

    Unless groups are given, 25 groups are split as 2-7 for testing and 8-9 for validation, which
    leaves 1,202 clips that are not for testing and 398 that are (Bayer et al., 2022: 1,200 / 400).

    Args:
        root: folder of the class folders, or of an unpacked archive. Ground truth is used in
            validation and testing where a `ground_truth` folder lies beside the class folders'.
        train_groups: group numbers, the same for every class; None for the default.
        val_groups: as above.
        test_groups: as above.
        **options: settings of `VideoDataModule`.
    """

    default_val: tuple[int, ...] = (8, 9)
    default_test: tuple[int, ...] = (2, 3, 4, 5, 6, 7)

    def __init__(
        self,
        root: str = "data/UCF11_updated_mpg",
        *,
        train_groups: list[int] | None = None,
        val_groups: list[int] | None = None,
        test_groups: list[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.groups = {
            "train_groups": train_groups,
            "val_groups": val_groups,
            "test_groups": test_groups,
        }

    @property
    def folders(self) -> list[str] | None:
        """Names of the class folders, in the order of their labels; None: all there are."""
        return self.given_classes

    def list_clips(self) -> Listing:
        problems: list[Problem] = []
        clips = read_index(self.root, self.folders, problems)
        split = split_groups(
            [clip.group for clip in clips],
            val=self.default_val,
            test=self.default_test,
            **self.groups,
        )
        names = {clip.label: clip.path.parents[1].name for clip in clips}
        train, val, test = (
            [clip for clip in clips if clip.group in groups]
            for groups in (split.train, split.val, split.test)
        )
        return Listing([names[label] for label in sorted(names)], train, val, test, problems)
