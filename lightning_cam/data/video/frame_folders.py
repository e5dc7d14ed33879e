"""Folders of numbered images, read as the videos that they once were.

    video/00001.jpg 00002.jpg ...      video/frame_0000000001.jpg ...      video/0000.png ...

The last number in a name is the frame's place in time, decimals by their value: the whole rule is
in `frame_names`. Only the order and the gaps count, so it does not matter where numbering begins; a
missing number is a gap in time and does not shift what follows. A folder has no clock: its rate
must come from who reads it, as numbers per second (1 where the names are seconds).

Images are decoded by OpenCV to what a viewer shows: turned as EXIF says (like rotated videos),
colour from grey by three equal channels, transparency dropped. Sixteen bits are refused rather
than squeezed, because a scale of each image's or clip's own would make them incomparable; of
`grey` images the data set may say its scale.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_cam.data.video.frame_names import Name, in_order, numbered_name
from lightning_cam.data.video.info import (
    IMAGE_FOLDER,
    MOST_PIXELS,
    VIDEO_SUFFIXES,
    Each,
    Pixels,
    VideoInfo,
    check_pixels,
    joined,
)
from lightning_cam.data.video.sampling import Indices
from lightning_cam.errors import VideoReadError

Decode = Callable[[Path, str], Pixels]  # folder and name to (H, W, 3) BGR or (H, W, 1)

_UNLIKE = 8  # levels by which the channels of a grey JPEG may differ

# First bytes: where pixels begin and what ends the file. Some decoders pad with grey what is cut.
_MARKS = {
    b"\xff\xd8": (b"\xff\xda", b"\xff\xd9"),  # JPEG: start of scan, end of image
    b"\x89P": (b"IDAT", b"IEND\xaeB`\x82"),  # PNG
}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # segments of a JPEG that tell its size


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder of images and its index."""

    info: VideoInfo
    names: list[str]  # (n,) in order
    first: Pixels  # (H, W, C), which tells the size
    image: Decode

    def decode(self, wanted: Indices, each: Each | None = None) -> Pixels:
        """The images at these positions and no others. (T, H, W, 3) RGB or (T, H, W, 1)

        Args:
            wanted: positions.
            each: is done to all images, some at a time.
        """
        return joined(self.stream(wanted), len(wanted), each)

    def stream(self, wanted: Indices) -> Iterator[Pixels]:
        """The images at these positions one by one, (H, W, 3) RGB or (H, W, 1)."""
        folder = Path(self.info.path)
        for number in wanted:
            name = self.names[number]
            image = self.first if number == 0 else self.image(folder, name)
            if image.shape != self.first.shape:
                (height, width), (h, w) = self.first.shape[:2], image.shape[:2]
                raise VideoReadError(
                    self.info.path,
                    f"its image {name} is {w}x{h}, its first {width}x{height}; bring them to one "
                    "size or into folders of their own",
                )
            if image.shape[-1] == 3:
                image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
            yield image


def is_frame_folder(path: str | Path) -> bool:
    """Whether this is a folder that directly holds numbered images and no video files."""
    try:
        found, videos = _listed(path)
    except OSError:
        return False
    return bool(found) and not videos


def numbers_missing(path: str | Path) -> int:
    """How many images a folder lacks by its numbering, which begins at 0 or 1; 0 if none.

    Numbers at equal distances (every fifth frame) lack nothing between them, a single image tells
    nothing, nor do decimals, which are times.
    """
    order = in_order(_listed(path)[0])
    numbers = [number for number, _ in order.numbers]
    if len(numbers) < 2 or order.unit > 1:
        return 0
    gaps = [following - number for number, following in pairwise(numbers)]
    step = math.gcd(*gaps) if len(gaps) > 1 else 1
    before = max(numbers[0] - 1, 0)
    return (before + numbers[-1] - numbers[0]) // step + 1 - len(numbers)


def order_in_doubt(path: str | Path) -> str:
    """Why the images of a folder may be meant in another order, in words; "" if they are not."""
    return in_order(_listed(path)[0]).doubt


def numbered(path: str | Path) -> list[tuple[int, str]]:
    """Numbers and names of the images of a folder in order; none where there is no folder.

    Decimals count in units of their last digit, of the longest in the folder.
    """
    try:
        order = in_order(_listed(path)[0])
    except OSError:
        return []
    _warn_of(path, order.doubt)
    return order.numbers


def names(path: str | Path) -> list[str]:
    """The numbered images of a folder in their order; none where there is no such folder."""
    return [name for _, name in numbered(path)]


