"""The work of a study: its clips, and what each of their cells still lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_cam.study.design import Design
from lightning_cam.study.journal import CellKey, StudyRow
from lightning_cam.study.networks import Network

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


def missing_work(
    unit: WorkItem, done: Mapping[CellKey, StudyRow], design: Design, *, retry: bool = False
) -> Missing:
    """What the cells of a clip lack; with `retry` also what failed before."""
    rows = {cell: done.get(unit.key(cell)) for cell in unit.cells}
    if unit.key("") in done and not any(rows.values()) and not retry:
        return {}  # the clip cannot be read
    lacking = {cell: _lacking(row, design, retry) for cell, row in rows.items()}
    return {cell: names for cell, names in lacking.items() if names}


def _lacking(row: StudyRow | None, design: Design, retry: bool) -> tuple[str, ...]:
    """The measures without which a cell is not finished."""
    if row is None or (row["error"] and retry):
        return tuple(design.measures)
    if row["error"]:
        return ()
    entries = {name: row["measured"].get(key) for name, key in design.digests.items()}
    return tuple(
        name for name, entry in entries.items() if entry is None or (entry["error"] and retry)
    )
