"""Names in any script in pictures: drawn where a font has them, else written out and said once."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw, ImageFont

from lightning_cam.tasks.classification.confusion import save_confusion
from lightning_cam.viz import drawing, fonts
from lightning_cam.viz.drawing import INK, PAPER, Canvas, shorten, text_width
from lightning_cam.viz.fonts import OWN, drawable, matplotlib_fonts, runs

JUMP = "\u8df3"  # of Chinese


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was looked up or said before, and the system has no fonts."""
    cached = (fonts.drawable, fonts.runs, fonts._font_of, drawing.text_width)
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
    monkeypatch.setattr(fonts, "_warned", set())
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def drawn(text: str, size: int = 14, anchor: str = "la") -> np.ndarray:
    canvas = Canvas(400, 60)
    canvas.text(200 if anchor[0] == "m" else 20, 20, text, size, anchor=anchor)
    (_, (x0, y0, x1, y1)) = canvas.boxes[0]
    inked = np.argwhere((canvas.pixels() != PAPER).any(-1))
    assert len(inked) and (inked.min(0) >= (y0, x0)).all() and (inked.max(0) < (y1, x1)).all()
    return canvas.pixels()


@pytest.mark.parametrize("anchor", ["la", "ma", "rm"])
def test_latin_text_is_drawn_as_it_always_was(anchor: str) -> None:
    for text in ("v_biking_01 (0.93)", "0.50 ± 0.10 …"):
        image = Image.new("RGB", (400, 60), PAPER)
        at = (200 if anchor[0] == "m" else 20, 20)
        font = ImageFont.load_default(14)
        ImageDraw.Draw(image).text(at, text, INK, font, anchor)
        canvas = Canvas(400, 60)
        canvas.text(*at, text, 14, anchor=anchor)
        assert np.array_equal(canvas.pixels(), np.asarray(image))