def scan_frame_folder(path: str | Path, rate: float | None, image: Decode | None = None) -> Folder:
    """Index a folder by its names; only its first image is decoded.

    Args:
        path: the folder.
        rate: numbers per second; without it times count numbers and fps is nan.
        image: decodes one; None for `colour`.
    """
    image = image or colour
    found, videos = _listed(path)
    if videos:
        raise VideoReadError(path, f"it is a folder of videos ({min(videos)} ...); give one video")
    if not found:
        raise VideoReadError(
            path,
            "it is a folder without numbered images (00001.jpg, ...); give a video file or a "
            "folder of such images",
        )
    numbered, unit, doubt = in_order(found)
    for (number, name), (following, other) in pairwise(numbered):
        if number == following:
            pad = ", or pad what counts (1.09, 1.10)" if unit > 1 else ""
            raise VideoReadError(
                path, f"its images {name} and {other} have the same number; keep one of each{pad}"
            )
    _warn_of(path, doubt)
    # Whole numbers of any length: subtracted before they become floats.
    numbers, names = [number - numbered[0][0] for number, _ in numbered], [n for _, n in numbered]
    first = image(Path(path), names[0])
    a_second = unit * (rate or 1.0)
    fps = np.nan if rate is None else rate
    if rate is not None and len(names) > 1:
        fps = a_second * (len(names) - 1) / numbers[-1]
    info = VideoInfo(
        path=str(path),
        num_frames=len(names),
        fps=fps,
        height=first.shape[0],
        width=first.shape[1],
        times=np.array(numbers, np.float64) / a_second,
        container=IMAGE_FOLDER,
    )
    return Folder(info, names, first, image)


def _listed(folder: str | Path) -> tuple[list[Name], list[str]]:
    """Numbered images directly in a folder, in no order, and video files, by one look at it."""
    found, videos = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            # Hidden: .DS_Store, and ._00001.jpg which macOS leaves beside an image.
            if entry.name.startswith(".") or entry.is_dir():
                continue
            if name := numbered_name(entry.name):
                found.append(name)
            elif entry.name.lower().endswith(VIDEO_SUFFIXES):
                videos.append(entry.name)
    return found, videos


def _warn_of(folder: str | Path, doubt: str) -> None:
    """Say what leaves the order of a folder's images open, if anything does."""
    if doubt:
        warnings.warn(
            f"the order of the images in {str(folder)!r} is open: {doubt}; if it is another, "
            "rename them (00001.png, 00002.png, ...)",
            stacklevel=3,
        )


def colour(folder: Path, name: str) -> Pixels:
    """One image of eight bits. (H, W, 3) BGR"""
    image = whole(folder, name)
    if image.dtype != np.uint8:
        raise VideoReadError(
            folder,
            f"its image {name} has more than 8 bits a channel; convert all images of the data "
            "set by one scale (magick IN.png -level LOW,HIGH -depth 8 OUT.png)",
        )
    return image.astype(np.uint8, copy=False)


def grey(folder: Path, name: str, limits: Sequence[float] | None = None) -> Pixels:
    """One image of one channel, or of three that are equal. (H, W, 1)

    Args:
        folder: where it is.
        name: of the file.
        limits: what is black and what is white in images of sixteen bits.
    """
    image = whole(folder, name)
    if image.dtype not in (np.uint8, np.uint16):
        raise VideoReadError(folder, f"its image {name} has neither 8 nor 16 bits; convert it")
    if int((image.max(-1) - image.min(-1)).max()) > _UNLIKE * 256 ** (image.itemsize - 1):
        raise VideoReadError(
            folder, f"its image {name} has colours, not one channel; give grey images"
        )
    level = image[..., :1]
    if level.dtype == np.uint8:
        return level
    if limits is None:
        raise VideoReadError(
            folder,
            f"its image {name} has 16 bits; say what is black and white in the whole data set "
            "with data.ir_range=[LOW,HIGH]",
        )
    low, high = limits
    scaled = (level.astype(np.float32) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def whole(folder: Path, name: str) -> NDArray[Any]:
    """One image, whole or not at all. (H, W, 3) BGR of any depth"""
    data = _bytes(folder, name)
    check_pixels(folder, *(_jpeg_size(data) or claimed_size(io.BytesIO(data))), name)
    start, end = _MARKS.get(data[:2], (b"", b""))
    image = None
    if data and (data.endswith(end) or data.rfind(end) > data.rfind(start)):
        try:
            image = cv2.imdecode(
                np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
            )
        except cv2.error:
            image = None
    if image is None:
        raise VideoReadError(
            folder, f"its image {name} is damaged or cut short; copy it again or remove it"
        )
    return image


def _bytes(folder: Path, name: str) -> bytes:
    """What is in an image's file."""
    try:
        # A pipe is not waited for.
        handle = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return io.FileIO(handle, closefd=False).readall()
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket
            raise VideoReadError(
                folder, f"its image {name}: {error.strerror}; check the file and its rights"
            ) from error
    # Which may have no end.
    raise VideoReadError(folder, f"its image {name} is a folder or a device; remove it")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) by the head of a JPEG; None where that is not plain, or of another file."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if not 0xC4 <= kind <= 0xFE or 0xD0 <= kind <= 0xDA:  # others have no length, or no head
            return None
        at += 2 + length
    return None


def claimed_size(file: Path | IO[bytes]) -> tuple[int, int]:
    """(width, height) by the head of an image, of which nothing is decoded; (0, 0) if unknown."""
    if isinstance(file, Path) and not file.is_file():
        return 0, 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the same concern, and of odd metadata
            with Image.open(file) as image:
                return image.size
    except Image.DecompressionBombError:  # for Pillow itself it is too large to be opened
        return MOST_PIXELS + 1, 1
    except (OSError, ValueError, SyntaxError, struct.error):
        return 0, 0
