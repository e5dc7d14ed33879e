"""Which published annotations a path holds, and those of the clips of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lightning_cam.data.annotations import epic, puppets, something_else, ucf101_24
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.ground_truth import VideoTruth
from lightning_cam.data.video.info import VIDEO_SUFFIXES
from lightning_cam.errors import DataError

# What finds the annotations of videos by their names, without suffix, below a path; None if what
# lies there is of another format.
Format = Callable[[Path, Sequence[str]], Mapping[str, VideoTruth] | None]
FORMATS: Mapping[str, Format] = {
    "pyannot.pkl of UCF101-24": ucf101_24.find,
    "bounding_box_smthsmth_part*.json of Something-Else": something_else.find,
    "EPIC_train_object_labels.csv of EPIC-KITCHENS-55": epic.find,
    "puppet_mask.mat files of J-HMDB": puppets.find,
}


def annotated(clips: Sequence[Clip], path: Path) -> list[Clip]:
    """Clips with the ground truth that published annotations have of them, in place of their own.

    A clip that is not in the annotations has none.

    Args:
        clips: rows of a data set.
        path: file or folder of the annotations, of any of `FORMATS`.

    Raises:
        DataError: there are none, they cannot be read, or none is of these clips.
    """
    if not (path.is_file() or path.is_dir()):  # a pipe has no end
        raise DataError(f"no annotations at {str(path)!r}; set data.annotations=PATH to theirs")
    names = [video_name(clip.path) for clip in clips]
    for find in FORMATS.values():
        found = find(path, names)
        if found is None:
            continue
        if clips and not found:
            raise DataError(
                f"the annotations {str(path)!r} have none of the {len(clips)} videos, the first of "
                f"which is {names[0]!r}; set data.annotations=PATH to those of this data set"
            )
        rows = zip(clips, names, strict=True)
        return [replace(clip, truth=found.get(name)) for clip, name in rows]
    raise DataError(
        f"{str(path)!r} holds no annotations that are known ({', '.join(FORMATS)}); set "
        "data.annotations=PATH to the file or folder of some"
    )


def video_name(path: Path) -> str:
    """The name of a video, file or folder of images, without suffix."""
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
