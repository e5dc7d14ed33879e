"""One video, a file or a folder of images, as a clip for depth and motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.arrays import FloatArray
from lightning_cam.data.core.clips import SampleDict, finished
from lightning_cam.data.drives import cameras
from lightning_cam.data.drives.drive import Drive, DriveClip, drive_of, image_size
from lightning_cam.data.drives.reader import SnippetReader
from lightning_cam.data.video import frame_folders as images
from lightning_cam.data.video.info import Pixels, VideoInfo
from lightning_cam.data.video.reading import read_frames
from lightning_cam.data.video.sampling import Mask, temporal_window
from lightning_cam.errors import DataError, VideoReadError


def read_middle(
    path: Path, reader: SnippetReader, intrinsics: FloatArray, snippet: int, max_gap: int
) -> SampleDict:
    """The middle of a video as a sample for evaluation, without ground truth.

    Args:
        path: a video file or a folder of images.
        reader: tells the length and the transform.
        intrinsics: (3, 3) of the video's images.
        snippet: frames of a snippet.
        max_gap: a clip crosses no larger gap in the numbers of images.

    Raises:
        VideoReadError: it cannot be read, or is shorter than a snippet.
        DataError: the intrinsics cannot be of images of this size.
    """
    read = _from_folder if path.is_dir() else _from_file
    drive, start, frames, valid = read(path, reader, intrinsics, max_gap)
    count, edge = int(valid.sum()), snippet // 2
    if count < snippet:
        raise VideoReadError(path, f"it has {count} frames, a snippet takes {snippet}")
    if why := cameras.misfit(intrinsics, *frames[0].shape[:2]):
        raise DataError(
            f"the intrinsics do not fit {str(path)!r}: {why}; set data.intrinsics=[FX,FY,CX,CY] "
            "of its images as they are"
        )
    clip = DriveClip(drive, start, count, reader.num_frames, (edge, count - edge))
    return {
        **reader.no_truth(),
        **finished(reader.sample(clip, frames)),
        "clip_id": path.absolute().stem,
        "path": str(path),
    }


def _from_folder(
    path: Path, reader: SnippetReader, intrinsics: FloatArray, max_gap: int
) -> tuple[Drive, int, list[Pixels], Mask]:
    """The drive, where in it the clip begins, and its frames (T of them) with their validity."""
    drive = drive_of(path.absolute().name, path, images.numbered(path), intrinsics)
    start, stop = max(drive.runs(max_gap), key=lambda run: run[1] - run[0])
    drive = replace(drive.part(start, stop), size=image_size(drive))
    at, valid = temporal_window(stop - start, reader.num_frames)
    return drive, int(at[0]), [reader.frame(drive, int(position)) for position in at], valid


def _from_file(
    path: Path, reader: SnippetReader, intrinsics: FloatArray, _: int
) -> tuple[Drive, int, list[Pixels], Mask]:
    def middle(video: VideoInfo) -> NDArray[np.int64]:
        return temporal_window(video.num_frames, reader.num_frames)[0]

    decoded, at, info = read_frames(path, middle, rate=reader.rate)
    count = info.num_frames
    drive = Drive(path.stem, (path,) * count, tuple(range(count)), intrinsics, times=info.times)
    return drive, int(at[0]), list(decoded), temporal_window(count, reader.num_frames)[1]
