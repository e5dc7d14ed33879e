"""What stands below a panel of the video or beside a row of the sheet: names and colour scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_cam.viz.clip_figure import ClipFigure, PanelScale
from lightning_cam.viz.drawing import (
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
from lightning_cam.viz.layout import FAINT_SHARE, NAME_LINES
from lightning_cam.viz.overlay import clip_scale, color_bar

_BAR_WIDTH = 96  # of the colour scale
_GAP = 7  # between the colours and the numbers at their ends


@dataclass(frozen=True)
class Caption:
    """What stands below a panel or beside a row: which class it is for, and the method."""

    heading: list[str]
    color: Color
    text: list[str]
    doubt: list[str]  # why the map is faint, below its scale

    @classmethod
    def of(cls, figure: ClipFigure, caption: str, width: int) -> Caption:
        """The caption in lines of `width` pixels."""
        heading = figure.heading(caption)
        reason = _doubt(figure, caption)
        beside = text_width(reason, 13) <= width - _scale_width(figure, caption)
        return cls(
            wrap(heading, 14, width, NAME_LINES) if heading else [],
            {"A": CLASS_A, "B": CLASS_B}.get(figure.role(caption), INK),
            wrap(caption, 14, width, 3),
            [] if not reason or beside else wrap(reason, 13, width, 3),
        )

    @property
    def height(self) -> int:
        """In pixels, the colour scale included."""
        named = line_height(14) * (len(self.heading) + len(self.text))
        return named + line_height(13) * (1 + len(self.doubt)) + 4 * bool(self.doubt)

    def draw(self, canvas: Canvas, x: int, y: int) -> int:
        """Draw with the upper left corner at x, y; returns where the colour scale goes."""
        y = canvas.lines(x, y, self.heading, 14, self.color)
        y = canvas.lines(x, y, self.text, 14, MUTED if self.heading else INK)
        canvas.lines(x, y + line_height(13), self.doubt, 13, WRONG)
        return y


def scale(canvas: Canvas, figure: ClipFigure, caption: str, x: int, y: int, width: int) -> None:
    """The colour scale of a heatmap with its ends in the heatmap's unit, or why it is blank.

    Behind it stands why the heatmap is faint, where that fits. A panel has the scale that it comes
    with, or none.
    """
    if caption in figure.panels:
        if caption in figure.scales:
            draw_scale(canvas, figure.scales[caption], x, y, width)
        return
    if reason := figure.no_evidence_reason(caption):
        canvas.text(x, y, shorten(f"no evidence: {reason}", 13, width), 13, WRONG)
        return
    signed = figure.is_signed(caption)
    low, high, bar = _ends(figure, caption)
    reason = _doubt(figure, caption)
    start, end = x, x + width
    x = canvas.text(x, y, low, 13, MUTED)[2] + _GAP
    colors = color_bar(bar, 10, signed=signed, colormap=figure.colormap)
    if reason:
        colors = (FAINT_SHARE * colors + (1 - FAINT_SHARE) * PAPER[0]).astype(np.uint8)
    canvas.paste(colors, x, y + 4)
    x += bar + _GAP
    note = f"{high} (clip's maximum)"
    if caption in figure.ends:
        note = f"{high} (up to {figure.ends[caption][1]:.2g})"
    elif caption in figure.grainy:
        note = f"{high} (up to {clip_scale(figure.heat(caption), signed=signed):.2g})"
    elif len(figure.sharing(caption)) > 1:  # the scale is that of all of them
        note = f"{high} (max {clip_scale(figure.heat(caption), signed=signed):.2g})"
    beside = start + _scale_width(figure, caption)
    if reason and beside + text_width(reason, 13) <= end:
        canvas.text(x, y, high, 13, MUTED)
        canvas.text(beside, y, reason, 13, WRONG)
    else:
        canvas.text(x, y, note if x + text_width(note, 13) <= end else high, 13, MUTED)


def _ends(figure: ClipFigure, caption: str) -> tuple[str, str, int]:
    """The numbers at the ends of a heatmap's scale, and how wide its colours are."""
    high = f"{figure.scale(caption):.2g}"
    low = f"-{high}" if figure.is_signed(caption) else "0"
    return low, high, 60 if len(figure.sharing(caption)) > 1 else _BAR_WIDTH


def _doubt(figure: ClipFigure, caption: str) -> str:
    """Why a heatmap is faint; "" where it is not, or is not drawn at all."""
    reason = figure.doubts.get(caption)
    return f"faint: {reason}" if reason and not figure.no_evidence_reason(caption) else ""


def _scale_width(figure: ClipFigure, caption: str) -> int:
    """How far a heatmap's scale reaches, with its numbers and a gap behind them."""
    if not _doubt(figure, caption):
        return 0
    low, high, bar = _ends(figure, caption)
    return text_width(low, 13) + bar + 2 * _GAP + text_width(high, 13) + 12


def draw_scale(canvas: Canvas, panel: PanelScale, x: int, y: int, width: int) -> None:
    """The colour scale of a panel in one line of `width` pixels."""
    end = x + width
    low, high = (shorten(text, 13, (width - 40) // 2) for text in (panel.low, panel.high))
    bar = min(_BAR_WIDTH, width - text_width(low, 13) - text_width(high, 13) - 2 * _GAP)
    x = canvas.text(x, y, low, 13, MUTED)[2] + _GAP
    canvas.paste(resize(panel.colors[None].repeat(10, 0), 10, bar), x, y + 4)
    x += bar + _GAP
    both = f"{high} ({panel.note})" if panel.note else high
    canvas.text(x, y, both if x + text_width(both, 13) <= end else high, 13, MUTED)