NAMES = {
    "Greek": "\u03c0\u03b5\u03c1\u03c0\u03ac\u03c4\u03b7\u03bc\u03b1",
    "Cyrillic": "\u0438\u0434\u0442\u0438 \u0434\u043e\u043c\u043e\u0439",
    "accents": "g\u00e5 p\u00e5 \u0142\u00f3d\u017a, t\u1ec7p",
    "accents in parts": "ga\u030a e\u0301 x\u0304",
    "Hebrew": "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "Arabic": "\u0645\u0634\u06cc \u0645\u06cc\u200c\u0631\u0648\u0645",
    "mixed": "clip_\u0438\u0434\u0442\u0438_07.avi",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_scripts_that_matplotlib_brings_a_font_for(name: str) -> None:
    """Names in Greek, Cyrillic, Hebrew and Arabic are drawn in their own letters."""
    assert drawable(name) == unicodedata.normalize("NFC", name)
    assert "".join(part for part, _ in runs(drawable(name))) == drawable(name)
    for part, path in runs(drawable(name)):
        known = fonts._characters(path)
        assert all(ord(c) in known or fonts._of_no_width(c) for c in part)
    whole, bare = drawn(name), drawn("".join(c if c.isascii() else "?" for c in name))
    assert not np.array_equal(whole, bare)
    assert text_width(shorten(name * 9, 14, 90), 14) <= 90


def test_a_word_is_in_one_font() -> None:
    own, other = OWN, fonts._dejavu()
    assert runs("caf\u00e9 ol\u00e9") == (("caf\u00e9 ol\u00e9", other),)
    assert runs("a \u03b1=0.5 b") == (("a ", own), ("\u03b1=0.5", other), (" b", own))


MISSING = {
    "CJK": (JUMP, "\\u8df3", "CJK"),
    "Hiragana": ("\u3042", "\\u3042", "HIRAGANA"),
    "Devanagari": ("\u0915\u094d", "\\u0915\\u094d", "DEVANAGARI"),
    "an emoji": ("\U0001f6b6\ufe0f", "\\U0001f6b6\ufe0f", "symbol"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_no_font_has_is_written_out_and_said_once(name: str) -> None:
    """Names in scripts that no font here has, and emoji."""
    text, code, script = MISSING[name]
    with pytest.warns(UserWarning, match=f"no font here has {script} characters") as said:
        assert drawable(f"go {text}_1") == f"go {code}_1"
        drawn(f"{text * 2} again")
    assert len(said) == 1 and "\n" not in str(said[0].message)


@pytest.mark.attack
def test_controls_are_written_out() -> None:
    """A name in a picture has controls, turns of direction, or bytes that are no text."""
    assert drawable("a\x1b[2J\u202eb\udce9") == "a\\x1b[2J\\u202eb\\xe9"
    assert drawable("a\n\tb") == "a b"


@pytest.fixture
def chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A font of the system that has one letter, a box."""
    pen = TTGlyphPen(None)
    for n, point in enumerate(((100, 0), (100, 700), (800, 700), (800, 0))):
        (pen.lineTo if n else pen.moveTo)(point)
    pen.closePath()
    box, empty = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "jump"])
    builder.setupCharacterMap({ord(JUMP): "jump"})
    builder.setupGlyf({".notdef": empty, "jump": box})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "jump": (900, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Jumping Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "jumping.ttf"
    builder.save(path)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_system_fonts", lambda: (str(tmp_path / "broken.ttf"), str(path)))
    return str(path)


def test_a_font_of_the_system_is_used_where_there_is_one(chinese: str) -> None:
    text = f"clip {JUMP}{JUMP}_7"
    assert drawable(text) == text
    parts = runs(text)
    assert "".join(part for part, _ in parts) == text and chinese in dict(parts).values()
    drawn(text)
    assert drawn(JUMP, 20).min() < 100


def test_fonts_of_the_system_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = fonts._system_fonts()
    assert not [path for path in found if "mpl-data" in path]


@pytest.mark.parametrize("raqm", [True, False])
def test_what_is_written_from_right_to_left(raqm: bool, monkeypatch) -> None:
    """Hebrew is seen from right to left, with or without the library for it."""
    monkeypatch.setattr(fonts.features, "check", lambda _: raqm)
    two = NAMES["Hebrew"]
    ((part, _),) = runs(two)
    assert part == (two if raqm else two[::-1])
    mixed = [part for part, _ in runs(f"to {two} (1)")]
    assert mixed == ["to ", two if raqm else two[::-1], " (1)"]
    ((part, _),) = runs("\u05d0\u05d1_\u05d2\u05d3_07.avi")
    assert raqm or part == "\u05d1\u05d0_\u05d3\u05d2_07.avi"


@pytest.mark.skipif(not fonts.features.check("raqm"), reason="Pillow has no libraqm here")
def test_a_line_begins_at_the_left() -> None:
    """A clip of a Hebrew name keeps its number and its ending behind the name."""
    name, end = NAMES["Hebrew"], "_\u03b1\u03b1\u03b1"
    where = [np.argwhere((drawn(text) != PAPER).any(-1))[:, 1].max() for text in (name, name + end)]
    both, alone = drawn(name + end), drawn(name)
    assert where[1] > where[0]
    assert np.array_equal(both[:, : where[0] - 2], alone[:, : where[0] - 2])


def test_confusion_matrices_have_the_same_fonts(tmp_path: Path, chinese: str) -> None:
    """Matplotlib has no glyphs missing, and takes no name for a formula."""
    matrix = torch.eye(4)
    names = ["walk", NAMES["Greek"], "$\\frac{", "\u3042"]
    with pytest.warns(UserWarning, match="no font here has HIRAGANA") as said:
        save_confusion(tmp_path / "a.png", matrix, names, "test")
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_confusion(tmp_path / "b.png", matrix, names, "test")
        with matplotlib_fonts([JUMP]):
            from matplotlib import rcParams

            assert rcParams["font.family"] == ["DejaVu Sans", "Jumping Sans"]
