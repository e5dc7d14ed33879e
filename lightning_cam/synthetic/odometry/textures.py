"""What the surfaces are painted with: periodic textures with their smaller copies (mip maps)."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array

COUNT = 8
ROAD, CLOUDS = 0, 1  # numbers of those of the ground and the sky; the others are on boxes
TILE_SIZE = 512  # pixels of a tile
LEVELS = TILE_SIZE.bit_length()  # 512, 256, ... 1
_OCTAVES = ((4, 0.26), (11, 0.22), (32, 0.18), (85, 0.10))  # cells of a tile, amplitude
_STARTS = np.cumsum([0, *((TILE_SIZE >> level) ** 2 for level in range(LEVELS))])


@lru_cache(maxsize=2)
def atlas(seed: int) -> Array:
    """All textures in all sizes, row after row. (COUNT * texels of one, 3) float32 in [0, 1]"""
    rngs = (np.random.default_rng([seed, 1_000_000 + index]) for index in range(COUNT))
    return np.concatenate([level.reshape(-1, 3) for rng in rngs for level in _pyramid(_tile(rng))])


def look_up(seed: int, index: Array, place: Array, footprint: Array) -> Array:
    """Colours at places of the textures, as wide as a pixel sees (trilinear filter).

    Args:
        seed: of the textures.
        index: (n,) of the texture.
        place: (n, 2) in tiles; whole numbers are the corners of a tile.
        footprint: (n,) width of what a pixel sees, in tiles.

    Returns:
        (n, 3) in [0, 1].
    """
    colours = atlas(seed)
    level = np.clip(np.log2(np.maximum(footprint * TILE_SIZE, 1)), 0, LEVELS - 1)
    fine = np.minimum(level.astype(np.intp), LEVELS - 2)
    blend = (level - fine).astype(np.float32)[:, None]
    start = index * _STARTS[-1]
    one, other = (
        _bilinear(colours, start + _STARTS[at], TILE_SIZE >> at, place) for at in (fine, fine + 1)
    )
    return one + blend * (other - one)


def _bilinear(colours: Array, start: Array, size: Array, place: Array) -> Array:
    at = place * size[:, None] - 0.5
    low = np.floor(at).astype(np.intp)
    right, down = (at - low).astype(np.float32).T[..., None]
    (x0, y0), (x1, y1) = (corner.T & (size - 1) for corner in (low, low + 1))
    rows = (colours[start + y * size + x0] * (1 - right) + colours[start + y * size + x1] * right
            for y in (y0, y1))  # fmt: skip
    upper, lower = rows
    return upper * (1 - down) + lower * down


def _tile(rng: np.random.Generator) -> Array:
    """Noise of four widths in two colours, and outlines of rectangles. (SIZE, SIZE, 3) float32"""
    base, tint = rng.uniform(0.38, 0.60, 3), rng.uniform(-1, 1, 3)
    tile = np.full((TILE_SIZE, TILE_SIZE, 3), base, np.float32)
    for cells, amplitude in _OCTAVES:
        grid = (np.arange(TILE_SIZE, dtype=np.float32) + 0.5) * cells / TILE_SIZE - 0.5
        x, y = np.meshgrid(grid, grid)
        grey, colour = rng.uniform(-amplitude, amplitude, (2, cells, cells, 1))
        coarse = (grey + 0.4 * tint * colour).astype(np.float32)
        tile += cv2.remap(coarse, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
    for _ in range(6):
        tile = np.roll(tile, rng.integers(TILE_SIZE, size=2), (0, 1))  # some lie across the border
        wide, tall = (int(side) for side in rng.integers(70, 220, 2))
        level = float(rng.choice((0.15, 0.85)))
        tile = np.ascontiguousarray(tile)
        cv2.rectangle(tile, (40, 40), (40 + wide, 40 + tall), (level, level, level), 7)
    return np.clip(tile, 0, 1)


def _pyramid(tile: Array) -> list[Array]:
    levels = [tile]
    while (size := len(levels[-1]) // 2) > 0:
        levels.append(levels[-1].reshape(size, 2, size, 2, 3).mean((1, 3)))
    return levels
