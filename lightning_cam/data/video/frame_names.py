"""The order of images by their names: the rule of every folder of images.

The last number in a name is the image's place in time: `frame_0001.png`, `IMG_12_rgb.jpg`.

- It is read by value, a decimal point included: 9.9, 9.95, 10, 10.05; `t=0.5.png`,
  `12.345678.png`. `1.5` and `1.50` are one number, leading zeros say nothing.
- Where it has several points (`1.10.2`, `2026.11.29`), what follows the last one is the number.
  So it is where all before the point is the same in a folder and what follows counts up by one in
  three digits or more (`shot2.0001.png`): as seconds these were more than a thousand a second.
- A minus counts at the beginning of a name and after `=`, `_`, `(` or `[` (`t=-0.5.png`), if other
  names of the folder have none. Else it is a hyphen: `take-1.png`, all of `-0001.png` ...

Names can leave the order open: by value 1.10 comes before 1.9, by counting it follows; in
`10-00-59.png` and `10-01-00.png` the last number alone is not the time. Where all numbers in the
names give another order than the last one does, `Order.doubt` says so, unless 10.05 or 9.34567
beside 9.9 shows that these are decimals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_NUMBERED = re.compile(
    r"(?P<before>.*?)(?P<number>[0-9]+(?:\.[0-9]+)*)[^0-9]*"
    r"\.(?:bmp|jpe?g|pgm|png|ppm|tiff?|webp)",
    re.IGNORECASE | re.DOTALL,
)
_DIGITS = re.compile("[0-9]+")
_MINUS = re.compile(r"(?:.*[=_(\[])?-", re.DOTALL)
_COUNTABLE = 4  # digits after a point that may count images
_FINEST = 3  # digits after a point from which on they may count images


class Name(NamedTuple):
    """An image's name, and what matters of it."""

    name: str
    before: str  # of its last number
    number: str  # digits, perhaps with points


class Order(NamedTuple):
    """Images in the order of their numbers.

    Attributes:
        numbers: whole numbers and names, ascending; decimals times `unit`.
        unit: a power of ten, 1 where the numbers are whole.
        doubt: why another order is as likely, in words; "" where none is.
    """

    numbers: list[tuple[int, str]]
    unit: int
    doubt: str


def numbered_name(name: str) -> Name | None:
    """An image's name with a number in it; None for any other."""
    if (stem := name[:-4]).isdigit() and stem.isascii() and name.endswith((".jpg", ".png")):
        return Name(name, "", stem)  # as below, in a third of the time: of most folders
    match = _NUMBERED.fullmatch(name)
    return Name(name, match["before"], match["number"]) if match else None


def in_order(names: Sequence[Name]) -> Order:
    """The images of a folder in their order, by the rule of this module."""
    parts = {of.name: of.number.split(".") for of in names}
    points = [part for part in parts.values() if len(part) > 1]
    decimal = bool(points) and not _counted(list(parts.values()))
    digits = max(len(part[-1]) for part in points) if decimal else 0
    minus = {of.name for of in names if _MINUS.fullmatch(of.before)}
    signed = len(minus) < len(names)
    numbers = []
    for name, part in parts.items():
        number = int(part[-1])
        if decimal:
            number = int(part[0] + "".join(part[1:]).ljust(digits, "0"))
        numbers.append((-number if signed and name in minus else number, name))
    numbers.sort()
    if minus:
        padded = any(part[0] != str(int(part[0])) for part in parts.values())
        unsure = not signed and not padded and len(names) > 1
        doubt = "they have a minus or a hyphen before all numbers, which does not count"
        return Order(numbers, 10**digits, doubt if unsure else "")
    return Order(numbers, 10**digits, _doubt(names, points, numbers, decimal))


def _counted(parts: Sequence[Sequence[str]]) -> bool:
    """Whether what follows the last point is the whole number."""
    if any(len(part) > 2 for part in parts):
        return True
    whole, width = parts[0][0], len(parts[0][-1])
    if width < _FINEST or not all(
        len(part) == 2 and part[0] == whole and len(part[1]) == width for part in parts
    ):
        return False
    last = sorted(int(part[1]) for part in parts)
    return any(following - number == 1 for number, following in pairwise(last))


def _doubt(
    names: Sequence[Name],
    points: Sequence[Sequence[str]],
    numbers: Sequence[tuple[int, str]],
    decimal: bool,
) -> str:
    """Where all numbers in the names order two images otherwise, in words."""
    if not points and len({of.before for of in names}) == 1:  # most folders, and fast
        return ""
    behind = [part[-1] for part in points if len(part[-1]) > 1]
    fine = any(digits[0] == "0" or len(digits) > _COUNTABLE for digits in behind)
    if decimal and fine and all(digits[-1] != "0" for digits in behind):
        return ""  # as decimals are written, and nothing that counts
    keys = {of.name: list(map(int, _DIGITS.findall(of.before + of.number))) for of in names}
    for (number, name), (following, other) in pairwise(numbers):
        if keys[other] < keys[name] and number != following:
            how = "value" if decimal else "their last numbers"
            return f"{name} comes before {other} by {how}, and after it by all their numbers"
    return ""
