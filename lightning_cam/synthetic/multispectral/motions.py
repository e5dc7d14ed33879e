"""What a person does in a sequence: the eight actions as laws of motion.

Every sequence has five motions (a step, an arm's swing, a paddle's lift, and the waving of arm and
paddle). In the action's interval it performs one or, to wave, two of them; the others are frozen
where a random moment would have found them. Before and after it, as in other shots of the same
scene, all are frozen at random moments. So no single frame tells the action, in either spectrum,
and what is outside of the interval has nothing to do with it.

Arm and paddle each wave once, in the first or in the second half of the action: together in the
same half, in turn in different ones. Either has the same chance of both halves, so of one alone
nothing can be told. That nothing waves in a half tells as much, so the interval has both. They wave
from anywhere up or down between the limits, so that where they are is uniform between these at all
times, and independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lightning_cam.data.core.arrays import Array

FPS = 12.5
FRAMES = 40
ACTIONS = (
    "paddle_down", "paddle_up", "step_left", "step_right", "swing_ccw", "swing_cw",
    "wave_in_turn", "wave_together",
)  # fmt: skip
FLIP_PAIRS = (("step_left", "step_right"), ("swing_ccw", "swing_cw"))
# Which parts carry the evidence, as each spectrum sees them. Without any, the action cannot be
# told from its partner there.
EVIDENCE_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "paddle": {"ir": (), "tv": ("paddle",)},
    "step": {"ir": ("body", "arm"), "tv": ("body", "arm", "paddle")},
    "swing": {"ir": ("arm",), "tv": ()},
    "wave": {"ir": ("arm",), "tv": ("paddle",)},
}
STATE_COLUMNS = ("x", "arm angle", "arm y", "paddle x", "paddle y")

_STEP = 0.10  # frame heights to each side
_SWING = np.radians(75)  # to each side of upright
_LIFT = 0.17  # to each side of the middle
_WAVE = 0.09  # to each side


class Interval(NamedTuple):
    """When an action happens, in frames."""

    onset: float
    length: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Interval:
        length = rng.uniform(23, 29)
        return cls(rng.uniform(2, FRAMES - 3 - length), length)

    @property
    def offset(self) -> float:
        return self.onset + self.length

    def progress(self, t: Array) -> Array:
        """0 before, 1 after."""
        return np.clip((t - self.onset) / self.length, 0, 1)


@dataclass(frozen=True)
class Performance:
    """Where everything is in each of n frames; lengths are in frame heights, y down.

    Attributes:
        x: (n,) of the body.
        angle: (n,) of the arm in radians, 0 upright, clockwise.
        arm: (n,) y of the arm's joint above its middle position.
        paddle: (n,) y of the paddle above its middle position.
        side: -1 or 1, where the paddle is.
        onset: when the action begins, in seconds.
        offset: when it ends.
    """

    x: Array
    angle: Array
    arm: Array
    paddle: Array
    side: int
    onset: float
    offset: float

    @property
    def state(self) -> Array:
        """(n, 5), see `STATE_COLUMNS`."""
        side = np.full_like(self.x, self.side)
        return np.column_stack([self.x, self.angle, self.arm, side, self.paddle])


def evidence(action: str, spectrum: str) -> tuple[str, ...]:
    """Parts that show the action in a spectrum: "ir", "tv", or both fused ("irtv")."""
    of = EVIDENCE_PARTS[action.partition("_")[0]]
    return of[spectrum] if spectrum in of else tuple(dict.fromkeys(of["ir"] + of["tv"]))


def perform(rng: np.random.Generator, action: str) -> Performance:
    """Draw a performance of one of `ACTIONS`.

    All actions draw the same numbers: from equal generators come performances that are equal but
    for the interval, and there the two of a pair differ in one thing alone, the direction in which
    the body, the arm or the paddle moves, or the half in which the paddle waves.
    """
    t = np.arange(FRAMES, dtype=float)
    beat = Interval.draw(rng)
    # 0 before the action, 1 in it, 2 after it
    shot = np.searchsorted((beat.onset, beat.offset), t, "right")
    step, swing, lift, arm, paddle = rng.uniform(-1, 1, (5, 3))[:, shot]  # all frozen
    ways, half = rng.choice((-1, 1), 2), int(rng.integers(2))
    side, place = int(rng.choice((-1, 1))), rng.uniform(-0.03, 0.03)
    kind, sign = action.partition("_")[0], 1 if ACTIONS.index(action) % 2 else -1
    course = sign * (2 * beat.progress(t) - 1)
    step, swing, lift = (
        np.where((shot == 1) & (name == kind), course, frozen)
        for name, frozen in (("step", step), ("swing", swing), ("paddle", lift))
    )
    halves = [half, half if sign > 0 else 1 - half]  # of arm and paddle
    bursts = [Interval(beat.onset + n * beat.length / 2, beat.length / 2) for n in halves]
    arm, paddle = (
        # A cycle is four units long.
        np.where((shot == 1) & (kind == "wave"), _reflected(at + way * 4 * burst.progress(t)), at)
        for at, way, burst in zip((arm, paddle), ways, bursts, strict=True)
    )
    return Performance(
        x=_STEP * step + place,
        angle=_SWING * swing,
        arm=_WAVE * arm,
        paddle=_LIFT * lift + _WAVE * paddle,
        side=side,
        onset=beat.onset / FPS,
        offset=beat.offset / FPS,
    )


def _reflected(at: Array) -> Array:
    """A line folded at -1 and 1."""
    return np.abs((at - 1) % 4 - 2) - 1
