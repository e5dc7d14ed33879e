"""The page that shows a folder of explanations in a browser, with no network and no server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np

from lightning_cam.viz.canvas import SPECTRA
from lightning_cam.viz.parts import percent, sums
from lightning_cam.viz.picture import ClipPicture, Stack, outcome

_HEADINGS = {
    "correct": "Correct",
    "confused": "Confused: the true class comes second",
    "wrong": "Wrong: the true class is not among the first two",
}
_MARKS = {
    "correct": "✓ right",
    "confused": "✗ wrong, the true class comes second",
    "wrong": "✗ wrong",
    "": "",
}
_CLASSES = 5  # shown for each clip, the rest is in the npz
_STRIPS = {"attention": "attention", "A": "first", "B": "second", "A - B": "both"}
_EAGER = 4  # videos whose first picture is loaded at once; the others when they come into view


@dataclass(frozen=True)
class ReportEntry:
    """One clip of the report.

    Args:
        picture: what is known about the clip; its frames and heatmaps are not kept.
        video, sheet, data: the clip's mp4, png and npz, inside the report's folder.
        fps: frames per second of the video.
        scores: more numbers about this clip, name -> text.
        curves: a picture of deletion and insertion, inside the report's folder.
    """

    title: str
    target: str
    label: str | None
    ranked: Sequence[tuple[str, float]]
    strips: Mapping[str, np.ndarray | None]
    moments: Sequence[str]
    kept: np.ndarray
    methods: Mapping[str, str]  # caption -> why it says nothing, "" where it does
    video: Path
    sheet: Path
    data: Path
    fps: float
    scores: Mapping[str, str] = field(default_factory=dict)
    against: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)  # of the strips
    curves: Path | None = None
    stacks: Mapping[str, Stack] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        picture: ClipPicture,
        video: str | Path,
        sheet: str | Path,
        data: str | Path,
        fps: float = 8,
        scores: Mapping[str, str] | None = None,
        curves: str | Path | None = None,
    ) -> ReportEntry:
        """Keep of a picture what the page needs: numbers and names, no pixels."""
        return cls(
            title=picture.title,
            target=picture.target,
            label=picture.label,
            ranked=picture.ranked,
            strips=picture.strips(),
            moments=[picture.moment(t) for t in range(len(picture.frames))],
            kept=picture.kept,
            methods={caption: picture.silence(caption) for caption in picture.heatmaps},
            video=Path(video),
            sheet=Path(sheet),
            data=Path(data),
            fps=fps,
            scores=scores or {},
            against=picture.against,
            kinds=picture.strip_kinds(),
            curves=None if curves is None else Path(curves),
            stacks=picture.stacks,
        )

    @property
    def outcome(self) -> str:
        """What the network made of the clip, see `viz.outcome`."""
        return outcome(self.ranked, self.label)

    @property
    def right(self) -> bool | None:
        """Whether the likeliest class is the true one; None where that cannot be said."""
        return self.outcome == "correct" if self.outcome else None


def write_report(
    folder: str | Path,
    entries: Iterable[ReportEntry],
    *,
    title: str = "lightning_cam explanations",
    summary: Mapping[str, str] | None = None,
    skipped: Mapping[str, str] | None = None,
    downloads: Sequence[str | Path] = (),
    groups: Sequence[str] = (),
    figure: str | Path | None = None,
) -> Path:
    """Write `folder/index.html`, which plays every clip and opens from the disk.

    All text is escaped, all references are relative, nothing is fetched from elsewhere.

    Args:
        folder: where the clips' files lie; the page shows files inside it only.
        entries: the clips, in the order of the page.
        title: the page's heading.
        summary: what was done, name -> text (checkpoint, model, methods, command, date ...);
            "command" is set in a fixed-width font.
        skipped: clip -> one line that says why it is missing.
        downloads: more files to link to, such as scores.csv.
        groups: of `viz.OUTCOMES`; the clips stand below such headings, in this order, any others
            after them. Without it there are no headings.
        figure: a picture about all clips, shown above them: their mean deletion and insertion.

    Returns:
        The page's path.

    Raises:
        ValueError: a file lies outside the folder.
        FileNotFoundError: a file is missing.
    """
    folder = Path(folder)
    entries, skipped = list(entries), skipped or {}
    all_clips = _figure(folder, figure, "Deletion and insertion, all clips", "open")
    return write_page(
        folder,
        f"{all_clips}\n{_cards(folder, entries, groups)}",
        title=title,
        counts=_counts(entries, skipped),
        summary=summary,
        downloads=downloads,
        tools=len(entries) > 1,
        below=_skipped(skipped),
    )


def write_page(
    folder: str | Path,
    body: str,
    *,
    title: str,
    counts: str = "",
    summary: Mapping[str, str] | None = None,
    downloads: Sequence[str | Path] = (),
    tools: bool = False,
    below: str = "",
) -> Path:
    """Write `folder/index.html` around a body of HTML; the arguments as for `write_report`.

    Args:
        folder: of the page.
        body: HTML, its texts escaped.
        title: the page's heading.
        counts: one line below it.
        summary: name -> text.
        downloads: files inside the folder to link to.
        tools: whether to offer the filter of clips.
        below: HTML behind the body.

    Returns:
        The page's path.
    """
    folder = Path(folder)
    page = _template("page").substitute(
        title=escape(title),
        style=_asset("report.css"),
        script=_asset("report.js"),
        counts=escape(counts),
        summary=_definitions(summary or {}),
        downloads=" ".join(_link(folder, Path(path)) for path in downloads),
        tools="" if tools else "hidden",
        cards=body,
        skipped=below,
    )
    path = folder / "index.html"
    partial = path.with_name(f".index.{os.getpid()}.part")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _asset(name: str) -> str:
    return (files("lightning_cam.viz") / "assets" / name).read_text(encoding="utf-8")


def _template(name: str) -> Template:
    return Template(_asset(f"{name}.html"))


def _reference(folder: Path, path: Path) -> str:
    """The path as a relative address, safe inside an attribute."""
    full = path if path.is_absolute() else folder / path
    full = Path(os.path.normpath(full.absolute()))
    base = Path(os.path.normpath(folder.absolute()))
    if not full.is_relative_to(base):
        raise ValueError(f"{path} lies outside the report's folder {folder}")
    if not full.is_file():
        raise FileNotFoundError(f"{full} is missing, so the report cannot show it")
    # "./" keeps a name such as "a:b.mp4" from being read as an address of another kind
    return escape("./" + quote(full.relative_to(base).as_posix()))


def _link(folder: Path, path: Path) -> str:
    return f'<a href="{_reference(folder, path)}" download>{escape(path.name)}</a>'


def _figure(folder: Path, path: str | Path | None, title: str, state: str = "") -> str:
    """A picture that opens on demand, or is "open"; nothing where there is none."""
    if path is None:
        return ""
    image = f'<img src="{_reference(folder, Path(path))}" loading="lazy" alt="{escape(title)}">'
    return f'<details class="curves" {state}><summary>{escape(title)}</summary>{image}</details>'


def _counts(entries: Sequence[ReportEntry], skipped: Mapping[str, str]) -> str:
    judged = [entry.right for entry in entries if entry.right is not None]
    parts = [f"{len(entries)} clip{'s' * (len(entries) != 1)}"]
    if judged:
        parts.append(f"{sum(judged)} of {len(judged)} predicted right")
    if skipped:
        parts.append(f"{len(skipped)} skipped")
    return " · ".join(parts)


def _definitions(items: Mapping[str, str]) -> str:
    return "\n".join(
        f"<dt>{escape(name)}</dt><dd>"
        + (f"<code>{escape(text)}</code>" if name == "command" else escape(text))
        + "</dd>"
        for name, text in items.items()
    )


def _skipped(skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ""
    items = "\n".join(
        f"<li><b>{escape(name)}</b> {escape(reason)}</li>" for name, reason in skipped.items()
    )
    return f'<section class="skipped"><h2>Skipped clips</h2><ul>{items}</ul></section>'


def _cards(folder: Path, entries: Sequence[ReportEntry], groups: Sequence[str]) -> str:
    """All clips, below headings where there are groups."""
    if not groups:
        return "\n".join(_card(folder, entry, n < _EAGER) for n, entry in enumerate(entries))
    sections, n = [], 0
    for kind in dict.fromkeys([*groups, *(entry.outcome for entry in entries)]):
        members = [entry for entry in entries if entry.outcome == kind]
        cards = [_card(folder, entry, n + k < _EAGER) for k, entry in enumerate(members)]
        n += len(members)
        heading = f"{_HEADINGS.get(kind, 'True class unknown')} ({len(members)})"
        body = "\n".join(cards) or '<p class="note">none found</p>'
        sections.append(f'<section class="group"><h2>{heading}</h2>\n{body}\n</section>')
    return "\n".join(sections)


def _card(folder: Path, entry: ReportEntry, eager: bool) -> str:
    verdict = {True: "right", False: "wrong", None: "unknown"}[entry.right]
    facts = {"true class": entry.label} if entry.label is not None else {}
    if entry.against is None:
        facts["explaining"] = entry.target
    else:
        facts |= {"A": entry.target, "B": entry.against}
    facts |= entry.scores
    methods = "".join(
        f"<li>{escape(caption)}"
        + (f' <span class="none">no evidence: {escape(why)}</span>' if why else "")
        + "</li>"
        for caption, why in entry.methods.items()
    )
    return _template("card").substitute(
        verdict=verdict,
        mark=_MARKS[entry.outcome],
        title=escape(entry.title or "clip"),
        video=_reference(folder, entry.video),
        preload="metadata" if eager else "none",
        fps=f"{entry.fps:g}",
        sheet=_reference(folder, entry.sheet),
        facts=_definitions(facts),
        bars=_bars(entry),
        strip=_strip(entry),
        curves=_figure(folder, entry.curves, "Deletion and insertion"),
        methods=methods,
        files=" ".join(_link(folder, path) for path in (entry.video, entry.sheet, entry.data)),
    )


def _bars(entry: ReportEntry) -> str:
    """The likeliest classes, and in any case the true one and those explained."""
    shown = [
        pair
        for rank, pair in enumerate(entry.ranked)
        if rank < _CLASSES or pair[0] in (entry.label, entry.target, entry.against)
    ]
    rows = []
    for name, probability in shown:
        kind = "hit" if name == entry.label else ""
        if name == entry.ranked[0][0] and entry.right is False:
            kind = "miss"
        share = float(np.clip(np.nan_to_num(probability), 0, 1))
        rows.append(
            f'<tr class="{kind}"><th>{escape(name)}</th><td class="bar">'
            f'<i style="width:{100 * share:.1f}%"></i></td>'
            f"<td>{escape(percent(probability))}</td></tr>"
        )
    left = len(entry.ranked) - len(shown)
    more = f'<p class="note">and {left} more class{"es" * (left != 1)}</p>' if left else ""
    return f'<table class="classes">{"".join(rows)}</table>{more}' if rows else ""


def _strip(entry: ReportEntry) -> str:
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


def _stacked(entry: ReportEntry, name: str, stack: Stack, even: float) -> str:
    """A row of bars one upon the other, the key below its name and the totals beside it."""
    kinds = [f"spectrum{n % len(SPECTRA)}" for n in range(len(stack.parts))]
    key = "".join(
        f'<b class="{kind}"></b>{escape(part)} '
        for kind, part in zip(kinds, stack.parts, strict=True)
    )
    head = f'<div class="row"><span>{escape(name)}<br>{key}</span>'
    if stack.silent:
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
    svg = _svg(entry, "spectra", bars, titles, even / high)
    return f"{head}{svg}<small>{totals}</small></div>"


def _svg(entry: ReportEntry, kind: str, bars: str, titles: Sequence[str], even: float) -> str:
    """Bars, a line at the even share (as a part of the height), what frames are called."""
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
