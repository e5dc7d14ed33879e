"""The explanation video of one clip: original beside overlays, with a strip for the time."""

from __future__ import annotations

import math

import numpy as np

from lightning_cam.viz.canvas import INK, MUTED, PAPER, Canvas, line_height, wrap
from lightning_cam.viz.parts import MARGIN, MAX_BOX, Strip, drawn, header, scale
from lightning_cam.viz.picture import ClipPicture

_SHORT, _LONG = 224, 480  # sides of a panel in pixels: readable, yet four fit on a screen
_COLUMNS = 4
_CAPTION = 14
_NAMES = 146  # room for the names of the strip's rows


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a panel for frames of this size: whole multiples when enlarged."""
    factor = max(1, math.ceil(_SHORT / min(height, width)))
    if max(height, width) * factor > _LONG:
        factor = max(1, _LONG // max(height, width))
    shrink = min(1.0, _LONG / (max(height, width) * factor))
    return max(1, round(height * factor * shrink)), max(1, round(width * factor * shrink))


def draw_video(picture: ClipPicture) -> np.ndarray:
    """Compose the explanation video of a clip.

    Above: the clip's name, true class, likeliest classes. In the middle: the clip and its
    overlays, each with its caption and colour scale. Below: attention weight and share of the
    heat for each frame, the current one lit.

    Returns:
        (T, H, W, 3) uint8 RGB, as `write_video` takes it.
    """
    size = panel_size(*picture.frames.shape[1:3])
    pictures = drawn(picture, size, np.arange(len(picture.frames)))
    columns = math.ceil(len(pictures) / math.ceil(len(pictures) / _COLUMNS))  # even rows
    cell = max(size[1], _SHORT)  # narrow clips still need room for their captions
    width = max((cell + MARGIN) * columns + MARGIN, 2 * (_SHORT + MARGIN) + MARGIN)
    width += width % 2

    top = header(picture, width)
    strip = Strip(picture, width, _NAMES, width - MARGIN - MAX_BOX)
    captions = ["original", *picture.heatmaps]
    lines = [wrap(caption, _CAPTION, cell, 3) for caption in captions]
    text = line_height(_CAPTION) * max(map(len, lines)) + line_height(13)
    row = size[0] + 6 + text + 12
    middle = Canvas(width, row * math.ceil(len(pictures) / columns))
    corners = [
        (MARGIN + n % columns * (cell + MARGIN), n // columns * row) for n in range(len(lines))
    ]
    for n, (x, y) in enumerate(corners):
        below = middle.lines(x, y + size[0] + 6, lines[n], _CAPTION)
        if n:
            scale(middle, picture, captions[n], x, below, cell)

    still, lit = strip.draw_moving()
    page = np.concatenate([top.pixels(), middle.pixels(), still])
    page = np.pad(page, ((0, page.shape[0] % 2), (0, 0), (0, 0)), constant_values=PAPER[0])
    y_middle, y_strip = top.image.height, top.image.height + middle.image.height
    video = np.repeat(page[None], len(picture.frames), 0)  # (T, H, W, 3)
    for t, frame in enumerate(video):
        for shown, (x, y) in zip(pictures, corners, strict=True):
            y += y_middle
            frame[y : y + size[0], x : x + size[1]] = shown[t]
        x0, x1 = strip.column(t)
        bars = slice(0, strip.bars_bottom)
        frame[y_strip:][bars, x0:x1] = lit[bars, x0:x1]
        now = Canvas(cell + 2, line_height(_CAPTION))
        now.text(2, 0, picture.moment(t), _CAPTION, INK if picture.kept[t] else MUTED)
        x, y = corners[0]
        y += y_middle + size[0] + 6 + line_height(_CAPTION)
        frame[y : y + now.image.height, x - 2 : x + cell] = now.pixels()
    return video
