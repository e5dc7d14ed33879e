"""The explanation video of one clip: original beside overlays, with a strip for the time."""

from __future__ import annotations

import math

import numpy as np

from lightning_cam.viz.canvas import INK, MUTED, PAPER, Canvas, line_height
from lightning_cam.viz.header import header
from lightning_cam.viz.parts import MARGIN, Caption, drawn, joined_size, scale
from lightning_cam.viz.picture import ClipPicture
from lightning_cam.viz.strip import MAX_BOX, Strip, names_room

_SHORT, _LONG = 224, 480  # sides of a panel in pixels: readable, yet four fit on a screen
_COLUMNS = 4
_CAPTION = 14


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
    overlays, each with its caption and colour scale; those of a contrast side by side. Below:
    attention weight, share of the heat and of the spectra for each frame, the current one lit.

    Returns:
        (T, H, W, 3) uint8 RGB, as `write_video` takes it.
    """
    size = panel_size(*picture.frames.shape[1:3])
    pictures = drawn(picture, size, np.arange(len(picture.frames)))
    size = joined_size(picture, size, 1)
    places = _places(picture)
    columns = 1 + max(column for _, column in places)
    cell = max(size[1], _SHORT)  # narrow clips still need room for their captions
    width = max((cell + MARGIN) * columns + MARGIN, 2 * (_SHORT + MARGIN) + MARGIN)
    width += width % 2

    top = header(picture, width)
    strip = Strip(picture, width, names_room(picture), width - MARGIN - MAX_BOX)
    captions = ["original", *picture.heatmaps]
    texts = [Caption.of(picture, caption, cell) for caption in captions]
    row = size[0] + 6 + max(text.height for text in texts) + 12
    middle = Canvas(width, row * (1 + places[-1][0]))
    corners = [(MARGIN + column * (cell + MARGIN), line * row) for line, column in places]
    for n, (x, y) in enumerate(corners):
        below = texts[n].draw(middle, x, y + size[0] + 6)
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


def _places(picture: ClipPicture) -> list[tuple[int, int]]:
    """(row, column) of the clip and of each overlay; a contrast's three share a row if they fit."""
    count = len(picture.heatmaps)
    if picture.contrasts and len(picture.views) > 1:  # panels are twice as wide: two by two
        spots = ((0, 1), (1, 0), (1, 1))
        return [(0, 0), *((2 * (n // 3) + spots[n % 3][0], spots[n % 3][1]) for n in range(count))]
    if picture.contrasts:
        return [(0, 0), *((n // 3, 1 + n % 3) for n in range(count))]
    most = max(1, _COLUMNS // max(len(picture.views), 1))
    columns = math.ceil((1 + count) / math.ceil((1 + count) / most))  # even rows
    return [divmod(n, columns) for n in range(1 + count)]
