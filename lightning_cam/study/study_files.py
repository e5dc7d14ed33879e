"""The files of a study: tables, plots, conclusions, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lightning_cam.files import write_csv, write_text
from lightning_cam.metrics import settings_of
from lightning_cam.study.agreement import agreement_rows, agreement_tables, ranking_rows
from lightning_cam.study.claims import conclude, write_conclusions
from lightning_cam.study.csv_tables import cell_columns, cell_rows, summary_rows
from lightning_cam.study.gain_tables import gain_tables
from lightning_cam.study.journal import StudyRow
from lightning_cam.study.method_tables import describe, main_tables, right_table, sweep_tables
from lightning_cam.study.networks import Network
from lightning_cam.study.page import write_study_page
from lightning_cam.study.plots import write_plots
from lightning_cam.study.ranking_claims import (
    conclude_ranking,
    write_rankings,
)
from lightning_cam.study.results import Results, spectrum_name
from lightning_cam.study.tables import markdown_text


def write_study(folder: Path, results: Results, networks: Sequence[Network], command: str) -> Path:
    """Write everything that the rows say into `folder`; return the page."""
    tables = [*main_tables(results), *gain_tables(results), right_table(results)]
    tables += [*agreement_tables(results), *sweep_tables(results)]
    cells, summary = list(cell_rows(results)), list(summary_rows(results))
    for name, rows, columns in (
        ("cells", cells, cell_columns(results)),
        ("summary", summary, list(summary[0])),
    ):
        write_csv(folder / f"{name}.csv", rows, columns)
    title = f"Study {results.design.name}"
    text = "\n".join([f"# {markdown_text(title)}", "", *(table.markdown() for table in tables)])
    write_text(folder / "tables.md", text)
    conclusions = [conclude(results, claim) for claim in results.design.claims]
    basis = _basis(results)
    titles = results.design.titles
    rankings = [conclude_ranking(results, claim) for claim in results.design.ranking_claims]
    left_out = _left_out(results)
    said = " ".join(filter(None, (basis, describe(results).strip(), left_out)))
    text = write_conclusions(conclusions, said, titles) + write_rankings(rankings)
    write_text(folder / "conclusions.md", text)
    plots = write_plots(folder, results)
    files = ["tables.md", "conclusions.md", "summary.csv", "cells.csv"]
    for name, found in (
        ("rankings.csv", list(ranking_rows(results))),
        ("agreement.csv", list(agreement_rows(results))),
    ):
        if found:
            write_csv(folder / name, [_without_nan(row) for row in found], list(found[0]))
            files.append(name)
    names = ", ".join(
        f"{network.name} {spectrum_name(network.trained)}".strip() for network in networks
    )
    return write_study_page(
        folder,
        results,
        networks,
        (conclusions, rankings),
        counts=basis,
        summary={
            "networks": names,
            "checkpoints": ", ".join(str(network.path) for network in networks),
            "measures": settings_of(results.design.measures),
            **({"claims": left_out} if left_out else {}),
            "device": results.devices,
            "command": command,
            "date": f"{datetime.now():%Y-%m-%d %H:%M}",
        },
        plots=plots,
        downloads=[folder / name for name in files],
    )


def _without_nan(row: StudyRow) -> StudyRow:
    return {key: "" if value != value else value for key, value in row.items()}


def _basis(results: Results) -> str:
    """What all numbers rest on, in words."""
    maps = sum(not row["error"] for row in results.rows)
    clips, sequences = ({row[key] for row in results.rows} for key in ("clip_id", "sequence"))
    parts = [f"{maps} maps of {_counted(len(clips), 'clip')} measured"]
    if len(sequences) < len(clips):  # as several spectra show them
        parts[0] += f", which show {_counted(len(sequences), 'sequence')}"
    if failed := len(results.rows) - maps:
        parts.append(f"{_counted(failed, 'map')} could not be made")
    if results.skipped:
        unread = {row["clip_id"] for row in results.skipped}
        parts.append(f"{_counted(len(unread), 'clip')} could not be read")
    return f"{'; '.join(parts)}."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _left_out(results: Results) -> str:
    """Which claims and sweeps are not judged, and why; "" if all are."""
    about = [f"{', '.join(w)} (without {what})" for what, w in results.design.left_out.items()]
    return f"Left out: {'; '.join(about)}." if about else ""
