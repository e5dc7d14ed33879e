"""What a study will cost, said before it starts, and the time left, once a clip is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_cam.attribution import Explainable
from lightning_cam.attribution.method import as_attribution
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import UserError
from lightning_cam.study.design import Design
from lightning_cam.study.journal import CellKey, StudyRow
from lightning_cam.study.networks import Network
from lightning_cam.study.work_items import WorkItem, missing_work

Costs = Mapping[str, tuple[int, int] | None]  # cell -> forwards and backwards a clip, if known


def expected_cost(
    design: Design, units: Sequence[WorkItem], done: Mapping[CellKey, StudyRow]
) -> str:
    """The forwards and backwards of the maps that are missing, in words; "" where none is.

    Measures and the maps beside the methods come on top. A method that a network refuses costs
    nothing.
    """
    made: dict[tuple[str, str], Costs] = {}
    forwards = backwards = 0
    unknown: set[str] = set()
    for unit in units:
        cells = [
            cell
            for cell in missing_work(unit, done, design, retry=design.retry)
            if cell in design.cells and unit.key(cell) not in done
        ]
        if not cells:
            continue
        key = unit.network.key
        costs = made[key] if key in made else made.setdefault(key, _costs(design, unit))
        for cell in cells:
            cost = costs.get(cell)
            if cost is None:
                unknown.add(design.cells[cell].title)
            else:
                forwards, backwards = forwards + cost[0], backwards + cost[1]
    if not forwards:
        return ""
    words = f"methods run {forwards:,} forwards and {backwards:,} backwards at most"
    return f"{words}, besides {', '.join(sorted(unknown))}" if unknown else words


def _costs(design: Design, unit: WorkItem) -> Costs:
    """What each method costs on a clip, by the network's first clip that can be read."""
    network = unit.network
    found: dict[str, tuple[int, int] | None] = {}
    batch = _first_batch(network)
    if batch is None:
        return {}
    clip = batch["video"].to(network.task.device)
    model: Explainable = network.task.explainable(batch)
    for key, cell in design.cells.items():
        try:
            cost = as_attribution(cell.method).cost(model, clip)
        except Exception:  # the study says what a network refuses
            found[key] = (0, 0)
            continue
        found[key] = None if cost is None else (cost.forwards, cost.backwards)
    return found


def _first_batch(network: Network) -> Mapping[str, Any] | None:
    for indices in network.inputs.values():
        for index in indices:
            try:
                batch = collate([network.dataset[index]])
            except UserError:
                continue
            if not batch["error"][0]:
                return batch
    return None


def duration(seconds: float) -> str:
    """A time in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
