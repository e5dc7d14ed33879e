"""Things on a table and how they are painted: boxes, balls, cups, a bowl, a chest, a cloth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.something.painting import (
    COLOURS,
    SCENERY,
    Painting,
    Rgb,
    ellipse,
    shaded,
)

PATTERNS = ("plain", "stripes", "hoops", "checks", "dots", "band")


@dataclass(frozen=True)
class Thing:
    """Something on the table.

    Attributes:
        kind: "box", "ball", "can", "cup", "bottle", "bowl" (its front), "inside" (of a bowl),
            "chest" (a box with a lid) or "cloth".
        size: width and height.
        colours: names of two of `COLOURS`.
        pattern: one of `PATTERNS`.
        part: SCENERY or OBJECT.
        path: (n, 3) x and y of the middle of its base (of a cloth: of its highest point), and
            how far its lid is open in radians, or the cloth's stage: 0 heap, 1 hanging, 2 spread.
        floor: y of the table where it stands and has a shadow.
        facing: -1 for its mirror image.
        covers: width and height of what a spread cloth lies on.
    """

    kind: str
    size: tuple[float, float]
    colours: tuple[str, str]
    pattern: str
    part: int
    path: Array
    floor: float = 0.0
    facing: int = 1
    covers: tuple[float, float] = (0.0, 0.0)


Painter = Callable[[Painting, float, float, float], None]  # onto, x, y, how far open


def painter(thing: Thing, shadow: Rgb, scale: float) -> Painter:
    """Prepare a thing to be painted on canvases of this scale."""
    if thing.kind == "chest":
        return _chest(thing)
    if thing.kind == "cloth":
        return _cloth(thing)
    if thing.kind == "inside":
        return _inside(thing, shadow)
    return _rigid(thing, shadow, scale)


_RIM = 0.26  # half the height of a bowl's opening in heights of the bowl

# The faces of rigid things on the unit square with their tones; 0 is a hole.
_FACES: dict[str, list[tuple[Array, float]]] = {
    "box": [
        (np.array([(0, 0.22), (0.78, 0.22), (0.78, 1), (0, 1)]), 1.0),
        (np.array([(0, 0.22), (0.22, 0), (1, 0), (0.78, 0.22)]), 1.3),
        (np.array([(0.78, 0.22), (1, 0), (1, 0.78), (0.78, 1)]), 0.65),
    ],
    "ball": [(ellipse(0.5, 0.5, 0.5, 0.5), 1.0)],
    "can": [
        (np.concatenate([ellipse(0.5, 0.91, 0.5, 0.09, 0, 180), [(0, 0.09), (1, 0.09)]]), 1.0),
        (ellipse(0.5, 0.09, 0.5, 0.09), 1.35),
    ],
    "cup": [
        (ellipse(0.78, 0.5, 0.22, 0.28), 0.75),
        (ellipse(0.77, 0.5, 0.13, 0.18), 0.0),
        (np.concatenate([ellipse(0.4, 0.93, 0.32, 0.07, 0, 180), [(0, 0.08), (0.8, 0.08)]]), 1.0),
        (ellipse(0.4, 0.08, 0.4, 0.08), 0.5),
    ],
    "bottle": [
        (np.array([(0.36, 0.08), (0.64, 0.08), (0.64, 0.3), (1, 0.46), (1, 0.96), (0.9, 1),
                   (0.1, 1), (0, 0.96), (0, 0.46), (0.36, 0.3)]), 1.0),
        (np.array([(0.3, 0), (0.7, 0), (0.7, 0.12), (0.3, 0.12)]), 0.5),
    ],
    "bowl": [
        (np.concatenate([ellipse(0.5, 0, 0.5, _RIM, 180, 0),
                         ellipse(0.5, 0.92, 0.32, 0.08, 0, 180)]), 1.0),
    ],
}  # fmt: skip


def _sprite(thing: Thing, scale: float) -> Array:
    """The image of a rigid thing (h, w, 4), its part 255 where it is not."""
    width, height = (round(scale * side) for side in thing.size)
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    unit = scale * max(0.035, 0.2 * min(thing.size))
    second = {
        "plain": np.zeros((1, 1), bool),
        "stripes": x // unit % 2 > 0,
        "hoops": y // unit % 2 > 0,
        "checks": (x // unit + y // unit) % 2 > 0,
        "dots": np.hypot(x % (1.5 * unit) / unit - 0.75, y % (1.5 * unit) / unit - 0.75) < 0.42,
        "band": np.abs(y / height - 0.55) < 0.16,
    }[thing.pattern]
    base, other = (np.array(COLOURS[name]) for name in thing.colours)
    paint = np.where(np.broadcast_to(second, (height, width))[..., None], other, base)
    if thing.kind == "ball":
        glow = np.hypot(x / width - 0.34, y / height - 0.3)[..., None]
        paint = paint * (1.1 - 0.6 * glow**2) + 90 * np.exp(-((glow / 0.13) ** 2))
    elif thing.kind != "box":
        paint = paint * (1.12 - 1.3 * (x / width - 0.38) ** 2)[:, None]
    image = np.full((height, width, 4), 255, np.uint8)
    outline = (*shaded(COLOURS[thing.colours[0]], 0.4), thing.part)
    for corners, tone in _FACES[thing.kind]:
        face = np.zeros((height, width), np.uint8)
        places = [np.rint(corners * (16 * (width - 1), 16 * (height - 1))).astype(np.int32)]
        cv2.fillPoly(face, places, 1, shift=4)
        inside = face > 0
        if tone == 0:
            image[inside] = 255
            continue
        image[inside, :3] = np.minimum(tone * paint[inside], 255)
        image[inside, 3] = thing.part
        cv2.polylines(image, places, True, outline, max(1, round(0.012 * scale)), shift=4)
    return np.ascontiguousarray(image[:, :: thing.facing])


def _rigid(thing: Thing, shadow: Rgb, scale: float) -> Painter:
    sprite, half = _sprite(thing, scale), thing.size[0] / 2

    def paint(canvas: Painting, x: float, y: float, _: float) -> None:
        if abs(thing.floor - y) < 0.02:
            canvas.fill(ellipse(x, y - 0.005, half + 0.03, 0.025), shadow, SCENERY)
        canvas.paste(sprite, x, y)

    return paint


def _inside(thing: Thing, shadow: Rgb) -> Painter:
    """The opening of a bowl, which is behind what is put into it."""
    (width, height), tone = thing.size, shaded(COLOURS[thing.colours[0]], 0.4)

    def paint(canvas: Painting, x: float, y: float, _: float) -> None:
        canvas.fill(ellipse(x, y - 0.005, 0.4 * width, 0.025), shadow, SCENERY)
        canvas.fill(ellipse(x, y - height, width / 2, _RIM * height), tone, thing.part)

    return paint


def _chest(thing: Thing) -> Painter:
    """A box, seen a little from above, with a lid that turns about its right edge."""
    width, height = thing.size
    colour, trim = (COLOURS[name] for name in thing.colours)
    near = np.array([-0.035, 0.03])  # from the middle of its depth to its front
    left, right = np.array([-width / 2, -height]), np.array([width / 2, -height])

    def paint(canvas: Painting, x: float, y: float, turn: float) -> None:
        def face(colour: Rgb, tone: float, *corners: Array) -> None:
            points = np.array([*corners, corners[0]]) * (thing.facing, 1) + (x, y)
            canvas.fill(points, shaded(colour, tone), thing.part)
            canvas.line(points, 0.01, outline, thing.part)

        def slab(start: Array, stop: Array) -> tuple[Array, Array, Array, Array]:
            return start + near, stop + near, stop - near, start - near

        def front(top: float, low: float) -> tuple[Array, Array, Array, Array]:
            lift = np.array([0, height])
            return tuple(near + end + share * lift for end, share in
                         ((left, top), (right, top), (right, low), (left, low)))  # fmt: skip

        outline = shaded(colour, 0.35)
        low = np.array([width / 2, 0])
        face(colour, 0.3, *slab(left, right))
        face(colour, 0.65, *slab(right, low))
        face(colour, 1, *front(0, 1))
        face(trim, 1, *front(0.35, 0.63))
        tip = right - width * np.array([math.cos(turn), math.sin(turn)])
        thick = 0.035 * np.array([math.sin(turn), -math.cos(turn)])
        upper, lower = slab(right + thick, tip + thick), slab(right, tip)
        if turn < math.pi / 2:
            face(trim, 0.6, *lower)
            face(trim, 1.1, *upper)
        else:
            face(trim, 0.6, *upper)
            face(trim, 0.6, *lower)
        face(
            trim,
            0.85,
            *(near + right + p for p in (0 * tip, tip - right, tip - right + thick, thick)),
        )

    return paint


def _cloth(thing: Thing) -> Painter:
    """A cloth held at its middle: folds between an upper and a lower edge."""
    (width, height), (wide, tall) = thing.size, thing.covers
    s = np.linspace(-1, 1, 17)
    wave, middle = np.cos(3.5 * math.pi * s), 1 - s**2

    def edges(*xy: Array) -> Array:
        return np.stack(xy, axis=1).reshape(-1, 2, 2).swapaxes(0, 1)  # upper, lower: (2, 17, 2)

    heap = edges(0.42 * width * s, 0.09 * s**2 + 0.012 * middle * wave,
                 0.5 * width * s, 0.09 + 0.02 * middle)  # fmt: skip
    hanging = edges(0.05 * s, 0.03 * s**2,
                    0.42 * width * s, height - 0.06 * s**2 + 0.015 * wave)  # fmt: skip
    spread = edges((0.5 * wide + 0.02) * s, 0.05 * s**6,
                   (0.5 * wide + 0.07) * s, tall + 0.03 + 0.012 * wave)  # fmt: skip
    colours = [COLOURS[name] for name in thing.colours]

    def paint(canvas: Painting, x: float, y: float, stage: float) -> None:
        rise, fall = min(stage, 1.0), max(stage - 1.0, 0.0)
        edge = (1 - rise) * heap + (rise - fall) * hanging + fall * spread + (x, y)
        for k in range(8):
            fold = edge[:, 2 * k : 2 * k + 3]
            tone = shaded(colours[k % 2], 1 - 0.1 * (k % 3))
            canvas.fill(np.concatenate([fold[0], fold[1, ::-1]]), tone, thing.part)
        outline = np.concatenate([edge[0], edge[1, ::-1], edge[0, :1]])
        canvas.line(outline, 0.012, shaded(colours[0], 0.4), thing.part)

    return paint
