"""Measuring the cells of a study, clip by clip."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_cam.errors import say as say_line
from lightning_cam.explaining.explain_command import on_device
from lightning_cam.explaining.journal import Journal
from lightning_cam.progress import progress
from lightning_cam.study.clip_cells import clip_rows
from lightning_cam.study.cost import duration
from lightning_cam.study.design import Design
from lightning_cam.study.journal import CellKey, StudyRow
from lightning_cam.study.work_items import Missing, WorkItem, missing_work


@dataclass
class StudyProblems:
    """What went wrong on the way.

    Attributes:
        unreadable: clip -> why it could not be read.
        failed: cell (and measure) and reason -> how often.
        warned: cell -> what its warnings said.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    warned: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Collection[StudyRow]) -> StudyProblems:
        tally = cls()
        for row in rows:
            if not row["cell"]:
                tally.unreadable.setdefault(row["clip_id"], row["error"])
            elif row["error"]:
                tally.failed[f"{row['cell']}: {row['error']}"] += 1
                continue
            for name, why in row.get("unmeasured", {}).items():
                tally.failed[f"{row['cell']}, {name}: {why}"] += 1
            if row.get("warning"):
                tally.warned.setdefault(row["cell"], []).append(row["warning"])
        return tally


def measure_cells(
    design: Design,
    units: Sequence[WorkItem],
    done: Mapping[CellKey, StudyRow],
    journal: Journal,
    device: str,
    say: Callable[[str], None] = say_line,
) -> None:
    """Measure what is missing of these clips, and write a row for each cell.

    Args:
        design: the study.
        units: the clips of this process.
        done: rows that there are.
        journal: takes the new ones; the maps are kept beside it.
        device: where to work.
        say: is told, once, of each clip that cannot be read, and after the first one how long the
            others will take.

    Raises:
        ConfigError: the device cannot be used.
        WriteError: a row or a map cannot be written.
    """
    work = [(unit, missing_work(unit, done, design, retry=design.retry)) for unit in units]
    networks = list(dict.fromkeys(unit.network.key for unit, _ in work))
    work.sort(key=lambda pair: networks.index(pair[0].network.key))
    named: set[str] = set()
    told = False
    with progress("study", sum(_methods(missing, design) for _, missing in work)) as advance:
        current: Any = None
        for n, (unit, missing) in enumerate(work, 1):
            if not missing:
                continue
            begun = time.monotonic()
            if current is not unit.network.task:
                if current is not None:
                    current.cpu()
                current = on_device(unit.network.task, device)
            for row in clip_rows(design, unit, missing, done, journal.path.parent):
                journal.add(row)
                if row["cell"]:
                    advance(row["cell"] in design.cells)
                    continue
                advance(_methods(missing, design))
                if row["clip_id"] not in named:
                    named.add(row["clip_id"])
                    say(f"skipped {row['clip_id']}: {row['error']}")
                    break
            else:
                cells, rest = len(missing), sum(len(missing) for _, missing in work[n:])
                # what is left of a clip that was begun before says little: the maps beside its
                # methods, which take as long, are not among its cells yet
                if rest and not told and cells >= len(unit.cells):
                    told, took = True, time.monotonic() - begun
                    say(
                        f"a clip took {duration(took)}, the rest takes about "
                        f"{duration(took / cells * rest)}"
                    )


def _methods(missing: Missing, design: Design) -> int:
    """How many cells of methods are missing: which maps stand beside them shows on the way."""
    return sum(cell in design.cells for cell in missing)
