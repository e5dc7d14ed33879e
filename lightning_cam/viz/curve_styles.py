"""Curves that can be told apart: colours, marks and dashes, and the round numbers beside them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lightning_cam.viz.drawing import BLUE, MUTED, NEUTRAL, PAPER, RIGHT, VIOLET, WRONG, Color

SHIFT = 4  # bits behind the point in OpenCV's coordinates
# Told apart by every kind of colour vision, and never without a mark or dashes of their own.
COLORS: tuple[Color, ...] = (BLUE, WRONG, RIGHT, VIOLET, (122, 92, 0), (0, 126, 158))
_GRAYS: tuple[Color, ...] = (NEUTRAL, MUTED)
_MARKS = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Style:
    """How a curve is drawn."""

    color: Color
    mark: str = ""  # one of _MARKS; "" is a baseline
    dashed: bool = False
    at: float = 0.5  # where between two shares the marks sit, so that equal curves show both


def curve_styles(names: Sequence[str], baselines: Collection[str] = ()) -> dict[str, Style]:
    """A style for each curve; `baselines` are thin and grey."""
    methods = [name for name in names if name not in baselines]
    grays = [name for name in names if name in baselines]
    chosen = {
        name: Style(
            COLORS[n % len(COLORS)],
            _MARKS[n % len(_MARKS)],
            dashed=n >= len(COLORS),
            at=(n + 1) / (len(methods) + 1),
        )
        for n, name in enumerate(methods)
    }
    return chosen | {name: Style(_GRAYS[n % 2], dashed=bool(n % 2)) for n, name in enumerate(grays)}


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, ... that is not below `least`, but for a thousandth."""
    unit = 10 ** math.floor(math.log10(least))
    return next(s for s in (unit, 2 * unit, 5 * unit, 10 * unit) if s >= least * (1 - 1e-3))


def runs(known: np.ndarray) -> list[np.ndarray]:
    """The stretches of (N,) bool that are true, as indices."""
    at = np.flatnonzero(known)
    return [run for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(run)]


def round_ticks(values: Sequence[np.ndarray], steps: int = 5) -> list[float]:
    """Round numbers that hold all values between them; 0 is one, if none is below.

    There are about `steps` of them, give or take two.
    """
    low = min(0.0, *(float(each.min()) for each in values))
    high = max(float(each.max()) for each in values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        high = low + 1
    step = round_step((high - low) / steps)
    first, last = math.floor(low / step + 1e-3), math.ceil(high / step - 1e-3)
    return [step * n for n in range(first, last + 1)]


def series_ticks(series: Iterable[np.ndarray]) -> list[float]:
    """Few round numbers around several series and 0; none where all values are NaN."""
    known = [values[np.isfinite(values)] for values in series]
    known = [values for values in known if len(values)]
    return round_ticks([*known, np.zeros(1)], steps=2) if known else []


def stroke(image: np.ndarray, points: np.ndarray, style: Style, marks: int = 5) -> None:
    """Draw a curve into an image, with a few marks on it.

    Args:
        image: (H, W, 3) uint8, changed in place.
        points: (N, 2) int32 x and y in units of 2**-SHIFT pixels, from left to right.
        style: of the curve.
        marks: how many.
    """
    width = 2 if style.mark else 1
    x0, x1 = points[0, 0], points[-1, 0]
    if style.dashed:
        way = np.append(0, np.hypot(*np.diff(points, axis=0).T).cumsum())
        for start in np.arange(0, way[-1], 9 << SHIFT):
            on = np.linspace(start, min(start + (5 << SHIFT), way[-1]), 6)
            dash = np.stack([np.interp(on, way, points[:, k]) for k in (0, 1)], 1).round()
            lines = [dash.astype(np.int32)]
            cv2.polylines(image, lines, False, style.color, width, cv2.LINE_AA, SHIFT)
    else:
        cv2.polylines(image, [points], False, style.color, width, cv2.LINE_AA, SHIFT)
    if not style.mark:
        return
    for k in range(marks):
        x = x0 + (x1 - x0) * (k + style.at) / marks
        draw_mark(image, x, float(np.interp(x, points[:, 0], points[:, 1])), style)


def sample(style: Style, width: int, height: int) -> np.ndarray:
    """A short piece of a curve for a legend, (height, width, 3) uint8."""
    image = np.full((height, width, 3), PAPER, np.uint8)
    ends = np.array([(2, height / 2), (width - 2, height / 2)]) * 2**SHIFT
    stroke(image, ends.astype(np.int32), replace(style, at=0.5), marks=1)
    return image


def draw_mark(image: np.ndarray, x: float, y: float, style: Style) -> None:
    """Draw a style's mark with a white rim, at x and y in the units of `stroke`."""
    angles = {"circle": 24, "square": 4, "triangle": 3, "diamond": 4}[style.mark]
    turn = {"square": 0.25 * math.pi, "triangle": -0.5 * math.pi}.get(style.mark, 0.0)
    size = {"circle": 4.2, "square": 5.2, "triangle": 5.6, "diamond": 5.6}[style.mark]
    angle = turn + 2 * math.pi * np.arange(angles) / angles
    for radius, color in ((size + 1.4, PAPER), (size, style.color)):
        corners = np.stack([np.cos(angle), np.sin(angle)], 1) * radius * 2**SHIFT + (x, y)
        cv2.fillPoly(image, [corners.round().astype(np.int32)], color, cv2.LINE_AA, SHIFT)
