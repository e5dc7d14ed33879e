"""What stands in the world: boxes beside the road; in the evidence sequence a van and a wall."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.odometry.course import AHEAD, CAMERA_HEIGHT, MAX_FRAMES, Course, course
from lightning_cam.synthetic.odometry.textures import (
    CLOUDS,
    COUNT,
)

FLAT = -1  # in place of a texture: one colour, without light and shade
_BOXES = 240
_CLEAR = 2.2  # metres to each side of the road without a box
# Of the evidence sequence:
_WALL_ASIDE, _WALL_HEIGHT, _WALL_PIECE = 5.2, 2.8, 10  # metres, metres, frames
_WALL_STRETCH = 40  # frames, after which it goes on at the other side
_VAN = (1.3, 1.3, 2.0)  # half width, half height, half length


@dataclass(frozen=True, eq=False)
class Boxes:
    """n upright boxes.

    Attributes:
        centre: (n, 3) in the world.
        half: (n, 3) half of width, height and length.
        heading: (n,) of the length, from z to x.
        texture: (n,) its number, or FLAT.
        tint: (n, 3) factor of the texture's colours, or the colour itself.
        shift: (n, 2) of the texture, in tiles.
    """

    centre: Array
    half: Array
    heading: Array
    texture: Array
    tint: Array
    shift: Array

    def __len__(self) -> int:
        return len(self.centre)


@dataclass(frozen=True, eq=False)
class World:
    """A course and what is seen from it.

    Attributes:
        seed: of the textures.
        course: of the camera.
        boxes: all of them; in the evidence sequence the last one moves.
        sun: (3,) unit vector towards it.
        van: (MOST, 4) centre and heading of the moving box in each frame; None where all stands
            still.
    """

    seed: int
    course: Course
    boxes: Boxes
    sun: Array
    van: Array | None = None

    def at(self, frame: int) -> Boxes:
        """The boxes as they stand in a frame."""
        if self.van is None:
            return self.boxes
        centre, heading = self.boxes.centre.copy(), self.boxes.heading.copy()
        centre[-1], heading[-1] = self.van[frame, :3], self.van[frame, 3]
        return replace(self.boxes, centre=centre, heading=heading)


@lru_cache(maxsize=4)
def world(seed: int, sequence: int, evidence: bool = False) -> World:
    """Draw the world of a sequence: it depends on the arguments alone."""
    rng = np.random.default_rng([seed, sequence])
    drive = course(rng)
    rows, van = _scatter(rng, drive, _WALL_ASIDE + 1 if evidence else _CLEAR), None
    if evidence:
        van = _van(rng, drive)
        colour, shift = np.array((1.4, 0.7, 0.4)), rng.random(2)
        rows += [*_wall(rng, drive), (van[0, :3], np.array(_VAN), van[0, 3], 3, colour, shift)]
    centre, half, heading, texture, tint, shift = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    turn = rng.uniform(0, 2 * np.pi)
    return World(
        seed=seed,
        course=drive,
        boxes=Boxes(centre, half, heading, texture, tint, shift),
        sun=np.array((0.7 * np.cos(turn), -0.7, 0.7 * np.sin(turn))) / np.hypot(0.7, 0.7),
        van=van,
    )


BoxRow = tuple[Array, Array, float, int, Array, Array]  # in the order of the fields of Boxes


def _scatter(rng: np.random.Generator, drive: Course, clear: float) -> list[BoxRow]:
    """Boxes on both sides of the road, none of them nearer to it than `clear` metres."""
    rows: list[BoxRow] = []
    while len(rows) < _BOXES:
        frame, aside = rng.uniform(0, MAX_FRAMES + AHEAD), rng.choice((-1, 1)) * rng.uniform(4, 14)
        (x, z), along = drive.beside(np.array(frame), np.array(aside))
        heading = float(along) + rng.uniform(-0.3, 0.3)
        half = np.array((rng.uniform(1, 2.6), rng.uniform(0.75, 3), rng.uniform(1, 2.6)))
        tint, shift, texture = (
            rng.uniform(0.65, 1.1, 3),
            rng.random(2),
            rng.integers(CLOUDS + 1, COUNT),
        )
        if _distance(drive.road, (x, z), half, heading) > clear:
            centre = np.array((x, CAMERA_HEIGHT - half[1], z))
            rows.append((centre, half, heading, int(texture), tint, shift))
    return rows


def _distance(road: Array, centre: tuple[float, float], half: Array, heading: float) -> float:
    """From the road to a box, on the ground."""
    cos, sin = np.cos(heading), np.sin(heading)
    x, z = (road - centre).T
    outside = np.abs([cos * x - sin * z, sin * x + cos * z]) - half[[0, 2], None]
    return float(np.hypot(*np.maximum(outside, 0)).min())


def _wall(rng: np.random.Generator, drive: Course) -> list[BoxRow]:
    """One colour along the road: at one side for a while, then at the other."""
    colour, side = rng.uniform(0.35, 0.75, 3), int(rng.choice((-1, 1)))
    rows: list[BoxRow] = []
    for start in range(0, MAX_FRAMES + AHEAD - _WALL_PIECE, _WALL_PIECE):
        aside = side * (1 if start // _WALL_STRETCH % 2 else -1) * _WALL_ASIDE
        ends, _ = drive.beside(np.array((start, start + _WALL_PIECE)), np.full(2, aside))
        (x, z), (dx, dz) = ends.mean(0), ends[1] - ends[0]
        half = np.array((0.2, _WALL_HEIGHT / 2, np.hypot(dx, dz) / 2 + 0.2))
        centre = np.array((x, CAMERA_HEIGHT - half[1], z))
        rows.append((centre, half, float(np.arctan2(dx, dz)), FLAT, colour, np.zeros(2)))
    return rows


def _van(rng: np.random.Generator, drive: Course) -> Array:
    """A box that goes ahead of the camera, from side to side, and nearer and farther. (MOST, 4)"""
    t, phase = np.arange(MAX_FRAMES), rng.uniform(0, 2 * np.pi, 2)
    gap = 18 + 4 * np.sin(2 * np.pi * t / 46 + phase[0])  # frames
    place, heading = drive.beside(t + gap, 2.6 * np.sin(2 * np.pi * t / 40 + phase[1]))
    height = np.full(MAX_FRAMES, CAMERA_HEIGHT - _VAN[1])
    return np.stack([place[:, 0], height, place[:, 1], heading], -1)
