"""Synthetic actions: eleven classes that differ by motion alone, in the layout of UCF11.

A textured disc with a rim and a bright "ear" acts for 1.3-1.6 s of a 2.4 s clip in front of a
slowly panning background with distractors. *Every* clip evaluates all motion laws; the law of its
class runs in real time and every other one is frozen at a random instant. So position, size,
angle and brightness have the same distribution in single frames of all classes: a network must
look at several frames. Beside the videos lie an actor mask per frame and the action's interval.
"""

from __future__ import annotations

import colorsys
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.synthetic.render import render_once
from lightning_cam.data.truth import Truth, truth_path
from lightning_cam.errors import DataError

VERSION = 1
FPS = 30
FRAMES = 72
CLASSES = (
    "move_left", "move_right", "move_up", "move_down", "rotate_cw", "rotate_ccw",
    "expand", "shrink", "oscillate", "blink", "circle",
)  # fmt: skip
FLIP_PAIRS = (("move_left", "move_right"), ("rotate_cw", "rotate_ccw"))

TIMES = np.arange(FRAMES) / FPS
DURATION = FRAMES / FPS
EAR = (1.08, 0.42)  # distance from the centre and radius, in disc radii
RIM = 0.22
PATCH_RADIUS = 0.20  # disc radius in the actor's patch, in frame sizes: never enlarged much
REACH = 1.56  # half side of the patch in disc radii: disc, ear and a margin
SUPERSAMPLE = 4

Array = NDArray[Any]


class ClipKey(NamedTuple):
    """Which clip: class index, group and clip number, both from 1."""

    label: int
    group: int
    clip: int

    @property
    def clip_id(self) -> str:
        return f"v_{CLASSES[self.label]}_{self.group:02d}_{self.clip:02d}"


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
    def state(self) -> Array:
        """(FRAMES, 5): cx, cy, radius, angle, gain."""
        return np.stack([self.cx, self.cy, self.radius, self.angle, self.gain], axis=1)


