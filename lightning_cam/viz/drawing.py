"""What all images share: colours, text that fits its box, and drawing primitives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from lightning_cam.files import write_bytes
from lightning_cam.viz.fonts import OWN, drawable, font, runs, shapes

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1

PAPER: Color = (255, 255, 255)
INK: Color = (28, 33, 40)
MUTED: Color = (95, 103, 113)
LINE: Color = (222, 226, 231)
FAINT: Color = (241, 243, 246)
# Told apart by every kind of colour vision (after Okabe and Ito), and never without a mark.
RIGHT: Color = (0, 128, 96)
WRONG: Color = (200, 76, 0)
NEUTRAL: Color = (140, 148, 158)
PALE: Color = (176, 182, 190)  # what is not to be trusted
BLUE: Color = (0, 98, 163)
VIOLET: Color = (138, 74, 148)
# The two classes of a contrast, as the ends of the signed colour scale.
CLASS_A: Color = (178, 24, 43)
CLASS_B: Color = (33, 102, 172)
# Spectra, again from the first on where there are more: not on Turbo, and not alike in grey.
SPECTRUM_COLORS: tuple[Color, ...] = ((62, 72, 86), (216, 82, 152), (122, 84, 62), (238, 190, 216))

# Row filter "sub" (setting 19, value 16) takes half the time for 6% more bytes. OpenCV before 4.12
# has no name for the setting and ignores it.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, 19, 16]


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> int:
    """Width of a text in pixels."""
    return int(np.ceil(sum(_lengths(drawable(text), size))))


def _lengths(text: str, size: int) -> list[float]:
    """Of the parts of a drawable text, in pixels."""
    return [font(size, path).getlength(part, **shapes(path)) for part, path in runs(text)]


def shorten(text: str, size: int, width: int) -> str:
    """The text with as much of its middle left out as it takes to be `width` pixels wide."""
    text = drawable(text)
    if text_width(text, size) <= width:
        return text
    for kept in range(min(len(text) - 1, width // 2), 0, -1):  # names differ at their ends
        short = text[: (kept + 1) // 2].rstrip() + "…" + text[len(text) - kept // 2 :].lstrip()
        if text_width(short, size) <= width:
            return short
    return "…"


def wrap(text: str, size: int, width: int, lines: int) -> list[str]:
    """The text in at most `lines` lines of `width` pixels, the last one shortened."""
    words, out = drawable(text).split(), [""]
    while words:
        longer = f"{out[-1]} {words[0]}".strip()
        if text_width(longer, size) <= width or not out[-1]:
            out[-1] = longer
            words.pop(0)
        elif len(out) < lines:
            out.append("")
        else:
            out[-1] = " ".join([out[-1], *words])
            break
    return [shorten(line, size, width) for line in out]


def _placed(
    text: str, at: tuple[int, int], size: int, anchor: str
) -> Iterator[tuple[str, tuple[float, float], str, str]]:
    """The parts of a line, each with its place, path of its font, and anchor."""
    parts = runs(text)
    if [path for _, path in parts] == [OWN]:
        yield text, at, OWN, anchor
        return
    x, y = map(float, at)
    lengths = _lengths(text, size)
    x -= {"l": 0, "m": sum(lengths) / 2, "r": sum(lengths)}[anchor[0]]
    ascent, descent = font(size).getmetrics()
    y += ascent if anchor[1] == "a" else (ascent - descent) / 2
    for (part, path), length in zip(parts, lengths, strict=True):
        yield part, (x, y), path, "ls"
        x += length


@dataclass(frozen=True)
class Words:
    """A text in one font on a canvas; `x` is its left end, `y` its baseline."""

    x: float
    y: float
    text: str
    size: int
    color: Color
    path: str  # of the font, see `fonts`


@dataclass(frozen=True)
class Filled:
    """A rectangle on a canvas."""

    x: float
    y: float
    width: float
    height: float
    color: Color


@dataclass(frozen=True)
class Stroke:
    """Straight lines on a canvas from one point to the next, relative to `x`, `y`."""

    x: float
    y: float
    points: tuple[tuple[float, float], ...]
    width: float
    color: Color


@dataclass(frozen=True)
class Pasted:
    """An image (H, W, 3) uint8 on a canvas."""

    x: float
    y: float
    pixels: np.ndarray


Mark = Words | Filled | Stroke | Pasted


def _baseline(
    part: str, at: tuple[float, float], size: int, path: str, anchor: str
) -> tuple[float, float]:
    """The left end of a part's baseline, of its place by an anchor of Pillow's."""
    used = font(size, path)
    width, (ascent, descent) = used.getlength(part, **shapes(path)), used.getmetrics()
    x = at[0] - {"l": 0, "m": width / 2, "r": width}[anchor[0]]
    return x, at[1] + {"a": ascent, "m": (ascent - descent) / 2, "s": 0}[anchor[1]]


class Canvas:
    """A white sheet to draw on.

    Attributes:
        image: what is drawn, in pixels.
        marks: what is drawn, in order, as a file without pixels needs it (see `vector`).
        boxes: every text drawn and the box it fills.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.marks: list[Mark] = []
        self.boxes: list[tuple[str, Box]] = []

    @classmethod
    def stacked(cls, parts: Sequence[Canvas]) -> Canvas:
        """Canvases of one width, one below the other."""
        whole = cls(parts[0].image.width, sum(part.image.height for part in parts))
        y = 0
        for part in parts:
            whole.image.paste(part.image, (0, y))
            whole.marks += [replace(mark, y=mark.y + y) for mark in part.marks]
            whole.boxes += [(text, (a, b + y, c, d + y)) for text, (a, b, c, d) in part.boxes]
            y += part.image.height
        return whole

    def text(
        self, x: int, y: int, text: str, size: int = 14, color: Color = INK, anchor: str = "la"
    ) -> Box:
        """Write one line; `anchor` as in Pillow ("la": x, y is the upper left corner)."""
        text = drawable(text)
        corners = []
        for part, at, path, place in _placed(text, (x, y), size, anchor):
            how: dict[str, Any] = {"font": font(size, path), "anchor": place, **shapes(path)}
            corners.append(self.draw.textbbox(at, part, **how))
            self.draw.text(at, part, color, **how)
            self.marks.append(
                Words(*_baseline(part, at, size, path, place), part, size, color, path)
            )
        x0, y0, *_ = np.floor(np.min(corners, 0)).astype(int).tolist()
        *_, x1, y1 = np.ceil(np.max(corners, 0)).astype(int).tolist()
        self.boxes.append((text, (x0, y0, x1, y1)))
        return x0, y0, x1, y1

    def lines(
        self, x: int, y: int, lines: Sequence[str], size: int = 14, color: Color = INK
    ) -> int:
        """Write lines one under the other; returns where the next one would go."""
        for line in lines:
            self.text(x, y, line, size, color)
            y += line_height(size)
        return y

    def box(self, box: Box, color: Color) -> None:
        """Fill a rectangle; x1 and y1 lie outside it."""
        x0, y0, x1, y1 = box
        if x1 > x0 and y1 > y0:
            self.draw.rectangle((x0, y0, x1 - 1, y1 - 1), color)
            self.marks.append(Filled(x0, y0, x1 - x0, y1 - y0, color))

    def paste(self, pixels: np.ndarray, x: int, y: int) -> None:
        """Lay an image (H, W, 3) uint8 with its upper left corner at x, y."""
        self.image.paste(Image.fromarray(pixels), (x, y))
        self.marks.append(Pasted(x, y, pixels))

    def line(self, points: Sequence[tuple[int, int]], color: Color, width: int = 1) -> None:
        """Straight lines from one point to the next."""
        self.draw.line(list(points), color, width, "curve" if len(points) > 2 else None)
        (x, y), *_ = points
        way = tuple((px - x, py - y) for px, py in points)
        self.marks.append(Stroke(x, y, way, width, color))

    def dashed(self, x0: int, x1: int, y: int, color: Color = MUTED) -> None:
        """A horizontal dashed line."""
        for x in range(x0, x1, 7):
            self.line([(x, y), (min(x + 3, x1 - 1), y)], color)

    def mark(self, x: int, y: int, right: bool) -> None:
        """A tick or a cross, 12 pixels wide: right and wrong must not hang on colour alone."""
        if right:
            self.line([(x, y + 6), (x + 4, y + 10), (x + 11, y + 2)], RIGHT, 2)
        else:
            self.line([(x + 1, y + 1), (x + 10, y + 10)], WRONG, 2)
            self.line([(x + 1, y + 10), (x + 10, y + 1)], WRONG, 2)

    def pixels(self) -> np.ndarray:
        """The sheet as (H, W, 3) uint8 RGB."""
        return np.array(self.image)


