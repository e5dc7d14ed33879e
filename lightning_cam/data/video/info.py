"""What is known of a video, be it a file or a folder of images, before its pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.video.sampling import Indices, resample_times
from lightning_cam.errors import ConfigError, VideoReadError

VIDEO_SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts",
    ".webm", ".wmv",
)  # fmt: skip
MOST_PIXELS = 2**26  # of an image or a frame: 8192 x 8192, twice 8K video
IMAGE_FOLDER = "images"  # in place of a container's name
Pixels = NDArray[np.uint8]
Each = Callable[[Pixels], Pixels]  # what is done to decoded images (n, H, W, C), some at a time
_FEW = 2**19  # bytes of images to which something is done at once
_SLOWEST, _FASTEST = 0.99, 961.0  # one a second up to slow motion; beyond are damaged clocks


def joined(images: Iterable[Pixels], count: int, each: Each | None = None) -> Pixels:
    """`count` images, one at least, as one array; `each` is done to them as they come."""
    pixels: Pixels | None = None
    row = 0
    for few in _few_at_once(images, count if each else 1):
        done = few if each is None else each(few)
        if pixels is None:
            pixels = np.empty((count, *done.shape[1:]), np.uint8)
        pixels[row : row + len(done)] = done
        row += len(done)
    assert pixels is not None
    return pixels


def _few_at_once(images: Iterable[Pixels], most: int) -> Iterator[Pixels]:
    """Images (H, W, C) as arrays (n, H, W, C) that caches hold, in memory that is used again."""
    room, held = np.empty(0, np.uint8), 0
    for image in images:
        if not len(room):
            shape = (min(most, max(1, _FEW // image.nbytes)), *image.shape)
            room = np.empty(shape, np.uint8)
        if len(room) == 1:
            yield image[None]
            continue
        room[held] = image
        held += 1
        if held == len(room):
            yield room
            held = 0
    if held:
        yield room[:held]


def check_pixels(path: str | Path, width: int, height: int, image: str = "") -> None:
    """Whether an image, or the frames of a video, may be decoded: small files may hold large ones.

    Args:
        path: of the video, a file or a folder of images.
        width: in pixels, as the file says before it is decoded.
        height: in pixels.
        image: its name in the folder.

    Raises:
        VideoReadError: it has more than `MOST_PIXELS`.
    """
    if width * height > MOST_PIXELS:
        small = "magick IN.png -resize 1024 OUT.png" if image else "ffmpeg -i FILE -s hd720 OUT.mp4"
        raise VideoReadError(
            path,
            f"{f'its image {image} is' if image else 'its frames are'} larger than 8192x8192 "
            f"pixels; make it smaller ({small})",
        )


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What is known of a video before its pixels.

    Attributes:
        path: the file, or folder of images.
        num_frames: frames that can be decoded.
        fps: true average rate, (n-1) / duration between first and last frame; of one frame alone
            or without timestamps, what the file claims (nan if nothing).
        height, width: of the frames as shown, that is turned and with square pixels.
        times: (n,) float64 seconds of each frame, first 0, strictly increasing.
        container: FFmpeg's name of the format, such as "mpeg" or "matroska,webm", or "images".
    """

    path: str
    num_frames: int
    fps: float
    height: int
    width: int
    times: NDArray[np.float64]
    container: str

    @property
    def duration(self) -> float:
        """Seconds until its last frame has been shown."""
        return float(self.times[-1]) + (1 / self.fps if self.fps > 0 else 0.0)

    def steps(self, fps: float) -> Indices:
        """Source index of every step at `fps`, by timestamps. (n_t,)

        Raises:
            VideoReadError: the video's own rate is missing or implausible.
        """
        if not fps > 0:
            raise ConfigError(f"fps must be above 0, got {fps}")
        if not _SLOWEST <= self.fps <= _FASTEST:
            remedy = (
                "give the rate at which its images were taken (data.rate=12), or train with every "
                "frame (data.fps=null)"
                if self.container == IMAGE_FOLDER
                else "train with every frame, whatever its time (data.fps=null), or get the video "
                "again"
            )
            raise VideoReadError(
                self.path,
                f"its frame rate ({self.fps:g} fps) is missing or implausible; {remedy}",
            )
        if fps > 1.01 * self.fps and self.num_frames > 1:
            warnings.warn(
                f"videos are sampled at {fps:g} fps, above their own rate: frames repeat",
                stacklevel=2,
            )
        return resample_times(self.times, fps)
