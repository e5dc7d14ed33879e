"""The work of a study: its clips, and what each of their cells still lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_cam.study.design import Design
from lightning_cam.study.journal import CellKey, StudyRow
from lightning_cam.study.networks import Network
from lightning_cam.study.references import Reference, references_beside

Missing = dict[str, tuple[str, ...]]  # cell -> measures that its map lacks


class WorkItem(NamedTuple):
    """One clip as one network sees it, and the cells it gets: what a process works on at a time."""

    network: Network
    input: str
    clip: int
    cells: tuple[str, ...]

    def key(self, cell: str) -> CellKey:
        return *self.network.key, self.input, self.clip, cell


def work_items(networks: Sequence[Network], design: Design) -> list[WorkItem]:
    """All clips of a study, those with most cells first, so that processes share evenly."""
    units = [
        WorkItem(network, name, index, design.cells_of(swept=index in network.swept[name]))
        for network in networks
        for name, indices in network.inputs.items()
        for index in indices
    ]
    return sorted(units, key=lambda unit: -len(unit.cells))


def shared_out(units: Sequence[WorkItem], processes: int) -> list[WorkItem]:
    """The units, each as several with some of its cells where there are more processes than units.

    Every n-th of these is a process's: `share.of(shared_out(units, share.count))`.
    """
    parts = processes // max(len(units), 1)
    return [
        unit._replace(cells=cells)
        for n in range(max(parts, 1))
        for unit in units
        if (cells := unit.cells[n :: max(parts, 1)])
    ]


def missing_work(
    unit: WorkItem, done: Mapping[CellKey, StudyRow], design: Design, *, retry: bool = False
) -> Missing:
    """What the cells of a clip lack; with `retry` also what failed before."""
    rows = {cell: done.get(unit.key(cell)) for cell in unit.cells}
    if unit.key("") in done and not any(rows.values()) and not retry:
        return {}  # the clip cannot be read
    asked = dict.fromkeys(unit.cells, tuple(design.measures))
    for key in references_of(unit, done, design):
        rows[key], asked[key] = done.get(unit.key(key)), design.compared
    lacking = {cell: _lacking(row, asked[cell], design, retry) for cell, row in rows.items()}
    return {cell: names for cell, names in lacking.items() if names}


def references_of(
    unit: WorkItem, done: Mapping[CellKey, StudyRow], design: Design
) -> dict[str, Reference]:
    """The maps that are measured beside the methods of a clip, as far as their grain is known."""
    mapped = (cell for cell in (*unit.cells, Reference().key) if cell not in design.sweep_only)
    rows = (done.get(unit.key(cell)) for cell in mapped)
    grains = [row["grain"] for row in rows if row is not None and "grain" in row]
    return {each.key: each for each in references_beside(grains, design.random_seeds)}


def _lacking(
    row: StudyRow | None, asked: tuple[str, ...], design: Design, retry: bool
) -> tuple[str, ...]:
    """The measures without which a cell is not finished, of those asked for."""
    if row is None or (row["error"] and retry):
        return asked
    if row["error"]:
        return ()
    entries = {name: row["measured"].get(design.digests[name]) for name in asked}
    return tuple(
        name for name, entry in entries.items() if entry is None or (entry["error"] and retry)
    )
