"""Which run of a sweep, or of a job array, is which: `runs/NAME/sweep.csv`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from lightning_cam.commands.sweeps import sweeping
from lightning_cam.errors import UserError, say
from lightning_cam.files import read_csv, write_csv
from lightning_cam.locks import alone
from lightning_cam.training.runs import leaves

TABLE = "sweep.csv"


def note_run(
    folder: Path, config: Mapping[str, Any], metric: str = "", best: float | None = None
) -> Path | None:
    """Put a run of a sweep or of a job array into the table of its name, `runs/NAME/sweep.csv`.

    Args:
        folder: of the run, which has one row: the old one is replaced.
        config: its settings, from which what was typed gets its value.
        metric: that chooses the best checkpoint.
        best: its value there; None as long as there is none.

    Returns:
        The table; None where this is a single run, or it cannot be written, which is said.
    """
    if not sweeping() and "SLURM_ARRAY_TASK_ID" not in os.environ:
        return None
    table = folder.parent / TABLE
    row = {"folder": folder.name, "best": "" if best is None else f"{best:.6g}", "monitor": metric}
    row |= dict(_typed(config))
    try:
        with alone(table.with_name(f".{TABLE}.lock")):
            rows = read_csv(table) if table.exists() else []
            others = [other for other in rows if other.get("folder") != folder.name]
            write_csv(table, [*others, row], [*row])
    except (OSError, UserError, ValueError) as error:
        say(f"cannot add {folder.name} to {table}: {error}")
        return None
    return table


def _typed(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, value) of what was typed; of a setting as it has come out."""
    settings = dict(leaves(config))
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in OverridesParser.create().parse_overrides(list(typed)):
        key = str(override.key_or_group)
        value = settings.get(key, override.get_value_element_as_str())
        yield key, str(value)