def line_height(size: int) -> int:
    """Distance between two lines of text."""
    return round(size * 1.3)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """One image or map (H, W[, 3]) at another size: averaged down, smooth up."""
    if image.shape[:2] == (height, width):
        return image
    if height < image.shape[0]:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    how = cv2.INTER_CUBIC if image.ndim == 3 else cv2.INTER_LINEAR  # cubic overshoots on maps
    return cv2.resize(image, (width, height), interpolation=how)


def save_png(path: str | Path, image: np.ndarray) -> Path:
    """Write an image (H, W, 3) uint8 RGB; the file appears under its name only when complete."""
    return write_bytes(path, png(image))


def png(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 RGB as the bytes of a PNG file."""
    return _encoded(image, ".png", _PNG)


def save_jpeg(path: str | Path, image: np.ndarray) -> Path:
    """Write an image (H, W, 3) uint8 RGB of which the file is to be small."""
    return write_bytes(path, jpeg(image))


def jpeg(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 RGB as the bytes of a JPEG file, not exact."""
    return _encoded(image, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, 88))


def _encoded(image: np.ndarray, kind: str, settings: Sequence[int]) -> bytes:
    done, data = cv2.imencode(kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    if not done:
        raise OSError(f"cannot encode an image of shape {image.shape} as {kind}")
    return data.tobytes()
