"""Painting a clip: a worker's room, the things on the table, and the hand that acts.

Everything is painted with flat shapes, larger by the factor `SUPERSAMPLE`, and shrunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.noise import smooth_noise
from lightning_cam.synthetic.something.objects import Painter, Thing, painter
from lightning_cam.synthetic.something.painting import (
    COLOURS,
    HAND,
    SCENERY,
    Painting,
    Rgb,
    shaded,
)

ASPECT = 1.32  # of the frame
SUPERSAMPLE = 4  # a power of two: halving is the fastest way to shrink an image

_SKIN = (
    (246, 208, 178), (228, 180, 142), (202, 146, 104), (160, 106, 70), (116, 74, 50), (86, 56, 42),
    (90, 150, 220), (240, 240, 240), (240, 190, 60),  # gloves
)  # fmt: skip
_TABLES = np.array([(150, 106, 68), (128, 124, 122)])


@dataclass(frozen=True)
class Workplace:
    """A worker's room and hand."""

    room: Array  # (FINE * H, FINE * W, 4) uint8
    light: Array  # (H, W, 3) float32, a factor
    noise: Array  # (2 * H, 2 * W, 3) float32, of the camera
    shadow: Rgb  # under things on the table
    skin: Rgb
    sleeve: Rgb
    reach: float  # the hand's size


@lru_cache(maxsize=4)
def workplace_of(seed: int, worker: int, height: int) -> Workplace:
    """The room and the hand of a worker."""
    rng = np.random.default_rng([seed, 1_000_000 + worker])
    width = 2 * round(ASPECT * height / 2)
    rows, columns = SUPERSAMPLE * height, SUPERSAMPLE * width
    noise = partial(smooth_noise, rng, size=(rows, columns))

    def colour() -> Array:
        return np.array(COLOURS[rng.choice(list(COLOURS))])

    wall = rng.uniform(120, 215) + rng.uniform(-22, 22, 3)
    room = wall + 26 * noise((4, 5)) + 12 * noise((24, 32))
    y, x = (np.arange(count) / rows for count in (rows, columns))
    paper, pitch = rng.integers(3), rng.uniform(0.12, 0.22)
    if paper == 1:  # broad stripes
        room[:, x / pitch % 1 < 0.5] *= 0.93
    elif paper == 2:  # tiles
        room[:, x / pitch % 1 < 0.03] *= 0.8
        room[y / pitch % 1 < 0.03] *= 0.8
    table, edge = rng.uniform(0.55, 1.15) * _TABLES[rng.integers(2)], rng.uniform(0.62, 0.72)
    room[y >= edge - 0.05] *= 0.93
    grain = noise((90, 4)) + 0.6 * noise((30, 3))
    room[y >= edge] = table + 30 * grain[y >= edge]
    room[(y >= edge) & (y < edge + 0.012)] *= 0.7
    pixels = np.zeros((rows, columns, 4), np.uint8)
    pixels[..., :3] = np.clip(room, 0, 255)
    corner, size = rng.uniform((0, 0.02), (0.9, 0.2)), rng.uniform((0.2, 0.15), (0.4, 0.3))
    tint = 0.7 * wall + 0.3 * colour()
    for margin, tone in ((0, 0.75 * wall), (0.02, tint)):  # a framed picture on the wall
        (left, top), (right, low) = corner + margin, corner + size - margin
        frame = np.array([(left, top), (right, top), (right, low), (left, low)])
        Painting(pixels, rows).fill(frame, tuple(tone), SCENERY)
    turn, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.25)
    v, u = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j][..., None]
    light = rng.uniform(0.8, 1.08) * rng.uniform(0.95, 1.05, 3)
    light = light * (1 + slope * (math.cos(turn) * u + math.sin(turn) * v))
    skin = np.clip(_SKIN[rng.integers(len(_SKIN))] + rng.uniform(-8, 8, 3), 0, 255)
    return Workplace(
        room=pixels,
        light=light.astype(np.float32),
        noise=rng.normal(0, rng.uniform(0.5, 2.5), (2 * height, 2 * width, 3)).astype(np.float32),
        shadow=tuple(0.6 * table),
        skin=tuple(skin),
        sleeve=tuple(rng.uniform(0.6, 1.0) * colour()),
        reach=rng.uniform(1.1, 1.3),
    )


