"""The contact sheet of one clip: frames from left to right, one row a method or panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_cam.viz.captions import Caption, scale
from lightning_cam.viz.clip_figure import ClipFigure
from lightning_cam.viz.drawing import INK, MUTED, Canvas, line_height
from lightning_cam.viz.header import header
from lightning_cam.viz.layout import MARGIN, drawn, joined_size
from lightning_cam.viz.time_bars import MAX_BOX, Strip
from lightning_cam.viz.time_plots import Plots

_LABELS = 250  # room for captions and scales, left of the rows
_GAP = 4
_MIN_WIDTH = 640  # of all frames of a row together
_FEW, _LARGE = 6, 208  # landscapes with panels beside them: this many frames a row, this wide


def chosen_frames(count: int, columns: int) -> np.ndarray:
    """At most `columns` of `count` frames, in the middles of equal stretches of time."""
    columns = min(count, columns)
    return (np.arange(columns) * 2 + 1) * count // (2 * columns)


def draw_sheet(figure: ClipFigure, columns: int = 16) -> np.ndarray:
    """The contact sheet of a clip as pixels, (H, W, 3) uint8 RGB, for `save_png`.

    Of a whole video, of each stretch of time the frame with the most heat of the first map.
    """
    frames = _hottest(figure, columns) if figure.whole and figure.shares else None
    return np.concatenate([part.pixels() for part in sheet_parts(figure, columns, frames)])


def _hottest(figure: ClipFigure, columns: int) -> list[int]:
    shares = np.where(figure.kept, next(iter(figure.shares.values())), -1)
    parts = np.array_split(np.arange(len(shares)), min(columns, len(shares)))
    return [int(part[shares[part].argmax()]) for part in parts]


def sheet_parts(
    figure: ClipFigure, columns: int = 16, frames: Sequence[int] | None = None
) -> list[Canvas]:
    """Draw a clip, its overlays and panels as rows of frames, after Fig. 3 of recurrent Grad-CAM.

    Views of a frame stand one above the other. Beneath each column stand the plots and bars of its
    frame; a clip of more frames than columns shows evenly chosen ones above those of all.

    Args:
        figure: the clip.
        columns: how many frames at most.
        frames: which ones instead, by number.

    Returns:
        What stands one below the other.
    """
    height, width = figure.frames.shape[1:3]
    large = bool(figure.panels) and width >= 2 * height  # else depth maps were mere stripes
    indices = chosen_frames(len(figure.frames), min(columns, _FEW) if large else columns)
    if frames is not None:
        indices = np.asarray(frames, int)
    least = 104 if len(indices) <= 8 else 88
    cell = max(_MIN_WIDTH // len(indices), _LARGE if large else least) + _GAP
    cell = min(cell, 260)
    size = round((cell - _GAP) * height / width), cell - _GAP
    if size[0] > 1.5 * size[1]:  # upright clips
        size = round(1.5 * size[1]), round(1.5 * size[1] * width / height)
    right = _LABELS + cell * len(indices)
    total = max(right + MAX_BOX, 720)

    captions = figure.captions
    labels = [Caption.of(figure, caption, _LABELS - MARGIN - 12) for caption in captions]
    row = max(joined_size(figure, size, 0)[0], *(label.height for label in labels)) + _GAP
    numbers = line_height(13) * (1 if figure.times is None or figure.whole else 2) + 4
    rows = Canvas(total, numbers + row * len(captions) + 2)
    for n, t in enumerate(indices):
        middle = _LABELS + cell * n + (cell - _GAP) // 2
        color = INK if figure.kept[t] else MUTED
        called = figure.moment(t) if figure.whole else str(t)
        rows.text(middle, 0, called, 13, color, anchor="ma")
        if figure.whole:
            continue
        if figure.times is not None:
            text = f"{float(figure.times[t]):.2f} s"
            rows.text(middle, line_height(13), text, 13, MUTED, anchor="ma")
    rows.text(MARGIN, 0, "time" if figure.whole else "frame", 13, MUTED)
    for r, shown in enumerate(drawn(figure, size, indices, axis=0, tagged=1)):
        y = numbers + row * r
        below = labels[r].draw(rows, MARGIN, y)
        if r:
            scale(rows, figure, captions[r], MARGIN, below, _LABELS - MARGIN - 12)
        for n, image in enumerate(shown):
            rows.paste(image, _LABELS + cell * n + (cell - _GAP - size[1]) // 2, y)
    strip = Strip(figure, total, _LABELS, right - _GAP)
    return [header(figure, total), rows, *Plots(figure, strip).draw(), strip.draw()]
