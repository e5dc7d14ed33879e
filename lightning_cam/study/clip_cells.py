"""The cells of one clip: each method's map is made once and kept, and measured as it is kept."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_cam.attribution import Attribution, Explainable, Explanation, explain
from lightning_cam.attribution.method import as_attribution
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import UserError
from lightning_cam.explaining.clip_explanations import (
    network_outputs,
    probabilities,
    true_label,
)
from lightning_cam.explaining.clip_files import file_name
from lightning_cam.explaining.score_tables import one_row
from lightning_cam.metrics import Explained, Measured, measure
from lightning_cam.progress import progress
from lightning_cam.study.design import CELL_COLUMNS, Design
from lightning_cam.study.journal import CellKey, StudyRow, together
from lightning_cam.study.kept_maps import KeptMap
from lightning_cam.study.references import Reference
from lightning_cam.study.work_items import Missing, WorkItem, missing_work, references_of

_DIGITS = 5  # of a curve's points; areas are kept as they are
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Clip:
    """A clip as the network sees it.

    Attributes:
        model: bound to the clip's batch.
        clip: `(1, C, T, H, W)`.
        batch: of this clip.
        outputs: of the network, `(1, K)`: no number depends on which cell is measured first.
        target: `(1,)`, what is explained.
        other: another clip of the study, alike, where a measure needs one.
        shared: what measures computed once.
    """

    model: Explainable
    clip: Tensor
    batch: Mapping[str, Any]
    outputs: Tensor
    target: Tensor
    other: Tensor | None
    shared: dict[Any, Any] = field(default_factory=dict)


def map_path(folder: Path, key: CellKey) -> Path:
    """Where the map of a cell of a clip is kept, below the folder of a study."""
    network, trained, name, clip, cell = key
    place = file_name("_".join(filter(None, (network, trained, name))))
    unique = hashlib.sha256("\0".join(map(str, key)).encode()).hexdigest()[:8]
    return folder / "maps" / place / str(clip) / f"{file_name(cell)}_{unique}.npz"


def clip_rows(
    design: Design,
    unit: WorkItem,
    missing: Missing,
    done: Mapping[CellKey, StudyRow],
    folder: Path,
) -> Iterator[StudyRow]:
    """The rows of one clip, as they are finished.

    Args:
        design: the study.
        unit: the clip.
        missing: what its cells lack.
        done: rows that there are; what they have a kept map of is measured from that.
        folder: of the study.

    Raises:
        WriteError: a map cannot be kept.
    """
    row = _identity(unit)
    try:
        batch = collate([unit.network.dataset[unit.clip]])
        reason = batch["error"][0]
    except UserError as error:
        reason = str(error)
    if reason:
        yield {**row, "error": _one_line(reason)}
        return
    try:
        seen = _seen(design, unit, batch)
    except Exception as error:
        yield from ({**row, "cell": cell, "error": _error_text(error)} for cell in missing)
        return
    row |= _facts(seen)
    known = dict(done)
    tried: set[str] = set()
    with progress(row["clip_id"], len(missing)) as advance:
        while missing:
            for key, names in missing.items():
                path = map_path(folder, unit.key(key))
                found = _cell(design, unit, seen, (key, names), known, path)
                new, before = {**row, "cell": key, **found}, known.get(unit.key(key))
                known[unit.key(key)] = new if before is None else together(before, new)
                yield new
                advance(key in design.cells)
            tried |= missing.keys()
            left = missing_work(unit, known, design)  # by now the grain of the maps is known
            missing = {key: names for key, names in left.items() if key not in tried}


def _cell(
    design: Design,
    unit: WorkItem,
    seen: _Clip,
    asked: tuple[str, tuple[str, ...]],
    known: Mapping[CellKey, StudyRow],
    path: Path,
) -> StudyRow:
    """What a cell's row says beside its clip: from the kept map, if there is one, else anew."""
    key, names = asked
    if key not in design.cells:
        return _reference(design, references_of(unit, known, design)[key], unit.clip, seen)
    before, method = known.get(unit.key(key)), design.cells[key].method
    kept = None if before is None or before["error"] else KeptMap.read(path)
    found: StudyRow = {"error": ""}
    if kept is None:
        names = tuple(design.measures)  # the map may be another one
        kept, found = _run(design, method, seen)
        if kept is not None:
            kept.write(path)
    return found if kept is None else found | _measured(design, method, seen, kept, names)


def _reference(design: Design, reference: Reference, index: int, seen: _Clip) -> StudyRow:
    """What measures say of a map that is no method's; it is quickly made again, and not kept."""
    method = reference.method(index, seen.model)
    if method is None:
        nothing: dict[str, Any] = {"value": None, "numbers": {}, "error": ""}
        return {
            "error": "",
            "measured": {design.digests[name]: nothing for name in design.directed},
        }
    kept, found = _run(design, method, seen)
    return found if kept is None else found | _measured(design, method, seen, kept, design.directed)


