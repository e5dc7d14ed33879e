"""Synthetic actions: eleven classes that differ by motion alone, in the layout of UCF11.

A textured disc with a rim and a bright "ear" acts for 1.3-1.6 s of a 2.4 s clip in front of a
slowly panning background with distractors. *Every* clip evaluates all motion laws. In the action's
interval the law of its class runs in real time and every other one is frozen at a random instant.
Before and after it, as in other shots of the same scene, all are frozen at random instants. So

- position, size, angle and brightness have the same distribution in single frames of all classes:
  a network must look at several frames;
- frames outside of the interval have nothing to do with the class: the evidence lies inside.

Beside the videos lie an actor mask per frame and the action's interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.data.core.ground_truth import Truth, truth_path
from lightning_cam.synthetic.actions import scene
from lightning_cam.synthetic.actions.scene import (
    FPS,
    FRAMES,
    TIMES,
)
from lightning_cam.synthetic.images import write_frames
from lightning_cam.synthetic.manifest import (
    check_ranges,
    chosen_names,
    ends_and_middle,
    manifest_of,
)
from lightning_cam.synthetic.rendering import render_once

REVISION = 3
CLASSES = (
    "move_left", "move_right", "move_up", "move_down", "rotate_cw", "rotate_ccw",
    "expand", "shrink", "oscillate", "blink", "circle",
)  # fmt: skip
FLIP_PAIRS = (("move_left", "move_right"), ("rotate_cw", "rotate_ccw"))
_OPPOSITES = (*FLIP_PAIRS, ("move_up", "move_down"), ("expand", "shrink"))
# Two actions at once, "expand+move_left", of laws that do not exclude each other.
PAIRS = tuple(
    "+".join(pair)
    for pair in combinations(sorted(CLASSES), 2)
    if not any(set(pair) == set(opposites) for opposites in _OPPOSITES)
)
_NAMES = (*CLASSES, *PAIRS)

DURATION = FRAMES / FPS


class ActionKey(NamedTuple):
    """Which clip: index of its class or pair of classes, group and clip number, both from 1."""

    label: int
    group: int
    clip: int

    @property
    def clip_id(self) -> str:
        return f"v_{_NAMES[self.label]}_{self.group:02d}_{self.clip:02d}"

    @property
    def files(self) -> tuple[Path, Path]:
        """Its video and its ground truth, relative to the root."""
        name, clip_id = _NAMES[self.label], self.clip_id
        video = Path("UCF11_updated_mpg", name, clip_id[:-3], f"{clip_id}.mpg")
        return video, truth_path(Path("ground_truth"), name, clip_id)


@dataclass(frozen=True)
class Track:
    """What the actor does: the interval (s) and its state in every frame, each (FRAMES,)."""

    onset: float
    offset: float
    cx: Array
    cy: Array
    radius: Array
    angle: Array  # radians clockwise, 0 = ear up
    gain: Array  # brightness of the rim: 0 dark, 1 bright

    @property
    def cuts(self) -> list[int]:
        """The first frames of the action and of what comes after it."""
        return np.searchsorted(TIMES, (self.onset, self.offset)).tolist()

    @property
    def state(self) -> Array:
        """(FRAMES, 5): cx, cy, radius, angle, gain."""
        return np.stack([self.cx, self.cy, self.radius, self.angle, self.gain], axis=1)


def render_actions(
    root: str | Path,
    *,
    groups: int = 25,
    clips: int = 4,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    size: int = 96,
    processes: int | None = None,
) -> Path:
    """Render the data set into `root` unless it is there already.

    Writes `UCF11_updated_mpg/<class>/v_<class>_<gg>/v_<class>_<gg>_<cc>.mpg` (MPEG-1, 30 fps,
    72 frames) and `ground_truth/<class>/<clip>.npz`. Each clip depends on (seed, class, group,
    clip) only, so a subset is rendered as in the whole set.

    Args:
        root: folder of the data set.
        groups: groups per class; a group shares background and actor colour.
        clips: clips per group.
        classes: some of `CLASSES` and `PAIRS`; None for all `CLASSES`.
        seed: of all randomness.
        size: side of the square frames in pixels, a multiple of 16 from 32 on.
        processes: worker processes; None for one per CPU.

    Raises:
        DataError: an argument is out of its range, or `root` cannot be used.
    """
    names = chosen_names("action", CLASSES if classes is None else classes, _NAMES)
    check_ranges(
        groups=(groups, range(1, 1000)),
        clips=(clips, range(1, 100)),
        size=(size, range(32, 4096, 16)),
    )
    keys = _keys(groups, names, clips)
    settings = {
        "seed": seed,
        "size": size,
        "groups": groups,
        "clips": clips,
        "classes": names,
        "frames": FRAMES,
        "fps": FPS,
        "files": 2 * len(keys),
    }
    drawn = {key.clip_id: [draw_action(key, seed, size)[0]] for key in ends_and_middle(keys)}
    manifest = manifest_of("synthetic_actions", REVISION, settings, drawn)
    write = partial(write_action, seed=seed, size=size)
    return render_once(root, manifest, keys, write, _files, processes=processes)


def _keys(groups: int, classes: Sequence[str], clips: int) -> list[ActionKey]:
    return [
        ActionKey(_NAMES.index(name), group, clip)
        for group in range(1, groups + 1)  # group outermost: its look is computed once
        for name in classes
        for clip in range(1, clips + 1)
    ]


def _files(manifest: dict[str, Any]) -> Iterator[str]:
    """Relative paths of all files of a rendering."""
    for key in _keys(manifest["groups"], manifest["classes"], manifest["clips"]):
        yield from (path.as_posix() for path in key.files)


def write_action(root: Path, key: ActionKey, *, seed: int, size: int) -> None:
    """Render one clip: its video and its ground truth."""
    frames, masks, track = draw_action(key, seed, size)
    video, truth = (root / file for file in key.files)
    write_mpeg(video, frames, track.cuts)
    Truth(masks, track.onset, track.offset, track.state).write(truth)


def draw_action(key: ActionKey, seed: int = 0, size: int = 96) -> tuple[Array, Array, Track]:
    """Draw a clip: frames uint8 (FRAMES, S, S, 3), actor masks bool (FRAMES, S, S), track."""
    rng = np.random.default_rng([seed, *key])
    return draw_action_from(rng, key, seed, size)


def draw_action_from(
    rng: np.random.Generator, key: ActionKey, seed: int = 0, size: int = 96
) -> tuple[Array, Array, Track]:
    """Draw a clip from the given random numbers; `seed` is of how its group looks.

    Clips of two classes from equal generators are equal, but for the frames of the action.
    """
    track = _track(rng, _NAMES[key.label].split("+"), size)
    texture, patches = scene.group_textures(seed, key.group, size)
    frames = scene.pan_background(rng, texture, size)
    for _ in range(rng.integers(1, 3)):
        scene.paint_distractor(rng, frames, size)
    actor = scene.paint_actor(patches, track.state, size)
    return scene.composite(actor, frames), actor[..., 3] > 127, track


def _track(rng: np.random.Generator, actions: Sequence[str], size: int) -> Track:
    """Draw the same numbers for every class: the classes differ in the laws of motion alone."""
    length = rng.uniform(1.30, 1.60)
    onset = rng.uniform(0.10, DURATION - length - 0.10)
    offset = onset + length
    shot = np.searchsorted((onset, offset), TIMES, "right")  # before, in and after the action

    def law(*names: str) -> tuple[Array, Array]:
        """Progress in [0, 1] and direction +-1, each (FRAMES,): by chance but in the action."""
        rho, sign = rng.uniform(size=3)[shot], rng.choice((-1.0, 1.0), 3)[shot]
        acting = [name for name in names if name in actions]
        if acting:
            rho = np.where(shot == 1, (TIMES - onset) / length, rho)
        if acting and len(names) == 2:
            sign = np.where(shot == 1, -1.0 if acting[0] == names[0] else 1.0, sign)
        return rho, sign

    cx, cy = size * (0.5 + rng.uniform(-0.04, 0.04, size=(2, 1))) + np.zeros(FRAMES)
    rho, sign = law("move_left", "move_right")
    cx += 0.36 * size * sign * (rho - 0.5)
    rho, sign = law("move_up", "move_down")
    cy += 0.36 * size * sign * (rho - 0.5)
    rho, sign = law("rotate_ccw", "rotate_cw")
    # Half a swing over the top: the ear goes from side to side, so direction is linear in time.
    swing = math.pi * rng.uniform(0.9, 1.1) * sign * (rho - 0.5)
    angle = math.radians(rng.uniform(-15, 15)) + swing
    rho, sign = law("shrink", "expand")
    radius = 0.15 * size * 1.9 ** (sign * (rho - 0.5))
    rho, sign = law("oscillate")
    axis, wave = rng.uniform(0, math.pi), 0.11 * size * sign * np.sin(4 * math.pi * rho)
    cx += math.cos(axis) * wave
    cy += math.sin(axis) * wave
    rho, sign = law("circle")
    phase = rng.uniform(0, 2 * math.pi) + sign * 2 * math.pi * rng.uniform(1.1, 1.4) * rho
    cx += 0.10 * size * np.cos(phase)
    cy += 0.10 * size * np.sin(phase)
    rho, sign = law("blink")
    gain = (np.floor(rho * length / 0.265) + (sign > 0)) % 2
    low, high = 0.08 * size, 0.92 * size
    return Track(onset, offset, np.clip(cx, low, high), np.clip(cy, low, high), radius, angle, gain)


def write_mpeg(path: Path, frames: Array, cuts: Sequence[int] = ()) -> None:
    """Write an MPEG-1 program stream, as the files of UCF11 are; `cuts` begin other shots."""
    write_frames(path, frames, FPS, "mpeg1video", "mpeg", cuts=cuts, bit_rate=150_000)
