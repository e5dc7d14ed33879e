"""What a data set of either kind holds, as the check command counts and opens it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cam.data.check.inspection import Finding, inspect_image, inspect_video
from lightning_cam.data.core.base import PARTS
from lightning_cam.data.core.listing import Listing, Problem
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.drives.drive import Drive, DriveClip
from lightning_cam.data.drives.module import DriveListing, SnippetDataModule


class Item(NamedTuple):
    """One thing to open."""

    clip: Any
    name: str  # of its row
    path: Path


@dataclass(frozen=True)
class Inventory:
    """What a data set holds.

    Attributes:
        heading: what the rows are.
        names: of the rows: classes, or sequences.
        parts: part -> how many clips, or images, of each name.
        sizes: part -> how many there are; a clip may have several names.
        problems: what was found without opening anything.
        items: everything once.
        inspect: opens one.
        steps: how many a clip needs; 0 where that does not apply.
        share: whether one missing thing is one clip of one class, so that a share of a class's
            clips can be told.
    """

    heading: str
    names: Sequence[str]
    parts: Mapping[str, Counter[str]]
    sizes: Mapping[str, int]
    problems: Sequence[Problem]
    items: Sequence[Item]
    inspect: Callable[[Any, Any], Finding]
    steps: int
    share: bool


def inventory(data: VideoDataModule | SnippetDataModule) -> Inventory:
    """List a data set; a part without anything is a problem, or a warning where it is for testing.

    Raises:
        UserError: there is none.
    """
    if isinstance(data, SnippetDataModule):
        held = _of_drives(data.listing)
    else:
        held = _of_clips(data.listing, data.reader.num_frames)
    empty = [part for part, counts in held.parts.items() if not counts.total()]
    if "test" in empty:  # one trains without
        warnings.warn("the test part holds nothing", stacklevel=2)
    why = "it holds nothing, and training needs it; fill its list or folder"
    needed = [Problem("part", part, why) for part in empty if part != "test"]
    return replace(held, problems=[*held.problems, *needed])


def _of_clips(listing: Listing, steps: int) -> Inventory:
    names = listing.classes
    parts = {
        part: Counter(names[label] for clip in listing.part(part) for label in clip.classes)
        for part in PARTS
    }
    # Once each: the validation part may serve for testing as well.
    clips = {clip.path: clip for part in PARTS for clip in listing.part(part)}
    items = [
        Item(clip, ", ".join(names[label] for label in clip.classes), path)
        for path, clip in clips.items()
    ]
    sizes = {part: len(listing.part(part)) for part in PARTS}
    one = not any(clip.labels for clip in clips.values())
    problems = listing.problems
    return Inventory("class", names, parts, sizes, problems, items, inspect_video, steps, one)


def _of_drives(listing: DriveListing) -> Inventory:
    parts: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
    items: dict[Path, Item] = {}
    for part, counts in parts.items():
        drive: Drive
        for drive in listing.part(part):
            counts[drive.name] += len(drive.images)
            for at, path in enumerate(drive.images):
                clip = DriveClip(drive.part(at, at + 1), 0, 1, 1, (0, 0))
                items.setdefault(path, Item(clip, drive.name, path.parent))
    problems = listing.problems
    named = {problem.label for problem in problems if problem.label}
    names = sorted(named.union(*parts.values()))
    every = list(items.values())
    sizes = {part: counts.total() for part, counts in parts.items()}
    return Inventory("images of", names, parts, sizes, problems, every, inspect_image, 0, False)
