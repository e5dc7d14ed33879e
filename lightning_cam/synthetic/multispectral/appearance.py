"""How things look: an actor's clothes, the two cameras, and the room that each of them sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.noise import smooth_noise

CAMERA_NUMBERS = (1, 2)
IR_SIZE, TV_SIZE = (60, 80), (68, 120)  # height, width
SUPERSAMPLE = 4  # painted larger by this factor, then shrunk
AMBIENT = 0.25  # of the infrared image, 0 to 1
LAMP = (-0.40, -0.33), 0.045  # its place in frame heights from the middle, and radius

# Pixels of a frame height, turn in degrees, and where the middle of the scene is seen, in frame
# heights from the middle of the image.
_VIEWS = {
    ("tv", 1): (0.96 * TV_SIZE[0], 1.5, (0.035, 0.010)),
    ("tv", 2): (0.84 * TV_SIZE[0], -2.0, (-0.030, 0.020)),
    ("ir", 1): (0.94 * IR_SIZE[0], -1.0, (-0.050, -0.020)),
    ("ir", 2): (0.82 * IR_SIZE[0], 1.5, (0.045, 0.015)),
}
_COATS = ((96, 74, 58), (70, 82, 102), (104, 104, 98), (62, 88, 72), (116, 92, 74), (84, 66, 88))
_PADDLES = ((255, 64, 52), (255, 206, 44), (255, 92, 196), (255, 144, 40), (255, 120, 120))
_SKIN = ((246, 208, 178), (228, 180, 142), (202, 146, 104), (160, 106, 70), (116, 74, 50))
_HAIR = ((44, 34, 30), (92, 62, 40), (176, 140, 84), (150, 148, 146))


@dataclass(frozen=True)
class PersonAppearance:
    """What a camera sees of an actor and the room, at a factor `scale` of the small sizes.

    Attributes:
        size: actor's, about 1.
        coat: RGB of two stripes.
        trousers, skin, hair, paddle: RGB.
        wall: (FINE * H, FINE * W, 3) uint8, the visible room.
        heat: (H, W) float32, the infrared room in [0, 1], lamp included.
        pattern: (H, W) float32, the fixed pattern of the infrared sensor, added in the end.
        vignette: (H, W) float32, its sensitivity.
    """

    size: float
    coat: tuple[Array, Array]
    trousers: Array
    skin: Array
    hair: Array
    paddle: Array
    wall: Array
    heat: Array
    pattern: Array
    vignette: Array


def view(spectrum: str, camera: int, scale: int = 1) -> Array:
    """Affine map (3, 3) from the scene, in frame heights, to pixels of a spectrum's image."""
    height, width = IR_SIZE if spectrum == "ir" else TV_SIZE
    pixels, degrees, (x, y) = _VIEWS[spectrum, camera]
    cos, sin = pixels * math.cos(math.radians(degrees)), pixels * math.sin(math.radians(degrees))
    small = np.array([
        [cos, -sin, (width - 1) / 2 + x * height], [sin, cos, (height - 1) / 2 + y * height],
        [0, 0, 1],
    ])  # fmt: skip
    return finer(small, scale)


def finer(view: Array, factor: int) -> Array:
    """The same map to an image with `factor` times as many pixels; a pixel's centre is whole."""
    half = (factor - 1) / 2
    return np.array([[factor, 0, half], [0, factor, half], [0, 0, 1]]) @ view


def registration(camera: int, scale: int = 1) -> Array:
    """Affine map (3, 3) from infrared to visible pixels of a camera."""
    return view("tv", camera, scale) @ np.linalg.inv(view("ir", camera, scale))


