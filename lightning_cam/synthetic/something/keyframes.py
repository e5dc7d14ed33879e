"""Key-frames of a clip: when the hand comes and goes, where it is, and which way round.

Each action is scripted once: forwards, the hand coming from the left. The other classes are its
mirror image or the same played backwards. Before the hand comes and after it has gone, as in other
shots of the same table, nothing is there but the scenery: what things stood where, and how they
were left, would tell the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.something.actions import MOTIONS, Timeline, distractors, ease
from lightning_cam.synthetic.something.objects import Thing
from lightning_cam.synthetic.something.tabletop import ASPECT

FPS = 12
FRAME_RANGE = (46, 60)  # shortest and longest clip; 16 steps at 4 fps need no padding
STATE_COLUMNS = ("hand x", "hand y", "hand angle", "grip", "object x", "object y", "amount", "zoom")


@dataclass(frozen=True)
class ClipPlan:
    """A clip before it is painted.

    Attributes:
        scenery: what has nothing to do with the action, from the back to the front.
        things: what is acted with, in front of it, likewise.
        hand: (n, 5) x, y, angle, grip, thumb; see `tabletop.paint_tabletop`.
        zoom: (n, 3) factor, x, y.
        state: (n, 8) see `STATE_COLUMNS`; the object is the one that moves, if one does.
        shown: (n,) bool, whether the things and the hand are there: the interval's frames.
        onset: when the things are there and the hand begins to come, in seconds.
        offset: when it has gone, and they are there no more.
        names: what the placeholders of the template stand for, in their order.
    """

    scenery: tuple[Thing, ...]
    things: tuple[Thing, ...]
    hand: Array
    zoom: Array
    state: Array
    shown: Array
    onset: float
    offset: float
    names: tuple[str, ...]

    def reversed(self) -> ClipPlan:
        """The same played backwards."""
        last = (len(self.hand) - 1) / FPS
        return replace(
            self,
            things=tuple(replace(thing, path=thing.path[::-1]) for thing in self.things),
            hand=self.hand[::-1],
            zoom=self.zoom[::-1],
            state=self.state[::-1],
            shown=self.shown[::-1],
            onset=last - self.offset,
            offset=last - self.onset,
        )


def length(rng: np.random.Generator) -> int:
    """Number of frames; the first that is drawn from a clip's random numbers."""
    return int(rng.integers(FRAME_RANGE[0], FRAME_RANGE[1] + 1))


def plan_clip(rng: np.random.Generator, action: str, mirror: bool | None = None) -> ClipPlan:
    """Key-frames of one of `MOTIONS`.

    All actions draw the same numbers, and one more generator for what they differ in: from equal
    generators come clips with the same scenery that are shown it in the same frames.

    Args:
        rng: the clip's own.
        action: its name.
        mirror: whether the hand comes from the right; None leaves it to chance.
    """
    n = length(rng)
    t, last = np.arange(n, dtype=float), n - 1.0
    lead, come, go, tail = rng.uniform((0.10, 0.12, 0.12, 0.10), (0.20, 0.16, 0.16, 0.20)) * last
    beat = Timeline(t, lead, lead + come, last - tail - go, last - tail)
    chance, thumb = rng.random() < 0.5, rng.choice((-1.0, 1.0))
    scenery = tuple(distractors(rng, n))
    act = MOTIONS[action](np.random.default_rng(rng.integers(2**63)), beat)
    things = act.things
    angle, grip = np.broadcast_to(act.angle, n), np.broadcast_to(act.grip, n)
    ahead = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    margin = 0.15 + (max(things[-1].size) if act.carried else 0.0)
    coming, going = (_way_out(act.contact[i], ahead[i], margin) for i in (0, -1))
    back = coming * (1 - ease(t, beat.appear, beat.onset)) + going * ease(t, beat.offset, beat.gone)
    shift = -back[:, None] * ahead
    if act.carried:
        path = things[-1].path + np.pad(shift, ((0, 0), (0, 1)))
        things[-1] = replace(things[-1], path=path)
    hand = np.column_stack([act.contact + shift, angle, grip, np.full(n, thumb)])
    zoom = np.ones((n, 3)) if act.zoom is None else act.zoom
    if chance if mirror is None else mirror:
        things = [
            replace(thing, facing=-1, path=thing.path * (-1, 1, 1) + (ASPECT, 0, 0))
            for thing in things
        ]
        hand = hand * (-1, 1, -1, 1, -1) + (ASPECT, 0, math.pi, 0, 0)
        zoom = zoom * (1, -1, 1) + (0, ASPECT, 0)
    moved = next((thing for thing in things if np.ptp(thing.path, axis=0).any()), things[-1])
    return ClipPlan(
        scenery=scenery,
        things=tuple(things),
        hand=hand,
        zoom=zoom,
        state=np.column_stack([hand[:, :4], moved.path, zoom[:, 0]]),
        shown=(t >= beat.appear) & (t < beat.gone),
        onset=beat.appear / FPS,
        offset=beat.gone / FPS,
        names=tuple(f"{it.colours[0]} {it.kind}" for it in things if it.kind != "inside"),
    )


def _way_out(point: Array, ahead: Array, margin: float) -> float:
    """How far a hand that points ahead must go back from the point to be out of the frame."""
    return float(min(
        (place + margin if way > 0 else place - side - margin) / way
        for place, way, side in zip(point, ahead, (ASPECT, 1.0), strict=True)
        if abs(way) > 1e-3
    ))  # fmt: skip
