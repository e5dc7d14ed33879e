"""Bars over time: each frame's attention weight and share of the heat."""

from __future__ import annotations

import numpy as np

from lightning_cam.viz.canvas import (
    BLUE,
    CLASS_A,
    CLASS_B,
    FAINT,
    MUTED,
    NEUTRAL,
    RULE,
    VIOLET,
    WRONG,
    Canvas,
    Color,
    line_height,
    shorten,
    text_width,
    wrap,
)
from lightning_cam.viz.parts import MARGIN, percent
from lightning_cam.viz.picture import ClipPicture

MAX_BOX = 64  # room for "max 100%" right of the bars
TINT: Color = (255, 236, 179)  # behind the current frame's bars
_STRIP = 34  # height of one row of bars


def names_room(picture: ClipPicture) -> int:
    """Pixels left of the bars that hold the rows' names in two lines each, from 146 to 220."""
    fits = all("…" not in wrap(name, 13, 120, 2)[-1] for name in picture.strips())
    return 146 if fits else 220


_STRIP_COLORS = {"attention": VIOLET, "A": CLASS_A, "B": CLASS_B, "A - B": NEUTRAL}


class Strip:
    """Bars for each frame, one row for each series of shares, time running to the right.

    Args:
        picture: the clip.
        width: of the strip in pixels.
        left: where the first frame's column begins; the rows' names stand left of it.
        right: where the last frame's column ends.
    """

    def __init__(self, picture: ClipPicture, width: int, left: int, right: int) -> None:
        self.picture = picture
        self.count = len(picture.frames)
        self.left, self.right = left, right
        self.rows = picture.strips()
        self.colors = [_STRIP_COLORS.get(kind, BLUE) for kind in picture.strip_kinds().values()]
        self.even = 1 / max(int(picture.kept.sum()), 1)
        self.bars_bottom = 8 + (_STRIP + 8) * len(self.rows) - 8
        self.height = self.bars_bottom + 2 * line_height(12) + 18
        self.width = width

    def column(self, t: int) -> tuple[int, int]:
        """First x and one past the last x of frame t's column."""
        span = self.right - self.left
        return self.left + span * t // self.count, self.left + span * (t + 1) // self.count

    def draw(self) -> Canvas:
        """The strip as a still picture."""
        canvas = self._bars(faded=False)
        self._words(canvas)
        return canvas

    def draw_moving(self) -> tuple[np.ndarray, np.ndarray]:
        """The strip with no frame set apart, and its bars as they look for the current frame."""
        canvas = self._bars(faded=True)
        self._words(canvas)
        return canvas.pixels(), self._bars(faded=False, ground=TINT).pixels()

    def _tops(self) -> list[int]:
        return [8 + (_STRIP + 8) * row for row in range(len(self.rows))]

    def _high(self, shares: np.ndarray) -> float:
        return max(float(shares[self.picture.kept].max(initial=0)), self.even)

    def _bars(self, faded: bool, ground: Color = FAINT) -> Canvas:
        canvas = Canvas(self.width, self.height)
        kept = self.picture.kept
        for y, hue, shares in zip(self._tops(), self.colors, self.rows.values(), strict=True):
            color = _lighter(hue) if faded else hue
            high = 1.0 if shares is None else self._high(shares)
            for t in range(self.count):
                x0, x1 = self.column(t)
                gap = 1 if x1 - x0 > 3 else 0
                back = RULE if ground == FAINT and not kept[t] else ground
                canvas.box((x0, y, x1, y + _STRIP), back)
                if kept[t] and shares is not None:
                    size = round(max(float(shares[t]), 0) / high * (_STRIP - 2))
                    canvas.box((x0 + gap, y + _STRIP - size, x1 - gap, y + _STRIP), color)
            if shares is not None:
                level = y + _STRIP - round(self.even / high * (_STRIP - 2))
                canvas.dashed(self.left, self.right, level)
        return canvas

    def _words(self, canvas: Canvas) -> None:
        for y, (name, shares) in zip(self._tops(), self.rows.items(), strict=True):
            lines = wrap(name, 13, self.left - MARGIN - 10, 2)
            canvas.lines(MARGIN, y + (_STRIP - line_height(13) * len(lines)) // 2, lines, 13)
            if shares is None:
                canvas.text(self.left + 6, y + 9, "no evidence", 13, WRONG)
                continue
            most = float(shares[self.picture.kept].max(initial=0))
            canvas.text(self.right + 8, y + 1, "max", 12, MUTED)
            canvas.text(self.right + 8, y + 16, percent(most), 12)
        self._axis(canvas, self.bars_bottom + 4)

    def _axis(self, canvas: Canvas, y: int) -> None:
        widest = text_width(str(self.count - 1), 12) + 8
        step = next(s for s in (1, 2, 4, 5, 8, 10, 20, 25, 50, 100, 10**9)
                    if s * (self.right - self.left) / self.count >= widest)  # fmt: skip
        canvas.text(MARGIN, y, "frame", 12, MUTED)
        for t in range(0, self.count, step):
            canvas.text(sum(self.column(t)) // 2, y, str(t), 12, MUTED, anchor="ma")
        y += line_height(12) + 3
        note = f"share of the clip; dashed: even share, {percent(self.even)}" if self.rows else ""
        if not self.picture.kept.all():
            note = f"{note}; grey: padding".lstrip("; ")
        canvas.text(self.left, y, shorten(note, 12, self.width - MARGIN - self.left), 12, MUTED)


def _lighter(color: Color) -> Color:
    r, g, b = (round(0.55 * c + 0.45 * 255) for c in color)
    return r, g, b
