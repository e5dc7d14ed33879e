"""The page of several networks or questions: every clip once, with the maps of all.

index.html       clips on which the maps differ most come first
agreement.csv    how far two maps agree: clip, method and the two that are compared
scores.csv       the rows of all, as `explain.py` writes them, with the network or question
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.errors import DataError
from lightning_cam.explaining.clip_files import file_name, write_page_images
from lightning_cam.explaining.clip_results import ClipResult
from lightning_cam.explaining.score_tables import SCORE_COLUMNS
from lightning_cam.explaining.side_clips import TOP, Agreement, Case, SideClip, side_clip
from lightning_cam.files import write_csv
from lightning_cam.metrics import Statistics, mean_interval
from lightning_cam.progress import progress
from lightning_cam.viz import (
    ReportEntry,
    draw_sheet,
    drawn_video,
    save_png,
    table_html,
    write_report,
    write_video,
)
from lightning_cam.viz.layout import percent

FILES = ("index.html", "agreement.csv", "scores.csv")
_AGREEMENT_COLUMNS = ("clip_id", "method", "a", "b", "rank_correlation", "top_overlap")
_SURE = 5  # clips from which on an interval says more than that it is wide
_SCALES = {
    "method": "the maps of a method have one colour scale in each clip",
    "all": "all maps of a clip have one colour scale",
    "own": "each map has a colour scale of its own",
}


def write_side_page(
    folder: Path,
    cases: Sequence[Case],
    results: Mapping[Case, Sequence[ClipResult]],
    *,
    scale: str,
    fps: float,
    command: str,
) -> Path:
    """Write the page, its tables, and a video and a sheet of each clip.

    Args:
        folder: of the page; below it the folders of the cases.
        cases: networks and questions.
        results: of the clips of each case, in their order.
        scale: see `SideClip.figure`.
        fps: frames per second of the videos.
        command: what was typed.

    Raises:
        DataError: no clip was explained.
        WriteError: a file cannot be written.
    """
    found = _by_title(results)
    if not found:
        raise DataError(f"nothing to compare in {folder}: no clip was explained")
    entries: list[tuple[float, ReportEntry]] = []
    agreements: list[tuple[str, Agreement]] = []
    before: SideClip | None = None
    with progress("comparing", len(found)) as advance:
        for title, of_clip in found.items():
            clip = side_clip(title, of_clip)
            own = list(clip.agreements(before))
            agreements += [(title, agreement) for agreement in own]
            entries.append((_mean(own), _entry(folder, clip, own, scale, fps)))
            before = clip
            advance(1)
    rows = [{"clip_id": title, **_row(agreement)} for title, agreement in agreements]
    tables = [
        write_csv(folder / "agreement.csv", rows, _AGREEMENT_COLUMNS),
        write_csv(folder / "scores.csv", _scores(found), ["case", *SCORE_COLUMNS]),
    ]
    entries.sort(key=lambda pair: (not isfinite(pair[0]), pair[0]))  # even maps say nothing: last
    shown = [entry for _, entry in entries]
    return write_report(
        folder,
        shown,
        title="lightning_cam: explanations side by side",
        summary=_summary(cases, scale, command),
        missing=_missing(cases, found),
        downloads=tables,
        above=_table(_about(agreement for _, agreement in agreements)) + _links(folder, cases),
    )


def _by_title(
    results: Mapping[Case, Sequence[ClipResult]],
) -> dict[str, dict[Case, ClipResult]]:
    """Title -> case -> result, of all clips that a case has, in the order of the first."""
    found: dict[str, dict[Case, ClipResult]] = {}
    for case, of_case in results.items():
        for result in of_case:
            found.setdefault(result.entry.title, {})[case] = result
    return found


def _missing(
    cases: Sequence[Case], found: Mapping[str, Mapping[Case, ClipResult]]
) -> dict[str, str]:
    """What has no map of a clip -> why."""
    lacks: dict[str, str] = {}
    for title, results in found.items():
        for case in cases:
            if case not in results:
                lacks[f"{case.name} of {title}"] = "it could not be explained, see its own page"
            else:
                for method, reason in results[case].missing.items():
                    lacks[f"{case.name}, {method} of {title}"] = reason
    return lacks


def _entry(
    folder: Path, clip: SideClip, agreements: Sequence[Agreement], scale: str, fps: float
) -> ReportEntry:
    """Draw a clip, and what the page says of it."""
    figure, name = clip.figure(scale), file_name(clip.title)
    sheet = save_png(folder / f"{name}.png", draw_sheet(figure))
    moving = drawn_video(figure)
    video = write_video(folder / f"{name}.mp4", moving.frames, fps=fps)
    images = write_page_images(folder, figure, moving.middle, moving.shape)
    facts = {"not alike": "\n".join(clip.notes)} if clip.notes else {}
    tables = [table for table in (_numbers(clip.results), _pairs(agreements)) if len(table) > 1]
    return ReportEntry.of(
        figure, video, sheet, None, fps=fps, scores=facts, tables=tables, images=images
    )


def _numbers(results: Mapping[Case, ClipResult]) -> list[list[str]]:
    """What each network says of a clip, and what was measured of each map; headings first."""
    rows = [(case, result, row) for case, result in results.items() for row in result.scores]
    measured = dict.fromkeys(
        column
        for *_, row in rows
        for column, value in row.items()
        if column not in SCORE_COLUMNS and value != ""
    )
    table = [["", "method", "prediction", "explained", *(c.replace("_", " ") for c in measured)]]
    for case, result, row in rows:
        entry = result.entry
        said = f"{row['prediction']} {_share(row['p_prediction'])}".strip()
        mark = {True: " ✓", False: " ✗", None: ""}[entry.right]
        asked = f"{row['target']} {_share(row['p_target'])}".strip()
        own = [str(row.get(column, "")) for column in measured]
        table.append([case.name, row["method"], said + mark, asked, *own])
    return table


def _share(probability: Any) -> str:
    return percent(float(probability)) if probability else ""


def _pairs(agreements: Sequence[Agreement]) -> list[list[str]]:
    """How far the maps of a clip agree; headings first."""
    table = [
        ["agreement", "map of", "map of", "rank correlation", f"overlap of the hottest {TOP:.0%}"]
    ]
    table += [
        [each.method, each.a, each.b, _number(each.correlation), _number(each.overlap)]
        for each in agreements
    ]
    return table


def _scores(found: Mapping[str, Mapping[Case, ClipResult]]) -> list[dict[str, Any]]:
    return [
        {"case": case.name, **row}
        for results in found.values()
        for case, result in results.items()
        for row in result.scores
    ]


def _row(agreement: Agreement) -> dict[str, str]:
    values = agreement.method, agreement.a, agreement.b
    numbers = (agreement.correlation, agreement.overlap)
    texts = [f"{number:.6f}" if isfinite(number) else "" for number in numbers]
    return dict(zip(_AGREEMENT_COLUMNS[1:], (*values, *texts), strict=True))


def _mean(agreements: Sequence[Agreement]) -> float:
    return mean_interval(each.correlation for each in agreements).mean


def _about(
    agreements: Iterator[Agreement],
) -> Iterator[tuple[tuple[str, str, str], Statistics, Statistics, Statistics]]:
    """(method, a, b), and of all clips: correlation, overlap, correlation with another clip."""
    groups: dict[tuple[str, str, str], list[Agreement]] = {}
    for each in agreements:
        groups.setdefault((each.method, each.a, each.b), []).append(each)
    for pair, found in groups.items():
        yield (
            pair,
            mean_interval(each.correlation for each in found),
            mean_interval(each.overlap for each in found),
            mean_interval(each.elsewhere for each in found),
        )


def _table(
    rows: Iterator[tuple[tuple[str, str, str], Statistics, Statistics, Statistics]],
) -> str:
    """How far maps agree, over all clips, as HTML; "" where there are no two."""
    heads = (
        "method", "map of", "map of", "rank correlation", f"overlap of the hottest {TOP:.0%}",
        "rank correlation with another clip's map", "clips",
    )  # fmt: skip
    lines = [[*pair, *map(_interval, numbers), str(numbers[0].clips)] for pair, *numbers in rows]
    if not lines:
        return ""
    return (
        '<section class="wide"><h2>How far the maps agree</h2>'
        f"{table_html([heads, *lines])}"
        '<p class="note">Means, from five clips on with 95% intervals. By chance the overlap is '
        f"{TOP:.2f}; what maps of different clips have in common (the middle, say) is no agreement "
        "about a clip. The clips on which maps differ most come first.</p></section>"
    )


def _links(folder: Path, cases: Sequence[Case]) -> str:
    """To the page of each case."""
    pages = [(case, folder / case.folder / "index.html") for case in cases]
    links = " · ".join(
        f'<a href="./{escape(case.folder)}/index.html">{escape(case.name)}</a>'
        for case, page in pages
        if page.is_file()
    )
    return f'<p class="note">Each by itself, with larger images and all numbers: {links}</p>'


def _summary(cases: Sequence[Case], scale: str, command: str) -> dict[str, str]:
    networks = {case.network: str(case.ckpt) for case in cases}
    asked = dict.fromkeys(str(case.question) for case in cases)
    return {
        "networks": "\n".join(
            path if name == path else f"{name}: {path}" for name, path in networks.items()
        ),
        "explained": ", ".join(asked),
        "colours": _SCALES[scale],
        "command": command,
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }


def _interval(statistics: Statistics) -> str:
    if not isfinite(statistics.mean):
        return "n/a"
    if statistics.clips < _SURE:
        return _number(statistics.mean)
    low, high = _number(statistics.low), _number(statistics.high)
    return f"{_number(statistics.mean)} [{low}, {high}]"


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "n/a"
