"""A canvas as a file whose text stays text: PDF for papers, SVG for pages.

Both are made of the marks that a canvas keeps, so that they show what its pixels show.
"""

from __future__ import annotations

import base64
import io
import tempfile
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.files import write_bytes
from lightning_cam.viz.drawing import Canvas, Color, Filled, Mark, Pasted, Stroke, Words, jpeg, png
from lightning_cam.viz.fonts import OWN, font, shapes

_DPI = 100  # pixels of a canvas in an inch of a PDF


def save_pdf(path: str | Path, canvas: Canvas) -> Path:
    """Write a canvas as a PDF of one page: text can be searched and is sharp at any size."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    width, height = canvas.image.size
    page = Figure(figsize=(width / _DPI, height / _DPI))
    axes = page.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    with (
        tempfile.TemporaryDirectory() as folder,
        rc_context({"pdf.fonttype": 42, "text.parse_math": False}),
    ):
        for order, mark in enumerate(canvas.marks):
            _put(axes, mark, order, Path(folder))
        data = io.BytesIO()
        FigureCanvasPdf(page).print_pdf(data, metadata={"CreationDate": None})
    return write_bytes(path, data.getvalue())


def _put(axes: Any, mark: Mark, order: int, folder: Path) -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Rectangle

    match mark:
        case Words():
            size = mark.size * 72 / _DPI
            how = FontProperties(fname=_file(mark.path, folder), size=size)
            axes.text(mark.x, mark.y, mark.text, color=_hex(mark.color), fontproperties=how,
                      va="baseline", zorder=order)  # fmt: skip
        case Filled():
            box = Rectangle((mark.x, mark.y), mark.width, mark.height, lw=0, zorder=order,
                            facecolor=_hex(mark.color))  # fmt: skip
            axes.add_patch(box)
        case Stroke():
            xs, ys = np.add(mark.points, (mark.x + 0.5, mark.y + 0.5)).T
            axes.plot(xs, ys, color=_hex(mark.color), lw=mark.width * 72 / _DPI, zorder=order)
        case Pasted():
            height, width = mark.pixels.shape[:2]
            place = (mark.x, mark.x + width, mark.y + height, mark.y)
            axes.imshow(mark.pixels, extent=place, interpolation="none", zorder=order,
                        aspect="auto")  # fmt: skip


def _file(path: str, folder: Path) -> Path:
    """The font as a file; Pillow's own has none."""
    if path != OWN:
        return Path(path)
    own = folder / "own.ttf"
    if not own.exists():
        write_bytes(own, font(14).font_bytes)
    return own


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def save_svg(path: str | Path, canvas: Canvas, *, small: bool = False) -> Path:
    """Write a canvas as an SVG image, which brings its font along.

    Args:
        path: the file.
        canvas: to write.
        small: images in it are JPEG, a quarter as large; else they are PNG, exact.
    """
    width, height = canvas.image.size
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>@font-face{{font-family:own;src:url({_own_font()})}}'
        f'text{{font-family:own,"DejaVu Sans",sans-serif;white-space:pre}}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
    )
    body = "".join(_svg(mark, small) for mark in canvas.marks)
    return write_bytes(path, f"{head}{body}</svg>\n".encode())


def _svg(mark: Mark, small: bool) -> str:
    match mark:
        case Words():
            length = font(mark.size, mark.path).getlength(mark.text, **shapes(mark.path))
            return (
                f'<text x="{mark.x:g}" y="{mark.y:g}" font-size="{mark.size}" '
                f'fill="{_hex(mark.color)}" textLength="{length:g}">{escape(mark.text)}</text>'
            )
        case Filled():
            return (
                f'<rect x="{mark.x:g}" y="{mark.y:g}" width="{mark.width:g}" '
                f'height="{mark.height:g}" fill="{_hex(mark.color)}"/>'
            )
        case Stroke():
            points = " ".join(f"{mark.x + x + 0.5:g},{mark.y + y + 0.5:g}" for x, y in mark.points)
            return (
                f'<polyline points="{points}" fill="none" stroke="{_hex(mark.color)}" '
                f'stroke-width="{mark.width:g}"/>'
            )
        case Pasted():
            height, width = mark.pixels.shape[:2]
            kind, data = ("jpeg", jpeg(mark.pixels)) if small else ("png", png(mark.pixels))
            return (
                f'<image x="{mark.x:g}" y="{mark.y:g}" width="{width}" height="{height}" '
                f'preserveAspectRatio="none" href="{_link(f"image/{kind}", data)}"/>'
            )


@lru_cache(maxsize=1)
def _own_font() -> str:
    return _link("font/ttf", font(14).font_bytes)


def _link(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
