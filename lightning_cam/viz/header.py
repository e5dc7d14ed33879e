"""The head of an image: clip, true class, what is explained, and the likeliest classes."""

from __future__ import annotations

import numpy as np

from lightning_cam.viz.clip_figure import ClipFigure, column_text
from lightning_cam.viz.drawing import (
    BLUE,
    CLASS_A,
    CLASS_B,
    FAINT,
    INK,
    MUTED,
    NEUTRAL,
    RIGHT,
    WRONG,
    Canvas,
    Color,
    shorten,
    text_width,
    wrap,
)
from lightning_cam.viz.layout import MARGIN, NAME_LINES, percent

_WIDE = 800  # from here on the predictions stand beside the title, not below it
_BESIDE = 420  # their width then, more for classes whose names are sentences
_LEAST_BAR = 90


def header(figure: ClipFigure, width: int) -> Canvas:
    """The clip's name, its true class, what is explained and the two likeliest classes.

    Names of classes are wrapped, never cut, as long as three lines hold them.
    """
    ranked = figure.ranked[:2]
    beside = width >= _WIDE and bool(ranked)
    right = width - 2 * MARGIN
    if beside:
        sentences = any(text_width(name, 14) > _BESIDE * 2 // 5 for name, _ in ranked)
        right = max(_BESIDE, right * 2 // 5 if sentences else 0)
    room = width - 2 * MARGIN - (right + 2 * MARGIN if beside else 0)
    lines = [
        (line, color)
        for text, color in _statements(figure)
        for line in wrap(text, 14, room, NAME_LINES)
    ]
    predictions = _Predictions(figure, right)
    text_bottom = MARGIN + 26 + 20 * len(lines)
    rows_top = MARGIN if beside else text_bottom + 6
    canvas = Canvas(width, max(text_bottom, rows_top + predictions.height) + 6)
    canvas.text(MARGIN, MARGIN, shorten(figure.title or "clip", 18, room), 18)
    for n, (line, color) in enumerate(lines):
        canvas.text(MARGIN, MARGIN + 26 + 20 * n, line, 14, color)
    predictions.draw(canvas, width - MARGIN - right, rows_top)
    return canvas


def _statements(figure: ClipFigure) -> list[tuple[str, Color]]:
    """The lines below the clip's name, before they are wrapped."""
    said = [(figure.extent, MUTED)] if figure.extent else []
    if figure.label is not None:
        said.append(("true class: " + figure.label, INK))
    if figure.labels:
        said.append(("true classes: " + ", ".join(figure.labels), INK))
    if figure.against is not None:
        chances = {name: f" ({percent(share)})" for name, share in figure.probabilities}
        for role, name, color in (
            ("A", figure.target, CLASS_A),
            ("B", figure.against, CLASS_B),
        ):
            said.append((f"{role}: {name}{chances.get(name, '')}", color))
    elif figure.target and not _is_the_answer(figure):
        said.append(("explaining: " + column_text(figure.target, figure.value), BLUE))
    return said


def _is_the_answer(figure: ClipFigure) -> bool:
    """Whether the network's answer is explained, and nothing says that it is wrong."""
    answer = figure.ranked[0][0] if figure.ranked else None
    return figure.target == answer and figure.label in (None, answer)


class _Predictions:
    """The two likeliest classes, a row each: right or wrong, name, bar, probability.

    Args:
        figure: the clip.
        width: of the rows in pixels.
    """

    def __init__(self, figure: ClipFigure, width: int) -> None:
        self.figure, self.width = figure, width
        self.ranked = figure.ranked[:2]
        room = width * 2 // 5
        if any(text_width(name, 14) > room for name, _ in self.ranked):
            room = width - 20 - 12 - 56 - _LEAST_BAR  # sentences: a short bar does
        self.names = [wrap(name, 14, room, NAME_LINES) for name, _ in self.ranked]
        self.heights = [22 + 18 * (len(lines) - 1) for lines in self.names]
        self.height = sum(self.heights)

    def draw(self, canvas: Canvas, x0: int, y: int) -> None:
        """Draw the rows with their upper left corner at x0, y."""
        x1 = x0 + self.width
        widths = [text_width(line, 14) for lines in self.names for line in lines]
        bar_x0 = x0 + 20 + max(widths, default=0) + 12
        bar_x1 = x1 - 56
        figure = self.figure
        labels = figure.labels if figure.label is None else [figure.label]
        for n, (name, probability) in enumerate(self.ranked):
            hit = name in labels
            color = RIGHT if hit else NEUTRAL
            if not labels:
                color = BLUE if n == 0 else NEUTRAL
            elif hit or n == 0:  # a wrong second guess is not a mistake
                color = color if hit else WRONG
                canvas.mark(x0, y + 4, right=hit)
            for k, line in enumerate(self.names[n]):
                canvas.text(x0 + 20, y + 2 + 18 * k, line, 14)
            canvas.box((bar_x0, y + 4, bar_x1, y + 16), FAINT)
            share = float(np.clip(np.nan_to_num(probability), 0, 1))
            canvas.box((bar_x0, y + 4, bar_x0 + round((bar_x1 - bar_x0) * share), y + 16), color)
            canvas.text(x1, y + 2, percent(probability), 14, anchor="ra")
            y += self.heights[n]
