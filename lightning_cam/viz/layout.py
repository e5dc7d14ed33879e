"""What the explanation video and the contact sheet share: overlays, panels, sizes, words."""

from __future__ import annotations

import numpy as np

from lightning_cam.viz.clip_figure import ClipFigure, Stack
from lightning_cam.viz.drawing import (
    INK,
    PAPER,
    Canvas,
    line_height,
    resize,
    shorten,
    text_width,
)
from lightning_cam.viz.overlay import overlay

MARGIN = 16
NAME_LINES = 3  # of a class whose name is a sentence
FAINT_SHARE = 0.25  # of the opacity, for heat that is not to be trusted
_BETWEEN = 4  # pixels from one view of a frame to the next
_ALIKE = 1.08  # a panel is stretched to the frames' proportions where they differ by less


def percent(share: float) -> str:
    """A share in words that never round a doubt away."""
    if not np.isfinite(share):
        return "n/a"
    if 0.995 <= share < 1:
        return ">99%"
    return "<1%" if 0 < share < 0.01 else f"{100 * share:.0f}%"


def sums(stack: Stack) -> tuple[str, list[str]]:
    """What is said of the whole clip: what it is, and a value for each part (and for all)."""
    if stack.drops is None:
        return "total", [percent(float(total)) for total in stack.totals]
    *each, everything = (f"{round(float(drop), 2) + 0.0:.2f}" for drop in stack.drops)  # no -0
    return "drop", [*each, f"all {everything}"]


def joined_size(figure: ClipFigure, size: tuple[int, int], axis: int) -> tuple[int, int]:
    """Height and width of all views of a frame, each of `size`, along axis 0 or 1."""
    more = max(len(figure.views), 1) - 1
    height, width = size
    if axis:
        return height, width + more * (width + _BETWEEN)
    return height + more * (height + _BETWEEN), width


def drawn(
    figure: ClipFigure,
    size: tuple[int, int],
    indices: np.ndarray,
    axis: int = 1,
    tagged: int | None = None,
) -> list[np.ndarray]:
    """The frames at `indices`, every overlay of them, every panel: (N, *size, 3) each.

    Padding is faded. A panel is as large as fits into `size`.

    Maps are coloured after the resizing, on the scale of the whole clip. Where there are views,
    each has `size`, and they are joined along `axis`, 0 (down) or 1. Their names stand in a corner
    of the first `tagged` images, or of all.
    """
    panels = [_panel(figure, panel, size, indices) for panel in figure.panels.values()]
    if not figure.views:
        return _drawn(figure, figure.frames, size, indices) + panels
    views = []
    for name, frames in figure.views.items():
        views.append(_drawn(figure, frames, size, indices))
        tag = _tag(name, size[1])
        for images in views[-1]:
            images[:tagged, : tag.shape[0], : tag.shape[1]] = tag[: size[0]]
    gap = list(views[0][0].shape)
    gap[axis + 1] = _BETWEEN
    between = np.full(gap, PAPER[0], np.uint8)
    out = []
    for alike in zip(*views, strict=True):
        rest = [part for images in alike[1:] for part in (between, images)]
        out.append(np.concatenate([alike[0], *rest], axis + 1))
    return out + panels


def _tag(name: str, width: int) -> np.ndarray:
    """A name on a dark ground, at most as wide as its image."""
    name = shorten(name, 12, width - 8)
    canvas = Canvas(min(text_width(name, 12) + 8, width), line_height(12) + 2)
    canvas.box((0, 0, *canvas.image.size), INK)
    canvas.text(4, 1, name, 12, PAPER)
    return canvas.pixels()


def _drawn(
    figure: ClipFigure, frames: np.ndarray, size: tuple[int, int], indices: np.ndarray
) -> list[np.ndarray]:
    frames = np.stack([resize(frames[t], *size) for t in indices])
    out = [frames]
    for caption in figure.heatmaps:
        if figure.no_evidence_reason(caption):
            out.append(frames.copy())
            continue
        heat = figure.heat(caption)
        small = np.stack([resize(heat[t].astype(np.float32), *size) for t in indices])
        out.append(overlaid(figure, caption, frames, small))
    for images in out:
        _fade(images, ~figure.kept[indices])
    return out


def overlaid(figure: ClipFigure, caption: str, frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat (N, h, w) of one of a figure's captions on frames (N, h, w, 3), in its colours."""
    alpha = figure.opacity
    if figure.role(caption) == "A - B":  # colours of the image would hide red and blue
        frames = np.repeat(frames.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
        alpha = max(alpha, 0.8)
    if figure.doubts.get(caption):
        alpha *= FAINT_SHARE
    return overlay(
        frames, heat, alpha, figure.scale(caption),
        signed=figure.is_signed(caption), colormap=figure.colormap,
    )  # fmt: skip


def _panel(
    figure: ClipFigure, panel: np.ndarray, size: tuple[int, int], indices: np.ndarray
) -> np.ndarray:
    down, across = size[0] / panel.shape[1], size[1] / panel.shape[2]
    if not 1 / _ALIKE < down / across < _ALIKE:
        size = (
            max(1, round(panel.shape[1] * min(down, across))),
            max(1, round(panel.shape[2] * min(down, across))),
        )
    images = np.stack([resize(panel[t], *size) for t in indices])
    _fade(images, ~figure.kept[indices])
    return images


def _fade(images: np.ndarray, padded: np.ndarray) -> None:
    """Padded frames in pale grey, in place."""
    gray = images[padded].mean(-1, keepdims=True)
    images[padded] = (0.3 * gray + 0.7 * 235).astype(np.uint8)
