"""The curves of one clip (deletion, insertion), a small diagram for each method."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lightning_cam.study.page.clip_sheets import ClipSheet
from lightning_cam.study.results import Results
from lightning_cam.viz.curve_styles import COLORS

_WIDE, _HIGH, _POINTS = 150, 60, 40


def clip_curves(results: Results, clip: ClipSheet) -> str:
    """All methods' curves on one scale; "" of studies without measures that have any."""
    titles = results.design.titles
    found = {key: clip.rows[key]["curves"] for key in clip.names}
    values = [score for curves in found.values() for curve in curves.values() for score in curve]
    if not values:
        return ""
    low, high = min(0.0, *values), max(values)
    names = list(dict.fromkeys(name for curves in found.values() for name in curves))
    kinds = {name: f"line{n % len(COLORS)}" for n, name in enumerate(names)}
    key = " ".join(f'<b class="{kinds[n]}"></b>{escape(titles[n])}' for n in names)
    panels = "".join(
        f'<figure class="panel"><figcaption>{escape(clip.names[method])}</figcaption>'
        f'<svg class="score" viewBox="0 0 {_WIDE} {_HIGH}" preserveAspectRatio="none">'
        + "".join(
            f'<polyline class="{kinds[name]}" points="{_points(curve, low, high)}"/>'
            for name, curve in curves.items()
        )
        + "</svg></figure>"
        for method, curves in found.items()
        if curves
    )
    note = (
        f"{key} The score from {low:.2f} at the bottom to {high:.2f}, against the share of the "
        "clip that is hidden, or is back."
    )
    return f'<div class="panels small">{panels}</div><p class="note key">{note}</p>'


def _points(curve: Sequence[float], low: float, high: float) -> str:
    """At most 40 points of a curve, for a drawing."""
    steps = min(_POINTS, len(curve)) - 1 or 1
    places = [round(n * (len(curve) - 1) / steps) for n in range(steps + 1)]
    span, last = (high - low) or 1, max(len(curve) - 1, 1)
    return " ".join(
        f"{_WIDE * p / last:.0f},{(_HIGH - 2) * (1 - (curve[p] - low) / span) + 1:.0f}"
        for p in places
    )
