"""The parts that the explanation video and the contact sheet share: header, scale, strips."""

from __future__ import annotations

import numpy as np

from lightning_cam.viz.canvas import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    NEUTRAL,
    RIGHT,
    RULE,
    VIOLET,
    WRONG,
    Box,
    Canvas,
    Color,
    line_height,
    resize,
    shorten,
    text_width,
    wrap,
)
from lightning_cam.viz.overlay import clip_scale, color_bar, overlay
from lightning_cam.viz.picture import ClipPicture

MARGIN = 16
BAR_WIDTH = 96  # of the colour scale
_WIDE = 800  # from here on the predictions stand beside the title, not below it
_STRIP = 34  # height of one row of bars
TINT: Color = (255, 236, 179)  # behind the current frame's bars
MAX_BOX = 64  # room for "max 100%" right of the bars


def header(picture: ClipPicture, width: int) -> Canvas:
    """The clip's name, its true class, what is explained and the two likeliest classes."""
    ranked = picture.ranked[:2]
    beside = width >= _WIDE and bool(ranked)
    room = width - 2 * MARGIN - (420 + 2 * MARGIN if beside else 0)
    lines = [("true class: " + picture.label, INK)] if picture.label is not None else []
    if not ranked or picture.target != ranked[0][0]:
        lines.append(("explaining: " + picture.target, BLUE))
    text_bottom = MARGIN + 26 + 20 * len(lines)
    rows_top = MARGIN if beside else text_bottom + 6
    canvas = Canvas(width, max(text_bottom, rows_top + 22 * len(ranked)) + 6)
    canvas.text(MARGIN, MARGIN, shorten(picture.title or "clip", 18, room), 18)
    for n, (line, color) in enumerate(lines):
        canvas.text(MARGIN, MARGIN + 26 + 20 * n, shorten(line, 14, room), 14, color)
    x0 = width - MARGIN - 420 if beside else MARGIN
    _predictions(canvas, picture, (x0, rows_top, width - MARGIN, rows_top + 22 * len(ranked)))
    return canvas


def _predictions(canvas: Canvas, picture: ClipPicture, box: Box) -> None:
    """One row a class: right or wrong, name, bar, probability."""
    x0, y, x1, _ = box
    ranked = picture.ranked[:2]
    room = (x1 - x0) * 2 // 5
    names = [shorten(name, 14, room) for name, _ in ranked]
    bar_x0 = x0 + 20 + max((text_width(name, 14) for name in names), default=0) + 12
    bar_x1 = x1 - 56
    for n, (name, probability) in enumerate(ranked):
        hit = name == picture.label
        color = RIGHT if hit else NEUTRAL
        if picture.label is None:
            color = BLUE if n == 0 else NEUTRAL
        elif hit or n == 0:  # a wrong second guess is no mistake
            color = color if hit else WRONG
            canvas.mark(x0, y + 4, right=hit)
        canvas.text(x0 + 20, y + 2, names[n], 14)
        canvas.box((bar_x0, y + 4, bar_x1, y + 16), FAINT)
        share = float(np.clip(np.nan_to_num(probability), 0, 1))
        canvas.box((bar_x0, y + 4, bar_x0 + round((bar_x1 - bar_x0) * share), y + 16), color)
        canvas.text(x1, y + 2, percent(probability), 14, anchor="ra")
        y += 22


def percent(share: float) -> str:
    """A share in words that never round a doubt away."""
    if not np.isfinite(share):
        return "n/a"
    if 0.995 <= share < 1:
        return ">99%"
    return "<1%" if 0 < share < 0.01 else f"{100 * share:.0f}%"


def scale(canvas: Canvas, picture: ClipPicture, caption: str, x: int, y: int, width: int) -> None:
    """The colour scale of one heatmap with its ends in the heatmap's unit, or why it is blank."""
    if silence := picture.silence(caption):
        canvas.text(x, y, shorten(f"no evidence: {silence}", 13, width), 13, WRONG)
        return
    signed = picture.is_signed(caption)
    high = f"{clip_scale(picture.heat(caption), signed=signed):.2g}"
    low = f"-{high}" if signed else "0"
    end = x + width
    x = canvas.text(x, y, low, 13, MUTED)[2] + 7
    canvas.paste(color_bar(BAR_WIDTH, 10, signed=signed), x, y + 4)
    x += BAR_WIDTH + 7
    note = f"{high} (clip's maximum)"
    canvas.text(x, y, note if x + text_width(note, 13) <= end else high, 13, MUTED)


def drawn(picture: ClipPicture, size: tuple[int, int], indices: np.ndarray) -> list[np.ndarray]:
    """The frames at `indices` and every overlay of them, (N, *size, 3) each; padding is faded.

    Maps are coloured after the resizing, on the scale of the whole clip.
    """
    frames = np.stack([resize(picture.frames[t], *size) for t in indices])
    padded = ~picture.kept[indices]
    out = [frames]
    for caption in picture.heatmaps:
        if picture.silence(caption):
            out.append(frames.copy())
            continue
        signed = picture.is_signed(caption)
        heat = picture.heat(caption)
        small = np.stack([resize(heat[t].astype(np.float32), *size) for t in indices])
        top = clip_scale(heat, signed=signed)
        out.append(overlay(frames, small, scale=top, signed=signed))
    for pictures in out:
        gray = pictures[padded].mean(-1, keepdims=True)
        pictures[padded] = (0.3 * gray + 0.7 * 235).astype(np.uint8)
    return out


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
        for y, (name, shares) in zip(self._tops(), self.rows.items(), strict=True):
            color = VIOLET if name.startswith("attention") else BLUE
            color = _lighter(color) if faded else color
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
