"""Where the camera goes: the smooth course of a car that takes turns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lightning_cam.data.core.arrays import Array

MAX_FRAMES = 200  # frames of a sequence
AHEAD = 60  # frames by which the road goes on
SPEED = 0.6  # metres a frame
INTERVAL = 0.1  # seconds
CAMERA_HEIGHT = 1.65  # metres above the ground, where y = CAMERA_HEIGHT
# The camera sits this far ahead of the rear axle, so a turn also carries it to the side.
_LEVER = 2.0
_TURN = (0.006, 0.034)  # radians a frame, to either side
_STRETCH = 25  # frames between two turns of the wheel
_TILT = 0.006  # radians, of pitch and roll
_BOB = 0.02  # metres


class Course(NamedTuple):
    """A drive of MOST + AHEAD frames on the ground; the first MOST may be rendered.

    Attributes:
        poses: (n, 4, 4) camera to world. The world's ground is level, its y axis points down.
        road: (n, 2) x and z of the camera, without its bobbing.
        heading: (n,) radians from z to x, to the right.
    """

    poses: Array
    road: Array
    heading: Array

    def beside(self, frame: Array, aside: Array) -> tuple[Array, Array]:
        """Points `aside` metres to the right of the road at (fractional) frames. (n, 2), (n,)"""
        frames = np.arange(len(self.road))
        x, z, heading = (np.interp(frame, frames, of) for of in (*self.road.T, self.heading))
        right = np.stack([np.cos(heading), -np.sin(heading)], -1)
        return np.stack([x, z], -1) + np.asarray(aside)[..., None] * right, heading


def course(rng: np.random.Generator) -> Course:
    """Draw a drive."""
    count = MAX_FRAMES + AHEAD
    speed = SPEED * (1 + 0.25 * _wander(rng, count))
    heading = rng.uniform(-np.pi, np.pi) + np.cumsum(_turns(rng, count))
    ahead = np.stack([np.sin(heading), np.cos(heading)], -1)
    axle = np.cumsum(speed[:, None] * ahead, 0)
    road = axle + _LEVER * ahead
    pitch, roll = _TILT * _wander(rng, count), _TILT * _wander(rng, count)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = _about(1, heading) @ _about(0, pitch) @ _about(2, roll)
    poses[:, [0, 2], 3] = road
    poses[:, 1, 3] = _BOB * _wander(rng, count)
    return Course(poses, road, heading)


def _turns(rng: np.random.Generator, count: int) -> Array:
    """Change of heading in each frame: the wheel goes smoothly to a new place now and then."""
    rate, rates, goal = 0.0, np.empty(count), 0.0
    side = int(rng.choice((-1, 1)))
    for frame in range(count):
        if frame % _STRETCH == 0:
            side = -side if rng.random() < 0.7 else side
            goal = side * rng.uniform(*_TURN)
        rate += 0.15 * (goal - rate)
        rates[frame] = rate
    return rates


def _wander(rng: np.random.Generator, count: int) -> Array:
    """Smooth values around 0, within -1 and 1. (count,)"""
    t, periods, phases = np.arange(count), rng.uniform(18, 70, 3), rng.uniform(0, 2 * np.pi, 3)
    return np.mean([np.sin(2 * np.pi * t / p + q) for p, q in zip(periods, phases, strict=True)], 0)


def _about(axis: int, angle: Array) -> Array:
    """Rotations about an axis. (n, 3, 3)"""
    one, other = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.tile(np.eye(3), (len(angle), 1, 1))
    matrix[:, one, one] = matrix[:, other, other] = np.cos(angle)
    matrix[:, other, one] = np.sin(angle)
    matrix[:, one, other] = -matrix[:, other, one]
    return matrix
