"""Bars over time: each frame's attention weight, share of the heat, and of the spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_cam.viz.clip_figure import ClipFigure, Stack
from lightning_cam.viz.drawing import (
    BLUE,
    CLASS_A,
    CLASS_B,
    FAINT,
    LINE,
    MUTED,
    NEUTRAL,
    PALE,
    SPECTRUM_COLORS,
    VIOLET,
    WRONG,
    Canvas,
    Color,
    line_height,
    shorten,
    text_width,
    wrap,
)
from lightning_cam.viz.layout import FAINT_SHARE, MARGIN, percent, sums
from lightning_cam.viz.moments import clock

MAX_BOX = 64  # room for "max 100%" right of the bars
TINT: Color = (255, 236, 179)  # behind the current frame's bars
_STRIP = 34  # height of one row of bars
_KEY = 17  # height of a line that names a spectrum


def names_room(figure: ClipFigure) -> int:
    """Pixels left of the bars that hold the rows' names in two lines each, from 146 to 220."""
    if figure.lines:  # their keys and numbers also stand there
        return 220
    fits = all("…" not in wrap(name, 13, 120, 2)[-1] for name in figure.strips())
    return 146 if fits else 220


_STRIP_COLORS = {
    "attention": VIOLET, "A": CLASS_A, "B": CLASS_B, "A - B": NEUTRAL, "doubtful": PALE,
}  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One row: bars of one colour, or of several one upon the other."""

    name: str
    y: int
    height: int
    colors: Sequence[Color]
    shares: np.ndarray | None  # (colours, T)
    stack: Stack | None = None


class Strip:
    """Bars for each frame, one row for each series of shares, time running to the right.

    Args:
        figure: the clip.
        width: of the strip in pixels.
        left: where the first frame's column begins; the rows' names stand left of it.
        right: where the last frame's column ends.
    """

    def __init__(self, figure: ClipFigure, width: int, left: int, right: int) -> None:
        self.figure = figure
        self.count = len(figure.frames)
        self.left, self.right = left, right
        self.rows = _rows(figure)
        self.even = 1 / max(int(figure.kept.sum()), 1)
        self.bars_bottom = sum(row.height + 8 for row in self.rows)
        self.height = self.bars_bottom + 2 * line_height(12) + 18
        self.width = width

    def column(self, t: int) -> tuple[int, int]:
        """First x and one past the last x of frame t's column."""
        span = self.right - self.left
        return self.left + span * t // self.count, self.left + span * (t + 1) // self.count

    def draw(self) -> Canvas:
        """The strip as a still image."""
        canvas = self._bars(faded=False)
        self._words(canvas)
        return canvas

    def draw_moving(self) -> tuple[np.ndarray, np.ndarray]:
        """The strip with no frame set apart, and its bars as they look for the current frame."""
        canvas = self._bars(faded=True)
        self._words(canvas)
        return canvas.pixels(), self._bars(faded=False, ground=TINT).pixels()

    def _high(self, shares: np.ndarray) -> float:
        return max(float(shares.sum(0)[self.figure.kept].max(initial=0)), self.even)

    def _bars(self, faded: bool, ground: Color = FAINT) -> Canvas:
        canvas = Canvas(self.width, self.height)
        kept = self.figure.kept
        for row in self.rows:
            y, bottom, shares = row.y, row.y + row.height, row.shares
            colors = [_lighter(hue) if faded else hue for hue in row.colors]
            high = 1.0 if shares is None else self._high(shares)
            for t in range(self.count):
                x0, x1 = self.column(t)
                gap = 1 if x1 - x0 > 3 else 0
                back = LINE if ground == FAINT and not kept[t] else ground
                canvas.box((x0, y, x1, bottom), back)
                if kept[t] and shares is not None:
                    ends = np.maximum(shares[:, t], 0).cumsum() / high * (row.height - 2)
                    sizes = [0, *(round(float(end)) for end in ends)]
                    for color, low, size in zip(colors, sizes, sizes[1:], strict=False):
                        canvas.box((x0 + gap, bottom - size, x1 - gap, bottom - low), color)
            if shares is not None:
                level = bottom - round(self.even / high * (row.height - 2))
                canvas.dashed(self.left, self.right, level)
            if row.shares is not None and row.stack and row.stack.doubt:
                reason = shorten(f"faint: {row.stack.doubt}", 12, self.right - self.left - 12)
                canvas.text(self.left + 6, y + 2, reason, 12, WRONG)
        return canvas

    def _words(self, canvas: Canvas) -> None:
        for row in self.rows:
            y = row.y
            lines = wrap(row.name, 13, self.left - MARGIN - 10, 2)
            below = _KEY if row.stack else 0
            top = y + (row.height - below - line_height(13) * len(lines)) // 2
            below = canvas.lines(MARGIN, top, lines, 13)
            if row.stack:
                self._keys(canvas, row, row.stack, below)
            if row.shares is None:
                canvas.text(self.left + 6, y + 9, "no evidence", 13, WRONG)
            elif not row.stack:
                most = float(row.shares[0][self.figure.kept].max(initial=0))
                canvas.text(self.right + 8, y + 1, "max", 12, MUTED)
                canvas.text(self.right + 8, y + 16, percent(most), 12)
        self._axis(canvas, self.bars_bottom + 4)

    def _keys(self, canvas: Canvas, row: _Row, stack: Stack, y: int) -> None:
        """Which colour is which spectrum; right of the bars what each has to do with the clip."""
        room = (self.left - MARGIN - 10) // len(stack.parts)
        for n, (part, color) in enumerate(zip(stack.parts, row.colors, strict=True)):
            x = MARGIN + n * room
            canvas.box((x, y + 3, x + 10, y + 13), color)
            canvas.text(x + 14, y, shorten(part, 13, room - 18), 13)
        if row.shares is None:
            return
        name, values = sums(stack)
        canvas.text(self.right + 8, row.y + 1, name, 12, MUTED)
        bottom = row.y + 2 + _KEY * (len(stack.parts) + 1)
        for n, value in enumerate(values):  # from the bottom up, as the bars
            at = bottom - _KEY * (n + 1)
            if n < len(row.colors):
                canvas.box((self.right + 8, at + 3, self.right + 18, at + 13), row.colors[n])
                canvas.text(self.right + 22, at, value, 12)
            else:
                canvas.text(self.right + 8, bottom, value, 12)

    def _ticks(self) -> tuple[int, list[str]]:
        """Every how many frames the axis says which, and what each is called."""
        whole, times = self.figure.whole, self.figure.times
        step, texts = 1, list(map(str, range(self.count)))
        for tenths in (False, True):  # the latter where seconds would stand there twice
            if whole and times is not None:
                texts = [clock(float(second), tenths=tenths) for second in times]
            widest = text_width(texts[-1], 12) + (18 if whole else 8)
            step = next(s for s in (1, 2, 4, 5, 8, 10, 20, 25, 50, 100, 10**9)
                        if s * (self.right - self.left) / self.count >= widest)  # fmt: skip
            if len({*texts[::step]}) == len(texts[::step]):
                break
        return step, texts

    def _axis(self, canvas: Canvas, y: int) -> None:
        whole, (step, texts) = self.figure.whole, self._ticks()
        canvas.text(MARGIN, y, "time" if whole else "frame", 12, MUTED)
        for t in range(0, self.count, step):
            canvas.text(sum(self.column(t)) // 2, y, texts[t], 12, MUTED, anchor="ma")
        y += line_height(12) + 3
        unit, rest = self.figure.unit, "not explained" if whole else "padding"
        note = f"share of the {unit}; dashed: even share, {percent(self.even)}" if self.rows else ""
        if not self.figure.kept.all():
            note = f"{note}; grey: {rest}".lstrip("; ")
        canvas.text(self.left, y, shorten(note, 12, self.width - MARGIN - self.left), 12, MUTED)


def _rows(figure: ClipFigure) -> list[_Row]:
    rows, y = [], 8
    for (name, shares), kind in zip(
        figure.strips().items(), figure.strip_kinds().values(), strict=True
    ):
        layers = None if shares is None else np.asarray(shares)[None]
        rows.append(_Row(name, y, _STRIP, [_STRIP_COLORS.get(kind, BLUE)], layers))
        y += _STRIP + 8
    for name, stack in figure.stacks.items():
        count = len(stack.parts)
        height = _KEY * (count + (1 if stack.drops is None else 2)) + 4
        colors = [SPECTRUM_COLORS[n % len(SPECTRUM_COLORS)] for n in range(count)]
        if stack.doubt:
            colors = [_lighter(color, FAINT_SHARE) for color in colors]
        rows.append(_Row(name, y, height, colors, None if stack.empty else stack.shares, stack))
        y += height + 8
    return rows


def _lighter(color: Color, share: float = 0.55) -> Color:
    r, g, b = (round(share * c + (1 - share) * 255) for c in color)
    return r, g, b
