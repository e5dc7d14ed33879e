"""The seven actions: what stands on the table and how it is moved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.something.objects import PATTERNS, Thing
from lightning_cam.synthetic.something.painting import (
    COLOURS,
    OBJECT,
    SCENERY,
)
from lightning_cam.synthetic.something.tabletop import ASPECT

_WIDTH = {"box": (0.24, 0.30), "ball": (0.22, 0.27), "cup": (0.25, 0.30), "can": (0.16, 0.20),
          "bottle": (0.13, 0.16)}  # fmt: skip
_SHAPE = {"box": (0.85, 1.1), "ball": (1, 1), "cup": (0.8, 1.0), "can": (1.3, 1.6),
          "bottle": (1.9, 2.3)}  # fmt: skip


@dataclass(frozen=True)
class Timeline:
    """The course of a clip: its frames and four moments, all in frames."""

    t: Array  # (n,)
    appear: float  # the hand begins to come
    onset: float  # it has come and acts
    offset: float  # it has acted
    gone: float

    def move(self, start: float, stop: float) -> Array:
        """Smooth progress (n,) from 0 to 1 between two fractions of the action."""
        span = self.offset - self.onset
        return ease(self.t, self.onset + start * span, self.onset + stop * span)


class Interaction(NamedTuple):
    """An action: the things, and the hand as if it had been there all the time."""

    things: list[Thing]
    contact: Array  # (n, 2)
    angle: Array | float
    grip: Array | float
    carried: bool = False  # the hand brings the last thing and takes it away
    zoom: Array | None = None


def ease(t: Array, start: float, stop: float) -> Array:
    p = np.clip((t - start) / (stop - start), 0, 1)
    return p * p * (3 - 2 * p)


def _path(n: int, x: Array | float, y: Array | float, amount: Array | float = 0.0) -> Array:
    return np.column_stack([np.broadcast_to(value, n) for value in (x, y, amount)]).astype(float)


def _dress(rng: np.random.Generator) -> tuple[tuple[str, str], str]:
    """Two colours and a pattern."""
    one, two = rng.choice(list(COLOURS), 2, replace=False).tolist()
    return (one, two), str(rng.choice(PATTERNS))


def _thing(
    rng: np.random.Generator,
    n: int,
    x: float,
    y: float,
    kinds: tuple[str, ...] = tuple(_WIDTH),
    scale: float = 1.0,
    part: int = OBJECT,
) -> Thing:
    """Something rigid that stands still for n frames."""
    kind = str(rng.choice(kinds))
    width = scale * rng.uniform(*_WIDTH[kind])
    size = width, width * rng.uniform(*_SHAPE[kind])
    return Thing(kind, size, *_dress(rng), part, _path(n, x, y), floor=y)


def distractors(rng: np.random.Generator, n: int) -> list[Thing]:
    """One or two small things at the far side of the table."""
    return [
        _thing(rng, n, (place + rng.uniform(0.3, 0.7)) * ASPECT / 4, rng.uniform(0.75, 0.79),
               scale=0.6, part=SCENERY)
        for place in rng.permutation(4)[: rng.integers(1, 3)]
    ]  # fmt: skip


def _floor(rng: np.random.Generator) -> float:
    return rng.uniform(0.88, 0.94)


def _two_places(rng: np.random.Generator) -> tuple[float, float]:
    """For things side by side; either may be on the left."""
    left, right = rng.uniform((0.22, 0.86), (0.40, 1.06)).tolist()
    return (left, right) if rng.random() < 0.5 else (right, left)


def _carry(
    rng: np.random.Generator, beat: Timeline, start: tuple[float, float], high: float,
    stop: tuple[float, float],
) -> tuple[Array, Array]:  # fmt: skip
    """Up, over and down: x (n,) and y (n,)."""
    rise, sink = rng.uniform((0.36, 0.56), (0.44, 0.64))
    x = start[0] + (stop[0] - start[0]) * beat.move(rise - 0.15, sink + 0.15)
    up, down = beat.move(0.10, rise), beat.move(sink, 0.90)
    return x, start[1] + (high - start[1]) * up + (stop[1] - high) * down


def _slide(rng: np.random.Generator, beat: Timeline) -> Interaction:
    n, y, way = len(beat.t), _floor(rng), rng.uniform(0.26, 0.45) * ASPECT
    start = rng.uniform(0.34, ASPECT - 0.16 - way)
    x = start + way * beat.move(0.12, 0.88)
    thing = replace(_thing(rng, n, start, y), path=_path(n, x, y))
    width, height = thing.size
    contact = _path(n, x - width / 2 + 0.03, y - height / 2)[:, :2]
    grip = rng.uniform(0.5, 1) * (beat.move(0, 0.12) - beat.move(0.88, 1))
    return Interaction([thing], contact, math.radians(rng.uniform(-5, 25)), grip)


def _put_into(rng: np.random.Generator, beat: Timeline) -> Interaction:
    n, y, (here, there) = len(beat.t), _floor(rng), _two_places(rng)
    thing = _thing(rng, n, here, y, ("ball", "box", "can", "bottle"), scale=0.85)
    width, height = thing.size
    wide, tall = max(0.36, width + 0.12) * rng.uniform(1, 1.15), rng.uniform(0.17, 0.21)
    bowl = Thing("bowl", (wide, tall), *_dress(rng), OBJECT, _path(n, there, y + 0.01))
    low = y - max(0.02, tall + 0.10 - height)  # so that it can be seen in the bowl
    x, base = _carry(rng, beat, (here, y), y - tall - 0.14, (there, low))
    thing = replace(thing, path=_path(n, x, base))
    contact = _path(n, x, base - height + 0.03)[:, :2]
    grip = 0.9 * (beat.move(0, 0.10) - beat.move(0.90, 1))
    things = [replace(bowl, kind="inside"), thing, bowl]
    return Interaction(things, contact, math.radians(rng.uniform(60, 110)), grip)


def _open(rng: np.random.Generator, beat: Timeline) -> Interaction:
    n, y, x = len(beat.t), _floor(rng), ASPECT / 2 + rng.uniform(-0.1, 0.1)
    width, height = rng.uniform((0.40, 0.24), (0.48, 0.30)).tolist()
    turn = math.radians(rng.uniform(95, 120)) * beat.move(0.12, 0.88)
    chest = Thing("chest", (width, height), *_dress(rng), OBJECT, _path(n, x, y, turn))
    reach = 0.94 * width
    contact = np.column_stack([
        x + width / 2 - reach * np.cos(turn), y - height - 0.01 - reach * np.sin(turn)
    ])  # fmt: skip
    grip = beat.move(0, 0.12) - beat.move(0.88, 1)
    return Interaction([chest], contact, math.radians(rng.uniform(15, 40)) - 0.15 * turn, grip)


def _cover(rng: np.random.Generator, beat: Timeline) -> Interaction:
    n, y, (here, there) = len(beat.t), _floor(rng), _two_places(rng)
    thing = _thing(rng, n, there, y, ("box", "ball", "cup", "can"))
    (width, long), tall = rng.uniform((0.34, 0.32), (0.42, 0.38)).tolist(), thing.size[1]
    x, top = _carry(rng, beat, (here, y - 0.10), y - tall - 0.75 * long, (there, y - tall - 0.03))
    stage = beat.move(0.08, 0.36) + beat.move(0.60, 0.90)
    cloth = Thing("cloth", (width, long), *_dress(rng), OBJECT, _path(n, x, top, stage),
                  covers=thing.size)  # fmt: skip
    grip = beat.move(0, 0.10) - beat.move(0.90, 1)
    contact = _path(n, x, top + 0.03)[:, :2]
    return Interaction([thing, cloth], contact, math.radians(rng.uniform(50, 100)), grip)


def _move_up(rng: np.random.Generator, beat: Timeline) -> Interaction:
    n, thing = len(beat.t), _thing(rng, len(beat.t), 0, 0)
    width, height = thing.size
    x, high, way = rng.uniform((0.50, 0.04, 0.36), (0.85, 0.10, 0.46))
    y = high + height + way * (1 - beat.move(0.08, 0.92))
    contact = _path(n, x - width / 2 + 0.04, y - height / 2)[:, :2]
    angle, grip = math.radians(rng.uniform(-12, 12)), rng.uniform(0.7, 1)
    return Interaction([replace(thing, path=_path(n, x, y))], contact, angle, grip, carried=True)


def _pretend(rng: np.random.Generator, beat: Timeline) -> Interaction:
    n, y, x = len(beat.t), _floor(rng), rng.uniform(0.40, 0.92)
    thing = _thing(rng, n, x, y)
    width, height = thing.size
    close, lift = rng.uniform((0.40, 0.54), (0.46, 0.60))
    above = rng.uniform(0.22, 0.30) * (1 - beat.move(0, close) + beat.move(lift, 1))
    contact = _path(n, x + rng.uniform(-0.5, 0.5) * width, y - height + 0.03 - above)[:, :2]
    return Interaction([thing], contact, math.radians(rng.uniform(50, 100)), beat.move(close, lift))


def _come_closer(rng: np.random.Generator, beat: Timeline) -> Interaction:
    n, y, x = len(beat.t), _floor(rng) - 0.04, rng.uniform(0.45, 0.87)
    factor = rng.uniform(1.7, 2.2) ** beat.move(0, 1)
    zoom = np.column_stack([factor, np.full((n, 2), rng.uniform((x - 0.05, 0.95), (x + 0.05, 1)))])
    nowhere = np.full((n, 2), (-1.0, 0.5))
    return Interaction([_thing(rng, n, x, y, scale=0.9)], nowhere, 0.0, 0.0, zoom=zoom)


MOTIONS: dict[str, Callable[[np.random.Generator, Timeline], Interaction]] = {
    "slide": _slide, "put into": _put_into, "open": _open, "cover": _cover, "move up": _move_up,
    "pretend": _pretend, "come closer": _come_closer,
}  # fmt: skip
