"""The rows of a study: one a cell and clip, see `explaining.journal`."""

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
    """The rows of all processes, the last of each cell and clip; broken lines are left out."""
    rows: dict[CellKey, StudyRow] = {}
    for row in journal_rows(folder):
        try:
            key = cell_key(row)
            if key not in rows or rows[key].get("error"):  # of a repetition, what has worked
                rows[key] = row
        except (KeyError, TypeError):
            continue
    return rows


def same_study(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note what makes a study this one; or see that it is the one that is there.

    Raises:
        UserError: see `same_work`.
    """
    same_work(folder, "study.json", facts, "a study")
