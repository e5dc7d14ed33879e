"""One map of one clip: made by its method, and measured as it is kept."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_cam.attribution import Attribution, Explanation, explain
from lightning_cam.attribution.method import as_attribution
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.explaining.score_tables import one_row
from lightning_cam.metrics import Explained, Measured, measure
from lightning_cam.study.design import CELL_COLUMNS, Design
from lightning_cam.study.journal import StudyRow
from lightning_cam.study.seen_clip import SeenClip

_DIGITS = 5  # of a curve's points; areas are kept as they are
_Result = TypeVar("_Result")


def make_map(
    design: Design, method: Attribution, seen: SeenClip
) -> tuple[KeptMap | None, StudyRow]:
    """A method's map, and what its row says; of one that fails, why."""
    rows = 0

    def counted(clip: Tensor, **inputs: Any) -> Any:
        nonlocal rows
        rows += len(clip)
        return seen.model.forward(clip, **inputs)

    model = replace(seen.model, forward=counted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            e, seconds = _timed(seen.clip, lambda: explain(model, method, seen.clip, seen.target))
            kept = KeptMap.of(e, design.map_size)
        except Exception as error:
            return None, {"error": error_text(error)}
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


def measure_map(
    design: Design, method: Attribution, seen: SeenClip, kept: KeptMap, names: Sequence[str]
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
        return {**entry, "error": error_text(error)}
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


def _number(value: Tensor) -> float | None:
    """The number of one clip `(1,)`; None, which JSON can say, if it is not finite."""
    number = float(value[0])
    return number if isfinite(number) else None


def _warnings(caught: Sequence[warnings.WarningMessage]) -> str:
    return "; ".join(dict.fromkeys(one_line(w.message) for w in caught))


def error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def one_line(text: Any) -> str:
    return " ".join(str(text).split())[:300]
