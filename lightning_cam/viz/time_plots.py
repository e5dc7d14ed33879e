"""Small plots of numbers over time, on the time axis of the strip below them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_cam.viz.clip_figure import ClipFigure
from lightning_cam.viz.curve_styles import (
    SHIFT,
    Style,
    curve_styles,
    runs,
    sample,
    series_ticks,
    stroke,
)
from lightning_cam.viz.drawing import (
    FAINT,
    LINE,
    MUTED,
    NEUTRAL,
    WRONG,
    Canvas,
    Color,
    line_height,
    shorten,
    text_width,
    wrap,
)
from lightning_cam.viz.layout import MARGIN
from lightning_cam.viz.time_bars import TINT, Strip

_HEIGHT = 92  # of one plot, more for many series
_GAP = 10  # between plots
_INSET = 7  # from the ends of the axis to the edges of a plot, for lines and marks that lie there
_KEY = 17  # height of a line that names a series
_SAMPLE = 26  # width of the piece of a curve beside it
_APART = 100  # pixels from one mark on a curve to the next


@dataclass(frozen=True)
class _Plot:
    """Where one plot lies and what is in it."""

    title: list[str]
    series: dict[str, np.ndarray]  # name -> (T,), NaN is a gap
    styles: dict[str, Style]
    ticks: list[float]  # none where there are no values
    y: int
    height: int
    room: int  # left of it, for the numbers of its axis

    @property
    def names(self) -> int:
        """Where the title begins."""
        text = line_height(13) * len(self.title) + _KEY * len(self.series)
        return self.y + (self.height - text) // 2

    @property
    def keys(self) -> int:
        """Where the first series is named."""
        return self.names + line_height(13) * len(self.title)

    def level(self, value: np.ndarray | float) -> np.ndarray:
        """The height of a value in pixels from the top of all plots."""
        share = (self.ticks[-1] - np.asarray(value)) / (self.ticks[-1] - self.ticks[0])
        return self.y + _INSET + share * (self.height - 2 * _INSET - 1)


class Plots:
    """The `lines` of an image, one plot below the other; of height 0 where there are none.

    Args:
        figure: the clip.
        strip: what stands below; a frame has the same column in both.
    """

    def __init__(self, figure: ClipFigure, strip: Strip) -> None:
        self.figure, self.strip = figure, strip
        self.plots: list[_Plot] = []
        y = 8
        for title in figure.lines:
            series = figure.series(title)
            ticks = series_ticks(series.values())
            room = max((text_width(f"{tick:.4g}", 12) for tick in ticks), default=0) + 24
            lines = wrap(title, 13, strip.left - MARGIN - room, 3)
            height = max(_HEIGHT, line_height(13) * len(lines) + _KEY * len(series) + 4)
            styles = curve_styles(list(series))
            self.plots.append(_Plot(lines, series, styles, ticks, y, height, room))
            y += height + _GAP
        self.height = y - _GAP + 4 if self.plots else 0

    def draw(self) -> list[Canvas]:
        """The plots as a still image; none where there are none."""
        if not self.plots:
            return []
        canvas = Canvas(self.strip.width, self.height)
        canvas.paste(self._draw(FAINT), 0, 0)
        return [canvas]

    def draw_moving(self) -> tuple[np.ndarray, np.ndarray]:
        """The plots, and how they look in the column of the current frame."""
        return self._draw(FAINT), self._draw(TINT)

    def readings(self, t: int) -> np.ndarray:
        """What stands right of the plots at frame `t`: the value of each series."""
        width = self.strip.width - self.strip.right
        canvas = Canvas(width, self.height)
        for plot in self.plots:
            for n, (name, values) in enumerate(plot.series.items()):
                if np.isfinite(values[t]):
                    text = shorten(f"{values[t]:.3g}", 12, width - 10)
                    canvas.text(8, plot.keys + _KEY * n + 1, text, 12, plot.styles[name].color)
        return canvas.pixels()

    def _draw(self, ground: Color) -> np.ndarray:
        strip, kept = self.strip, self.figure.kept
        if not self.plots:
            return np.empty((0, strip.width, 3), np.uint8)
        canvas = Canvas(strip.width, self.height)
        for plot in self.plots:
            for t in range(strip.count):
                x0, x1 = strip.column(t)
                back = LINE if ground == FAINT and not kept[t] else ground
                canvas.box((x0, plot.y, x1, plot.y + plot.height), back)
            canvas.lines(MARGIN, plot.names, plot.title, 13)
            for n, (name, style) in enumerate(plot.styles.items()):
                y = plot.keys + _KEY * n
                canvas.paste(sample(style, _SAMPLE, _KEY), MARGIN, y)
                x = MARGIN + _SAMPLE + 6
                canvas.text(x, y + 1, shorten(name, 13, strip.left - plot.room - x), 13)
            for tick in plot.ticks:
                y = round(float(plot.level(tick)))
                canvas.box((strip.left, y, strip.right, y + 1), NEUTRAL if tick == 0 else LINE)
                canvas.text(strip.left - 8, y, f"{tick:.4g}", 12, MUTED, "rm")
            if not plot.ticks:
                canvas.text(strip.left + 6, plot.y + plot.height // 2, "no values", 13, WRONG, "lm")
        image = canvas.pixels()
        for plot in self.plots:
            for name in reversed(plot.series):  # the first one on top
                if plot.ticks:
                    self._curve(image, plot, name)
        return image

    def _curve(self, image: np.ndarray, plot: _Plot, name: str) -> None:
        values, style = plot.series[name], plot.styles[name]
        for run in runs(np.isfinite(values)):
            x = np.array([sum(self.strip.column(t)) / 2 for t in run])
            points = np.stack([x, plot.level(values[run])], 1) * 2**SHIFT
            marks = max(1, round((x[-1] - x[0]) / _APART))
            stroke(image, points.round().astype(np.int32), style, marks)
