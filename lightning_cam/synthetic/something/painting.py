"""Colours, and painting flat shapes.

Lengths are in frame heights, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array

Rgb = tuple[float, float, float]

SCENERY, HAND, OBJECT = range(3)  # what a pixel shows, in the fourth channel of a canvas

COLOURS: dict[str, Rgb] = {
    "red": (200, 48, 44), "orange": (236, 128, 36), "yellow": (238, 200, 60),
    "green": (60, 150, 72), "teal": (30, 150, 156), "blue": (48, 92, 188),
    "purple": (122, 70, 164), "pink": (230, 120, 164), "white": (238, 236, 230),
    "black": (52, 52, 58),
}  # fmt: skip


def shaded(colour: Rgb, factor: float) -> Rgb:
    """A darker or lighter tone."""
    red, green, blue = colour
    return min(255, factor * red), min(255, factor * green), min(255, factor * blue)


@dataclass(frozen=True)
class Painting:
    """RGB and part (h, w, 4) uint8, painted on in frame heights, of `scale` pixels each."""

    pixels: Array
    scale: float

    def fill(self, points: Array, colour: Rgb, part: int) -> None:
        """A polygon (k, 2)."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], (*colour, part), shift=4)

    def line(self, points: Array, width: float, colour: Rgb, part: int) -> None:
        """A line (k, 2) with round ends."""
        pen, places = max(1, round(width * self.scale)), [self._fixed(points)]
        cv2.polylines(self.pixels, places, False, (*colour, part), pen, shift=4)

    def paste(self, image: Array, x: float, y: float) -> None:
        """An image (h, w, 4), transparent where its part is 255, by the middle of its base."""
        height, width = image.shape[:2]
        left, top = round(x * self.scale - width / 2), round(y * self.scale - height)
        rows = slice(max(0, top), max(0, top + height))
        columns = slice(max(0, left), max(0, left + width))
        under = self.pixels[rows, columns]
        over = image[max(0, -top) :, max(0, -left) :][: under.shape[0], : under.shape[1]]
        if over.size:
            cv2.copyTo(over, (over[..., 3] != 255).view(np.uint8), under)

    def _fixed(self, points: Array) -> Array:
        """Sixteenths of a pixel."""
        return np.rint(points * (16 * self.scale)).astype(np.int32)


def ellipse(x: float, y: float, rx: float, ry: float, start: int = 0, stop: int = 360) -> Array:
    """Points of an ellipse or an arc (25, 2), angles in degrees from the right over below."""
    angle = np.radians(np.linspace(start, stop, 25))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)
