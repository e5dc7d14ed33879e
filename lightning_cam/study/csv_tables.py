"""Rows of cells.csv (every cell of every clip) and summary.csv (the tables, unrounded)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isnan

from lightning_cam.metrics import mean_interval
from lightning_cam.study.design import CELL_COLUMNS
from lightning_cam.study.journal import StudyRow
from lightning_cam.study.results import Results, of_measure


def cell_columns(results: Results) -> list[str]:
    """Columns of cells.csv: those of all studies, around those of measures and methods' numbers."""
    found = dict.fromkeys(results.design.measures)
    for row in results.rows:
        found |= dict.fromkeys(row.get("beside", ()))
    for row in results.rows:
        found |= dict.fromkeys(map(_number_column, row.get("numbers", ())))
    at = CELL_COLUMNS.index("flat")
    return [*CELL_COLUMNS[:at], *found, *CELL_COLUMNS[at:]]


def _number_column(name: str) -> str:
    """The column of what a method found out of a clip."""
    return f"numbers.{name}"


def cell_rows(results: Results) -> Iterator[StudyRow]:
    """Rows of cells.csv: one a network, input, clip and cell; measures that failed are warnings."""
    columns = cell_columns(results)
    for row in (*results.rows, *results.skipped):
        flat = {**row, **row.get("beside", {}), **row.get("values", {})}
        flat |= {_number_column(name): n for name, n in row.get("numbers", {}).items()}
        lost = [f"{name}: {why}" for name, why in row.get("unmeasured", {}).items()]
        said = [row.get("warning", ""), row.get("measure_warning", ""), *lost]
        flat["warning"] = "; ".join(filter(None, said))
        yield {key: "" if flat.get(key) is None else flat[key] for key in columns}


def summary_rows(results: Results) -> Iterator[StudyRow]:
    """Rows of summary.csv: what the tables show, unrounded, with 95% intervals of the means."""
    for table, cells, swept in results.tables():
        for group in results.groups:
            for shown, key in cells.items():
                found = results.of_cell(group, key, swept=swept)
                worked = [row for row in found if not row["error"]]
                line: StudyRow = {
                    "table": table, "network": group.network, "trained": group.trained,
                    "input": group.input, "row": shown, "cell": key, "clips": len(worked),
                    "failed": len(found) - len(worked),
                }  # fmt: skip
                yield line | _summary(worked, results.design.measures)


def _summary(worked: Sequence[StudyRow], measures: Iterable[str]) -> StudyRow:
    """The numbers of a row of summary.csv."""
    line: StudyRow = {}
    for name in measures:
        s = of_measure(worked, name)
        numbers = {"mean": s.mean, "std": s.std, "low": s.low, "high": s.high}
        line |= {f"{name}_{k}": "" if isnan(v) else f"{v:.6f}" for k, v in numbers.items()}
        line[f"{name}_clips"] = s.clips
    for name in ("seconds", "metric_seconds"):
        s = mean_interval(row[name] for row in worked)
        line[name] = "" if isnan(s.mean) else f"{s.mean:.4f}"
    return line
