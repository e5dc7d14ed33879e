"""Rows of bars and plots over time for the page, as inline SVG whose frames can be clicked."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from lightning_cam.viz.clip_figure import Stack
from lightning_cam.viz.curve_styles import COLORS, runs, series_ticks
from lightning_cam.viz.drawing import SPECTRUM_COLORS
from lightning_cam.viz.layout import percent, sums
from lightning_cam.viz.moments import stretch_text
from lightning_cam.viz.page_entry import ReportEntry

_STRIPS = {
    "attention": "attention",
    "A": "first",
    "B": "second",
    "A - B": "both",
    "doubtful": "faint",
}


def strip_rows(entry: ReportEntry) -> str:
    """Bars for each frame as inline SVG: one unit wide, 40 units high a row."""
    even = 1 / max(int(entry.kept.sum()), 1)
    out = []
    for name, shares in entry.strips.items():
        kind = _STRIPS.get(entry.kinds.get(name, ""), "energy")
        if shares is None:
            out.append(f'<div class="row"><span>{escape(name)}</span><em>no evidence</em></div>')
            continue
        high = max(float(shares.max()), even)
        bars = "".join(
            f'<rect x="{t + 0.06:.2f}" y="{40 - h:.1f}" width=".88" height="{h:.1f}"/>'
            for t, h in enumerate(38 * np.maximum(shares, 0) / high)
        )
        titles = [percent(float(share)) for share in shares]
        out.append(
            f'<div class="row"><span>{escape(name)}</span>'
            f"{_svg(entry, kind, bars, titles, even / high)}"
            f"<small>max {escape(percent(float(shares.max())))}</small></div>"
        )
    return "\n".join([*out, *(_stacked(entry, *item, even) for item in entry.stacks.items())])


def track_row(entry: ReportEntry) -> str:
    """The likeliest classes over time as stretches that can be clicked; nothing without."""
    if not entry.track:
        return ""
    kinds, span = _track_kinds(entry), len(entry.moments) / entry.fps
    # A name that a stretch has no room for, of about 560 pixels, is said where the mouse is.
    fits = {name: (1.25 * len(name) + 2) / 100 * span for name in kinds}
    blocks = "".join(
        f'<button type="button" class="{kinds[name]}" data-s="{start - entry.offset:.3f}" '
        f'style="left:{100 * (start - entry.offset) / span:.3f}%;'
        f'width:{100 * (end - start) / span:.3f}%" '
        f'title="{escape(stretch_text(name, start, end, p))}">'
        f"{escape(name) if end - start >= fits[name] else ''}</button>"
        for name, start, end, p in entry.track
    )
    return f'<div class="row"><span>likeliest class</span><div class="track">{blocks}</div></div>'


def track_list(entry: ReportEntry) -> str:
    """The same in words, as a list that scrolls."""
    if not entry.track:
        return ""
    kinds = _track_kinds(entry)
    items = "".join(
        f'<li><button type="button" data-s="{start - entry.offset:.3f}"><b class="{kinds[name]}">'
        f"</b>{escape(stretch_text(name, start, end, p))}</button></li>"
        for name, start, end, p in entry.track
    )
    return f'<h3>Likeliest class</h3><ol class="stretches">{items}</ol>'


def _track_kinds(entry: ReportEntry) -> dict[str, str]:
    """Class -> the colour that it has in the plot above, else a grey."""
    plotted = next(iter(entry.lines.values()), {})
    known = {name: f"line{n % len(COLORS)}" for n, name in enumerate(plotted)}
    return {name: known.get(name, "rest") for name, *_ in entry.track}


def plot_rows(entry: ReportEntry) -> str:
    """A small plot for each title as inline SVG, on the frames of the strip below."""
    out = []
    for title, series in entry.lines.items():
        kinds = [f"line{n % len(COLORS)}" for n in range(len(series))]
        key = "<br>".join(
            f'<b class="{kind}"></b>{escape(name)}'
            for kind, name in zip(kinds, series, strict=True)
        )
        head = f'<div class="row"><span>{escape(title)}<br>{key}</span>'
        ticks = series_ticks(series.values())
        if not ticks:
            out.append(f"{head}<em>no values</em></div>")
            continue
        low, high = ticks[0], ticks[-1]
        curves = "".join(
            _polyline(values, kind, low, high)
            for values, kind in reversed([*zip(series.values(), kinds, strict=True)])
        )
        titles = [
            ", ".join(f"{n} {v[t]:.3g}" for n, v in series.items() if np.isfinite(v[t]))
            or "no values"
            for t in range(len(entry.moments))
        ]
        svg = _svg(entry, "plot", curves, titles, -low / (high - low))
        ends = f'<small class="ends"><i>{high:.4g}</i><i>{low:.4g}</i></small>'
        out.append(f"{head}{svg}{ends}</div>")
    return "\n".join(out)


def _polyline(values: np.ndarray, kind: str, low: float, high: float) -> str:
    """One series, a line for each stretch without a gap; a frame alone is a short one."""
    lines = []
    for run in runs(np.isfinite(values)):
        at = run + 0.5 if len(run) > 1 else run[0] + np.array([0.3, 0.7])
        y = np.broadcast_to(40 - 38 * (values[run] - low) / (high - low), at.shape)
        points = " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(at, y, strict=True))
        lines.append(f'<polyline class="{kind}" points="{points}"/>')
    return "".join(lines)


def _stacked(entry: ReportEntry, name: str, stack: Stack, even: float) -> str:
    """A row of bars one upon the other, the key below its name and the totals beside it."""
    kinds = [f"spectrum{n % len(SPECTRUM_COLORS)}" for n in range(len(stack.parts))]
    key = "".join(
        f'<b class="{kind}"></b>{escape(part)} '
        for kind, part in zip(kinds, stack.parts, strict=True)
    )
    head = f'<div class="row"><span>{escape(name)}<br>{key}</span>'
    if stack.empty:
        return f"{head}<em>no evidence</em></div>"
    high = max(float(stack.shares.sum(0).max()), even)
    tops = 40 - 38 * stack.shares.cumsum(0) / high  # (S, T)
    bottoms = np.concatenate([np.full_like(tops[:1], 40), tops[:-1]])
    bars = "".join(
        f'<rect class="{kinds[s]}" x="{t + 0.06:.2f}" y="{top:.1f}" width=".88" '
        f'height="{bottoms[s, t] - top:.1f}"/>'
        for (s, t), top in np.ndenumerate(tops)
    )
    titles = [
        ", ".join(f"{p} {percent(float(v))}" for p, v in zip(stack.parts, shares, strict=True))
        for shares in stack.shares.T
    ]
    said, values = sums(stack)
    lines = [
        f'<b class="{kind}"></b>{escape(value)}' for kind, value in zip(kinds, values, strict=False)
    ]
    totals = "<br>".join([said, *reversed(lines), *map(escape, values[len(lines) :])])
    svg = _svg(entry, "spectra doubtful" if stack.doubt else "spectra", bars, titles, even / high)
    doubt = f'<em class="doubt">{escape(f"faint: {stack.doubt}")}</em>' if stack.doubt else ""
    return f"{head}{svg}<small>{totals}</small>{doubt}</div>"


def _svg(entry: ReportEntry, kind: str, bars: str, titles: Sequence[str], even: float) -> str:
    """Bars or curves, a line at `even` (a part of the height), what frames are called."""
    count = len(entry.moments)
    pads = "".join(
        f'<rect class="pad" x="{t}" width="1" height="40"/>' for t in np.flatnonzero(~entry.kept)
    )
    columns = "".join(
        f'<rect class="hit" data-t="{t}" x="{t}" width="1" height="40">'
        f"<title>{escape(f'{moment}: {title}')}</title></rect>"
        for t, (moment, title) in enumerate(zip(entry.moments, titles, strict=True))
    )
    level = 40 - 38 * even
    return (
        f'<svg class="{kind}" viewBox="0 0 {count} 40" preserveAspectRatio="none">{pads}'
        f'<rect class="now" width="1" height="40"/>{bars}'
        f'<line x1="0" x2="{count}" y1="{level:.1f}" y2="{level:.1f}"/>{columns}</svg>'
    )
