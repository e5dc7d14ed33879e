"""Drawing the scene of the synthetic actions: background, distractors, actor."""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.noise import smooth_noise

FPS = 30
FRAMES = 72
TIMES = np.arange(FRAMES) / FPS

EAR = (1.08, 0.42)  # distance from the centre and radius, in disc radii
RIM = 0.22
PATCH_RADIUS = 0.20  # disc radius in the actor's patch, in frame sizes: never enlarged much
REACH = 1.56  # half side of the patch in disc radii: disc, ear and a margin
SUPERSAMPLE = 4


@lru_cache(maxsize=2)
def group_textures(seed: int, group: int, size: int) -> tuple[Array, Array]:
    """A group's background float32 (2S, 2S, 3) and actor patches uint8 (2, P, P, 4)."""
    rng = np.random.default_rng([seed, 1000 + group])
    hue = rng.uniform()
    texture = _texture(rng, 2 * size, unit=size / 96)
    grain = rng.uniform(0.4, 1.6, (8, 8)).astype(np.float32)
    return texture, np.stack([_actor(hue, grain, rim, size) for rim in (0.30, 1.0)])


def _texture(rng: np.random.Generator, side: int, unit: float) -> Array:
    image = np.empty((side, side, 3), np.float32)
    image[:] = rng.uniform(0.25, 0.65, 3)
    for amplitude, cell in ((0.45, 32), (0.25, 12), (0.12, 4)):
        cells = math.ceil(side / (cell * unit)) + 2
        grid = round(cells * cell * unit)
        fine = smooth_noise(rng, (cells, cells, 3), (grid, grid))
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


def _actor(hue: float, grain: Array, rim: float, size: int) -> Array:
    """The actor with its ear up, premultiplied RGBA; anti-aliased by supersampling."""
    side = 2 * round(REACH * PATCH_RADIUS * size)
    full = SUPERSAMPLE * side
    radius = SUPERSAMPLE * PATCH_RADIUS * size
    image, centre = np.zeros((full, full, 4), np.uint8), (full // 2, full // 2)
    disc = np.zeros((full, full), np.uint8)
    cv2.circle(image, centre, round(radius), _rgba(hue, 0.25, rim), cv2.FILLED)
    cv2.circle(disc, centre, round((1 - RIM) * radius), 1, cv2.FILLED)
    noise = cv2.resize(grain, (full, full), interpolation=cv2.INTER_CUBIC)[..., None]
    dark = np.clip(noise * _rgba(hue + 0.5, 0.5, 0.16), 0, 255).astype(np.uint8)
    dark[..., 3] = 255
    image[disc > 0] = dark[disc > 0]
    ear = (full // 2, round(full / 2 - EAR[0] * radius))
    cv2.circle(image, ear, round(EAR[1] * radius), _rgba(hue, 0.45, 1.0), cv2.FILLED)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _rgba(hue: float, saturation: float, value: float) -> list[float]:
    rgb = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return [*(round(255 * channel) for channel in rgb), 255]


def pan_background(rng: np.random.Generator, texture: Array, size: int) -> Array:
    """A window that pans over the texture at constant velocity."""
    start = size * (1 + rng.uniform(-0.35, 0.35, 2))
    heading, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.10) * size
    step = distance / FRAMES * np.array([math.cos(heading), math.sin(heading)])
    frames = np.empty((FRAMES, size, size, 3), np.uint8)
    for t in range(FRAMES):
        x, y = start + t * step
        frames[t] = cv2.getRectSubPix(texture, (size, size), (x, y))
    return frames


def paint_actor(patches: Array, poses: Array, size: int) -> Array:
    """The actor in every frame: premultiplied RGBA uint8 (FRAMES, S, S, 4).

    Args:
        patches: from `group_textures`.
        poses: (FRAMES, 5) cx, cy, radius, angle (clockwise, 0 = ear up), rim gain (0 or 1).
        size: of the frame.
    """
    actor = np.empty((FRAMES, size, size, 4), np.uint8)
    middle = (patches.shape[1] - 1) / 2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for layer, (x, y, radius, angle, gain) in zip(actor, poses, strict=True):
        # The inverse map takes a frame pixel to a patch pixel: turn back, shrink to the patch.
        scale = PATCH_RADIUS * size / radius
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        inverse = np.array([[c, s, middle - c * x - s * y], [-s, c, middle + s * x - c * y]])
        cv2.warpAffine(patches[int(gain)], inverse, (size, size), dst=layer, flags=flags)
    return actor


def composite(actor: Array, frames: Array) -> Array:
    """Premultiplied "over" in integers: the same on every machine."""
    # Repeated rather than broadcast: NumPy is slow along an axis of three.
    clear = np.repeat(255 - actor[..., 3:], 3, -1)
    behind = np.multiply(frames, clear, dtype=np.uint16)
    behind += 127
    behind //= 255
    return actor[..., :3] + behind.astype(np.uint8)


def paint_distractor(rng: np.random.Generator, frames: Array, size: int) -> None:
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
