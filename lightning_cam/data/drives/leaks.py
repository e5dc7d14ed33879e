"""Parts of drives share no image: the rule of `lightning_cam.data.video.identity` for drives.

A drive may be cut into parts, whose images are then others. Two drives of different parts leak if
they have an image of one folder in common, whatever links lead there, or if all images of the same
names are links or copies of each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lightning_cam.data.core.listing import Problem
from lightning_cam.data.drives.drive import Drive
from lightning_cam.data.video.identity import Identity, identity, same_images

_STAYS = ("test", "val", "train")  # in the first of these


@dataclass
class _Seen:
    """What is kept in a part of the images of one folder."""

    drive: Drive
    names: set[str]


def without_leaks(
    parts: Mapping[str, Sequence[Drive]], asked: Collection[str]
) -> tuple[dict[str, list[Drive]], list[Problem]]:
    """The drives that each part keeps, and a problem for each that it does not.

    Args:
        parts: "train", "val", "test". A validation part that serves for testing too is one part.
        asked: names of sequences that settings name for several parts.
    """
    kept: dict[str, list[Drive]] = {part: [] for part in parts}
    problems: list[Problem] = []
    seen: dict[str, dict[Identity, _Seen]] = {part: {} for part in parts}
    for part in _STAYS:
        if part == "val" and parts["val"] is parts["test"]:
            kept["val"] = kept["test"]
            continue
        for drive in parts[part]:
            folder, names = identity(drive.folder), {image.name for image in drive.images}
            at = next(
                (
                    (where, old.drive)
                    for where, folders in seen.items()
                    for key, old in folders.items()
                    if where != part
                    and not (drive.name == old.drive.name and drive.name in asked)
                    and (common := names & old.names)
                    and (
                        key == folder or same_images(drive.folder, old.drive.folder, sorted(common))
                    )
                ),
                None,
            )
            if at is None:
                kept[part].append(drive)
                seen[part].setdefault(folder, _Seen(drive, set())).names |= names
            else:
                problems.append(_leak(drive, *at))
    return kept, problems


def _leak(drive: Drive, part: str, other: Drive) -> Problem:
    why = f"it shows images of {str(other.folder)!r} of the {part} part, where they stay"
    return Problem("leak", str(drive.folder), f"{why}; remove one of them", drive.name)