@lru_cache(maxsize=2)
def appearance_of(seed: int, actor: int, camera: int, scale: int = 1) -> PersonAppearance:
    """How an actor and the room look to a camera."""
    rng = np.random.default_rng([seed, 1_000_000 + actor])
    coat = rng.uniform(0.85, 1.15) * np.array(_COATS[rng.integers(len(_COATS))])
    person: dict[str, Any] = {
        "size": rng.uniform(0.94, 1.06),
        "coat": (coat, rng.uniform(0.72, 0.86) * coat),
        "trousers": rng.uniform(34, 70) + rng.uniform(-6, 6, 3),
        "skin": np.array(_SKIN[rng.integers(len(_SKIN))]),
        "hair": np.array(_HAIR[rng.integers(len(_HAIR))]),
        "paddle": np.array(_PADDLES[rng.integers(len(_PADDLES))]),
    }
    wall = _wall(rng, camera, scale)
    sensor = np.random.default_rng([seed, 2_000_000 + camera])
    height, width = (scale * side for side in IR_SIZE)
    v, u = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j].astype(np.float32)
    turn = rng.uniform(0, 2 * math.pi)
    heat = AMBIENT + 0.03 * (math.cos(turn) * u + math.sin(turn) * v)
    (x, y), radius = LAMP
    column, row = (view("ir", camera, scale) @ (x, y, 1))[:2]
    pixels = _VIEWS["ir", camera][0] * scale
    grid = np.mgrid[:height, :width]
    away = np.hypot(grid[0] - row, grid[1] - column) / (radius * pixels)
    heat += (0.62 * np.exp(-(away**4)) + 0.10 * np.exp(-(away**2) / 8)).astype(np.float32)
    return PersonAppearance(
        **person,
        wall=wall,
        heat=heat.astype(np.float32),
        pattern=sensor.normal(0, 0.006, (height, width)).astype(np.float32),
        vignette=1 - 0.25 * (u * u + v * v),
    )


def _wall(rng: np.random.Generator, camera: int, scale: int) -> Array:
    """Wallpaper, a framed picture, a floor, and the lamp; to camera 2 all but the lamp mirrored."""
    rows, columns = (SUPERSAMPLE * scale * side for side in TV_SIZE)
    noise = partial(smooth_noise, rng, size=(rows, columns))
    tone = rng.uniform(95, 150) + rng.uniform(-14, 14, 3)
    room = tone + 26 * noise((4, 7)) + 20 * noise((17, 30))
    x, y = np.arange(columns) / rows, np.arange(rows) / rows
    pitch = rng.uniform(0.13, 0.20)
    if rng.random() < 0.5:
        room[:, x / pitch % 1 < 0.5] *= 0.9
    else:
        room[y / pitch % 1 < 0.08] *= 0.82
        room[:, x / pitch % 1 < 0.08] *= 0.82
    edge = rng.uniform(0.84, 0.88)
    floor = rng.uniform(0.5, 0.9) * np.array((150, 116, 84))
    room[y >= edge] = (floor + 34 * noise((60, 8)))[y >= edge]
    room[(y >= edge - 0.02) & (y < edge)] *= 0.65
    left, top = rng.uniform((1.25, 0.08), (1.45, 0.20))
    wide, tall = rng.uniform((0.18, 0.14), (0.28, 0.24))
    for margin, colour in ((0.0, 0.5 * tone), (0.02, rng.uniform(60, 200, 3))):
        inside = np.ix_(
            (y > top + margin) & (y < top + tall - margin),
            (x > left + margin) & (x < left + wide - margin),
        )
        room[inside] = colour
    if camera == 2:
        room = room[:, ::-1]
    pixels = np.ascontiguousarray(np.clip(room, 0, 255).astype(np.uint8))
    (x0, y0), radius = LAMP
    fine = finer(view("tv", camera, scale), SUPERSAMPLE)
    column, row = np.rint((fine @ (x0, y0, 1))[:2]).astype(int).tolist()
    size = _VIEWS["tv", camera][0] * scale * SUPERSAMPLE
    cv2.line(pixels, (column, row), (column, -1), (60, 58, 56), max(1, round(0.012 * size)))
    cv2.circle(pixels, (column, row), round(1.15 * radius * size), (150, 130, 90), -1)
    cv2.circle(pixels, (column, row), round(0.9 * radius * size), (255, 246, 214), -1)
    return pixels
