"""The page that shows a folder of explanations in a browser, with no network and no server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal
from urllib.parse import quote

import numpy as np

from lightning_cam.files import write_text
from lightning_cam.viz.clip_figure import column_text
from lightning_cam.viz.layout import percent
from lightning_cam.viz.page_entry import ReportEntry
from lightning_cam.viz.page_rows import plot_rows, strip_rows, track_list, track_row

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
_EAGER = 4  # videos whose first image is loaded at once; the others when they come into view


def write_report(
    folder: str | Path,
    entries: Iterable[ReportEntry],
    *,
    title: str = "lightning_cam explanations",
    summary: Mapping[str, str] | None = None,
    skipped: Mapping[str, str] | None = None,
    missing: Mapping[str, str] | None = None,
    downloads: Sequence[str | Path] = (),
    groups: Sequence[str] = (),
    figure: str | Path | None = None,
    above: str = "",
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
        missing: map of a clip that is there -> one line that says why the map is missing.
        downloads: more files to link to, such as scores.csv.
        groups: of `viz.OUTCOMES`; the clips stand below such headings, in this order, any others
            after them. Without it there are no headings.
        figure: an image about all clips, shown above them: their mean curves.
        above: HTML about all clips, its texts escaped, shown above them.

    Returns:
        The page's path.

    Raises:
        ValueError: a file lies outside the folder.
        FileNotFoundError: a file is missing.
    """
    folder = Path(folder)
    entries, skipped, missing = list(entries), skipped or {}, missing or {}
    all_clips = _figure(folder, figure, "Curves of the measures, all clips", "open")
    return write_page(
        folder,
        f"{above}{all_clips}\n{_cards(folder, entries, groups)}",
        title=title,
        counts=_counts(entries, skipped, missing),
        summary=summary,
        downloads=downloads,
        tools=len(entries) > 1,
        below=_left_out("Skipped clips", skipped) + _left_out("Missing maps", missing),
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
    kind: Literal["report", "study", "survey"] = "report",
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
        kind: which script and styles it has.

    Returns:
        The page's path.
    """
    folder = Path(folder)
    page = _template("page").substitute(
        title=escape(title),
        style=_asset("report.css") + ("" if kind == "report" else _asset(f"{kind}.css")),
        script=_asset(f"{kind}.js"),
        counts=escape(counts),
        summary=_definitions(summary or {}),
        downloads=" ".join(_link(folder, Path(path)) for path in downloads),
        tools="" if tools else "hidden",
        cards=body,
        skipped=below,
    )
    return write_text(folder / "index.html", page)


def _asset(name: str) -> str:
    return (files("lightning_cam.viz") / "assets" / name).read_text(encoding="utf-8")


def _template(name: str) -> Template:
    return Template(_asset(f"{name}.html"))


def reference(folder: Path, path: Path) -> str:
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
    return f'<a href="{reference(folder, path)}" download>{escape(path.name)}</a>'


def _figure(folder: Path, path: str | Path | None, title: str, state: str = "") -> str:
    """An image that opens on demand, or is "open"; nothing where there is none."""
    if path is None:
        return ""
    image = f'<img src="{reference(folder, Path(path))}" loading="lazy" alt="{escape(title)}">'
    return f'<details class="curves" {state}><summary>{escape(title)}</summary>{image}</details>'


def _counts(
    entries: Sequence[ReportEntry], skipped: Mapping[str, str], missing: Mapping[str, str]
) -> str:
    judged = [entry.right for entry in entries if entry.right is not None]
    parts = [f"{len(entries)} clip{'s' * (len(entries) != 1)}"]
    if judged:
        parts.append(f"{sum(judged)} of {len(judged)} predicted right")
    if skipped:
        parts.append(f"{len(skipped)} skipped")
    if missing:
        parts.append(f"{len(missing)} map{'s' * (len(missing) != 1)} missing")
    return " · ".join(parts)


def _definitions(items: Mapping[str, str]) -> str:
    """Names and what is said of them; several lines stand below their name."""
    found = []
    for name, text in items.items():
        wide = ' class="lines"' if "\n" in text else ""
        said = f"<code>{escape(text)}</code>" if name == "command" else escape(text)
        found.append(f"<dt{wide}>{escape(name)}</dt><dd{wide}>{said}</dd>")
    return "\n".join(found)


def _left_out(heading: str, reasons: Mapping[str, str]) -> str:
    if not reasons:
        return ""
    items = "\n".join(
        f"<li><b>{escape(name)}</b> {escape(reason)}</li>" for name, reason in reasons.items()
    )
    return f'<section class="skipped"><h2>{heading}</h2><ul>{items}</ul></section>'


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
    facts = {"explained": entry.extent} if entry.extent else {}
    if entry.shortfall:
        facts["missing"] = entry.shortfall
    if entry.label is not None:
        facts["true class"] = entry.label
    if entry.labels:
        facts["true classes"] = ", ".join(entry.labels)
    if entry.against is None and entry.target:
        facts["explaining"] = column_text(entry.target, entry.value)
    elif entry.against is not None:
        facts |= {"A": entry.target, "B": entry.against}
    facts |= entry.scores
    methods = "".join(
        f"<li>{escape(caption)}{_doubt(entry, caption)}</li>" for caption in entry.methods
    )
    return _template("card").substitute(
        verdict=verdict + " broad" * entry.broad,
        mark=_MARKS[entry.outcome],
        title=escape(entry.title or "clip"),
        video=reference(folder, entry.video),
        preload="metadata" if eager else "none",
        poster=reference(folder, entry.images.poster) if entry.images else "",
        shape=f"{entry.images.shape:.4f}" if entry.images else "",
        rows=reference(folder, entry.images.rows if entry.images else entry.sheet),
        fps=f"{entry.fps:g}",
        sheet=reference(folder, entry.sheet),
        facts=_definitions(facts),
        bars=_bars(entry) + track_list(entry),
        plots=plot_rows(entry),
        strip=strip_rows(entry),
        track=track_row(entry),
        unit="video" if entry.whole else "clip",
        piece=f"{1 / entry.fps:.2g} s" if entry.whole else "frame",
        zero=", in plots zero" if entry.lines else "",
        tables="".join(f'<div class="wide">{table_html(table)}</div>' for table in entry.tables),
        curves=_figure(folder, entry.curves, "Curves of the measures"),
        methods=methods,
        files=" ".join(_link(folder, path) for path in entry.files),
    )


def table_html(rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, headings first, as HTML."""
    head, *body = ([escape(text) for text in row] for row in rows)
    lines = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in body)
    return f'<table class="numbers"><tr><th>{"</th><th>".join(head)}</th></tr>{lines}</table>'


def _doubt(entry: ReportEntry, caption: str) -> str:
    """Why a map says nothing or is not to be trusted, as HTML; "" where it is."""
    why, doubt = entry.methods[caption], entry.doubts.get(caption)
    said = f"no evidence: {why}" if why else f"faint: {doubt}" if doubt else ""
    return f' <span class="none">{escape(said)}</span>' if said else ""


def _bars(entry: ReportEntry) -> str:
    """The likeliest classes, and in any case the true one and those explained."""
    shown = [
        pair
        for rank, pair in enumerate(entry.ranked)
        if rank < _CLASSES or pair[0] in (entry.label, *entry.labels, entry.target, entry.against)
    ]
    rows = []
    for name, probability in shown:
        kind = "hit" if name == entry.label or name in entry.labels else ""
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
