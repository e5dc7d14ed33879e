"""Painting a sequence as each camera sees it: what is warm, and what has colour.

The person wears a poncho. It hides the moving arm from the visible camera, but not its warmth. The
paddle is held behind the back, as warm as the room, so the infrared camera sees nothing of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.multispectral.appearance import (
    IR_SIZE,
    SUPERSAMPLE,
    TV_SIZE,
    PersonAppearance,
    finer,
    view,
)
from lightning_cam.synthetic.multispectral.motions import (
    Performance,
)

PERSON_PARTS = ("body", "arm", "paddle")

_HEAD, _COAT, _LEGS, _ARM = 0.90, 0.56, 0.50, 0.92  # warmth
_NOISE = 0.007  # of the infrared sensor, from frame to frame


class Shape(NamedTuple):
    """A polygon (k, 2) in frame heights around the person, and its colours."""

    points: Array
    part: str
    warmth: float | None = None  # None: as the room
    colour: Array | None = None  # None: as what is behind it


class PaintedSequence(NamedTuple):
    """Images of one spectrum."""

    frames: Array  # (n, H, W) or (n, H, W, 3) uint8
    parts: dict[str, Array]  # (n, H, W) bool each, where the part is, seen or not


def shapes(
    look: PersonAppearance, angle: float, arm: float, paddle: float, side: int
) -> list[Shape]:
    """A person from the back to the front."""
    joint = np.array([0.0, 0.06 - arm])
    hand = joint + 0.125 * np.array([math.sin(angle), -math.cos(angle)])
    blade = np.array([side * 0.305, 0.02 - paddle])
    grip = np.array([0.0, 0.03 - 0.5 * paddle])
    legs = [
        Shape(_box(x - 0.042, 0.2, x + 0.042, 0.45), "body", _LEGS, look.trousers)
        for x in (-0.065, 0.065)
    ]
    coat = [
        Shape(_coat(-1, 1), "body", _COAT, look.coat[0]),
        *(
            Shape(_coat(low, low + 0.08), "body", _COAT, look.coat[1])
            for low in (-0.75, -0.35, 0.05, 0.45, 0.85)
        ),
    ]
    return [
        Shape(_bar(grip, blade, 0.014), "paddle", None, 0.55 * look.paddle),
        Shape(_ellipse(blade, 0.098, 0.112), "paddle", None, 0.6 * look.paddle),
        Shape(_ellipse(blade, 0.084, 0.098), "paddle", None, look.paddle),
        *legs,
        *coat,
        Shape(_box(-0.035, -0.28, 0.035, -0.22), "body", _HEAD, 0.9 * look.skin),
        Shape(_ellipse((0, -0.345), 0.078, 0.092), "body", _HEAD, look.hair),
        Shape(_ellipse((0, -0.33), 0.066, 0.075), "body", _HEAD, look.skin),
        Shape(_bar(joint, hand, 0.042), "arm", _ARM, None),
    ]


def paint_spectra(
    look: PersonAppearance,
    scene: Performance,
    camera: int,
    rng: np.random.Generator,
    scale: int = 1,
) -> tuple[PaintedSequence, PaintedSequence]:
    """Paint a sequence.

    Args:
        look: of the actor and the room, to this camera and of this scale.
        scene: what happens.
        camera: one of `CAMERAS`.
        rng: of light and noise.
        scale: factor of the small sizes.

    Returns:
        Infrared, one channel, and visible, RGB.
    """
    light = rng.uniform(0.55, 1.0) * rng.uniform(0.95, 1.05, 3)
    ir, tv = (finer(view(name, camera, scale), SUPERSAMPLE) for name in ("ir", "tv"))
    (h, w), (height, width) = ((scale * size[0], scale * size[1]) for size in (IR_SIZE, TV_SIZE))
    count = len(scene.x)
    warm = np.empty((count, h, w), np.uint8)
    seen = np.empty((count, height, width, 3), np.uint8)
    ids = (
        np.zeros((count, SUPERSAMPLE * h, SUPERSAMPLE * w), np.uint8),
        np.zeros((count, SUPERSAMPLE * height, SUPERSAMPLE * width), np.uint8),
    )
    for n in range(count):
        person = shapes(look, scene.angle[n], scene.arm[n], scene.paddle[n], scene.side)
        heat = np.zeros((SUPERSAMPLE * h, SUPERSAMPLE * w), np.uint8)
        room = look.wall.copy()
        for shape in person:
            points = np.column_stack([
                look.size * shape.points + (scene.x[n], 0.0), np.ones(len(shape.points))
            ])  # fmt: skip
            part = 1 + PERSON_PARTS.index(shape.part)
            for matrix, canvas, value, where in (
                (ir, heat, None if shape.warmth is None else [255 * shape.warmth], ids[0][n]),
                (tv, room, None if shape.colour is None else shape.colour.tolist(), ids[1][n]),
            ):
                places = [np.rint(16 * (points @ matrix[:2].T)).astype(np.int32)]
                cv2.fillPoly(where, places, part, shift=4)
                if value is not None:
                    cv2.fillPoly(canvas, places, value, shift=4)
        warm[n] = _infrared(look, heat, rng, scale)
        small = cv2.resize(room, (width, height), interpolation=cv2.INTER_AREA)
        seen[n] = 2 * np.clip(np.rint(small * light / 2), 0, 127)  # seven bits: smaller files
    middle = slice(SUPERSAMPLE // 2, None, SUPERSAMPLE)
    masks = (
        {name: of[:, middle, middle] == 1 + k for k, name in enumerate(PERSON_PARTS)} for of in ids
    )
    return PaintedSequence(warm, next(masks)), PaintedSequence(seen, next(masks))


def _infrared(look: PersonAppearance, heat: Array, rng: np.random.Generator, scale: int) -> Array:
    """The sensor's image of warmth on top of the room's."""
    height, width = look.heat.shape
    warm = cv2.resize(heat, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    there = np.minimum(warm / _COAT, 1)
    level = look.heat * (1 - there) + warm
    glow = cv2.GaussianBlur(warm, (0, 0), 4.0 * scale)
    level = cv2.GaussianBlur(level, (0, 0), 0.7 * scale) + 0.07 * glow
    level = level * look.vignette + look.pattern
    level += rng.normal(0, _NOISE, level.shape).astype(np.float32)
    return np.clip(np.rint(255 * level), 0, 255).astype(np.uint8)


def _box(left: float, top: float, right: float, low: float) -> Array:
    return np.array([(left, top), (right, top), (right, low), (left, low)])


def _ellipse(middle: ArrayLike, rx: float, ry: float) -> Array:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.asarray(middle) + np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1)


def _bar(start: Array, stop: Array, radius: float) -> Array:
    """A thick line with round ends."""
    ahead = math.atan2(*(stop - start)[::-1])
    turn = np.linspace(-np.pi / 2, np.pi / 2, 9)
    ends = [
        point + radius * np.stack([np.cos(ahead + way + turn), np.sin(ahead + way + turn)], axis=1)
        for point, way in ((stop, 0.0), (start, np.pi))
    ]
    return np.concatenate(ends)


def _coat(low: float, high: float) -> Array:
    """A band of the poncho; -1 is its collar, 1 its hem."""
    at = np.linspace(low, high, 9)
    y = 0.02 + 0.26 * at
    half = 0.205 * np.sqrt(np.clip(1 - np.clip(-at, 0, 1) ** 4 * 0.75, 0.02, 1)) + 0.012 * at
    return np.concatenate([np.column_stack([half, y]), np.column_stack([-half, y])[::-1]])
