"""One way through a video, frame by frame: for videos that are longer than memory.

`reading` keeps what it reads. A stream keeps nothing: its index comes from the packets (8 bytes a
frame), and frames are handed out as they are decoded, by PyAV whatever the reader. What a damaged
file still has is handed out before the damage is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_cam.data.video import container
from lightning_cam.data.video import frame_folders as images
from lightning_cam.data.video.completeness import bytes_missing
from lightning_cam.data.video.info import Pixels, VideoInfo
from lightning_cam.data.video.reading import naming, open_folder
from lightning_cam.data.video.sampling import Indices
from lightning_cam.errors import VideoReadError


@dataclass(frozen=True, eq=False)
class VideoStream:
    """A video to go through once.

    Attributes:
        info: what is known of it.
        frames: gives those that are wanted, by ascending numbers, as (H, W, C) one by one. It
            raises a VideoReadError where one cannot be decoded.
        missing: what the file lacks by its own account, in words; "" if nothing.
    """

    info: VideoInfo
    frames: Callable[[Indices], Iterator[Pixels]]
    missing: str = ""


def open_stream(
    path: str | Path, *, rate: float | None = None, image: images.Decode | None = None
) -> VideoStream:
    """Look at a video that is to be gone through once; of a file only packets are read.

    Args:
        path: any video file FFmpeg knows, or a folder of numbered images.
        rate: frames per second of a folder of images; files know their own.
        image: how images of a folder are decoded, as in `read_frames`.

    Raises:
        VideoReadError: it cannot be read.

    Example:
        >>> video = open_stream("film.mp4")
        >>> for image in video.frames(video.info.steps(fps=7.5)): ...
    """
    if Path(path).is_dir():
        folder = open_folder(path, rate=rate, image=image)
        return VideoStream(folder.info, lambda wanted: _named(path, rate, folder.stream(wanted)))
    with naming(path, rate):
        try:
            index = container.scan_packets(path)
        except VideoReadError:  # some frames have to be decoded to be counted, and cannot be
            index = container.scan_packets(path, trusted=True)
        lost = bytes_missing(path)
    missing = f"the file lacks {lost:,} bytes at its end" if lost else ""
    return VideoStream(index.info, lambda wanted: _named(path, rate, _held(index, wanted)), missing)


def _held(index: container.Index, wanted: Indices) -> Iterator[Pixels]:
    """Frames of a file as its index promises them."""
    given = 0
    try:
        for image in container.stream(index, wanted):
            yield image
            given += 1
    except container.OutOfStepError as error:
        raise VideoReadError(
            index.info.path, f"it is damaged before frame {wanted[given]}; {container.REENCODE}"
        ) from error


def _named(path: str | Path, rate: float | None, frames: Iterator[Pixels]) -> Iterator[Pixels]:
    with naming(path, rate):
        yield from frames
