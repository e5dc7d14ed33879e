"""The classes of the synthetic something, and drawing one clip."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.something.keyframes import ClipPlan, plan_clip
from lightning_cam.synthetic.something.painting import (
    HAND,
    OBJECT,
)
from lightning_cam.synthetic.something.tabletop import Workplace, paint_tabletop, workplace_of

_SCRIPTS: dict[tuple[str, str], tuple[str, bool | None]] = {
    # A class and its partner backwards: the action that is drawn, and whether it is mirrored.
    ("Pushing something from left to right", "Pulling something from right to left"):
        ("slide", False),
    ("Pushing something from right to left", "Pulling something from left to right"):
        ("slide", True),
    ("Putting something into something", "Taking something out of something"): ("put into", None),
    ("Opening something", "Closing something"): ("open", None),
    ("Covering something with something", "Uncovering something"): ("cover", None),
    ("Moving something up", "Moving something down"): ("move up", None),
    ("Pretending to pick something up", "Pretending to put something on a surface"):
        ("pretend", None),
    ("Approaching something with your camera", "Moving away from something with your camera"):
        ("come closer", None),
}  # fmt: skip
PAIRS = tuple(_SCRIPTS)
CLASSES = tuple(name for pair in PAIRS for name in pair)
REVERSED = {one: other for pair in PAIRS for one, other in (pair, pair[::-1])}
FLIP_PAIRS = tuple(zip(*PAIRS[:2], strict=True))
FLIP = {name: name for name in CLASSES} | {
    one: other for pair in FLIP_PAIRS for one, other in (pair, pair[::-1])
}

_IDS = 220_847  # as many as the official second version has clips
MAX_CLIPS = _IDS // len(CLASSES)  # clips per class


class InteractionKey(NamedTuple):
    """Which clip: index of its class, number within the class and worker, these from 1."""

    label: int
    number: int
    worker: int

    def clip_id(self, seed: int) -> str:
        """Its name in the data set."""
        return str(_shuffled(seed)[self.label * MAX_CLIPS + self.number - 1])

    def rng(self, seed: int) -> np.random.Generator:
        """Its random numbers, which do not depend on the worker."""
        return np.random.default_rng([seed, self.label, self.number])


@lru_cache(maxsize=2)
def _shuffled(seed: int) -> Array:
    return np.random.default_rng([seed, 2_000_000]).permutation(_IDS) + 1


def draw_interaction(
    key: InteractionKey, seed: int = 0, height: int = 100
) -> tuple[Array, dict[str, Array], ClipPlan]:
    """Draw a clip.

    Returns:
        Frames uint8 (n, H, W, 3); the parts of the ground truth "hand" and "object", each bool
        (n, H, W); and the scene, which has the interval and the state of every frame.
    """
    return draw_interaction_from(key.rng(seed), key.label, workplace_of(seed, key.worker, height))


def forwards(rng: np.random.Generator, label: int) -> ClipPlan:
    """What happens in a clip of the class or, if it is the second of a pair, of its partner."""
    return plan_clip(rng, *_SCRIPTS[PAIRS[label // 2]])


def draw_interaction_from(
    rng: np.random.Generator, label: int, look: Workplace
) -> tuple[Array, dict[str, Array], ClipPlan]:
    """Draw a clip of a class from the given random numbers: see `draw_interaction`.

    From equal generators, clips of first classes of pairs are equal but for the frames of the
    interval, and those of second classes are these backwards.
    """
    scene = forwards(rng, label)
    frames, parts = paint_tabletop(
        look, scene.scenery, scene.things, scene.hand, scene.zoom, scene.shown
    )
    height, width = frames.shape[1:3]
    starts = rng.integers(0, (height, width), (len(frames), 2))
    for frame, (y, x) in zip(frames, starts, strict=True):
        seen = frame * look.light + look.noise[y : y + height, x : x + width]
        frame[:] = np.clip(np.rint(seen), 0, 255)
    step = -1 if label % 2 else 1
    masks = {"hand": parts[::step] == HAND, "object": parts[::step] == OBJECT}
    return np.ascontiguousarray(frames[::step]), masks, scene if step > 0 else scene.reversed()
