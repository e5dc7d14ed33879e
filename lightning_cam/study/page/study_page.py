"""The page of a study, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from lightning_cam.study.claims import Conclusion
from lightning_cam.study.method_tables import main_tables, right_table, sweep_tables
from lightning_cam.study.networks import Network
from lightning_cam.study.page.agreement_matrix import agreement_matrix
from lightning_cam.study.page.clip_rows import clip_rows
from lightning_cam.study.page.clip_sheets import clip_sheets
from lightning_cam.study.page.method_numbers import chart_data, method_numbers
from lightning_cam.study.page.method_table import method_table
from lightning_cam.study.page.sanity_curves import sanity_curves
from lightning_cam.study.page.verdicts import verdicts
from lightning_cam.study.ranking_claims import RankingConclusion
from lightning_cam.study.results import Group, Results, title_of
from lightning_cam.viz import write_page
from lightning_cam.viz.page import reference

Conclusions = tuple[Sequence[Conclusion], Sequence[RankingConclusion]]


def write_study_page(
    folder: Path,
    results: Results,
    networks: Sequence[Network],
    conclusions: Conclusions,
    *,
    counts: str,
    summary: Mapping[str, str],
    plots: Sequence[Path],
    downloads: Sequence[Path],
) -> Path:
    """Write `folder/index.html`, and the videos of its clips into `folder/media`.

    Args:
        folder: of the study.
        results: its rows, sorted.
        networks: whose clips are shown; of networks that are not among them none are.
        conclusions: about differences, and about rankings.
        counts: what all numbers rest on, in words.
        summary: what was done, name -> text.
        plots: images inside the folder.
        downloads: files inside the folder.

    Returns:
        The page's path.
    """
    parts = [_section("Verdicts", verdicts(results, *conclusions))]
    if len(results.groups) > 1:
        options = "".join(
            f'<option value="group{n}">{escape(title_of(group))}</option>'
            for n, group in enumerate(results.groups)
        )
        parts.append(
            f'<p class="which"><label>Network and input <select id="group">{options}</select>'
            "</label></p>"
        )
    parts += [_group(folder, results, networks, n, group) for n, group in enumerate(results.groups)]
    shown = "\n".join(
        f'<p class="wide"><img src="{reference(folder, plot)}" alt="{escape(plot.stem)}" '
        'loading="lazy"></p>'
        for plot in plots
    )
    parts.append(_section("Curves and sweeps", shown))
    tables = (*main_tables(results), *sweep_tables(results), right_table(results))
    parts.append(_section("Tables as in tables.md", "\n".join(table.html() for table in tables)))
    return write_page(
        folder,
        "\n".join(parts),
        title=f"Study {results.design.name}",
        counts=counts,
        summary=summary,
        downloads=downloads,
        kind="study",
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}\n</section>" if body else ""


def _group(
    folder: Path, results: Results, networks: Sequence[Network], n: int, group: Group
) -> str:
    """One network on one input."""
    methods = method_numbers(results, group)
    parts = {
        "Methods and measures": method_table(results, group, methods, f"shown{n}"),
        "Two measures against each other": _chart(n, "measures"),
        "Cost against quality": _chart(n, "cost"),
        "Do measures agree?": agreement_matrix(results, group),
        "Do maps depend on the weights?": sanity_curves(results, group, methods),
        "Clips": clip_rows(folder, results, *clip_sheets(folder, results, group, networks)),
    }
    body = "\n".join(
        f'<section class="part{" half" * ("against" in title)}"><h3>{title}</h3>{part}</section>'
        for title, part in parts.items()
        if part
    )
    return (
        f'<section class="network" id="group{n}"><h2>{escape(title_of(group))}</h2>\n'
        f'<script type="application/json" class="data">{chart_data(results, methods)}</script>\n'
        f"{body}\n</section>"
    )


def _chart(n: int, kind: str) -> str:
    """A diagram of two numbers of all methods; the page's script draws it."""
    return (
        f'<figure class="chart" data-kind="{kind}"><div class="axes">'
        f'<label>up <select class="y"></select></label>'
        f'<label>across <select class="x"></select></label></div>'
        '<svg viewBox="0 0 640 440" role="group"></svg><figcaption role="status">Point at a '
        "method, or go there with Tab.</figcaption></figure>"
        "<noscript>Diagrams need JavaScript.</noscript>"
    )
