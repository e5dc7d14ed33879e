"""Whether the text of a picture can be read: nothing cut off, nothing on top of another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lightning_cam.viz.drawing import Canvas


def keep_canvases(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """A list that gets every canvas that is drawn on during the test."""
    made: list[Canvas] = []
    init = Canvas.__init__

    def register(self: Canvas, width: int, height: int) -> None:
        init(self, width, height)
        made.append(self)

    monkeypatch.setattr(Canvas, "__init__", register)
    return made


def assert_readable(canvases: Sequence[Canvas]) -> None:
    for canvas in canvases:
        width, height = canvas.image.size
        for n, (text, (x0, y0, x1, y1)) in enumerate(canvas.boxes):
            assert x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height, f"{text!r} is cut off"
            for other, (a0, b0, a1, b1) in canvas.boxes[:n]:
                apart = x1 <= a0 or a1 <= x0 or y1 <= b0 or b1 <= y0
                assert apart, f"{text!r} runs into {other!r}"


def said(canvases: Sequence[Canvas]) -> list[str]:
    """Every text that was drawn."""
    return [text for canvas in canvases for text, _ in canvas.boxes]
