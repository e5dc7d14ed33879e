"""Settings of deletion and insertion, what `explain.py` measures, and what that costs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_cam.faithful import measure, protocol_name, protocol_of, with_baselines
from nets import Gap3d, batch_of, clip_of, describe

import lightning_cam as lc
from lightning_cam.errors import ConfigError
from lightning_cam.gallery import explain_clip
from lightning_cam.measurements import CURVES, Measurements
from lightning_cam.scores import SCORES, score_rows, write_csv

CLASSES = ["wave", "smile", "c", "d"]
METHODS = {"gradcam": lc.GradCAM(), "space": lc.GradCAM(pool="space")}


@pytest.fixture
def model() -> lc.Explainable:
    torch.manual_seed(0)
    return describe(Gap3d().eval(), outputs=CLASSES)


@pytest.fixture
def clip() -> torch.Tensor:
    return clip_of(1, 3, 6, 16, 16)


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (True, "default"),
        ("rise", "rise"),
        ({"protocol": "seed003", "steps": 20}, "seed003, steps=20"),
        ({"unit": [1, 8, 8], "batch": 4}, "default, unit=(1, 8, 8)"),
        ({"inserted": "zoom", "steps": 99}, "seed003"),
        (lc.Protocol(order="least"), "default, order=least"),
    ],
)
def test_settings_and_their_names(setting: object, name: str) -> None:
    protocol = protocol_of(setting)
    assert protocol is not None and protocol_name(protocol) == name
    assert protocol_of(protocol) == protocol


def test_off_and_the_few_steps_of_true() -> None:
    assert protocol_of(False) is None and protocol_of(None) is None
    assert protocol_of(True, steps=20) == lc.Protocol(steps=20)
    assert protocol_of("default", steps=20) == lc.Protocol()  # who names it gets it


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("best", "no protocol 'best'; nearest: default"),
        ({"protocol": "best"}, "no protocol 'best'"),
        ({"stps": 3}, "no setting of a protocol 'stps'; nearest: steps"),
        ({"steps": 0}, "steps must be a whole number from 1 on"),
        ({"unit": "pixel"}, "unit must be"),
        (7, "expected true, false, the name of a protocol"),
        ({"protocol": 7}, "no protocol '7'; have: default, seed003, rise"),
    ],
)
def test_wrong_settings_are_one_line(setting: object, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^faithfulness=.*{words}") as caught:
        Measurements(setting)
    assert "\n" not in str(caught.value)


def test_end_points_are_shared(model, clip) -> None:
    """S steps of both: 2 (S - 1) forwards a map, two for the references, none for the clip."""
    explanations = explain_clip(model, METHODS, clip)
    rows = 0

    def count(_module: object, args: tuple[torch.Tensor]) -> None:
        nonlocal rows
        rows += len(args[0])

    handle = model.module.register_forward_pre_hook(count)
    found = measure(model, explanations, clip, lc.Protocol(steps=20))
    handle.remove()
    assert rows == 2 + 2 * 2 * 19
    for (name, column), pair in found.items():
        heat, target = explanations[name].heatmap, explanations[name].target
        assert column == int(target)
        for curve, how in ((pair.deletion, lc.deletion), (pair.insertion, lc.insertion)):
            alone = how(model, clip, heat, target, 20)
            torch.testing.assert_close(curve.score, alone.score, rtol=1e-5, atol=1e-6)
            assert torch.equal(curve.tied, alone.tied)


def test_baselines_stand_behind_the_methods_once(model, clip) -> None:
    methods = {"gradcam": lc.GradCAM(), "noise": lc.RandomMap(seed=3)}
    explanations = explain_clip(model, methods, clip)
    compared = with_baselines(model, explanations, clip)
    assert list(compared) == ["gradcam", "noise", "centre"]
    assert torch.equal(compared["centre"].heatmap, lc.explain(model, lc.CentreMap(), clip).heatmap)
    assert torch.equal(compared["centre"].outputs, explanations["gradcam"].outputs)
    assert list(explanations) == ["gradcam", "noise"]


def test_tables_and_pictures_of_several_clips(model, tmp_path: Path) -> None:
    measurements, rows = Measurements({"steps": 5}), []
    areas = []
    for n in range(2):
        clip = clip_of(1, 3, 6, 16, 16, seed=n)
        batch = batch_of(clip) | {"clip_id": [f"clip {n}"]}
        explanations = explain_clip(model, METHODS, clip, "smile")
        plot = tmp_path / f"clip_{n}.curves.png"
        measured = measurements.clip(model, explanations, clip, plot, f"clip {n}")
        assert measured.picture == plot and plot.is_file()
        scored = score_rows(model, measured.explanations, batch)
        rows += [row | measured.columns(row) for row in scored]
        areas.append(float(lc.deletion(model, clip, explanations["space"].heatmap, 1, 5).auc))
    (curves,), figure = measurements.write(tmp_path)
    assert figure == tmp_path / "curves.png" and figure.is_file()
    assert not measurements.failed

    table = write_csv(tmp_path / "scores.csv", rows, SCORES)
    found = list(csv.DictReader(table.open()))
    assert list(found[0]) == [*SCORES, "deletion", "insertion", "tied", "protocol"]
    assert [row["method"] for row in found] == ["gradcam", "space", "random", "centre"] * 2
    assert {row["protocol"] for row in found} == {"default, steps=5"}
    measured_areas = [float(row["deletion"]) for row in found if row["method"] == "space"]
    assert measured_areas == pytest.approx(areas, abs=1e-4)
    names = ("gradcam", "space", "random", "centre")
    assert measured.shown() == {
        kind: ", ".join(f"{m} {row[kind]}" for m, row in zip(names, found[4:], strict=True))
        for kind in ("deletion", "insertion")
    }

    points = list(csv.DictReader(curves.open()))
    assert list(points[0]) == list(CURVES) and len(points) == 2 * 4 * 6
    own = [p for p in points if (p["clip_id"], p["method"]) == ("clip 1", "space")]
    assert [float(p["fraction"]) for p in own] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    scores = np.array([float(p["deletion"]) for p in own])
    assert np.trapezoid(scores, dx=0.2) == pytest.approx(areas[1], abs=1e-5)
    assert {p["target"] for p in points} == {"smile"}


def test_a_contrast_is_measured_for_both_classes(model, clip, tmp_path: Path) -> None:
    explanations = explain_clip(model, METHODS, clip, "wave", against="c")
    measurements = Measurements({"steps": 4})
    measured = measurements.clip(model, explanations, clip, tmp_path / "a.png", "a")
    assert set(measured.found) == {
        (name, of) for name in ("gradcam", "space", "random", "centre") for of in ("wave", "c")
    }
    rows = [
        row | measured.columns(row)
        for row in score_rows(model, measured.explanations, batch_of(clip))
    ]
    area = lc.insertion(model, clip, explanations["space"].against.heatmap, "c", 4).auc
    (row,) = (r for r in rows if (r["method"], r["target"]) == ("space", "c"))
    assert float(row["insertion"]) == pytest.approx(float(area), abs=1e-4)
    assert f"space for B {row['insertion']}" in measured.shown()["insertion"]
    assert measured.shown()["insertion"].startswith("gradcam for A ")


def test_what_cannot_be_measured_is_told(model, clip, tmp_path: Path) -> None:
    explanations = explain_clip(model, METHODS, clip)
    picture = tmp_path / "a.png"
    with pytest.raises(ConfigError, match=r"faithfulness: steps=100 is more than the clip's 6"):
        Measurements({"unit": "frame"}).clip(model, explanations, clip, picture, "a")
    explanations["space"].heatmap[0, 0, 0, 0] = torch.nan
    measurements = Measurements({"steps": 4})
    measured = measurements.clip(model, explanations, clip, picture, "a")
    assert measurements.failed == {"the heatmap is not finite": "space of a"}
    assert not measured.columns({"method": "space", "target": "wave"})
    assert {name for name, _ in measured.found} == {"gradcam", "random", "centre"}


def test_without_it_there_is_nothing(model, clip, tmp_path: Path) -> None:
    explanations = explain_clip(model, METHODS, clip)
    measurements = Measurements(False)
    measured = measurements.clip(model, explanations, clip, tmp_path / "a.png", "a")
    assert measured.explanations is explanations and measured.picture is None
    assert measured.columns({"method": "gradcam", "target": "wave"}) == {}
    assert measurements.write(tmp_path) == ([], None) and measured.shown() == {}
    assert not list(tmp_path.iterdir())
