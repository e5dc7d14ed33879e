"""One explained clip: the two maps of a contrast, what is drawn, and what the files hold."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import Gap3d, batch_of, clip_of, describe

import lightning_cam as lc
from lightning_cam.attribution import Contrast, explain_contrast
from lightning_cam.explaining.clip_drawing import draw_clip
from lightning_cam.explaining.clip_explanations import explain_clip, frame_relevance
from lightning_cam.explaining.clip_files import write_clip

CLASSES = ["wave", "smile", "../c", "d"]


@pytest.fixture
def model() -> lc.Explainable:
    torch.manual_seed(0)
    return describe(Gap3d().eval().double(), outputs=CLASSES)


@pytest.fixture
def clip() -> torch.Tensor:
    return clip_of(1, 3, 6, 16, 16, dtype=torch.float64)


def frames(size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (6, size, size, 3), dtype=np.uint8)


def test_the_difference_is_that_of_the_two_maps_shown(model, clip) -> None:
    for relu in (True, False):
        method = lc.GradCAM(relu=relu)
        found = explain_contrast(model, method, clip, "wave", "smile")
        wave, smile = (lc.explain(model, method, clip, name) for name in ("wave", "smile"))
        assert torch.equal(found.heatmap, wave.heatmap)
        assert torch.equal(found.against.heatmap, smile.heatmap)
        assert torch.equal(found.difference, wave.heatmap - smile.heatmap)
        assert (int(found.target), int(found.against.target)) == (0, 1)
        assert torch.equal(found.outputs, wave.outputs) and found.caption == wave.caption


def test_without_relu_it_is_the_map_of_the_difference_of_the_scores(model) -> None:
    clips = clip_of(2, 3, 6, 16, 16, dtype=torch.float64)
    for pool in ("space", "spacetime"):
        signed = lc.GradCAM(pool=pool, relu=False)
        found = explain_contrast(model, signed, clips, "wave", 1)
        rather = lc.explain(model.contrast("smile"), signed, clips, "wave").heatmap
        torch.testing.assert_close(found.difference, rather, rtol=1e-12, atol=1e-14)
    rectified = explain_contrast(model, lc.GradCAM(), clips, "wave", "smile").difference
    rather = lc.explain(model.contrast("smile"), lc.GradCAM(), clips, "wave").heatmap
    assert (rectified - rather).abs().max() > 0.01 * rather.max()  # a ReLU is not linear


def test_a_class_has_another_to_be_set_against(model, clip) -> None:
    methods = {"gradcam": lc.GradCAM()}
    with pytest.raises(ValueError, match="'wave' cannot be set against itself"):
        explain_contrast(model, lc.GradCAM(), clip, "wave", 0)
    with pytest.raises(ValueError, match="no target 'wive'; nearest: wave"):
        explain_contrast(model, lc.GradCAM(), clip, "smile", "wive")
    with pytest.raises(ValueError, match="against='smile' needs a target"):
        explain_clip(model, methods, clip, against="smile")


def test_a_method_that_fails_is_left_out_of_a_contrast(model, clip) -> None:
    failed: list[str] = []
    found = explain_clip(
        model,
        {"bad": lc.GradCAM("fc"), "good": lc.GradCAM()},
        clip,
        "wave",
        on_error=lambda name, _: failed.append(name),
        against="smile",
    )
    assert list(found) == ["good"] and failed == ["bad"]
    assert isinstance(found["good"], Contrast)


def test_a_contrast_is_drawn_as_three_maps_of_which_one_is_signed(model, clip) -> None:
    methods = {"a": lc.GradCAM(), "signed": lc.GradCAM(relu=False)}
    found = explain_clip(model, methods, clip, "wave", against="smile")
    figure = draw_clip(model, found, frames(), batch_of(clip), "clip")
    assert (figure.target, figure.against, figure.label) == ("wave", "smile", "wave")
    first, second = figure.contrasts
    where = "layer, gradient pooled over spacetime"
    assert first == (
        f"a: Grad-CAM for A, {where}", f"a: Grad-CAM for B, {where}",
        f"a: Grad-CAM for A - B, {where}",
    )  # fmt: skip
    assert [figure.is_signed(caption) for caption in first] == [False, False, True]
    assert [figure.is_signed(caption) for caption in second] == [True, True, True]
    a, b, both = (figure.heatmaps[caption] for caption in first)
    np.testing.assert_allclose(both, a - b, atol=1e-7)
    assert len({figure.scale(caption) for caption in first}) == 1
    assert figure.scale(first[0]) == max(a.max(), b.max())


@pytest.mark.parametrize("negative", ["A", "B"])
def test_where_one_class_is_signed_so_is_the_other(model, clip, negative: str) -> None:
    plus = lc.explain(model, lc.GradCAM(), clip, "wave")
    minus = replace(lc.explain(model, lc.GradCAM(), clip, "smile"), heatmap=-plus.heatmap)
    first, second = (minus, plus) if negative == "A" else (plus, minus)
    found = {"gradcam": Contrast(**vars(first), against=second)}
    figure = draw_clip(model, found, frames(), batch_of(clip), "clip")
    assert set(figure.signed) == set(figure.contrasts[0])  # or their colours would not compare
    scales = {figure.scale(caption) for caption in figure.heatmaps}
    assert scales == {max(np.abs(heat).max() for heat in figure.heatmaps.values())}


def test_captions_tell_the_poolings_apart(model, clip) -> None:
    methods = {"gradcam": lc.GradCAM(), "gradcam_space": lc.GradCAM(pool="space")}
    figure = draw_clip(model, explain_clip(model, methods, clip), frames(), batch_of(clip), "clip")
    assert list(figure.strips()) == [
        "energy: Grad-CAM, gradient pooled over spacetime",
        "energy: Grad-CAM, gradient pooled over space",
    ]


def test_relevance_is_the_share_of_each_frame_without_the_padding(model, clip) -> None:
    found = lc.explain(model, lc.GradCAM(), clip, "wave")
    heat = found.heatmap[0].numpy()
    shares = frame_relevance(found, batch_of(clip, padded=2))
    np.testing.assert_allclose(shares[:4], heat[:4].sum((1, 2)) / heat[:4].sum())
    assert (shares[4:] == 0).all()
    signed = lc.explain(model, lc.GradCAM(relu=False), clip, "wave")
    amounts = np.abs(signed.heatmap[0].numpy()).sum((1, 2))
    np.testing.assert_allclose(frame_relevance(signed, batch_of(clip)), amounts / amounts.sum())
    silent = lc.Explanation(0 * found.heatmap, found.target, found.outputs, {}, found.method)
    assert np.isnan(frame_relevance(silent, batch_of(clip))).all()
    del (bare := batch_of(clip))["valid"]
    assert frame_relevance(found, bare).sum() == pytest.approx(1)


def test_the_arrays_of_a_contrast(model, clip, tmp_path: Path) -> None:
    evil = "../x y/é"
    methods = {"gradcam": lc.GradCAM(), evil: lc.GradCAM(pool="space")}
    found = explain_clip(model, methods, clip, "../c", against="smile")
    figure = draw_clip(model, found, frames(), batch_of(clip), "clip")
    files = write_clip(tmp_path, figure, found, batch_of(clip), fps=4)
    with zipfile.ZipFile(files.arrays) as archive:
        assert not [name for name in archive.namelist() if name.startswith("/") or "../" in name]
    with np.load(files.arrays) as arrays:
        names = set(arrays.files)
        assert {"target", "against", "outputs", "label", "frame_idx", "time_s", "valid"} < names
        per_method = {name for name in names if "/" in name}
        assert per_method == {
            f"{what}/{method}"
            for what in (
                "heatmap",
                "relevance",
                "heatmap_against",
                "relevance_against",
                "cells",
                "title",
                "notes",
                "settings",
                "doubt",
            )
            for method in ("gradcam", "..%2Fx%20y%2F%C3%A9")
        }
        assert (int(arrays["target"]), int(arrays["against"])) == (2, 1)
        e = found["gradcam"]
        assert isinstance(e, Contrast)
        np.testing.assert_array_equal(arrays["heatmap/gradcam"], e.heatmap[0])
        np.testing.assert_array_equal(arrays["heatmap_against/gradcam"], e.against.heatmap[0])
        heat = arrays["heatmap_against/gradcam"]
        np.testing.assert_allclose(
            arrays["relevance_against/gradcam"], heat.sum((1, 2)) / heat.sum(), rtol=1e-6
        )


def test_the_arrays_of_one_class_have_no_second(model, clip, tmp_path: Path) -> None:
    found = explain_clip(model, {"gradcam": lc.GradCAM()}, clip)
    figure = draw_clip(model, found, frames(), batch_of(clip), "clip")
    with np.load(write_clip(tmp_path, figure, found, batch_of(clip), fps=4).arrays) as arrays:
        assert not [name for name in arrays.files if "against" in name]
        assert arrays["relevance/gradcam"].shape == (6,)
