"""Measuring the cells of a study, clip by clip."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_cam.attribution import Explainable, Explanation, explain
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import UserError
from lightning_cam.errors import say as say_line
from lightning_cam.explaining.clip_explanations import network_outputs, probabilities
from lightning_cam.explaining.explain_command import on_device
from lightning_cam.explaining.journal import Journal
from lightning_cam.explaining.score_tables import one_row
from lightning_cam.metrics import Explained, Measured, measure
from lightning_cam.progress import progress
from lightning_cam.study.design import CELL_COLUMNS, Design
from lightning_cam.study.design_parts import Cell
from lightning_cam.study.journal import CellKey, StudyRow
from lightning_cam.study.networks import Network

_DIGITS = 5  # of a curve's points; areas are kept as they are
_Result = TypeVar("_Result")


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


def missing_cells(
    unit: WorkItem, done: Mapping[CellKey, StudyRow], *, retry: bool = False
) -> list[str]:
    """The cells of a clip that are not measured yet; with `retry`, those that failed as well."""
    found = [cell for cell in unit.cells if unit.key(cell) in done]
    if not retry:
        unreadable = unit.key("") in done and not found
        return [] if unreadable else [cell for cell in unit.cells if cell not in found]
    worked = [cell for cell in found if not failed(done[unit.key(cell)])]
    return [cell for cell in unit.cells if cell not in worked]


def failed(row: StudyRow) -> bool:
    """Whether a method failed on a clip, or a measure on its map."""
    return bool(row["error"] or row.get("unmeasured"))


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
        journal: takes the new ones.
        device: where to work.
        say: is told, once, of each clip that cannot be read.

    Raises:
        ConfigError: the device cannot be used.
    """
    work = [(unit, missing_cells(unit, done, retry=design.retry)) for unit in units]
    networks = list(dict.fromkeys(unit.network.key for unit, _ in work))
    work.sort(key=lambda pair: networks.index(pair[0].network.key))
    named: set[str] = set()
    with progress("study", sum(len(cells) for _, cells in work)) as advance:
        current: Any = None
        for unit, cells in work:
            if not cells:
                continue
            if current is not unit.network.task:
                if current is not None:
                    current.cpu()
                current = on_device(unit.network.task, device)
            for row in _measure(design, unit, cells):
                journal.add(row)
                if row["cell"]:
                    advance(1)
                    continue
                advance(len(cells))
                if row["clip_id"] not in named:
                    named.add(row["clip_id"])
                    say(f"skipped {row['clip_id']}: {row['error']}")


def _measure(design: Design, unit: WorkItem, cells: Sequence[str]) -> Iterator[StudyRow]:
    """The rows of one clip, as they are finished."""
    network = unit.network
    row: StudyRow = {
        "network": network.name,
        "trained": network.trained,
        "input": unit.input,
        "index": unit.clip,
        "clip_id": network.dataset.clips[unit.clip].clip_id,
        "sequence": network.sequence(unit.input, unit.clip),
        "device": _device_name(network.task.device),
        "cell": "",
        "error": "",
    }
    try:
        batch = collate([network.dataset[unit.clip]])
        reason = batch["error"][0]
    except UserError as error:
        reason = str(error)
    if reason:
        yield {**row, "error": _one_line(reason)}
        return
    clip = batch["video"].to(network.task.device)
    try:
        model: Explainable = network.task.explainable(batch)
        found = network_outputs(model, clip)
        if not bool(found.isfinite().all()):
            raise ValueError("the network's outputs are not finite")
    except Exception as error:
        yield from ({**row, "cell": cell, "error": _error_text(error)} for cell in cells)
        return
    target = found.argmax(1)  # as the paper: what the network says, right or not
    ranked = probabilities(model, found)
    label = int(batch["label"][0])
    row["label"] = model.name(label) if label >= 0 else ""
    row["prediction"] = model.name(int(target))
    row["p_target"] = ranked[int(target)][1] if ranked else None
    shared: dict[Any, Any] = {}
    asked = any("other" in each.needs for each in design.measures.values())
    other = _other_clip(unit) if asked else None

    def measure_map(e: Explanation) -> Measured:
        e = replace(e, outputs=found)  # no number depends on which cell is measured first
        made = Explained(model, clip, e, batch, shared, other=other)
        measured = measure(design.measures, made)
        one_row(("cells.csv", dict.fromkeys(CELL_COLUMNS)), ("a measure", measured.beside))
        return measured

    with progress(row["clip_id"], len(cells)) as advance:
        for key in cells:
            yield {**row, "cell": key, **_cell(design.cells[key], model, clip, target, measure_map)}
            advance(1)


def _other_clip(unit: WorkItem) -> Tensor | None:
    """The study's next clip that can be read, `(1, C, T, H, W)`; after the last the first."""
    network = unit.network
    indices = list(network.inputs[unit.input])
    place = indices.index(unit.clip)
    for index in (*indices[place + 1 :], *indices[:place]):
        try:
            batch = collate([network.dataset[index]])
        except UserError:
            continue
        if not batch["error"][0]:
            return batch["video"].to(network.task.device)
    return None


def _cell(
    cell: Cell,
    model: Explainable,
    clip: Tensor,
    target: Tensor,
    measure_map: Callable[[Explanation], Measured],
) -> StudyRow:
    """What is measured of one method on one clip; of a method that fails, why."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            e, seconds = _timed(clip, lambda: explain(model, cell.method, clip, target))
            measured, metric_seconds = _timed(clip, lambda: measure_map(e))
        except Exception as error:
            return {"error": _error_text(error)}
    unmeasured = {name: _error_text(error) for name, error in measured.failed.items()}
    if len(unmeasured) == len(measured.values):
        return {"error": next(iter(unmeasured.values()))}
    return {
        "error": "",
        "unmeasured": unmeasured,
        "values": {name: _number(value) for name, value in measured.values.items()},
        "numbers": {name: _number(value) for name, value in measured.beside.items()},
        "curves": {
            name: [round(value, _DIGITS) for value in curve.score[0].tolist()]
            for name, curve in measured.curves.items()
        },
        "flat": bool(e.heatmap.max() == e.heatmap.min()),
        "seconds": seconds,
        "metric_seconds": metric_seconds,
        "masks": _number_or_setting(e, "masks"),
        "map_error": _number_or_setting(e, "error"),
        "notes": ", ".join(e.notes.values()),
        "warning": "; ".join(dict.fromkeys(_one_line(w.message) for w in caught)),
    }


def _timed(clip: Tensor, work: Callable[[], _Result]) -> tuple[_Result, float]:
    """What the work returns, and the seconds it took."""
    _wait(clip)
    start = time.perf_counter()
    result = work()
    _wait(clip)
    return result, time.perf_counter() - start


def _wait(clip: Tensor) -> None:
    if clip.is_cuda:
        torch.cuda.synchronize(clip.device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _number(value: Tensor) -> float | None:
    """The number of one clip `(1,)`; None, which JSON can say, if it is not finite."""
    number = float(value[0])
    return number if isfinite(number) else None


def _number_or_setting(e: Explanation, name: str) -> float | None:
    """What a method found out of the clip, else its setting of that name."""
    if name in e.numbers:
        return _number(e.numbers[name])
    setting = vars(e.method).get(name)
    return None if setting is None else float(setting)


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {_one_line(error)}"


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())[:300]
