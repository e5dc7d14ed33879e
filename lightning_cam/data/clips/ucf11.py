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

import numpy as np

from lightning_cam.data.core.ground_truth import truth_path
from lightning_cam.data.core.listing import Listing, Problem, check_classes
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.rows import Clips, Texts
from lightning_cam.data.core.seen_folders import SeenFolders, inodes, video_stems
from lightning_cam.errors import DataError

ARCHIVES = ("UCF11_updated_mpg", "action_youtube_naudio")  # what the two official archives hold
UCF11_SUFFIXES = (".mpg", ".avi", ".mp4")
LAYOUT = "<root>/<class>/v_<name>_<group>/v_<name>_<group>_<clip>.mpg"
_GROUP = re.compile(r"v_.+_(\d+)")
_FILE = re.compile(rf"v_.+_(\d+)_(\d+)\.(?ai:{'|'.join(s[1:] for s in UCF11_SUFFIXES)})")


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
    look: SeenFolders | None = None,
) -> Clips:
    """Every clip below `root`, ordered by class, group and clip number.

    Classes are the folders, in alphabetical order. Folders such as `Annotation` are skipped.

    Args:
        root: see `find_ucf11`.
        classes: the class names in the order of their labels, for instance a checkpoint's.
        look: of `root`; its problems get the videos whose names do not fit their folders, which
            are not used.

    Raises:
        DataError: nothing usable is there, or the classes differ.
    """
    look = look or SeenFolders(root)
    folder = find_ucf11(root)
    found = {
        entry.name: inside
        for entry in look.entries(folder)
        if entry.is_dir() and (inside := sorted(_class_clips(entry.path, look)))
    }
    if not found:
        first = f" (found {look.problems[0]})" if look.problems else ""
        raise DataError(
            f"no videos ({', '.join(UCF11_SUFFIXES)}) in {str(folder)!r}: expected "
            f"{LAYOUT}{first}; set data.root=FOLDER to the folder that holds the class folders"
        )
    classes = check_classes(found, classes, repr(str(folder)))
    truths = folder.parent / "ground_truth"
    judged = look.is_dir(truths)
    rows = [(name, *row) for name in classes for row in found[name]]
    ids = [file[: file.rindex(".")] for *_, file, _ in rows]
    there: set[str] = set()
    for name in classes:
        if judged and look.is_dir(truths / name):
            there |= {entry.path for entry in look.entries(truths / name) if entry.is_file()}
    files = None
    if there:
        pairs = zip(rows, ids, strict=True)
        wanted = [str(truth_path(truths, row[0], clip_id)) for row, clip_id in pairs]
        files = Texts.of([path if path in there else "" for path in wanted])
    return Clips(
        Texts.of([f"{name}/{below}/{file}" for name, _, _, below, file, _ in rows], f"{folder}/"),
        Texts.of(ids),
        np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes]),
        [row[1] for row in rows],
        truths=files,
        inodes=[row[-1] for row in rows],
    )


def _class_clips(folder: str, look: SeenFolders) -> Iterator[tuple[int, int, str, str, int]]:
    """Group, clip, folder, file and its number of a class's videos; strays are problems."""
    for group_folder in look.entries(folder):
        match = _GROUP.fullmatch(group_folder.name)
        if match is None or not group_folder.is_dir():
            continue
        group, name = int(match[1]), group_folder.name
        entries = look.entries(group_folder.path)
        for entry, inode in zip(entries, inodes(entries), strict=True):
            numbers = _FILE.fullmatch(entry.name)
            if numbers is not None and int(numbers[1]) == group:
                yield group, int(numbers[2]), name, entry.name, inode
            elif video_stems([entry], UCF11_SUFFIXES):
                expected = f"{name}_<clip>{Path(entry.name).suffix}"
                why = f"its name does not fit its folder: expected {expected}; rename or remove it"
                look.problems.append(Problem("stray", look.relative(entry.path), why))


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


class UCF11(VideoDataModule, listed_by=("groups", "folders")):
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
        look = SeenFolders(self.root)
        for name in ARCHIVES:
            look.saw(Path(self.root, name))
        clips = read_index(self.root, self.folders, look)
        split = split_groups(
            clips.groups.tolist(),
            val=self.default_val,
            test=self.default_test,
            **self.groups,
        )
        train, val, test = (
            clips.take(np.isin(clips.groups, [*groups]))
            for groups in (split.train, split.val, split.test)
        )
        _, first = np.unique(clips.labels, return_index=True)
        classes = [clips[n].path.parts[-3] for n in first.tolist()]
        return Listing(classes, train, val, test, look.problems, sources=look.sources)
