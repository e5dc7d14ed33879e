"""Attention weights over the epochs of a training."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lightning_cam.viz.drawing import (
    INK,
    LINE,
    MUTED,
    PAPER,
    Canvas,
    line_height,
    shorten,
    text_width,
)
from lightning_cam.viz.layout import MARGIN

_MAX_ROWS = 60


def _ramp() -> np.ndarray:
    """White to dark violet: (256, 3) uint8, darker is more, also when printed."""
    stops = np.array([(250, 249, 252), (203, 180, 214), (138, 74, 148), (60, 20, 80)])
    at = np.linspace(0, 1, 256)
    grid = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(at, grid, channel) for channel in stops.T], 1).astype(np.uint8)


_RAMP = _ramp()


def draw_attention(
    weights: np.ndarray, epochs: Sequence[int] | None = None, title: str = "attention weights"
) -> np.ndarray:
    """Draw one clip's attention weights as a heat-strip: a row an epoch, a column a frame.

    Values stand in the cells where they fit. Of more than 60 epochs, 60 evenly chosen ones are
    shown, the first and the last among them.

    Args:
        weights: (E, T); NaN where a weight is missing or its frame is padding.
        epochs: (E,) numbers of the rows, 0 to E-1 by default.
        title: stands above.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: wrong shapes.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or 0 in weights.shape:
        raise ValueError(f"weights: expected the shape (E, T), got {weights.shape}")
    names = list(range(len(weights)) if epochs is None else epochs)
    if len(names) != len(weights):
        raise ValueError(f"epochs: expected {len(weights)} numbers, got {len(names)}")
    if len(weights) > _MAX_ROWS:
        rows = np.linspace(0, len(weights) - 1, _MAX_ROWS).round().astype(int)
        weights, names = weights[rows], [names[r] for r in rows]
    count, frames = weights.shape
    high = float(np.max(weights, where=np.isfinite(weights), initial=0)) or 1.0
    cell_h = min(30, max(10, 600 // count))
    cell_w = min(56, max(8, 800 // frames))
    left = MARGIN + max(text_width(str(name), 13) for name in names) + 12
    left = max(left, MARGIN + text_width("epoch", 13) + 12)
    top = MARGIN + line_height(18) + 8 + line_height(13) + 4
    body_w, body_h = cell_w * frames, cell_h * count
    width = max(left + body_w + MARGIN + 8, 360)
    canvas = Canvas(width, top + body_h + 14 + 2 * line_height(13) + MARGIN)
    canvas.text(MARGIN, MARGIN, shorten(title, 18, width - 2 * MARGIN), 18)

    _draw_cells(canvas, weights, high, (left, top), (cell_w, cell_h))
    canvas.text(MARGIN, top - 4 - line_height(13), "epoch", 13, MUTED)
    _labels(canvas, [str(t) for t in range(frames)], left, top - 4 - line_height(13), cell_w)
    step = max(1, -(-line_height(13) // cell_h))
    for row in range(count - 1, -1, -step):  # counted from below: the last epoch has its number
        y = top + row * cell_h + cell_h // 2
        canvas.text(left - 8, y, str(names[row]), 13, MUTED, "rm")

    y = top + body_h + 12
    end = canvas.text(left, y, "0", 13, MUTED)[2] + 7
    bar = np.broadcast_to(_RAMP[np.linspace(0, 255, 120).astype(int)], (10, 120, 3))
    canvas.paste(np.ascontiguousarray(bar), end, y + 4)
    canvas.text(end + 127, y, f"{high:.2f}", 13, MUTED)
    note = "columns: frames" + ("" if np.isfinite(weights).all() else "; grey: padding")
    canvas.text(left, y + line_height(13), note, 13, MUTED)
    return canvas.pixels()


def _draw_cells(
    canvas: Canvas,
    weights: np.ndarray,
    high: float,
    corner: tuple[int, int],
    cell: tuple[int, int],
) -> None:
    """The (E, T) cells, dark at `high`, from a corner (x, y); a cell is (width, height) pixels."""
    (left, top), (cell_w, cell_h) = corner, cell
    count, frames = weights.shape
    body_w, body_h = cell_w * frames, cell_h * count
    level = np.clip(np.nan_to_num(weights, posinf=high) / high, 0, 1)
    body = _RAMP[(level * 255).round().astype(int)]
    body[~np.isfinite(weights)] = LINE
    canvas.paste(cv2.resize(body, (body_w, body_h), interpolation=cv2.INTER_NEAREST), left, top)
    for row in range(count + 1 if cell_h > 12 else 0):
        canvas.box((left, top + row * cell_h, left + body_w, top + row * cell_h + 1), PAPER)
    for column in range(frames + 1 if cell_w > 12 else 0):
        x = left + column * cell_w
        canvas.box((x, top, x + 1, top + body_h), PAPER)
    if cell_w < 36 or cell_h < 18:
        return  # no room for numbers
    for (row, column), value in np.ndenumerate(weights):
        if np.isfinite(value):
            x, y = left + column * cell_w + cell_w // 2, top + row * cell_h + cell_h // 2
            color = PAPER if level[row, column] > 0.5 else INK
            canvas.text(x, y, f"{value:.2f}".lstrip("0") or "0", 13, color, "mm")


def _labels(canvas: Canvas, names: list[str], x: int, y: int, cell: int) -> None:
    widest = max(text_width(name, 13) for name in names) + 6
    step = next(s for s in (1, 2, 4, 5, 8, 10, 20, 50, 100, 1000, 10**9) if s * cell >= widest)
    for n in range(0, len(names), step):
        canvas.text(x + n * cell + cell // 2, y, names[n], 13, MUTED, "ma")
