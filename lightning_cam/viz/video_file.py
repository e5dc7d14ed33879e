"""Video files that play in browsers and in W&B."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from lightning_cam.files import cannot_write, ffmpeg_name, nameless_file, whole_file
from lightning_cam.viz.overlay import check_frames

# Visually clean, and quick enough to encode a few clips after every epoch ("superfast" saves a
# third of the bytes and takes twice as long). No B-frames: the first image then stands at
# time 0, and a browser seeks to any frame at once.
_X264 = {"preset": "ultrafast", "crf": "20", "bf": "0", "x264-params": "rc-lookahead=0"}

_CLOCK = Fraction(1, 90_000)  # seconds, of videos whose frames come at moments of their own


def write_video(path: str | Path, frames: np.ndarray, fps: float = 8) -> Path:
    """Write frames as an H.264 mp4 (yuv420p, index first) that plays in any browser.

    Odd heights and widths are padded by repeating the last row or column, as yuv420p needs even
    ones. The file appears under its name only when it is complete.

    Args:
        path: the file; missing folders are made.
        frames: (T, H, W, 3) uint8 RGB.
        fps: frames per second, may be fractional.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: wrong dtype, shape or fps.
    """
    check_frames(frames)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps: expected a positive number, got {fps}")
    with video_writer(path, fps) as write:
        for frame in frames:
            write(frame)
    return Path(path)


class Write(Protocol):
    """Adds a frame (H, W, 3) uint8 RGB to a video, shown from a second on or at the next tick."""

    def __call__(self, frame: np.ndarray, second: float | None = None) -> None: ...


@contextmanager
def video_writer(path: str | Path, fps: float) -> Iterator[Write]:
    """Write a video frame by frame, as `write_video` does; none is kept in memory.

    Args:
        path: the file.
        fps: frames per second, may be fractional. Frames whose seconds are given are shown then,
            whatever the rate.

    Yields:
        What takes the frames, all of one size.
    """
    options = {"movflags": "+faststart"}  # needs a name: the muxer opens the file a second time
    with (
        whole_file(path) as file,
        av.open(ffmpeg_name(file.name), "w", format="mp4", options=options) as container,
        _encoder(container, fps, _X264) as write,
    ):
        yield write


@contextmanager
def _encoder(container: Any, fps: float, options: dict[str, str]) -> Iterator[Write]:
    """A stream of H.264 in an open container, which takes frames one by one."""
    rate = Fraction(fps).limit_denominator(10_000)
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 1  # the same bytes each time, and no fight with data workers
    # cv2 converts with BT.601 in video range; players guess by size unless they are told.
    context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
    count, tick = 0, 1 / rate

    def write(frame: np.ndarray, second: float | None = None) -> None:
        nonlocal count, tick
        image, odd = frame, (frame.shape[0] % 2, frame.shape[1] % 2)
        if any(odd):
            image = np.pad(image, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
        if not count:
            stream.height, stream.width = image.shape[:2]
            tick = tick if second is None else _CLOCK
            stream.time_base = context.time_base = tick
        planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
        coded = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        coded.pts = count if second is None else round(second / _CLOCK)
        coded.time_base = tick  # the stream's own changes when its head is written
        container.mux(stream.encode(coded))
        count += 1

    yield write
    if count:
        container.mux(stream.encode())


class FrameStore:
    """Frames of one size in a file without a name, to be gone through again; see `frame_store`."""

    def __init__(self, file: BinaryIO, writing: ExitStack, write: Write) -> None:
        self.count = 0
        self._file, self._writing, self._write = file, writing, write
        self._size = 0, 0

    def add(self, frame: np.ndarray) -> None:
        """Keep a frame (H, W, 3) uint8 RGB.

        Raises:
            WriteError: it cannot be written.
        """
        self._size = frame.shape[:2]
        try:
            self._write(frame)
        except OSError as error:
            raise cannot_write(Path("the frames of a video"), error) from error
        self.count += 1

    def frames(self) -> Iterator[np.ndarray]:
        """All frames, as they were kept; afterwards none can be added."""
        height, width = self._size
        self._writing.close()
        self._file.seek(0)
        with av.open(self._file, format="matroska") as container:
            for frame in container.decode(video=0):
                image = cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
                yield np.asarray(image[:height, :width], np.uint8)


@contextmanager
def frame_store(folder: str | Path | None = None) -> Iterator[FrameStore]:
    """Keep frames on the disk, hardly compressed.

    Args:
        folder: on whose disk; None: that of temporary files.

    Raises:
        WriteError: it cannot be written.
    """
    with nameless_file(folder) as file, ExitStack() as writing:
        container = writing.enter_context(av.open(file, "w", format="matroska"))
        write = writing.enter_context(_encoder(container, 30, _X264 | {"crf": "10"}))
        yield FrameStore(file, writing, write)


def write_gif(path: str | Path, frames: np.ndarray, fps: float = 8) -> Path:
    """Write frames (T, H, W, 3) uint8 as a GIF that repeats; of its colours one palette is made."""
    check_frames(frames)
    images = [Image.fromarray(frame) for frame in frames]
    first, *others = [image.quantize(256, dither=Image.Dither.NONE) for image in images]
    more = {"append_images": others, "duration": 1000 / fps, "loop": 0}
    with whole_file(path) as file:
        first.save(file, "gif", save_all=True, **more)
    return Path(path)
