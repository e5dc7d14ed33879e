"""The one place where videos are read: files, and folders of numbered images.

Reading a video wrongly is easy and silent, so every read has two parts. The *index* (how many
frames, when each is shown, where key frames are) always comes from PyAV's packets, never from a
count that the file claims. The *pixels* are then decoded and held to the index:

- mov, mp4, matroska, webm, flv, and AVI without reordered frames allow random access: only the
  groups of pictures that hold the wanted frames are decoded.
- Everything else (MPEG program and transport streams, WMV, other AVI ...) is decoded in order from
  frame 0, no further than the last wanted frame.

PyAV is what "auto" reads with. decord gives the same pixels at the same speed from intact files
that allow random access, and is taken there on request, if it counts and times the frames as the
index does, and the file has 8 bits a channel, square pixels and nothing to turn or mirror (of ten
bits decord makes other colours, and it knows no mirror): all else PyAV reads for it. It is not the
default because of what it does elsewhere: seeking in program streams lands on wrong frames, many
`.mpg` files lose their first frames even in order, bit errors in mp4 give wrong frames without an
error, and some abort the process, which no `except` can catch.

Folders of images (`lightning_cam.data.video.frame_folders`) obey the same functions.

Readers live inside one call and use one thread, so loader workers may be forked or spawned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lightning_cam.data.video import container
from lightning_cam.data.video import frame_folders as images
from lightning_cam.data.video.frame_folders import is_frame_folder
from lightning_cam.data.video.info import VIDEO_SUFFIXES, Each, Pixels, VideoInfo
from lightning_cam.data.video.sampling import Indices, temporal_window, uniform_segments
from lightning_cam.errors import ConfigError, VideoReadError
from lightning_cam.files import is_address

__all__ = [
    "READERS",
    "VIDEO_SUFFIXES",
    "VideoFrames",
    "VideoInfo",
    "check_reader",
    "is_frame_folder",
    "open_folder",
    "probe",
    "read_clip",
    "read_frames",
]

READERS = ("auto", "decord", "pyav")


class VideoFrames(NamedTuple):
    """Decoded frames and where they come from."""

    frames: Pixels  # (T, H, W, 3) RGB, or (T, H, W, 1) grey
    indices: Indices  # (T,) source frame numbers
    info: VideoInfo


def read_clip(
    path: str | Path,
    frames: Sequence[int] | None = None,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    reader: str = "auto",
    rate: float | None = None,
) -> Pixels:
    """Read frames of a video; only those asked for are kept, and where possible decoded.

    Args:
        path: any video file FFmpeg knows, or a folder of numbered images.
        frames: exact source indices, in any order, repeats allowed.
        fps: instead, every step at this rate, by timestamps.
        num_frames: with `fps` a centred window of so many steps, a short video repeating its last
            step; alone, the middle frames of so many equal parts of the video.
        reader: "auto", "pyav" or "decord". All give the same frames; decord (where installed, and
            only for plain files, see the module) does not notice damage as reliably. Folders do
            not depend on it.
        rate: frames per second of a folder of images; files know their own.

    Returns:
        (T, H, W, 3) uint8 RGB as a player shows them: turned and mirrored as the file says, and
        resized to square pixels where it has others. With no selection: all frames.

    Raises:
        VideoReadError: the video cannot be read, or has no such frame.

    Example:
        >>> clip = read_clip("v_biking_01_01.mpg", fps=7.5, num_frames=16)
        >>> clip = read_clip("20bn-something-something-v1/100218", fps=4, num_frames=16, rate=12)
    """
    if frames is not None and not (fps is None and num_frames is None):
        raise ConfigError("choose video frames either by `frames` or by `fps` and `num_frames`")
    if num_frames is not None and num_frames < 1:
        raise ConfigError(f"num_frames must be at least 1, got {num_frames}")

    def select(info: VideoInfo) -> ArrayLike:
        if frames is not None:
            return frames
        if fps is not None:
            steps = info.steps(fps)
            return (
                steps if num_frames is None else steps[temporal_window(len(steps), num_frames)[0]]
            )
        if num_frames is not None:
            return uniform_segments(info.num_frames, num_frames)[0]
        return np.arange(info.num_frames)

    return read_frames(path, select, reader=reader, rate=rate).frames


def read_frames(
    path: str | Path,
    select: Callable[[VideoInfo], ArrayLike],
    *,
    reader: str = "auto",
    rate: float | None = None,
    image: images.Decode | None = None,
    each: Each | None = None,
) -> VideoFrames:
    """Read the frames that `select` picks once the video's length and times are known.

    Args:
        path: any video file FFmpeg knows, or a folder of numbered images.
        select: from the `VideoInfo` to source indices. It may be called twice (when decoding shows
            that a damaged file has fewer frames than packets), so it must not change anything.
        reader: as in `read_clip`.
        rate: as in `read_clip`; without it the times of a folder count its numbers.
        image: how images of a folder are decoded, `images.colour` or `images.grey`.
        each: is done to the frames (n, H, W, C), some at a time as they are decoded, for example
            resizing: as they are in the file they are never all in memory.

    Returns:
        frames, their source indices, and the `VideoInfo`.

    Raises:
        VideoReadError: the video cannot be read, or has no such frame.

    Example:
        >>> frames, indices, info = read_frames(path, lambda video: video.steps(7.5))
        >>> seconds = info.times[indices]
    """
    check_reader(reader)
    with naming(path, rate):
        if Path(path).is_dir():
            folder = open_folder(path, rate=rate, image=image)
            return _read(folder.info, select, partial(folder.decode, each=each))
        decode = partial(container.decode, reader=reader, each=each)
        with container.scanned(path) as index:
            try:
                return _read(index.info, select, partial(decode, index))
            except container.OutOfStepError:
                index = container.recount(index)
                return _read(index.info, select, partial(decode, index))


def open_folder(
    path: str | Path, *, rate: float | None = None, image: images.Decode | None = None
) -> images.Folder:
    """The index of a folder of images, which decodes those that it is asked for.

    Args:
        path: a folder of numbered images.
        rate: as in `read_clip`.
        image: as in `read_frames`.

    Raises:
        VideoReadError: it cannot be read.
    """
    with naming(path, rate):
        return images.scan_frame_folder(path, rate, image)


def check_reader(reader: str) -> None:
    """Raise a ConfigError unless this is a reader that can be had here."""
    if reader not in READERS:
        raise ConfigError(f"unknown video reader {reader!r}: choose one of {', '.join(READERS)}")
    if reader == "decord" and container.decord is None:
        raise ConfigError("decord is not installed here: set the video reader to auto or pyav")


def probe(path: str | Path, *, rate: float | None = None) -> VideoInfo:
    """Length, rate, size and timestamps of a video. Decodes only what it must.

    Args:
        path: a video file, or a folder of numbered images.
        rate: frames per second of a folder of images; files know their own.

    Raises:
        VideoReadError: the video cannot be read.
    """
    with naming(path, rate):
        if Path(path).is_dir():
            return images.scan_frame_folder(path, rate).info
        index = container.scan_packets(path)
        # In order there is nothing to trust but the decoder, so frames are counted by it.
        return (index if index.seekable or index.counted else container.recount(index)).info


def _read(
    info: VideoInfo,
    select: Callable[[VideoInfo], ArrayLike],
    decode: Callable[[Indices], Pixels],
) -> VideoFrames:
    """Frames in the order asked for, each decoded once."""
    indices = _checked(info, select(info))
    wanted, places = np.unique(indices, return_inverse=True)
    frames = decode(wanted)
    in_order = len(wanted) == len(indices) and bool((places == np.arange(len(places))).all())
    return VideoFrames(frames if in_order else frames[places], indices, info)


def _checked(info: VideoInfo, indices: ArrayLike) -> Indices:
    wanted = np.atleast_1d(np.asarray(indices))
    if wanted.size == 0:
        raise VideoReadError(info.path, "no frames are asked for")
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
        raise VideoReadError(info.path, "frames are asked for by whole numbers in one list")
    outside = wanted[(wanted < 0) | (wanted >= info.num_frames)]
    if outside.size:
        raise VideoReadError(
            info.path,
            f"there is no frame {outside[0]}: it has {info.num_frames} "
            f"(0 to {info.num_frames - 1})",
        )
    return wanted.astype(np.int64)


@contextmanager
def naming(path: str | Path, rate: float | None) -> Iterator[None]:
    """Turn whatever goes wrong with a video into one line that names it."""
    if rate is not None and not 0 < rate < np.inf:
        raise ConfigError(f"rate must be a positive number of frames per second, got {rate}")
    file = Path(path)
    try:
        if not file.exists():
            if is_address(path):
                raise VideoReadError(path, "it is an address; download the video, give its path")
            raise VideoReadError(path, "there is no such file; check the path")
        if not file.is_dir() and not file.is_file():
            raise VideoReadError(path, "it is a device; give a video file or a folder of images")
        if file.is_file() and file.stat().st_size == 0:
            raise VideoReadError(path, "the file is empty; copy it again")
        yield
    except OSError as error:
        raise VideoReadError(path, f"{error.strerror}; check the path and its rights") from error