def _identity(unit: WorkItem) -> StudyRow:
    """What a row says of its clip, whether or not it can be read."""
    network = unit.network
    return {
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


def _seen(design: Design, unit: WorkItem, batch: Mapping[str, Any]) -> _Clip:
    """The clip with what the network says of it, and the column that is explained."""
    clip = batch["video"].to(unit.network.task.device)
    model: Explainable = unit.network.task.explainable(batch)
    outputs = network_outputs(model, clip)
    if not bool(outputs.isfinite().all()):
        raise ValueError("the network's outputs are not finite")
    column = unit.network.columns.get(unit.input)
    if column is not None:
        target = model.columns(column, clip)
    elif design.target == "true":
        if (label := true_label(batch)) < 0:
            raise ValueError(
                "the clip's true class is not known; study.target=predicted needs none"
            )
        target = model.columns(label, clip)
    else:
        target = outputs.argmax(1)  # as the paper: what the network says, right or not
    asked = any("other" in each.needs for each in design.measures.values())
    return _Clip(model, clip, batch, outputs, target, _other_clip(unit) if asked else None)


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


def _facts(seen: _Clip) -> StudyRow:
    """What a row says of the clip's classes."""
    model, target, label = seen.model, int(seen.target), true_label(seen.batch)
    ranked = probabilities(model, seen.outputs)
    return {
        "label": model.name(label) if label >= 0 else "",
        "prediction": model.name(int(seen.outputs.argmax(1))) if ranked else "",
        "target": model.name(target),
        "p_target": ranked[target][1] if ranked else None,
    }


def _run(design: Design, method: Attribution, seen: _Clip) -> tuple[KeptMap | None, StudyRow]:
    """A method's map, and what its row says; of one that fails, why."""
    rows = 0

    def counted(clip: Tensor) -> Tensor:
        nonlocal rows
        rows += len(clip)
        return seen.model.forward(clip)

    model = replace(seen.model, forward=counted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            e, seconds = _timed(seen.clip, lambda: explain(model, method, seen.clip, seen.target))
            kept = KeptMap.of(e, design.map_size)
        except Exception as error:
            return None, {"error": _error_text(error)}
    row = {
        "error": "",
        "grain": list(e.grain),
        "flat": bool(e.heatmap.max() == e.heatmap.min()),
        "seconds": seconds,
        "forwards": rows,
        "numbers": {name: _number(value) for name, value in e.numbers.items()},
        "notes": ", ".join(e.notes.values()),
        "warning": _warnings(caught),
    }
    return kept, row


def _measured(
    design: Design, method: Attribution, seen: _Clip, kept: KeptMap, names: Sequence[str]
) -> StudyRow:
    """What measures say of a kept map."""
    heat = kept.heatmap(seen.clip.shape[2:]).to(seen.clip.device)
    e = Explanation(
        heatmap=seen.model.without_padding(heat),
        target=seen.target,
        outputs=seen.outputs,
        attention={},
        method=as_attribution(method),
        level=None if kept.level is None else kept.level.to(heat),
    )
    measures = {name: design.measures[name] for name in names}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measured, seconds = _timed(
            seen.clip,
            lambda: measure(
                measures,
                Explained(seen.model, seen.clip, e, seen.batch, seen.shared, other=seen.other),
            ),
        )
    entries = {design.digests[name]: _entry(measured, name) for name in names}
    found: StudyRow = {"measured": entries, "metric_seconds": seconds}
    return found | ({"measure_warning": said} if (said := _warnings(caught)) else {})


def _entry(measured: Measured, name: str) -> dict[str, Any]:
    """What a measure found out, or why it did not."""
    entry: dict[str, Any] = {"value": None, "numbers": {}, "error": ""}
    try:
        if name in measured.failed:
            raise measured.failed[name]
        alone = replace(measured, numbers={name: measured.numbers.get(name, {})})
        one_row(("cells.csv", dict.fromkeys(CELL_COLUMNS)), ("a measure", alone.beside))
    except Exception as error:
        return {**entry, "error": _error_text(error)}
    entry["value"] = _number(measured.values[name])
    entry["numbers"] = {column: _number(value) for column, value in alone.beside.items()}
    if name in measured.curves:
        score = measured.curves[name].score[0].tolist()
        entry["curve"] = [round(value, _DIGITS) for value in score]
    return entry


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


def _warnings(caught: Sequence[warnings.WarningMessage]) -> str:
    return "; ".join(dict.fromkeys(_one_line(w.message) for w in caught))


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {_one_line(error)}"


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())[:300]
