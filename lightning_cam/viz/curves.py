"""Curves of several methods, such as deletion and insertion: a diagram each, side by side."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from lightning_cam.viz.curve_styles import SHIFT, Style, curve_styles, round_ticks, sample, stroke
from lightning_cam.viz.drawing import (
    INK,
    LINE,
    MUTED,
    NEUTRAL,
    PAPER,
    Canvas,
    line_height,
    shorten,
    text_width,
)
from lightning_cam.viz.layout import MARGIN

_WIDTH, _HEIGHT = 384, 260  # of one diagram
_PAD = 5  # around it, for lines and marks that lie on its edge
_ROW = 23  # of the legend


@dataclass(frozen=True)
class CurveLine:
    """One curve, or the mean of several.

    Args:
        score: (S + 1,), at shares 0, 1/S, ..., 1 of the clip.
        auc: area under it.
        std: standard deviation of the area between clips; NaN: of one clip.
        low, high: (S + 1,) interval of the mean; NaN or None: none is drawn.
    """

    score: np.ndarray
    auc: float
    std: float = math.nan
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("score", "low", "high"):
            value = getattr(self, name)
            if value is not None and (np.ndim(value) != 1 or np.shape(value) != self.score.shape):
                raise ValueError(f"{name}: expected the shape (S + 1,), got {np.shape(value)}")
        if len(self.score) < 2 or not np.isfinite(self.score).all():
            raise ValueError("score: expected at least two finite numbers")


@dataclass(frozen=True)
class CurvePanel:
    """One diagram.

    Args:
        title: names what is drawn; "TITLE AUC" heads the areas in the legend.
        better: whether a "higher" or a "lower" area is good, None where neither is.
        score: what the curves show; panels with equal ones have one axis.
        axis: what stands below.
        lines: method -> its curve, at least one.
    """

    title: str
    better: Literal["higher", "lower"] | None
    score: str
    axis: str
    lines: Mapping[str, CurveLine]


def draw_curves(
    panels: Sequence[CurvePanel],
    *,
    baselines: Collection[str] = (),
    title: str = "",
    note: str = "",
) -> np.ndarray:
    """Draw diagrams side by side, above a legend of all methods and their areas.

    Args:
        panels: from left to right.
        baselines: methods that know nothing of the network: thin and grey, without intervals.
        title: stands above.
        note: stands below.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: there are no curves.
    """
    if not panels or not all(panel.lines for panel in panels):
        raise ValueError("there are no curves to draw")
    methods = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    styles = curve_styles(methods, baselines)
    axes = [_ticks(panel, panels, baselines) for panel in panels]
    left = MARGIN + max(text_width(_number(t), 12) for ticks in axes for t in ticks) + 12
    step = _WIDTH + left + 8  # from one diagram to the next
    width = left + step * (len(panels) - 1) + _WIDTH + MARGIN + 8
    heads = MARGIN + line_height(18) + 10
    top = heads + line_height(14) + line_height(13) + 10
    legend = top + _HEIGHT + 2 * line_height(13) + 26
    bottom = legend + line_height(13) + 4 + _ROW * len(methods)
    canvas = Canvas(width, bottom + (line_height(12) + 6 if note else 0) + MARGIN)
    if title:
        canvas.text(MARGIN, MARGIN, shorten(title, 18, width - 2 * MARGIN), 18)
    for n, (panel, ticks) in enumerate(zip(panels, axes, strict=True)):
        _draw_panel(canvas, panel, ticks, styles, left + n * step, heads, top)
    _legend(canvas, panels, styles, left, legend)
    if note:
        canvas.text(left, bottom + 6, shorten(note, 12, width - left - MARGIN), 12, MUTED)
    return canvas.pixels()


def _draw_panel(
    canvas: Canvas,
    panel: CurvePanel,
    ticks: Sequence[float],
    styles: Mapping[str, Style],
    x: int,
    heads: int,
    top: int,
) -> None:
    """One diagram with its words; `x` and `top` are where its axes begin, `heads` the title."""
    end = canvas.text(x, heads, panel.title, 14)[2]
    if panel.better is not None:
        canvas.text(end + 10, heads, f"{panel.better} is better", 14, MUTED)
    canvas.text(x, heads + line_height(14) + 2, shorten(panel.score, 13, _WIDTH), 13, MUTED)
    canvas.paste(_diagram(panel.lines, styles, ticks), x - _PAD, top - _PAD)
    for tick in ticks:
        y = top + round(_HEIGHT * (ticks[-1] - tick) / (ticks[-1] - ticks[0]))
        canvas.text(x - 10, y, _number(tick), 12, MUTED, "rm")
    for tick in _SHARES:
        canvas.text(x + round(_WIDTH * tick), top + _HEIGHT + 8, _number(tick), 12, MUTED, "ma")
    below = top + _HEIGHT + line_height(12) + 12
    canvas.text(x + _WIDTH // 2, below, shorten(panel.axis, 13, _WIDTH), 13, MUTED, "ma")


_SHARES = np.linspace(0, 1, 6).tolist()


def _ticks(
    panel: CurvePanel, panels: Sequence[CurvePanel], baselines: Collection[str]
) -> list[float]:
    """The axis of a diagram, the same for all that show the same."""
    return round_ticks(_extents([p.lines for p in panels if p.score == panel.score], baselines))


def _extents(
    curves: Sequence[Mapping[str, CurveLine]], baselines: Collection[str]
) -> list[np.ndarray]:
    """What the axis must hold: scores, and intervals as far as probabilities can lie there."""
    drawn = [pair for lines in curves for pair in lines.items()]
    scores = [line.score for _, line in drawn]
    bands = [
        band[np.isfinite(band)]
        for name, line in drawn
        for band in (line.low, line.high)
        if band is not None and name not in baselines
    ]
    if all(score.min() >= 0 and score.max() <= 1 for score in scores):
        bands = [np.clip(band, 0, 1) for band in bands]
    return scores + [band for band in bands if len(band)]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _points(scores: np.ndarray, ticks: Sequence[float]) -> np.ndarray:
    """(S + 1, 2) x and y in a diagram, in OpenCV's finer units; beyond the axis is on its end."""
    x = np.linspace(_PAD, _PAD + _WIDTH, len(scores))
    level = np.clip((scores - ticks[0]) / (ticks[-1] - ticks[0]), 0, 1)
    y = _PAD + _HEIGHT * (1 - level)
    return np.round(np.stack([x, y], 1) * 2**SHIFT).astype(np.int32)


