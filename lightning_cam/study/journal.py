"""The rows of a study: one a cell and clip, see `explaining.journal`.

A cell's row says in `measured` what measures found, by the digests of their settings:

    {"network": ..., "cell": "gradcam", "seconds": 0.1, ..., "measured": {"3f2a90c1": {
        "value": 0.21, "numbers": {"deletion_tied": 0.0}, "curve": [...], "error": ""}}}

A measure that comes later adds a row of the same cell; all rows of a cell are one when read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_cam.explaining.journal import journal_rows, same_work

StudyRow = dict[str, Any]
CellKey = tuple[str, str, str, int, str]  # network, trained on, input, clip, cell


def cell_key(row: Mapping[str, Any]) -> CellKey:
    """Which cell of which clip a row is of; the cell is "" where a clip could not be read."""
    return row["network"], row["trained"], row["input"], row["index"], row["cell"]


def read_journal(folder: Path) -> dict[CellKey, StudyRow]:
    """The rows of all processes, those of a cell and clip as one; broken lines are left out."""
    rows: dict[CellKey, StudyRow] = {}
    for row in journal_rows(folder):
        try:
            key = cell_key(row)
            rows[key] = together(rows[key], row) if key in rows else row
        except (KeyError, TypeError, AttributeError):
            continue
    return rows


def together(row: StudyRow, other: StudyRow) -> StudyRow:
    """Two rows of one cell and clip as one, in either order: what has worked counts."""
    if row["error"] or other["error"]:
        return other if row["error"] else row
    measured = {**row.get("measured", {})}
    for key, entry in other.get("measured", {}).items():
        if key not in measured or measured[key]["error"]:
            measured[key] = entry
    return {**row, **other, "measured": measured}


def named(row: StudyRow, digests: Mapping[str, str]) -> StudyRow:
    """A row with what the measures of a study found under their names.

    Args:
        row: as in the journal.
        digests: measure -> digest of its settings.

    Returns:
        The row, for cells that worked with "values" (measure -> number or None), "beside" (column
        -> number or None), "curves" (measure -> points) and "unmeasured" (measure -> why).
    """
    measured = row.get("measured", {})
    found = {name: measured[key] for name, key in digests.items() if key in measured}
    beside: dict[str, float | None] = {}
    for entry in found.values():
        beside |= entry["numbers"]
    return (
        row
        if row["error"]
        else {
            **row,
            "values": {name: found[name]["value"] if name in found else None for name in digests},
            "beside": beside,
            "curves": {name: entry["curve"] for name, entry in found.items() if "curve" in entry},
            "unmeasured": {name: entry["error"] for name, entry in found.items() if entry["error"]},
        }
    )


def same_study(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note what makes a study this one; or see that it is the one that is there.

    Raises:
        UserError: see `same_work`.
    """
    same_work(folder, "study.json", facts, "a study")