def render(
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
        classes: some of `CLASSES`; None for all.
        seed: of all randomness.
        size: side of the square frames in pixels, a multiple of 16.
        processes: worker processes; None for one per CPU.

    Raises:
        DataError: unknown class or size, or `root` cannot be used.
    """
    names = CLASSES if classes is None else tuple(classes)
    if unknown := sorted(set(names) - set(CLASSES)):
        raise DataError(f"unknown synthetic classes {unknown}: choose from {list(CLASSES)}")
    if size < 32 or size % 16:
        raise DataError(f"size={size} of synthetic actions must be a multiple of 16 from 32 on")
    keys = [
        ClipKey(CLASSES.index(name), group, clip)
        for group in range(1, groups + 1)  # group outermost: its look is computed once
        for name in names
        for clip in range(1, clips + 1)
    ]
    manifest = {
        "name": "synthetic_actions",
        "version": VERSION,
        "seed": seed,
        "size": size,
        "groups": groups,
        "clips": clips,
        "classes": list(names),
        "frames": FRAMES,
        "fps": FPS,
        "files": 2 * len(keys),
        # Of the raw frames: codecs may differ between builds of FFmpeg, these must not.
        "sha256": {
            key.clip_id: hashlib.sha256(draw(key, seed, size)[0].tobytes()).hexdigest()
            for key in (keys[0], keys[len(keys) // 2], keys[-1])
        },
    }
    return render_once(
        root, manifest, keys, partial(write_clip, seed=seed, size=size), processes=processes
    )


def write_clip(root: Path, key: ClipKey, *, seed: int, size: int) -> None:
    """Render one clip: its video and its ground truth."""
    frames, masks, track = draw(key, seed, size)
    name = CLASSES[key.label]
    video = root / "UCF11_updated_mpg" / name / key.clip_id[:-3] / f"{key.clip_id}.mpg"
    video.parent.mkdir(parents=True, exist_ok=True)
    _encode(video, frames)
    truth = Truth(masks, track.onset, track.offset, track.state)
    truth.write(truth_path(root / "ground_truth", name, key.clip_id))


def draw(key: ClipKey, seed: int = 0, size: int = 96) -> tuple[Array, Array, Track]:
    """Draw a clip: frames uint8 (FRAMES, S, S, 3), actor masks bool (FRAMES, S, S), track."""
    rng = np.random.default_rng([seed, *key])
    track = _track(rng, CLASSES[key.label], size)
    texture, actors = _look(seed, key.group, size)
    frames = _background(rng, texture, size)
    for _ in range(rng.integers(1, 3)):
        _distract(rng, frames, size)
    actor = np.empty((FRAMES, size, size, 4), np.uint8)
    for t in range(FRAMES):
        # The inverse map takes a frame pixel to a patch pixel: turn back, shrink to the patch.
        scale = PATCH_RADIUS * size / track.radius[t]
        c, s = scale * math.cos(track.angle[t]), scale * math.sin(track.angle[t])
        x, y, mid = track.cx[t], track.cy[t], (actors.shape[1] - 1) / 2
        inverse = np.array([[c, s, mid - c * x - s * y], [-s, c, mid + s * x - c * y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patch = actors[int(track.gain[t])]
        cv2.warpAffine(patch, inverse, (size, size), dst=actor[t], flags=flags)
    colour, alpha = actor[..., :3], actor[..., 3:]
    # Premultiplied "over" in integers: the same on every machine.
    frames = colour + ((frames * (255 - alpha.astype(np.uint16)) + 127) // 255).astype(np.uint8)
    return frames, alpha[..., 0] > 127, track


def _track(rng: np.random.Generator, name: str, size: int) -> Track:
    def interval() -> tuple[float, float]:
        length = rng.uniform(1.30, 1.60)
        return rng.uniform(0.10, DURATION - length - 0.10), length

    onset, length = interval()

    def law(*names: str) -> tuple[Array, float, float]:
        """Progress rho (FRAMES,) in [0, 1], the interval's length, and a direction +-1."""
        start, span = interval()
        instant, sign = TIMES[rng.integers(FRAMES)], rng.choice((-1.0, 1.0))
        if name not in names:
            frozen = np.clip((instant - start) / span, 0, 1)
            return np.full(FRAMES, frozen), span, sign
        if len(names) == 2:
            sign = -1.0 if name == names[0] else 1.0
        return np.clip((TIMES - onset) / length, 0, 1), length, sign

    cx, cy = size * (0.5 + rng.uniform(-0.04, 0.04, size=(2, 1))) + np.zeros(FRAMES)
    rho, _, sign = law("move_left", "move_right")
    cx += 0.36 * size * sign * (rho - 0.5)
    rho, _, sign = law("move_up", "move_down")
    cy += 0.36 * size * sign * (rho - 0.5)
    rho, _, sign = law("rotate_ccw", "rotate_cw")
    # Half a swing over the top: the ear goes from side to side, so direction is linear in time.
    swing = math.pi * rng.uniform(0.9, 1.1) * sign * (rho - 0.5)
    angle = math.radians(rng.uniform(-15, 15)) + swing
    rho, _, sign = law("shrink", "expand")
    radius = 0.15 * size * 1.9 ** (sign * (rho - 0.5))
    rho, _, sign = law("oscillate")
    axis, wave = rng.uniform(0, math.pi), 0.11 * size * sign * np.sin(4 * math.pi * rho)
    cx += math.cos(axis) * wave
    cy += math.sin(axis) * wave
    rho, _, sign = law("circle")
    phase = rng.uniform(0, 2 * math.pi) + sign * 2 * math.pi * rng.uniform(1.1, 1.4) * rho
    cx += 0.10 * size * np.cos(phase)
    cy += 0.10 * size * np.sin(phase)
    rho, span, sign = law("blink")
    gain = (np.floor(rho * span / 0.265) + (sign > 0)) % 2
    low, high = 0.08 * size, 0.92 * size
    return Track(
        onset, onset + length, np.clip(cx, low, high), np.clip(cy, low, high), radius, angle, gain
    )


@lru_cache(maxsize=2)
def _look(seed: int, group: int, size: int) -> tuple[Array, Array]:
    """A group's background float32 (2S, 2S, 3) and actor patches uint8 (2, P, P, 4)."""
    rng = np.random.default_rng([seed, 1000 + group])
    hue = rng.uniform()
    texture = _texture(rng, 2 * size, unit=size / 96)
    side = 2 * round(REACH * PATCH_RADIUS * size)
    return texture, np.stack([_actor(rng, hue, rim, side, size) for rim in (0.30, 1.0)])


def _texture(rng: np.random.Generator, side: int, unit: float) -> Array:
    image = np.empty((side, side, 3), np.float32)
    image[:] = rng.uniform(0.25, 0.65, 3)
    for amplitude, cell in ((0.45, 32), (0.25, 12), (0.12, 4)):
        cells = math.ceil(side / (cell * unit)) + 2
        coarse = rng.uniform(-0.5, 0.5, (cells, cells, 3)).astype(np.float32)
        fine = cv2.resize(coarse, None, fx=cell * unit, fy=cell * unit, interpolation=2)
        image += 0.6 * amplitude * fine[:side, :side]
    for shape in rng.permutation(np.arange(10) % 3):
        colour = np.clip(image.mean((0, 1)) + rng.uniform(-0.2, 0.2, 3), 0, 1).tolist()
        (x, y), (w, h) = rng.integers(0, side, 2).tolist(), rng.integers(4, 14, 2).tolist()
        w, h = round(w * unit), round(h * unit)
        if shape == 0:
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, cv2.FILLED)
        elif shape == 1:
            cv2.line(image, (x, y), (x + 3 * w, y + 3 * h), colour, 1 + round(unit))
        else:
            cv2.ellipse(image, (x, y), (w, h), 0, 0, 360, colour, cv2.FILLED)
    grey = image.mean(axis=2, keepdims=True)
    return np.clip(0.9 * (grey + image) / 2, 0, 1) * 255  # half the saturation


