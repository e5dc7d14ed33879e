"""What `explain.py` measures, beside which baselines, what that costs, and what it writes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import Gap3d, batch_of, clip_of, describe

import lightning_cam as lc
from lightning_cam.errors import UserError
from lightning_cam.explaining.clip_explanations import explain_clip
from lightning_cam.explaining.measured_files import (
    CURVE_COLUMNS,
    RunMeasurements,
    failed_measures,
    nothing_measured,
    page_measures,
)
from lightning_cam.explaining.measuring import measure_clip, with_baselines
from lightning_cam.explaining.score_tables import SCORE_COLUMNS, score_rows
from lightning_cam.files import write_csv
from lightning_cam.metrics import DeletionArea, InsertionArea

CLASSES = ["wave", "smile", "c", "d"]
METHODS = {"gradcam": lc.GradCAM(), "space": lc.GradCAM(pool="space", relu=False)}


@pytest.fixture
def model() -> lc.Explainable:
    torch.manual_seed(0)
    return describe(Gap3d().eval(), outputs=CLASSES)


@pytest.fixture
def clip() -> torch.Tensor:
    return clip_of(1, 3, 6, 16, 16)


def node(measure: str = "Deletion", **settings: Any) -> dict[str, Any]:
    return {"_target_": f"lightning_cam.metrics.{measure}Area", **settings}


def both(**settings: Any) -> dict[str, Any]:
    """Deletion and insertion, set alike."""
    return {name.lower(): node(name, **settings) for name in ("Deletion", "Insertion")}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "default"),
        ({"protocol": "rise"}, "rise"),
        ({"protocol": "bayer2022", "steps": 20}, "bayer2022, steps=20"),
        ({"unit": [1, 8, 8], "batch": 4}, "default, unit=(1, 8, 8)"),
        ({"steps": 99, "normalised": True}, "default, steps=99, normalised"),
        ({"reference": "blur"}, "default, deleted=blur"),
        ({"protocol": lc.Protocol(order="least")}, "default, order=least"),
    ],
)
def test_settings_and_their_names(settings: dict[str, Any], name: str) -> None:
    assert DeletionArea(**settings).settings == name
    assert DeletionArea(**settings).better == ("higher" if "least" in name else "lower")
    assert InsertionArea(**settings).better == ("lower" if "least" in name else "higher")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"protocol": "best"}, "no protocol 'best'; nearest: default"),
        ({"stps": 3}, "does not take these settings: .*stps"),
        ({"steps": 0}, "steps must be a whole number from 1 on"),
        ({"unit": "pixel"}, "unit must be"),
        ({"reference": "white"}, "reference must be one of black, mean"),
        ({"protocol": 7}, "protocol=7 must be one of default, bayer2022, rise"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        RunMeasurements({"deletion": node(**settings)})
    assert "\n" not in str(caught.value)


def test_a_setting_that_a_protocol_does_not_have_is_named(model, clip) -> None:
    with pytest.raises(UserError, match="no setting of a protocol 'stps'; nearest: steps"):
        lc.deletion(model, clip, torch.rand(1, 6, 16, 16), stps=3)


@pytest.mark.parametrize("frames", [False, True])
def test_end_points_are_shared(model, clip, frames: bool) -> None:
    """S steps of both: 2 (S - 1) forwards a map, two for the references, none for the clip."""
    steps = 4 if frames else 20
    unit = {"unit": "frame"} if frames else {}
    explanations = explain_clip(model, METHODS, clip)
    rows = 0

    def count(_module: object, args: tuple[torch.Tensor]) -> None:
        nonlocal rows
        rows += len(args[0])

    handle = model.module.register_forward_pre_hook(count)
    measures = {
        "deletion": DeletionArea(steps=steps, **unit),  # type: ignore[arg-type]
        "insertion": InsertionArea(steps=steps, **unit),  # type: ignore[arg-type]
    }
    found = measure_clip(model, explanations, clip, batch_of(clip), measures, pytest.fail)
    handle.remove()
    assert rows == 2 + 2 * 2 * (steps - 1)
    for (name, column), measured in found.items():
        heat, target = explanations[name].heatmap, explanations[name].target
        assert column == int(target)
        for what, how in (("deletion", lc.deletion), ("insertion", lc.insertion)):
            alone = how(model, clip, heat, target, steps, **unit)
            torch.testing.assert_close(
                measured.curves[what].score, alone.score, rtol=1e-5, atol=1e-6
            )
            assert torch.equal(measured.values[what], measured.curves[what].auc)
            assert torch.equal(measured.numbers[what]["tied"], alone.tied)


def test_baselines_stand_behind_the_methods_once(model, clip) -> None:
    methods = {"gradcam": lc.GradCAM(), "noise": lc.RandomMap(seed=3)}
    explanations = explain_clip(model, methods, clip)
    compared = with_baselines(model, explanations, clip)
    assert list(compared) == ["gradcam", "noise", "centre"]
    assert torch.equal(compared["centre"].heatmap, lc.explain(model, lc.CentreMap(), clip).heatmap)
    assert torch.equal(compared["centre"].outputs, explanations["gradcam"].outputs)
    assert list(explanations) == ["gradcam", "noise"]


def test_tables_and_images_of_several_clips(model, tmp_path: Path) -> None:
    measurements, rows = RunMeasurements(both(steps=5)), []
    areas, kept = [], []
    for n in range(2):
        clip = clip_of(1, 3, 6, 16, 16, seed=n)
        batch = batch_of(clip) | {"clip_id": [f"clip {n}"]}
        explanations = explain_clip(model, METHODS, clip, "smile")
        plot = tmp_path / f"clip_{n}.curves.png"
        measured = measurements.clip(model, explanations, clip, batch, plot)
        assert measured.figure == plot and plot.is_file()
        kept.append(measured.kept)
        rows += score_rows(model, measured.explanations, batch, found=measured.found)
        areas.append(float(lc.deletion(model, clip, explanations["space"].heatmap, 1, 5).auc))
    (curves,) = measurements.write_points(tmp_path, kept)
    figure = measurements.draw(tmp_path, kept)
    assert figure == tmp_path / "curves.png" and figure.is_file()
    assert not failed_measures(kept)

    table = write_csv(tmp_path / "scores.csv", rows, measurements.columns)
    found = list(csv.DictReader(table.open()))
    assert list(found[0]) == [
        *SCORE_COLUMNS, "deletion", "insertion", "deletion_tied", "insertion_tied",
    ]  # fmt: skip
    assert [row["method"] for row in found] == ["gradcam", "space", "random", "centre"] * 2
    measured_areas = [float(row["deletion"]) for row in found if row["method"] == "space"]
    assert measured_areas == pytest.approx(areas, abs=1e-4)
    names = ("gradcam", "space", "random", "centre")
    shown = page_measures(rows[4:], measurements.measures, measured.found)
    columns = ("deletion", "insertion", "deletion_tied", "insertion_tied")
    assert shown[0] == [
        "",
        "Deletion",
        "Insertion",
        "Deletion: tied ranks",
        "Insertion: tied ranks",
    ]
    assert shown[1:] == [
        [m, *(row[column] for column in columns)] for m, row in zip(names, found[4:], strict=True)
    ]

    points = list(csv.DictReader(curves.open()))
    assert list(points[0]) == list(CURVE_COLUMNS) and len(points) == 2 * 4 * 2 * 6
    wanted = ("clip 1", "space", "deletion")
    own = [p for p in points if (p["clip_id"], p["method"], p["measure"]) == wanted]
    assert [float(p["fraction"]) for p in own] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    scores = np.array([float(p["score"]) for p in own])
    assert np.trapezoid(scores, dx=0.2) == pytest.approx(areas[1], abs=1e-5)
    assert {p["target"] for p in points} == {"smile"}


def test_a_contrast_is_measured_for_both_classes(model, clip, tmp_path: Path) -> None:
    explanations = explain_clip(model, METHODS, clip, "wave", against="c")
    measurements, batch = RunMeasurements(both(steps=4)), batch_of(clip)
    measured = measurements.clip(model, explanations, clip, batch, tmp_path / "a.png")
    assert set(measured.found) == {
        (name, of) for name in ("gradcam", "space", "random", "centre") for of in (0, 2)
    }
    rows = list(score_rows(model, measured.explanations, batch, found=measured.found))
    area = lc.insertion(model, clip, explanations["space"].against.heatmap, "c", 4).auc
    (row,) = (r for r in rows if (r["method"], r["target"]) == ("space", "c"))
    assert float(row["insertion"]) == pytest.approx(float(area), abs=1e-4)
    head, first, *others = page_measures(rows, measurements.measures, measured.found)
    assert first[0] == "gradcam for A"
    (own,) = (line for line in others if line[0] == "space for B")
    assert own[head.index("Insertion")] == row["insertion"]


def test_what_cannot_be_measured_is_told(model, clip, tmp_path: Path) -> None:
    explanations, batch = explain_clip(model, METHODS, clip), batch_of(clip)
    image = tmp_path / "a.png"
    measurements = RunMeasurements(both(unit="frame"))
    measured = measurements.clip(model, explanations, clip, batch, image)
    assert nothing_measured([measured.kept]) and measured.figure is None and not image.exists()
    why = "steps=100 is more than the clip's 6"
    failed = failed_measures([measured.kept])
    assert [text.partition(": ")[0] for text in failed] == ["deletion", "insertion"]
    assert all(why in text for text in failed)
    explanations["space"].heatmap[0, 0, 0, 0] = torch.nan
    measurements = RunMeasurements({**both(steps=4), "gini": {"_target_": GINI}})
    measured = measurements.clip(model, explanations, clip, batch, image)
    assert not nothing_measured([measured.kept])
    assert failed_measures([measured.kept]) == {
        f"{name}: the heatmap is not finite, so nothing can be ranked by it": "space of clip"
        for name in ("deletion", "insertion")
    }
    rows = list(score_rows(model, measured.explanations, batch, found=measured.found))
    given = {row["method"]: [bool(row[m]) for m in measurements.measures] for row in rows}
    assert given == {"space": [False] * 3} | {m: [True] * 3 for m in given if m != "space"}
    image = tmp_path / "only.png"
    only = {"space": explanations["space"]}
    assert RunMeasurements({"gini": {"_target_": GINI}}).clip(
        model, only, clip, batch, image
    ).figure is None and not image.exists()  # fmt: skip


GINI = "lightning_cam.metrics.GiniIndex"


def test_without_measures_there_is_nothing(model, clip, tmp_path: Path) -> None:
    explanations, batch = explain_clip(model, METHODS, clip), batch_of(clip)
    measurements = RunMeasurements({})
    measured = measurements.clip(model, explanations, clip, batch, tmp_path / "a.png")
    assert dict(measured.explanations) == explanations and measured.figure is None
    rows = list(score_rows(model, measured.explanations, batch, found=measured.found))
    assert set(rows[0]) == set(SCORE_COLUMNS)
    assert measurements.write_points(tmp_path, [measured.kept] * 2) == []
    assert measurements.draw(tmp_path, [measured.kept] * 2) is None
    assert page_measures(rows, {}, measured.found) == []
    assert not list(tmp_path.iterdir())


def test_maps_alone_are_not_compared_with_baselines(model, clip, tmp_path: Path) -> None:
    explanations, batch = explain_clip(model, METHODS, clip), batch_of(clip)
    measurements = RunMeasurements({"gini": {"_target_": GINI}})
    measured = measurements.clip(model, explanations, clip, batch, tmp_path / "a.png")
    assert list(measured.explanations) == ["gradcam", "space"]
