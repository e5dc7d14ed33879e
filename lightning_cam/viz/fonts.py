"""Fonts for names in any script: Pillow's own, then DejaVu Sans, then what the system has.

Pillow's font knows ASCII and little more. DejaVu Sans (Latin, Greek, Cyrillic, Arabic, Hebrew and
others) comes with matplotlib, which also finds the fonts of the system. A character that none of
them has is written out, such as `\\u8df3`, and its script is warned of once.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import ImageFont, features

from lightning_cam.errors import printable

Font = ImageFont.FreeTypeFont
OWN = ""  # in place of the path of Pillow's font
_KINDS = {"R": "R", "AL": "R", "NSM": "m", "BN": "m", "WS": "s"}  # of characters, by direction
# Signs that captions are fond of, as Pillow's font has them: our own captions look alike.
_PLAIN = str.maketrans(
    {
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{RIGHTWARDS ARROW}": "->",
    }
)


@lru_cache(maxsize=256)
def font(size: int, path: str = OWN) -> Font:
    """An anti-aliased font: the one that comes with Pillow, or a file."""
    if path == OWN:
        return ImageFont.load_default(size)  # type: ignore[return-value]
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=4096)
def drawable(text: str) -> str:
    """Text in one line of characters that some font has: others, and controls, written out."""
    text = " ".join(text.translate(_PLAIN).split())
    if text.isascii() and text.isprintable():
        return text
    text = printable(unicodedata.normalize("NFC", text))
    return "".join(c if _of_no_width(c) or _font_of(c) is not None else _said(c) for c in text)


@lru_cache(maxsize=4096)
def runs(text: str) -> tuple[tuple[str, str], ...]:
    """Drawable text in parts of one font each: (part, path of its font), from left to right."""
    if text.isascii():
        return ((text, OWN),)
    parts: list[tuple[str, str]] = []
    for n, word in enumerate(map(_runs_of_word, text.split(" "))):
        if n:
            before, after = parts[-1][1], word[0][1]
            parts.append((" ", before if before == after else OWN))
        parts += word
    found = [
        ("".join(piece for piece, _ in group), path)
        for path, group in groupby(parts, key=lambda part: part[1])
    ]
    return tuple((part if shapes(path) else _in_order(part), path) for part, path in found)


def shapes(path: str) -> dict[str, Any]:
    """How Pillow is to order and join letters of a font; nothing where it cannot.

    A line begins at the left, whatever script its first name is in.
    """
    return {"direction": "ltr"} if path != OWN and features.check("raqm") else {}


def _runs_of_word(word: str) -> list[tuple[str, str]]:
    """A word in one font where there is one that has all of it."""
    paths: list[str] = []
    for char in word:
        last = paths[-1] if paths else OWN
        paths.append(last if _of_no_width(char) else _font_of(char) or OWN)
    if len(set(paths)) > 1 and set(paths) <= {OWN, _dejavu()}:
        paths = [_dejavu()] * len(paths)
    return list(zip(word, paths, strict=True)) or [("", OWN)]


def _of_no_width(char: str) -> bool:
    """Joiners, and what chooses between shapes of the character before."""
    return char in "\u200c\u200d" or "\ufe00" <= char <= "\ufe0f"


@lru_cache(maxsize=4096)
def _font_of(char: str) -> str | None:
    """The path of a font that has a character, None if there is none."""
    if ord(char) in _characters(OWN):
        return OWN
    if ord(char) in _characters(_dejavu()):
        return _dejavu()
    return next((path for path in _system_fonts() if _has(path, char)), None)


@lru_cache(maxsize=2)
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path or io.BytesIO(font(14).font_bytes)).get_charmap())


def _has(path: str, char: str) -> bool:
    from matplotlib.ft2font import FT2Font

    try:
        found = FT2Font(path).get_char_index(ord(char)) != 0
        return found and bool(font(14, path))  # no bitmap of other sizes
    except (OSError, RuntimeError):
        return False


@lru_cache(maxsize=1)
def _dejavu() -> str:
    from matplotlib import get_data_path

    return str(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"))


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[str, ...]:
    """Fonts of the system, upright ones of common weight and without serifs first."""
    from matplotlib import get_data_path
    from matplotlib.font_manager import fontManager

    def plain(entry: Any) -> tuple[bool, bool, bool, str]:
        usual = entry.weight in (400, "normal", "regular")
        return entry.style != "normal", not usual, "Sans" not in entry.name, entry.fname

    entries = [e for e in fontManager.ttflist if not e.fname.startswith(get_data_path())]
    named = (e for e in entries if "LastResort" not in e.name.replace(" ", ""))  # boxes alone
    return tuple(entry.fname for entry in sorted(named, key=plain))


def _said(char: str) -> str:
    """A character that no font has, written out; of each script this is warned of."""
    code = char.encode("unicode_escape").decode()
    letter = unicodedata.category(char)[0] in "LM"
    _warn(unicodedata.name(char, "other").split()[0] if letter else "symbol", code)
    return code


_warned: set[str] = set()


def _warn(script: str, code: str) -> None:
    if script in _warned:
        return
    _warned.add(script)
    warnings.warn(
        f"no font here has {script} characters of names: images show them as {code}; install "
        "one, for example of Noto Sans",
        stacklevel=2,
    )


def _in_order(text: str) -> str:
    """A part as it is seen: stretches that are written from right to left, reversed."""
    kinds = "".join(_KINDS.get(unicodedata.bidirectional(c), "o") for c in text)
    for stretch in re.finditer(r"R(?:[Rms]*[Rm])?", kinds):
        start, end = stretch.span()
        text = text[:start] + text[start:end][::-1] + text[end:]
    return text


@contextmanager
def matplotlib_fonts(texts: Iterable[str]) -> Iterator[None]:
    """Within, matplotlib draws with the fonts of these drawable texts, and reads no formulas."""
    from matplotlib import rc_context
    from matplotlib.font_manager import FontProperties

    paths = {path for text in texts for _, path in runs(text)} - {OWN, _dejavu()}
    names = [FontProperties(fname=path).get_name() for path in sorted(paths)]
    with rc_context({"font.family": ["DejaVu Sans", *names], "text.parse_math": False}):
        yield
