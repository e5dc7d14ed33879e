"""One video of a clip as all methods see it: tiles in a grid, room for names above each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from lightning_cam.viz.drawing import resize
from lightning_cam.viz.overlay import clip_scale, no_evidence, overlay

_WIDTH, _HEIGHT = 1200, 700  # pixels, about: a sheet fits a screen of 1280 pixels
_WIDEST = 280  # of a tile
_GAP, _BAND = 8, 34  # between tiles, and above each for two lines of text
_PAPER = 255
_OUTLINE = (255, 255, 255), (0, 0, 0)


class SheetLayout(NamedTuple):
    """Where the tiles of a sheet stand, in pixels.

    Attributes:
        columns: of tiles.
        rows: of tiles.
        height: of a tile.
        width: of a tile.
    """

    columns: int
    rows: int
    height: int
    width: int

    @classmethod
    def of(cls, count: int, height: int, width: int) -> SheetLayout:
        """The fewest columns with which `count` frames `(height, width)` fit a screen."""
        for columns in range(min(4, count), count + 1):
            across = min(_WIDEST, (_WIDTH - _GAP) // columns - _GAP)
            down = max(1, round(across * height / width))
            rows = -(-count // columns)
            if rows * (down + _BAND) + _GAP <= _HEIGHT:
                break
        return cls(-(-count // rows), rows, down, across)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the sheet, both even."""
        height = self.rows * (self.height + _BAND) + _GAP
        width = self.columns * (self.width + _GAP) + _GAP
        return height + height % 2, width + width % 2

    def corner(self, n: int) -> tuple[int, int]:
        """Top and left of the n-th tile's band; its image stands `band` pixels below."""
        row, column = divmod(n, self.columns)
        return row * (self.height + _BAND), _GAP + column * (self.width + _GAP)

    @property
    def band(self) -> int:
        """Height of the room for a tile's name, above it."""
        return _BAND


class MapTile(NamedTuple):
    """A map `(T, H, W)` of the frames' size, and whether it is `grainy`, see `clip_scale`."""

    heat: np.ndarray
    grainy: bool = False

    @property
    def signed(self) -> bool:
        """Whether negative values count: where there are any."""
        return bool((self.heat < 0).any())


def draw_methods(
    frames: np.ndarray,
    maps: Sequence[MapTile | None],
    *,
    kept: np.ndarray,
    truth: np.ndarray | None = None,
) -> np.ndarray:
    """A sheet of the frames, and of them below each map, with room above each tile for its name.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        maps: one a tile, on a scale of its own; None: the frames as they are, faded.
        kept: (T,) bool, frames that are not padding; others are faded.
        truth: (T, H, W) bool, outlined in all tiles.

    Returns:
        (T, *size, 3) uint8 RGB, of the size of `SheetLayout.of(1 + len(maps), H, W)`.
    """
    layout = SheetLayout.of(1 + len(maps), *frames.shape[1:3])
    size = layout.height, layout.width
    plain = np.stack([resize(frame, *size) for frame in frames])
    sheet = np.full((len(frames), *layout.size, 3), _PAPER, np.uint8)
    lines = None if truth is None else [_outline(mask, size) for mask in truth]
    for n, tile in enumerate((MapTile(np.zeros(1)), *maps)):
        images = plain.copy()
        if tile is None:
            images = _faded(images)
        elif n and not no_evidence(tile.heat, signed=tile.signed):
            heat = np.stack([resize(h.astype(np.float32), *size) for h in tile.heat])
            scale = clip_scale(tile.heat, signed=tile.signed, grainy=tile.grainy)
            images = overlay(images, heat, scale=scale, signed=tile.signed)
        images[~kept] = _faded(images[~kept])
        for image, found in zip(images, lines or [], strict=False):
            for color, thick in ((_OUTLINE[1], 3), (_OUTLINE[0], 1)):
                cv2.drawContours(image, found, -1, color, thick)
        top, left = layout.corner(n)
        sheet[:, top + _BAND : top + _BAND + size[0], left : left + size[1]] = images
    return sheet


def _outline(mask: np.ndarray, size: tuple[int, int]) -> Sequence[np.ndarray]:
    large = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]


def _faded(images: np.ndarray) -> np.ndarray:
    return (0.3 * images.mean(-1, keepdims=True) + 0.7 * 235).astype(np.uint8).repeat(3, -1)
