"""The tables of numbers: which rows, which columns, and that they are the ones of the maps."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import batch_of
from test_config import composed

import lightning_cam as lc
from lightning_cam.attribution import Contrast
from lightning_cam.explaining.measured_files import page_measures
from lightning_cam.explaining.measuring import build_measures, measure_clip
from lightning_cam.explaining.score_tables import (
    RELEVANCE_COLUMNS,
    SCORE_COLUMNS,
    page_scores,
    relevance_rows,
    score_rows,
)
from lightning_cam.files import write_csv

MODEL = lc.Explainable.of(torch.nn.Identity(), [], ["wave", "smile", "c", "d"])


def explanation(target: int = 0, hot: int = 2, **attention: torch.Tensor) -> lc.Explanation:
    """Heat in one frame, three quarters of it on the left."""
    heat = torch.zeros(1, 6, 4, 4)
    heat[0, hot, 0, :2], heat[0, hot, 0, 2:] = 3, 1
    return lc.Explanation(
        heat, torch.tensor([target]), torch.tensor([[4.0, 2, 1, 0]]), attention, lc.GradCAM()
    )


def truth() -> dict[str, Any]:
    mask = torch.zeros(1, 6, 4, 4, dtype=torch.bool)
    left, right = mask.clone(), mask.clone()
    left[..., :2], right[..., 2:] = True, True
    action = torch.ones(1, 6, dtype=torch.bool)
    parts = {"mask/hand": left, "mask/object": right, "mask/nothing": mask}
    return {"mask": left | right, "action": action, **parts}


MEASURES = build_measures(composed("explain", "ckpt=x")["measure"], SCORE_COLUMNS)


def measured(batch: dict[str, Any], **maps: lc.Explanation) -> Any:
    return measure_clip(MODEL, maps, batch["video"], batch, MEASURES, pytest.fail)


def test_each_part_of_the_ground_truth_has_a_column(tmp_path: Path) -> None:
    clip = torch.zeros(1, 3, 6, 4, 4)
    with_truth, without = batch_of(clip) | truth(), batch_of(clip)
    maps = {"gradcam": explanation()}
    found = measured(with_truth, **maps)
    rows = [
        *score_rows(MODEL, maps, without, found=measured(without, **maps)),
        *score_rows(MODEL, maps, with_truth, found=found),
    ]
    table = write_csv(tmp_path / "scores.csv", rows, [*SCORE_COLUMNS, *MEASURES])
    bare, full = csv.DictReader(table.open())
    assert list(MEASURES) == ["pointing_actor", "energy_actor", "energy_action", "iou_action"]
    assert list(full) == [
        *SCORE_COLUMNS,
        *MEASURES,
        "energy_actor_hand",
        "energy_actor_object",
        "energy_actor_nothing",
    ]
    assert (full["energy_actor_hand"], full["energy_actor_object"]) == ("0.7500", "0.2500")
    assert full["energy_actor_nothing"] == ""  # a part that is never to be seen has no score
    assert full["energy_actor"] == full["energy_action"] == "1.0000"
    assert not [name for name in MEASURES if bare[name]] and not bare["energy_actor_hand"]
    assert page_scores(rows[1:]) == {"gradcam": "peak 0.500 s"}
    head, line = page_measures(rows[1:], MEASURES, found)
    assert dict(zip(head, line, strict=True)) == {
        "": "gradcam",
        "Pointing at the actor": "1.0000",
        "Energy on the actor": "1.0000",
        "Energy in the action": "1.0000",
        "IoU with the action": "0.1667",
        "Energy on the actor: hand": "0.7500",
        "Energy on the actor: object": "0.2500",
    }


def test_a_clip_in_which_nobody_is_seen_has_no_ground_truth() -> None:
    batch = batch_of(torch.zeros(1, 3, 6, 4, 4)) | truth()
    batch |= {key: torch.zeros_like(batch[key]) for key in batch if key.startswith("mask")}
    (found,) = measured(batch, gradcam=explanation()).values()
    assert set(found.texts().values()) == {""}


def test_a_contrast_has_a_row_for_each_of_its_classes() -> None:
    first, second = explanation(0, hot=1), explanation(3, hot=4)
    both = {"gradcam": Contrast(**vars(first), against=second)}
    rows = list(score_rows(MODEL, both, batch_of(torch.zeros(1, 3, 6, 4, 4))))
    assert [(r["method"], r["target"], r["peak_frame"]) for r in rows] == [
        ("gradcam", "wave", 3), ("gradcam", "d", 12),
    ]  # fmt: skip
    assert float(rows[0]["p_target"]) > float(rows[1]["p_target"])
    assert all(row["prediction"] == row["label"] == "wave" for row in rows)
    assert page_scores(rows) == {"gradcam for A": "peak 0.250 s", "gradcam for B": "peak 1.000 s"}


def test_relevance_has_a_row_for_each_frame_that_is_no_padding(tmp_path: Path) -> None:
    known = batch_of(torch.zeros(1, 3, 6, 4, 4), padded=2)
    weights = torch.arange(6.0)[None] / 15
    found = {
        "a": Contrast(**vars(explanation(0, hot=1)), against=explanation(1, hot=3)),
        "b": explanation(0, hot=2, attention=weights),
        "silent": explanation(0, hot=5),  # its only heat is in the padding
    }
    table = write_csv(
        tmp_path / "relevance.csv", list(relevance_rows(MODEL, found, known)), RELEVANCE_COLUMNS
    )
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0]) == list(RELEVANCE_COLUMNS) and len(rows) == 4 * 4
    assert [row["frame"] for row in rows] == [str(t) for t in range(4)] * 4
    assert [row["frame_idx"] for row in rows[:4]] == ["0", "3", "6", "9"]
    assert [row["time_s"] for row in rows[:4]] == ["0.000", "0.250", "0.500", "0.750"]
    shares = [row["share"] for row in rows]
    assert np.array(shares[:8], float).tolist() == [0, 1, 0, 0, 0, 0, 0, 1]
    assert [row["target"] for row in rows[:8]] == ["wave"] * 4 + ["smile"] * 4
    assert shares[12:] == [""] * 4
    assert [float(row["attention"]) for row in rows[8:12]] == pytest.approx(
        [t / 15 for t in range(4)], abs=1e-6
    )
    assert {row["attention"] for row in rows[:8]} == {""}
    assert {row["path"] for row in rows} == {"clip.mp4"}
