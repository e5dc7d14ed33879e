"""Your own videos: one folder per class, and no code.

    <root>/<class>/**/<video>                            parts are held out, see `VideoFolder`
    <root>/{train,val,test}/<class>/**/<video>           or they are folders

A video is a file of any common kind, or a folder of numbered images.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.listing import Listing, Problem
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.seen_folders import SeenFolders
from lightning_cam.data.core.selection import (
    check_separator,
    check_share,
    hold_out,
    label_of,
    labels_in,
    select_classes,
)
from lightning_cam.data.video.identity import everything_below, is_shown
from lightning_cam.data.video.info import VIDEO_SUFFIXES
from lightning_cam.errors import ConfigError, DataError

LAYOUT = "<root>/<class>/<video>, or <root>/{train,val,test}/<class>/<video>"
PART_FOLDERS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
SplitUnit = str  # what must not be on both sides of a split


class VideoFolder(
    VideoDataModule, listed_by=("val_share", "test_share", "group_pattern", "separator")
):
    """Videos in one folder per class; classes are the folders in alphabetical order.

    Where `root` holds a folder `train` and one of `val` (`validation`, `valid`) and `test`, these
    are the parts, and one that is absent is held out of `train`. Else all parts are held out of
    the class folders. What is held out depends on the files' names alone (`hold_out`): about its
    share of every class, at least one clip for validation and one for testing of a class with
    three or more. Renaming or adding a file does not move the others, or hardly any.

    Args:
        root: folder of the class folders.
        val_share: of each class's clips, for validation; above 0 and below 0.5.
        test_share: as above, for testing.
        group_pattern: regular expression, searched for in a video's path below its class folder.
            What its first group matches names what must not be on both sides of a split, for
            instance a person: "^(person[0-9]+)_". None: every video stands alone.
        separator: what stands between the labels of a clip that has several, as in the folder
            "walking+waving"; None: each has one.
        **options: settings of `VideoDataModule`; `classes` may name some of the folders, `rate`
            is that of folders of images.
    """

    def __init__(
        self,
        root: str,
        *,
        val_share: float = 0.1,
        test_share: float = 0.1,
        group_pattern: str | None = None,
        separator: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **{"rate": 12.0, **options})
        check_share(val_share=val_share, test_share=test_share)
        self.val_share = val_share
        self.test_share = test_share
        self.group_pattern = group_pattern if group_pattern is None else _checked(group_pattern)
        self.separator = check_separator(separator)

    def list_clips(self) -> Listing:
        root = Path(self.root)
        folders = _parts(root)
        found: dict[str, dict[str, list[Path]]] = {}  # part -> class -> videos
        look = SeenFolders(root)
        problems = look.problems
        for part, folder in folders.items():
            found[part] = find_videos(folder, look)
        names = sorted({n for name in found["train"] for n in labels_in(name, self.separator)})
        if not names:
            raise DataError(
                f"no videos in class folders of {str(folders['train'])!r}: expected {LAYOUT}; set "
                "data.root=FOLDER to the folder that holds the class folders"
            )
        classes = select_classes(names, self.given_classes)
        parts = {part: self._clips(folders[part], found[part], names) for part in found}
        clips, units = parts["train"], self._units(parts["train"], folders["train"], problems)
        absent = [part for part in ("test", "val") if part not in parts]
        rest = 1.0
        for part in absent:
            share = self.test_share if part == "test" else self.val_share
            leave = 2 if part == "test" and "val" in absent else 1
            held = _held_out(clips, units, share / rest, leave)
            rest -= share
            parts[part] = [clip for clip, out in zip(clips, held, strict=True) if out]
            units = [unit for unit, out in zip(units, held, strict=True) if not out]
            clips = [clip for clip, out in zip(clips, held, strict=True) if not out]
        parts["train"] = clips
        problems += _few(parts, names, classes, absent)
        for part, videos in found.items():
            problems += [
                Problem("label", f"{folders[part].name}/{name}", "no class of the training part")
                for name in videos
                if not set(labels_in(name, self.separator)) <= set(names)
            ]
        parts = _of_classes(parts, names, classes)
        train, val, test = parts["train"], parts["val"], parts["test"]
        return Listing(classes, train, val, test, problems, sources=look.sources)

    def _clips(self, folder: Path, videos: dict[str, list[Path]], names: list[str]) -> list[Clip]:
        """The clips of a part, of classes that are known."""
        clips = []
        for name in sorted(videos):
            labels = labels_in(name, self.separator)
            label = label_of(labels, names, self.separator)
            if label is None or not set(labels) <= set(names):
                continue
            for path in videos[name]:
                clip_id = path.relative_to(folder).as_posix()
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    clip_id = clip_id.removesuffix(path.suffix)
                clips.append(Clip(path, clip_id, **label))
        return clips

    def _units(
        self, clips: Sequence[Clip], folder: Path, problems: list[Problem]
    ) -> list[SplitUnit]:
        """For each clip, what must not be divided."""
        units = []
        pattern = re.compile(self.group_pattern or "")
        for clip in clips:
            path = clip.path.relative_to(folder).as_posix()
            match = None
            if self.group_pattern:
                match = pattern.search(path.partition("/")[2])
                if match is None:
                    why = f"group_pattern {self.group_pattern!r} is not in it; correct it"
                    problems.append(Problem("group", path, why))
            units.append(f"group {match[1]}" if match else path)
        return units


def find_videos(folder: Path, look: SeenFolders) -> dict[str, list[Path]]:
    """Class -> its videos in order of their names; what is not a video becomes a problem.

    Args:
        folder: of the class folders.
        look: of the data set; its problems get more.
    """
    root, problems = look.root, look.problems
    look.saw(folder)
    entries = [entry for entry in sorted(folder.iterdir()) if is_shown(entry)]
    for entry in entries:
        if not entry.is_dir() and entry.name.lower().endswith(VIDEO_SUFFIXES):
            why = "in no class folder; move it into one"
            problems.append(Problem("stray", entry.relative_to(root).as_posix(), why))
    tops = [entry for entry in entries if entry.is_dir()]
    found = everything_below(tops, look.saw)
    videos: dict[str, list[Path]] = {top.name: [] for top in tops}
    for top, path in found.files:
        if path.is_dir() or path.name.lower().endswith(VIDEO_SUFFIXES):
            videos[top.name].append(path)
        else:
            why = "no video by its suffix; convert it or remove it"
            problems.append(Problem("stray", path.relative_to(root).as_posix(), why))
    for path, error in found.closed:
        look.shut(path, error)
    for path, first in found.again:
        why = f"a link to what is at {str(first)!r} already, and not followed; remove it"
        problems.append(Problem("copy", path.relative_to(root).as_posix(), why))
    for name in [name for name, of_class in videos.items() if not of_class]:
        why = "a class folder without videos; fill it or remove it"
        problems.append(Problem("few", (folder / name).relative_to(root).as_posix(), why))
        del videos[name]
    return {name: sorted(of_class) for name, of_class in videos.items()}


def _held_out(
    clips: Sequence[Clip], units: Sequence[SplitUnit], share: float, leave: int
) -> list[bool]:
    """`hold_out` of clips that may be of several classes."""
    pairs = [(k, unit) for clip, unit in zip(clips, units, strict=True) for k in clip.classes]
    held = hold_out([k for k, _ in pairs], [unit for _, unit in pairs], share, leave=leave)
    out = {unit for (_, unit), taken in zip(pairs, held, strict=True) if taken}
    return [unit in out for unit in units]


def _parts(root: Path) -> dict[str, Path]:
    """The folder of each part; that of all class folders is "train" where there are no parts."""
    if not root.is_dir():
        raise DataError(f"no folder {str(root)!r}: expected {LAYOUT}; set data.root=FOLDER")
    parts: dict[str, Path] = {}
    for part, names in PART_FOLDERS.items():
        for name in names:
            if (root / name).is_dir():
                parts.setdefault(part, root / name)
    return parts if "train" in parts and len(parts) > 1 else {"train": root}


def _checked(text: str) -> str:
    """Raise a ConfigError for what is no regular expression with a group."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"data.group_pattern={text!r} is not a regular expression: {error}"
        ) from error
    if not pattern.groups:
        raise ConfigError(
            f"data.group_pattern={text!r} needs a group, for instance '^(person[0-9]+)_'"
        )
    return text