def _actor(rng: np.random.Generator, hue: float, rim: float, side: int, size: int) -> Array:
    """The actor with its ear up, premultiplied RGBA; anti-aliased by supersampling."""
    full = SUPERSAMPLE * side
    radius = SUPERSAMPLE * PATCH_RADIUS * size
    image, centre = np.zeros((full, full, 4), np.uint8), (full // 2, full // 2)
    disc = np.zeros((full, full), np.uint8)
    cv2.circle(image, centre, round(radius), _rgba(hue, 0.25, rim), cv2.FILLED)
    cv2.circle(disc, centre, round((1 - RIM) * radius), 1, cv2.FILLED)
    noise = rng.uniform(0.4, 1.6, (8, 8)).astype(np.float32)
    noise = cv2.resize(noise, (full, full), interpolation=cv2.INTER_CUBIC)[..., None]
    dark = np.clip(noise * _rgba(hue + 0.5, 0.5, 0.16), 0, 255).astype(np.uint8)
    dark[..., 3] = 255
    image[disc > 0] = dark[disc > 0]
    ear = (full // 2, round(full / 2 - EAR[0] * radius))
    cv2.circle(image, ear, round(EAR[1] * radius), _rgba(hue, 0.45, 1.0), cv2.FILLED)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _rgba(hue: float, saturation: float, value: float) -> list[float]:
    rgb = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return [*(round(255 * channel) for channel in rgb), 255]


def _background(rng: np.random.Generator, texture: Array, size: int) -> Array:
    """A window that pans over the texture at constant velocity."""
    start = size * (1 + rng.uniform(-0.35, 0.35, 2))
    heading, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.10) * size
    step = distance / FRAMES * np.array([math.cos(heading), math.sin(heading)])
    frames = np.empty((FRAMES, size, size, 3), np.uint8)
    for t in range(FRAMES):
        x, y = start + t * step
        frames[t] = cv2.getRectSubPix(texture, (size, size), (x, y))
    return frames


def _distract(rng: np.random.Generator, frames: Array, size: int) -> None:
    """Draw one distractor into all frames; its motion has nothing to do with the class."""
    outline = _OUTLINES[rng.integers(len(_OUTLINES))]
    motion = rng.choice(("drift", "spin", "pulse", "sway", "still"))
    half, turn = rng.uniform(0.06, 0.10) * size, rng.uniform(0, 2 * math.pi)
    centre = rng.uniform(0.1, 0.9, (1, 2)) * size + np.zeros((FRAMES, 1))
    velocity = rng.uniform(0.15, 0.35) * size
    rate, phase = rng.uniform(1.0, 3.5) * rng.choice((-1, 1)), rng.uniform(0, 2 * math.pi)
    heading = np.array([math.cos(phase), math.sin(phase)])
    angle, scale = np.full(FRAMES, turn), np.full(FRAMES, half)
    if motion == "drift":
        low, span = 0.1 * size, 0.8 * size
        way = centre + TIMES[:, None] * velocity * heading - low
        centre = low + span - np.abs(way % (2 * span) - span)  # bounces off the borders
    elif motion == "spin":
        angle = turn + rate * TIMES
    elif motion == "pulse":
        scale = half * (1 + 0.25 * np.sin(2 * rate * TIMES + phase))
    elif motion == "sway":
        centre = centre + 0.06 * size * np.sin(2 * rate * TIMES)[:, None] * heading
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)  # (T, 2, 2)
    shape = np.einsum("tij,pj->tpi", rotation, outline) * scale[:, None, None]
    tones = rng.uniform(0.15, 0.75, (2, 3)) * 255
    for factor, tone in zip((1.0, 0.5), tones.tolist(), strict=True):
        points = np.round((centre[:, None] + factor * shape) * 16).astype(np.int32)
        for frame, corners in zip(frames, points, strict=True):
            cv2.fillPoly(frame, [corners], tone, lineType=cv2.LINE_AA, shift=4)


_A = 0.35  # half width of the cross's bars
_OUTLINES = (
    np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.85,
    np.array([(0, -1.1), (0.95, 0.55), (-0.95, 0.55)]),
    np.array([
        (-_A, -1), (_A, -1), (_A, -_A), (1, -_A), (1, _A), (_A, _A),
        (_A, 1), (-_A, 1), (-_A, _A), (-1, _A), (-1, -_A), (-_A, -_A),
    ]),
)  # fmt: skip


def _encode(path: Path, frames: Array) -> None:
    """Write an MPEG-1 program stream, as the files of UCF11 are."""
    with av.open(str(path), "w", format="mpeg") as container:
        stream = container.add_stream("mpeg1video", rate=Fraction(FPS))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 150_000
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
