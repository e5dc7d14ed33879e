"""Seconds in words: the one way in which captions, pages and the terminal say them."""

from __future__ import annotations


def extent_text(first: float, last: float, duration: float) -> str:
    """Which seconds of a video were explained, as in "88.9-90.9 s of 180 s"."""
    within = f"{first:.1f}" if last - first < 0.05 else f"{first:.1f}-{last:.1f}"
    return f"{within} s of {short_seconds(duration)} s"


def short_seconds(seconds: float) -> str:
    """Seconds with a decimal where it says something."""
    return f"{seconds:.1f}".removesuffix(".0")


def clock(seconds: float, *, tenths: bool = False) -> str:
    """A moment of a video as players show it: 0:03, 12:40, 1:02:33."""
    count = int(seconds * 10 + 0.5) if tenths else 10 * int(seconds + 0.5)
    minutes, rest = divmod(count, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02d}" + (f".{rest % 10}" if tenths else "")
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"


def stretch_text(name: str, start: float, end: float, probability: float) -> str:
    """A stretch of time with its class, as in "walking 0:03-0:07 .91"."""
    at = clock(start), clock(end)
    if at[0] == at[1]:
        at = clock(start, tenths=True), clock(end, tenths=True)
    share = f"{min(probability, 0.99) if probability < 1 else 1:.2f}".removeprefix("0")
    return f"{name} {at[0]}-{at[1]} {share}"