def _diagram(
    lines: Mapping[str, CurveLine], styles: Mapping[str, Style], ticks: Sequence[float]
) -> np.ndarray:
    """(H, W, 3) uint8: grid, intervals, then curves, the first method on top."""
    image: np.ndarray = np.full((_HEIGHT + 2 * _PAD + 1, _WIDTH + 2 * _PAD + 1, 3), PAPER, np.uint8)
    for tick in ticks:
        y = _PAD + round(_HEIGHT * (ticks[-1] - tick) / (ticks[-1] - ticks[0]))
        image[y, _PAD : _PAD + _WIDTH + 1] = LINE
    for tick in _SHARES:
        x = _PAD + round(_WIDTH * tick)
        image[_PAD + _HEIGHT : _PAD + _HEIGHT + 5, x] = NEUTRAL
    image[_PAD + _HEIGHT, _PAD : _PAD + _WIDTH + 1] = NEUTRAL
    drawn = [*lines]
    drawn.reverse()
    drawn.sort(key=lambda name: bool(styles[name].mark))
    for name in drawn:
        line = lines[name]
        if line.low is None or line.high is None or not styles[name].mark:
            continue
        if np.isfinite(line.low).all() and np.isfinite(line.high).all():
            band = np.concatenate([_points(line.low, ticks), _points(line.high, ticks)[::-1]])
            tinted = image.copy()
            cv2.fillPoly(tinted, [band], styles[name].color, cv2.LINE_AA, SHIFT)
            image = cv2.addWeighted(tinted, 0.16, image, 0.84, 0)
    for name in drawn:
        stroke(image, _points(lines[name].score, ticks), styles[name])
    return image


def _legend(
    canvas: Canvas, panels: Sequence[CurvePanel], styles: Mapping[str, Style], x: int, y: int
) -> None:
    """A row for each method: how it is drawn, its name, and its areas."""
    texts = {
        name: [_area(panel.lines[name]) if name in panel.lines else "-" for panel in panels]
        for name in styles
    }
    heads = [f"{panel.title} AUC" for panel in panels]
    column = max(text_width(text, 13) for text in [*heads, *(t for p in texts.values() for t in p)])
    last = canvas.image.width - MARGIN - 8
    ends = [last - (column + 28) * n for n in reversed(range(len(panels)))]
    for end, head in zip(ends, heads, strict=True):
        canvas.text(end, y, head, 13, MUTED, "ra")
    y += line_height(13) + 4
    for name, areas in texts.items():
        canvas.paste(sample(styles[name], 46, _ROW), x, y)
        color = INK if styles[name].mark else MUTED
        room = ends[0] - column - 20 - (x + 56)
        canvas.text(x + 56, y + _ROW // 2, shorten(name, 14, room), 14, color, "lm")
        for end, area in zip(ends, areas, strict=True):
            canvas.text(end, y + _ROW // 2, area, 13, color, "rm")
        y += _ROW


def _area(line: CurveLine) -> str:
    return f"{line.auc:.3f}" + ("" if math.isnan(line.std) else f" ± {line.std:.3f}")