def paint_tabletop(
    look: Workplace,
    scenery: Sequence[Thing],
    things: Sequence[Thing],
    hand: Array,
    zoom: Array,
    shown: Array,
) -> tuple[Array, Array]:
    """Paint a clip without the camera's noise and light.

    Args:
        look: of the room.
        scenery: what stands still at the back and is always there, from the back to the front.
        things: in front of it, likewise; only the front of a bowl hides the hand.
        hand: (n, 5) x and y of the tips of its closed fingers, where it points to (radians, from
            the right over below), 0 open to 1 closed, and on which side its thumb is (+-1).
        zoom: (n, 3) the camera's factor, and the x and y that stay in place.
        shown: (n,) bool, the frames with things, hand and zoom.

    Returns:
        Frames uint8 (n, H, W, 3) and what each pixel shows, uint8 (n, H, W).
    """
    height, width = look.light.shape[:2]
    scale = float(SUPERSAMPLE * height)
    empty = Painting(look.room.copy(), scale)
    for thing in scenery:
        painter(thing, look.shadow, scale)(empty, *thing.path[0])
    room = Painting(empty.pixels.copy(), scale)
    behind: list[tuple[Painter, Array]] = []
    before: list[tuple[Painter, Array]] = []
    for thing in things:
        paint_thing = painter(thing, look.shadow, scale)
        if thing.kind == "bowl":
            before.append((paint_thing, thing.path))
        elif behind or np.ptp(thing.path, axis=0).any():
            behind.append((paint_thing, thing.path))
        else:  # what stands still behind all that moves is painted once
            paint_thing(room, *thing.path[0])

    def interaction(i: int) -> Array:
        canvas = Painting(room.pixels.copy(), scale)
        for paint_thing, path in behind:
            paint_thing(canvas, *path[i])
        _paint_hand(canvas, look, *hand[i])
        for paint_thing, path in before:
            paint_thing(canvas, *path[i])
        return _zoomed(canvas, *zoom[i])

    frames = np.empty((len(hand), height, width, 3), np.uint8)
    parts = np.empty((len(hand), height, width), np.uint8)
    for i in range(len(hand)):
        pixels = interaction(i) if shown[i] else empty.pixels
        parts[i] = pixels[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE, 3]
        while len(pixels) > height:
            pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB, dst=frames[i])
    return frames, parts


def _zoomed(canvas: Painting, factor: float, x: float, y: float) -> Array:
    if factor == 1:
        return canvas.pixels
    shift = canvas.scale * (1 - factor)
    matrix = np.array([[factor, 0, shift * x], [0, factor, shift * y]])
    size = canvas.pixels.shape[1::-1]
    return cv2.warpAffine(canvas.pixels, matrix, size, flags=cv2.INTER_NEAREST)


def _paint_hand(
    canvas: Painting, look: Workplace, x: float, y: float, angle: float, grip: float, thumb: float
) -> None:
    """A hand on its forearm; closing pulls its fingers in."""
    limbs = [((-0.16, 0, -0.40, 0), 0.085), ((-0.27, 0, -1.8, 0), 0.135), (_PALM, 0.125)]
    for side in (-1.5, -0.5, 0.5, 1.5):
        turn, length = 0.26 * side * (1 - grip), 0.115 - 0.080 * grip
        limbs.append((_finger(-0.065 - 0.006 * abs(side), 0.031 * side, turn, length), 0.029))
    limbs.append((_PALM, 0.118))  # again, over the roots of the fingers
    limbs.append((_finger(-0.115, 0.052, 0.95 - 1.35 * grip, 0.105 - 0.02 * grip), 0.033))
    # Places are along the hand and across, from the tips of its closed fingers.
    along = look.reach * np.array([math.cos(angle), math.sin(angle)])
    turned = np.array([along, thumb * np.array([-along[1], along[0]])])
    lines = np.array([line for line, _ in limbs]).reshape(-1, 2, 2) @ turned + (x, y)
    for k, (line, (_, width)) in enumerate(zip(lines, limbs, strict=True)):
        colour = look.sleeve if k == 1 else look.skin
        if k != len(limbs) - 2:
            canvas.line(line, look.reach * width + 0.016, shaded(colour, 0.45), HAND)
        canvas.line(line, look.reach * width, colour, HAND)


_PALM = (-0.135, 0.0, -0.095, 0.0)


def _finger(u: float, v: float, turn: float, length: float) -> tuple[float, float, float, float]:
    return u, v, u + length * math.cos(turn), v + length * math.sin(turn)
