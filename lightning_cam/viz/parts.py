"""What the explanation video and the contact sheet share: captions, colour scales, overlays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_cam.viz.canvas import (
    CLASS_A,
    CLASS_B,
    INK,
    MUTED,
    PAPER,
    WRONG,
    Canvas,
    Color,
    line_height,
    resize,
    shorten,
    text_width,
    wrap,
)
from lightning_cam.viz.overlay import clip_scale, color_bar, overlay
from lightning_cam.viz.picture import ClipPicture, Stack

MARGIN = 16
NAME_LINES = 3  # of a class whose name is a sentence
_BAR_WIDTH = 96  # of the colour scale
_BETWEEN = 4  # pixels from one view of a frame to the next


def percent(share: float) -> str:
    """A share in words that never round a doubt away."""
    if not np.isfinite(share):
        return "n/a"
    if 0.995 <= share < 1:
        return ">99%"
    return "<1%" if 0 < share < 0.01 else f"{100 * share:.0f}%"


def sums(stack: Stack) -> tuple[str, list[str]]:
    """What is said of the whole clip: what it is, and a value for each part (and for all)."""
    if stack.falls is None:
        return "total", [percent(float(total)) for total in stack.totals]
    *each, everything = (f"{round(float(fall), 2) + 0.0:.2f}" for fall in stack.falls)  # no -0
    return "fall", [*each, f"all {everything}"]


def scale(canvas: Canvas, picture: ClipPicture, caption: str, x: int, y: int, width: int) -> None:
    """The colour scale of one heatmap with its ends in the heatmap's unit, or why it is blank."""
    if silence := picture.silence(caption):
        canvas.text(x, y, shorten(f"no evidence: {silence}", 13, width), 13, WRONG)
        return
    signed = picture.is_signed(caption)
    high = f"{picture.scale(caption):.2g}"
    low = f"-{high}" if signed else "0"
    end = x + width
    x = canvas.text(x, y, low, 13, MUTED)[2] + 7
    bar, note = _BAR_WIDTH, f"{high} (clip's maximum)"
    if picture.role(caption):  # the scale is that of all three
        bar = 60
        note = f"{high} (max {clip_scale(picture.heat(caption), signed=signed):.2g})"
    canvas.paste(color_bar(bar, 10, signed=signed), x, y + 4)
    x += bar + 7
    canvas.text(x, y, note if x + text_width(note, 13) <= end else high, 13, MUTED)


@dataclass(frozen=True)
class Caption:
    """What stands below a panel or beside a row: which class it is for, and the method."""

    heading: list[str]
    color: Color
    text: list[str]

    @classmethod
    def of(cls, picture: ClipPicture, caption: str, width: int) -> Caption:
        """The caption in lines of `width` pixels."""
        heading = picture.heading(caption)
        return cls(
            wrap(heading, 14, width, NAME_LINES) if heading else [],
            {"A": CLASS_A, "B": CLASS_B}.get(picture.role(caption), INK),
            wrap(caption, 14, width, 3),
        )

    @property
    def height(self) -> int:
        """In pixels, one line of the colour scale included."""
        return line_height(14) * (len(self.heading) + len(self.text)) + line_height(13)

    def draw(self, canvas: Canvas, x: int, y: int) -> int:
        """Draw with the upper left corner at x, y; returns where the colour scale goes."""
        y = canvas.lines(x, y, self.heading, 14, self.color)
        return canvas.lines(x, y, self.text, 14, MUTED if self.heading else INK)


def joined_size(picture: ClipPicture, size: tuple[int, int], axis: int) -> tuple[int, int]:
    """Height and width of all views of a frame, each of `size`, along axis 0 or 1."""
    more = max(len(picture.views), 1) - 1
    height, width = size
    if axis:
        return height, width + more * (width + _BETWEEN)
    return height + more * (height + _BETWEEN), width


def drawn(
    picture: ClipPicture,
    size: tuple[int, int],
    indices: np.ndarray,
    axis: int = 1,
    tagged: int | None = None,
) -> list[np.ndarray]:
    """The frames at `indices` and every overlay of them, (N, *size, 3) each; padding is faded.

    Maps are coloured after the resizing, on the scale of the whole clip. Where there are views,
    each has `size`, and they are joined along `axis`, 0 (down) or 1. Their names stand in a corner
    of the first `tagged` pictures, or of all.
    """
    if not picture.views:
        return _drawn(picture, picture.frames, size, indices)
    views = []
    for name, frames in picture.views.items():
        views.append(_drawn(picture, frames, size, indices))
        tag = _tag(name, size[1])
        for pictures in views[-1]:
            pictures[:tagged, : tag.shape[0], : tag.shape[1]] = tag[: size[0]]
    gap = list(views[0][0].shape)
    gap[axis + 1] = _BETWEEN
    between = np.full(gap, PAPER[0], np.uint8)
    out = []
    for alike in zip(*views, strict=True):
        rest = [part for pictures in alike[1:] for part in (between, pictures)]
        out.append(np.concatenate([alike[0], *rest], axis + 1))
    return out


def _tag(name: str, width: int) -> np.ndarray:
    """A name on a dark ground, at most as wide as its picture."""
    name = shorten(name, 12, width - 8)
    canvas = Canvas(min(text_width(name, 12) + 8, width), line_height(12) + 2)
    canvas.box((0, 0, *canvas.image.size), INK)
    canvas.text(4, 1, name, 12, PAPER)
    return canvas.pixels()


def _drawn(
    picture: ClipPicture, frames: np.ndarray, size: tuple[int, int], indices: np.ndarray
) -> list[np.ndarray]:
    frames = np.stack([resize(frames[t], *size) for t in indices])
    padded = ~picture.kept[indices]
    out = [frames]
    for caption in picture.heatmaps:
        if picture.silence(caption):
            out.append(frames.copy())
            continue
        heat = picture.heat(caption)
        small = np.stack([resize(heat[t].astype(np.float32), *size) for t in indices])
        below, alpha = frames, 0.5
        if picture.role(caption) == "A - B":  # colours of the picture would hide red and blue
            below, alpha = np.repeat(frames.mean(-1, keepdims=True).astype(np.uint8), 3, -1), 0.8
        signed = picture.is_signed(caption)
        out.append(overlay(below, small, alpha, picture.scale(caption), signed=signed))
    for pictures in out:
        gray = pictures[padded].mean(-1, keepdims=True)
        pictures[padded] = (0.3 * gray + 0.7 * 235).astype(np.uint8)
    return out
