"""Ways through the world, seen from above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

from lightning_cam.viz.curve_styles import (
    SHIFT,
    Style,
    curve_styles,
    draw_mark,
    round_step,
    runs,
    sample,
    stroke,
)
from lightning_cam.viz.drawing import (
    FAINT,
    INK,
    LINE,
    MUTED,
    PAPER,
    WRONG,
    Canvas,
    line_height,
    shorten,
    text_width,
)
from lightning_cam.viz.layout import MARGIN

_LONG, _SHORT = 560, 320  # sides of the map in pixels
_EDGE = 0.06  # of the map, around all ways
_ROW, _SAMPLE = 20, 40  # of the legend
_APART = 120  # pixels from one mark on a way to the next


def draw_trajectory(paths: Mapping[str, np.ndarray], title: str = "trajectory") -> np.ndarray:
    """Draw ways from above: x to the right, z upwards, as long in metres across as along.

    Args:
        paths: name -> (n, 3) positions in metres, x right, y down, z forward; NaN is a gap. They
            may differ in length, and start where they like.
        title: stands above.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: there are no paths, or one has a wrong shape.
    """
    if not paths:
        raise ValueError("paths: there is no trajectory to draw")
    for name, path in paths.items():
        if np.ndim(path) != 2 or np.shape(path)[1] != 3:
            raise ValueError(f"paths[{name!r}]: expected the shape (n, 3), got {np.shape(path)}")
    flat = {name: np.asarray(path, np.float64)[:, [0, 2]] for name, path in paths.items()}
    stretches = {name: runs(np.isfinite(path.sum(1))) for name, path in flat.items()}
    known = np.concatenate([path[run] for name, path in flat.items() for run in stretches[name]]
                           or [np.empty((0, 2))])  # fmt: skip
    world = _frame(known)
    height, width = world.ground.shape[:2]
    left = MARGIN + max(text_width(f"{tick:.6g}", 12) for tick in [*world.ticks[1], 0]) + 10
    top = MARGIN + line_height(18) + 6 + line_height(13) + 4
    total = max(left + width + MARGIN + 10, 360)
    legend = top + height + 2 * line_height(13) + 16
    canvas = Canvas(total, legend + _ROW * (len(paths) + 1) + MARGIN)
    canvas.text(MARGIN, MARGIN, shorten(title, 18, total - 2 * MARGIN), 18)
    _draw_grid(canvas, world, left, top)
    styles = curve_styles(list(paths))
    for name, path in flat.items():
        for run in stretches[name]:
            _draw_path(world, path[run], styles[name])
    for name, path in flat.items():
        for run in stretches[name][:1]:
            _ring(world.ground, *world.place(path[run[:1]])[0])
    canvas.paste(world.ground, left, top)
    if not len(known):
        canvas.text(left + 10, top + height // 2, "no positions", 14, WRONG, "lm")
    _draw_legend(canvas, styles, legend, total)
    return canvas.pixels()


class _World(NamedTuple):
    """The map: its pixels, the world's x and z at its edges in metres, and pixels a metre."""

    ground: np.ndarray  # (h, w, 3) uint8, drawn on
    low: np.ndarray
    high: np.ndarray
    unit: float
    ticks: list[np.ndarray]  # round values of x, of z

    def place(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) pixels from the upper left corner of the map."""
        return np.stack([points[:, 0] - self.low[0], self.high[1] - points[:, 1]], 1) * self.unit


def _frame(known: np.ndarray) -> _World:
    """The map that holds the (n, 2) positions, still empty."""
    low, high = (known.min(0), known.max(0)) if len(known) else (np.zeros(2), np.zeros(2))
    span = float((high - low).max())
    span = span if span > 1e-9 else 1.0  # nothing moves
    unit = _LONG * (1 - 2 * _EDGE) / span
    sides = np.maximum(high - low + 2 * _EDGE * _LONG / unit, _SHORT / unit)
    middle = (low + high) / 2
    low, high = middle - sides / 2, middle + sides / 2
    step = round_step(_LONG / unit / 9)
    ticks = [step * np.arange(np.ceil(a / step), np.floor(b / step) + 1) + 0.0  # no -0
             for a, b in zip(low, high, strict=True)]  # fmt: skip
    width, height = (round(side) for side in (high - low) * unit)
    return _World(np.full((height, width, 3), FAINT, np.uint8), low, high, unit, ticks)


def _draw_grid(canvas: Canvas, world: _World, left: int, top: int) -> None:
    """Lines at round metres on the map, their numbers and the axes' names around it."""
    height, width = world.ground.shape[:2]
    canvas.text(left, top - line_height(13) - 4, "z (m), forward", 13, MUTED)
    canvas.text(left + width // 2, top + height + line_height(12) + 8, "x (m)", 13, MUTED, "ma")
    for axis, values in enumerate(world.ticks):
        for tick in values:
            x, y = world.place(np.array([[tick, tick]]))[0].round().astype(int)
            text = f"{tick:.6g}"
            if axis:
                world.ground[min(y, height - 1)] = LINE
                canvas.text(left - 6, top + y, text, 12, MUTED, "rm")
            else:
                world.ground[:, min(x, width - 1)] = LINE
                canvas.text(left + x, top + height + 5, text, 12, MUTED, "ma")


def _draw_path(world: _World, path: np.ndarray, style: Style) -> None:
    """One stretch of (n, 2) positions, with marks at equal distances along it."""
    points = world.place(path)
    line = (points * 2**SHIFT).round().astype(np.int32)
    stroke(world.ground, line, style, marks=0)
    way = np.append(0, np.hypot(*np.diff(points, axis=0).T).cumsum())
    marks = max(1, round(way[-1] / _APART))
    for at in way[-1] * (np.arange(marks) + style.at) / marks:
        x, y = (np.interp(at, way, points[:, k]) * 2**SHIFT for k in (0, 1))
        draw_mark(world.ground, x, y, style)


def _draw_legend(canvas: Canvas, styles: Mapping[str, Style], top: int, total: int) -> None:
    start = np.full((_ROW, _SAMPLE, 3), PAPER, np.uint8)
    _ring(start, _SAMPLE / 2, _ROW / 2)
    entries = {"start": start} | {n: sample(s, _SAMPLE, _ROW) for n, s in styles.items()}
    for n, (name, figure) in enumerate(entries.items()):
        y = top + _ROW * n
        canvas.paste(figure, MARGIN, y)
        x = MARGIN + _SAMPLE + 8
        text = shorten(name, 14, total - x - MARGIN)
        canvas.text(x, y + _ROW // 2, text, 14, MUTED if name == "start" else INK, "lm")


def _ring(image: np.ndarray, x: float, y: float) -> None:
    center = round(x * 2**SHIFT), round(y * 2**SHIFT)
    for radius, color in ((8, PAPER), (7, INK), (4, PAPER)):
        cv2.circle(image, center, radius << SHIFT, color, -1, cv2.LINE_AA, SHIFT)