def _few(
    parts: dict[str, list[Clip]], names: list[str], classes: list[str], absent: list[str]
) -> list[Problem]:
    """Classes that nothing could be held out of."""
    counts = {part: Counter(k for clip in parts[part] for k in clip.classes) for part in absent}
    sizes = sum(counts.values(), Counter(k for clip in parts["train"] for k in clip.classes))
    problems = []
    for label, name in enumerate(names):
        lacking = [part for part in absent if not counts[part][label]]
        if lacking and name in classes:
            why = (
                f"its {sizes[label]} videos (or groups of them) are too few to hold any out for "
                f"{' and '.join(sorted(lacking))}; add some"
            )
            problems.append(Problem("few", name, why))
    return problems


def _of_classes(
    parts: dict[str, list[Clip]], names: list[str], classes: list[str]
) -> dict[str, list[Clip]]:
    """Only the clips of some classes, with their labels."""
    chosen = [names.index(name) for name in classes]
    return {
        part: [
            replace(
                clip,
                label=chosen.index(clip.label) if not clip.labels else clip.label,
                labels=tuple(clip.labels[k] for k in chosen) if clip.labels else (),
            )
            for clip in clips
            if not set(chosen).isdisjoint(clip.classes)
        ]
        for part, clips in parts.items()
    }
