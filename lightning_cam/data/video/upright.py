"""From pixels as a file stores them to the image a player shows.

Cameras store what the sensor saw and a display matrix that turns or mirrors it; television stores
pixels that are not square. Frames leave the reader as they are shown, so that networks, ground
truth and pictures share one grid.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.sidedata.sidedata import Type

from lightning_cam.data.video.info import Pixels

_OBLONG = 4  # wider or higher pixels than by this factor are a damaged header, not television


@dataclass(frozen=True)
class Upright:
    """How the images of a file are shown: resized to square pixels, then turned or mirrored.

    Attributes:
        coded: height and width as stored.
        square: height and width with square pixels.
        transposed: whether rows become columns (before the flips).
        flip_rows: whether the image is then upside down.
        flip_columns: whether it is then left for right.
    """

    coded: tuple[int, int]
    square: tuple[int, int]
    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as shown."""
        return self.square[::-1] if self.transposed else self.square

    def show(self, image: Pixels) -> Pixels:
        """An image (h, w, 3) as stored to (height, width, 3) as shown, perhaps a view."""
        if self.square != self.coded:
            image = cv2.resize(image, self.square[::-1], interpolation=cv2.INTER_LINEAR).astype(
                np.uint8, copy=False
            )
        if self.transposed:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def upright_of(path: str | Path, frame: Any, ratio: Fraction | None) -> Upright:
    """How the images of a file are shown.

    Args:
        path: of the file, for the warning.
        frame: the first, as PyAV decodes it, with its display matrix.
        ratio: width of a pixel by its height; None where the file does not say. The side that is
            too short grows, so that no pixel is lost.
    """
    coded = square = (frame.height, frame.width)
    if ratio and not 1 / _OBLONG <= ratio <= _OBLONG:
        warnings.warn(
            f"{str(path)!r} says that its pixels are {ratio.numerator}:{ratio.denominator}, which "
            "is implausible: they are taken as square",
            stacklevel=2,
        )
    elif ratio and ratio >= 1:
        square = (frame.height, round(frame.width * ratio))
    elif ratio:
        square = (round(frame.height / ratio), frame.width)
    return Upright(coded, square, *_turned(frame.side_data.get(Type.DISPLAYMATRIX)))


def _turned(matrix: Any) -> tuple[bool, bool, bool]:
    """Of the eight orientations the one next to a display matrix: transposed, flipped rows,
    flipped columns.

    The matrix (a b u; c d v; x y w) shows the pixel (x, y) at (ax + cy, bx + dy).
    """
    if matrix is None:
        return False, False, False
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0
