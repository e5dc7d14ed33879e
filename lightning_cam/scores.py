"""The numbers of an explanation: rows of `scores.csv`, and what the report shows of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lightning_cam.attribution import Explainable, Explanation
from lightning_cam.gallery import probabilities
from lightning_cam.metrics.localisation import energy_inside, pointing_hits, temporal_iou

_COLUMNS = (
    "clip_id", "path", "label", "prediction", "p_prediction", "target", "p_target", "method",
    "peak_frame", "peak_time_s", "pointing_actor", "energy_actor", "energy_action", "iou_action",
)  # fmt: skip


def score_rows(
    model: Explainable, explanations: Mapping[str, Explanation], batch: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """One row of scores.csv for each method; without ground truth its columns stay empty."""
    label = int(batch["label"][0])
    for name, e in explanations.items():
        ranked = probabilities(model, e)
        target = int(e.target[0])
        best = max(range(len(ranked)), key=lambda k: ranked[k][1], default=None)
        heat = e.heatmap.cpu() * batch["valid"][:, :, None, None]
        energy = heat.clamp(min=0).sum((2, 3))[0]  # (T,)
        row = {
            "clip_id": batch["clip_id"][0],
            "path": batch["path"][0],
            "label": model.name(label) if label >= 0 else "",
            "prediction": "" if best is None else ranked[best][0],
            "p_prediction": "" if best is None else f"{ranked[best][1]:.6f}",
            "target": model.name(target),
            "p_target": f"{ranked[target][1]:.6f}" if ranked else "",
            "method": name,
        }
        if float(energy.max()) > 0:
            peak = int(energy.argmax())
            row["peak_frame"] = int(batch["frame_idx"][0, peak])
            row["peak_time_s"] = f"{float(batch['time_s'][0, peak]):.3f}"
        if "mask" in batch and bool(batch["mask"].any()):
            mask, action = batch["mask"], batch["action"]
            row["pointing_actor"] = _number(pointing_hits(heat, mask))
            row["energy_actor"] = _number(energy_inside(heat, mask))
            row["energy_action"] = _number(energy_inside(heat, action))
            row["iou_action"] = _number(temporal_iou(heat, action))
        yield row


def _number(value: Tensor) -> str:
    number = float(value[0])
    return "" if np.isnan(number) else f"{number:.4f}"


def shown_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the report shows of a clip's rows: method -> text."""
    shown: dict[str, str] = {}
    for row in rows:
        said = {
            "peak": f"{row['peak_time_s']} s" if row.get("peak_time_s") else "",
            "energy on the actor": row.get("energy_actor", ""),
            "energy in the action": row.get("energy_action", ""),
        }
        text = ", ".join(f"{key} {value}" for key, value in said.items() if value)
        if text:
            shown[row["method"]] = text
    return shown


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows, one column each of the known ones, and return the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path
