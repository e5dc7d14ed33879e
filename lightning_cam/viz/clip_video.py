"""The explanation video of one clip: original, overlays and panels, above a strip of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lightning_cam.viz.captions import Caption, scale
from lightning_cam.viz.clip_figure import ClipFigure
from lightning_cam.viz.drawing import INK, MUTED, PAPER, Canvas, line_height
from lightning_cam.viz.header import header
from lightning_cam.viz.layout import MARGIN, drawn, joined_size
from lightning_cam.viz.time_bars import MAX_BOX, Strip, names_room
from lightning_cam.viz.time_plots import Plots

_SHORT, _LONG = 224, 480  # sides of a panel in pixels: readable, yet four fit on a screen
_COLUMNS = 4
_WIDEST = 1520  # pixels, of panels side by side
_NARROWEST = 720  # of a page with plots
_CAPTION = 14
_BELOW = 60  # what stands below a panel, about


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a panel for frames of this size: whole multiples when enlarged."""
    factor = max(1, math.ceil(_SHORT / min(height, width)))
    if max(height, width) * factor > _LONG:
        factor = max(1, _LONG // max(height, width))
    shrink = min(1.0, _LONG / (max(height, width) * factor))
    return max(1, round(height * factor * shrink)), max(1, round(width * factor * shrink))


def draw_video(figure: ClipFigure) -> np.ndarray:
    """Compose the explanation video of a clip.

    Above: the clip's name, true class, likeliest classes. In the middle: the clip and its
    overlays, each with its caption and colour scale; those of a contrast side by side; then the
    panels. Below: plots, attention weight, share of the heat and of the spectra for each frame, the
    current one lit.

    Returns:
        (T, H, W, 3) uint8 RGB, as `write_video` takes it.
    """
    return drawn_video(figure).frames


class DrawnVideo(NamedTuple):
    """What `draw_video` makes of a clip.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        shape: width over height of what is above the plots and bars.
    """

    frames: np.ndarray
    shape: float

    @property
    def middle(self) -> np.ndarray:
        """A frame (H, W, 3) that stands for all."""
        return self.frames[len(self.frames) // 2]


def drawn_video(figure: ClipFigure) -> DrawnVideo:
    """The video that `draw_video` makes of a clip, and what a page has to know of it."""
    size = panel_size(*figure.frames.shape[1:3])
    images = drawn(figure, size, np.arange(len(figure.frames)))
    page = VideoPage(figure, size)
    frames = [
        page.at(t, [shown[t] for shown in images], figure.moment(t))
        for t in range(len(figure.frames))
    ]
    return DrawnVideo(np.stack(frames), page.shape)


class VideoPage:
    """The page of an explanation video, on which panels change and the current bars are lit.

    Args:
        figure: the clip.
        size: height and width of a panel.
    """

    def __init__(self, figure: ClipFigure, size: tuple[int, int]) -> None:
        self.figure = figure
        size = joined_size(figure, size, 1)
        cell = max(size[1], _SHORT)  # narrow clips still need room for their captions
        places = _places(figure, size[0], cell)
        columns = 1 + max(column for _, column in places)
        least = _NARROWEST if figure.lines else 2 * (_SHORT + MARGIN) + MARGIN
        width = max((cell + MARGIN) * columns + MARGIN, least)
        width += width % 2

        top = header(figure, width)
        self.strip = Strip(figure, width, names_room(figure), width - MARGIN - MAX_BOX)
        self.plots = Plots(figure, self.strip)
        captions = figure.captions
        texts = [Caption.of(figure, caption, cell) for caption in captions]
        tops = _row_tops(figure, [text.height + size[0] + 18 for text in texts], places)
        middle = Canvas(width, tops[-1])
        corners = [(MARGIN + column * (cell + MARGIN), tops[line]) for line, column in places]
        for n, (x, y) in enumerate(corners):
            below = texts[n].draw(middle, x, y + size[0] + 6)
            if n:
                scale(middle, figure, captions[n], x, below, cell)

        moving = zip(self.plots.draw_moving(), self.strip.draw_moving(), strict=True)
        still, self.lit = (np.concatenate(parts) for parts in moving)
        page = np.concatenate([top.pixels(), middle.pixels(), still])
        pad = ((0, page.shape[0] % 2), (0, 0), (0, 0))
        self.page = np.pad(page, pad, constant_values=PAPER[0])
        y_middle, self.y_strip = top.image.height, top.image.height + middle.image.height
        self.corners = [(x, y_middle + y) for x, y in corners]
        self.cell, self.below = cell, size[0] + 6 + line_height(_CAPTION)

    @property
    def shape(self) -> float:
        """Width over height of what is above the plots and bars."""
        return self.page.shape[1] / self.y_strip

    def at(self, t: int, images: Sequence[np.ndarray], moment: str) -> np.ndarray:
        """The page (H, W, 3) with an image for each caption, the bars of frame `t` lit."""
        figure, strip, plots = self.figure, self.strip, self.plots
        frame = self.page.copy()
        for shown, (x, y) in zip(images, self.corners, strict=True):
            frame[y : y + shown.shape[0], x : x + shown.shape[1]] = shown
        x0, x1 = strip.column(t)
        bars = slice(0, plots.height + strip.bars_bottom)
        frame[self.y_strip :][bars, x0:x1] = self.lit[bars, x0:x1]
        if figure.lines:
            frame[self.y_strip : self.y_strip + plots.height, strip.right :] = plots.readings(t)
        now = Canvas(self.cell + 2, line_height(_CAPTION))
        now.text(2, 0, moment, _CAPTION, INK if figure.kept[t] else MUTED)
        x, y = self.corners[0]
        y += self.below
        frame[y : y + now.image.height, x - 2 : x + self.cell] = now.pixels()
        return frame


def _row_tops(
    figure: ClipFigure, heights: Sequence[int], places: Sequence[tuple[int, int]]
) -> list[int]:
    """Where each row begins, and where the last one ends; without panels rows are alike."""
    rows = [0] * (1 + places[-1][0])
    for height, (line, _) in zip(heights, places, strict=True):
        rows[line] = max(rows[line], height)
    rows = rows if figure.panels else [max(rows)] * len(rows)
    return [sum(rows[:line]) for line in range(len(rows) + 1)]


def _places(figure: ClipFigure, height: int, cell: int) -> list[tuple[int, int]]:
    """(row, column) of the clip, each overlay and each panel; a contrast's share a row if they fit.

    Args:
        figure: the clip.
        height: of a panel in pixels.
        cell: its width.
    """
    count, more = 1 + len(figure.heatmaps), len(figure.panels)
    crowded = more and _COLUMNS * (cell + MARGIN) > _WIDEST
    if figure.contrasts and (len(figure.views) > 1 or crowded):  # two by two
        spots = ((0, 1), (1, 0), (1, 1))
        columns = 2
        places = [(2 * (n // 3) + spots[n % 3][0], spots[n % 3][1]) for n in range(count - 1)]
        places.insert(0, (0, 0))
    elif figure.contrasts:
        columns = _COLUMNS
        places = [(0, 0), *((n // 3, 1 + n % 3) for n in range(count - 1))]
    elif not more:
        most = max(1, _COLUMNS // max(len(figure.views), 1))
        columns = math.ceil(count / math.ceil(count / most))  # even rows
        return [divmod(n, columns) for n in range(count)]
    else:
        columns, apart = _columns(count, more, height, cell)
        if not apart:
            return [divmod(n, columns) for n in range(count + more)]
        places = [divmod(n, columns) for n in range(count)]
    first = places[-1][0] + 1
    return places + [(first + n // columns, n % columns) for n in range(more)]


def _columns(count: int, more: int, height: int, cell: int) -> tuple[int, bool]:
    """Into how many columns `count` images and `more` panels go, and whether these begin a row.

    Empty places cost most, above all before the panels, then a row of both; a page that is wide or
    tall costs as well.
    """
    most = max(2, min(_WIDEST // (cell + MARGIN), count + more))
    options = []
    for columns in range(2, most + 1):
        for apart in (True, False):
            blocks = [count, more] if apart else [count + more]
            empty = [-block % columns for block in blocks]
            rows = sum(math.ceil(block / columns) for block in blocks)
            shape = abs(math.log(columns * (cell + MARGIN) / (rows * (height + _BELOW))))
            cost = 2 * sum(empty) - empty[-1] + 0.5 * (not apart) + 0.5 * shape
            options.append((cost, columns, apart))
    _, columns, apart = min(options)
    return columns, apart
