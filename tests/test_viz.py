"""Images and videos: exact colours, files that play, text that can be read."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from readable import assert_readable, keep_canvases, said

from lightning_cam.viz import (
    ClipFigure,
    PanelScale,
    Stack,
    draw_attention,
    draw_sheet,
    draw_video,
    overlay,
    save_png,
    write_video,
)
from lightning_cam.viz.clip_video import _places, panel_size
from lightning_cam.viz.contact_sheet import chosen_frames
from lightning_cam.viz.curve_styles import COLORS
from lightning_cam.viz.drawing import (
    FAINT,
    NEUTRAL,
    RIGHT,
    WRONG,
    Canvas,
    shorten,
    text_width,
    wrap,
)
from lightning_cam.viz.fonts import drawable
from lightning_cam.viz.header import header
from lightning_cam.viz.layout import percent
from lightning_cam.viz.overlay import OPACITY, lut, no_evidence
from lightning_cam.viz.time_bars import TINT, Strip
from lightning_cam.viz.time_plots import Plots

LUT, SIGNED_LUT = lut(), lut(signed=True)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def blob(t: int, h: int, w: int, peak: int = 2) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    space = np.exp(-((y / h - 0.5) ** 2 + (x / w - 0.5) ** 2) / 0.05)
    return np.stack([space * np.exp(-((s - peak) ** 2) / 4) for s in range(t)]).astype(np.float32)


def smooth(t: int, h: int, w: int) -> np.ndarray:
    """Moving colours without the fine grain that no video codec keeps."""
    y, x = np.mgrid[:h, :w]
    ramp = [np.stack([x * 200 // w, y * 200 // h, 0 * x + 12 * s], -1) for s in range(t)]
    return np.stack(ramp).astype(np.uint8)


def stack(*parts: str, high: float = 1, drops: bool = False) -> Stack:
    """Shares that come and go, one part after the other."""
    shares = np.eye(len(parts)).repeat(8, 1)[:, :: len(parts)] * high / 8
    return Stack(parts, shares, shares.sum(1), -np.ones(len(parts) + 1) if drops else None)


def series(*names: str, frames: int = 8) -> dict[str, np.ndarray]:
    """Waves of different size; the first and the last frame have no value."""
    at = np.arange(frames)
    inside = (at > 0) & (at < frames - 1)
    return {name: np.where(inside, n + np.sin(at + n), np.nan) for n, name in enumerate(names)}


def figure(t: int = 8, h: int = 32, w: int = 48, **changes: object) -> ClipFigure:
    base = ClipFigure(
        frames=noise(t, h, w),
        heatmaps={"Recurrent Grad-CAM, layer trunk, pool space": blob(t, h, w)},
        target="spin",
        label="spin",
        probabilities=[("jump", 0.2), ("spin", 0.7), ("wave", 0.1)],
        attention=np.full(t, 1 / t),
        title="v_spin_01_01.avi",
    )
    if "heatmaps" not in changes:
        changes = {"parts": {name: name.split(", ") for name in base.heatmaps}, **changes}
    return dataclasses.replace(base, **changes)


# --- overlay ---------------------------------------------------------------------------------


def test_the_scale_is_the_clips_and_not_the_frames():
    heat = np.zeros((3, 2, 2), np.float32)
    heat[0], heat[1] = 2.0, 1.0
    out = overlay(noise(3, 2, 2), heat, alpha=1)
    assert (out[0] == LUT[255]).all()
    assert (out[1] == LUT[128]).all()  # half the heat, half the scale: not a scale of its own


def test_cold_pixels_keep_the_image_and_hot_ones_are_blended():
    frames = noise(2, 4, 4)
    heat = np.zeros((2, 4, 4), np.float32)
    heat[1, 0, 0] = 5
    out = overlay(frames, heat, alpha=0.5)
    hot = (frames[1, 0, 0].astype(float) + LUT[255]) / 2
    assert np.abs(out[1, 0, 0] - hot).max() <= 1.5
    out[1, 0, 0] = frames[1, 0, 0]
    np.testing.assert_array_equal(out, frames)


def test_a_given_scale_is_used_and_more_than_it_saturates():
    heat = np.stack([np.full((2, 2), value, np.float32) for value in (0, 1, 2, 8)])
    out = overlay(noise(4, 2, 2), heat, alpha=1, scale=2)
    assert (out[1] == LUT[128]).all() and (out[2:] == LUT[255]).all()


@pytest.mark.parametrize(
    ("fill", "reason"),
    [(0, "zero"), (3, "everywhere"), (np.nan, "NaN"), (np.inf, "NaN or inf"), (-1, "everywhere")],
)
def test_a_map_that_says_nothing_leaves_the_frames(fill, reason):
    frames, heat = noise(2, 4, 4), np.full((2, 4, 4), fill, np.float32)
    assert reason in no_evidence(heat)
    np.testing.assert_array_equal(overlay(frames, heat), frames)


def test_one_nan_or_no_positive_value_is_no_evidence():
    heat = blob(2, 4, 4)
    assert no_evidence(heat) == "" and "positive" in no_evidence(-heat)
    heat[1, 2, 3] = np.nan
    assert "NaN" in no_evidence(heat)
    assert no_evidence(-blob(2, 4, 4), signed=True) == ""
    # a constant up to float32 rounding is not drawn as if it located anything
    assert no_evidence(np.float32(1) + 1e-7 * blob(2, 4, 4)) != ""


def test_signed_maps_are_symmetric_around_the_image():
    frames, heat = noise(1, 1, 3), np.array([[[-2.0, 0.0, 2.0]]], np.float32)
    out = overlay(frames, heat, alpha=1, signed=True)
    assert (out[0, 0, 0] == SIGNED_LUT[0]).all() and (out[0, 0, 2] == SIGNED_LUT[255]).all()
    assert (out[0, 0, 1] == frames[0, 0, 1]).all()
    assert out[0, 0, 0, 2] > out[0, 0, 0, 0] and out[0, 0, 2, 0] > out[0, 0, 2, 2]  # blue, red
    clipped = overlay(frames, heat, alpha=1)
    assert (clipped[0, 0, :2] == frames[0, 0, :2]).all()  # unsigned: negative counts as zero


@given(st.integers(-40, 40))
def test_the_unit_of_the_heat_does_not_matter(power):
    frames, heat = noise(3, 5, 7), blob(3, 5, 7)
    np.testing.assert_array_equal(overlay(frames, heat * 2.0**power), overlay(frames, heat))


@pytest.mark.parametrize(
    ("frames", "heat", "options", "error", "words"),
    [
        (noise(2, 4, 4).astype(float), blob(2, 4, 4), {}, TypeError, "uint8.*float64"),
        (noise(2, 4, 4)[0], blob(2, 4, 4), {}, ValueError, r"\(T, H, W, 3\), got \(4, 4, 3\)"),
        (noise(2, 4, 4), blob(2, 4, 5), {}, ValueError, r"\(2, 4, 4\), got \(2, 4, 5\)"),
        (noise(2, 4, 4), blob(2, 4, 4) * 1j, {}, TypeError, "float"),
        (noise(2, 4, 4), blob(2, 4, 4), {"alpha": 1.5}, ValueError, "alpha"),
        (noise(2, 4, 4), blob(2, 4, 4), {"scale": 0.0}, ValueError, "scale"),
    ],
)
def test_wrong_input_is_told_apart(frames, heat, options, error, words):
    with pytest.raises(error, match=words):
        overlay(frames, heat, **options)


# --- video -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (1, 1)])
@pytest.mark.parametrize("fps", [8, 7.5, 29.97])
def test_the_video_is_what_browsers_play(tmp_path, height, width, fps):
    frames = smooth(9, height, width)
    path = write_video(tmp_path / "new folder" / "clip.mp4", frames, fps)
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == (height + height % 2, width + width % 2)
        assert float(stream.average_rate) == pytest.approx(fps)
        assert container.duration / 1e6 == pytest.approx(9 / fps, rel=1e-3)
        decoded = list(container.decode(stream))
    assert [round(f.time * fps) for f in decoded] == list(range(9))
    back = np.stack([f.to_ndarray(format="rgb24") for f in decoded])[:, :height, :width]
    assert np.abs(back.astype(int) - frames).mean() < 2.5
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_red_stays_red(tmp_path):
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    frames[:] = 200, 40, 20
    with av.open(str(write_video(tmp_path / "a.mp4", frames))) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(first.astype(int) - frames[0]).max() <= 4


def test_an_odd_edge_is_repeated(tmp_path):
    frames = np.zeros((2, 33, 35, 3), np.uint8)
    frames[:, -1], frames[:, :, -1] = 220, 220
    with av.open(str(write_video(tmp_path / "a.mp4", frames))) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert first.shape == (34, 36, 3) and first[-1].mean() > 200 and first[:, -1].mean() > 200


def test_a_failure_leaves_the_old_video_and_no_rubbish(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", smooth(2, 8, 8))
    before = path.read_bytes()
    monkeypatch.setattr(cv2, "cvtColor", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_video(path, smooth(3, 8, 8))
    with pytest.raises(ZeroDivisionError):
        save_png(tmp_path / "b.png", smooth(1, 8, 8)[0])
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_the_same_frames_give_the_same_bytes(tmp_path):
    a, b = (write_video(tmp_path / name, smooth(4, 32, 32)) for name in ("a.mp4", "b.mp4"))
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize(
    ("frames", "fps", "error", "words"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), 8, ValueError, r"got \(2, 3, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), 8, ValueError, r"got \(0, 8, 8, 3\)"),
        (np.zeros((2, 8, 8, 3), np.float32), 8, TypeError, "float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0, ValueError, "fps"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), ValueError, "fps"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, frames, fps, error, words):
    with pytest.raises(error, match=words):
        write_video(tmp_path / "a.mp4", frames, fps)
    assert not list(tmp_path.iterdir())


# --- what is known about a clip --------------------------------------------------------------


def test_energy_is_each_frames_share_without_the_padding():
    heat = np.zeros((4, 2, 2), np.float32)
    heat[0], heat[1], heat[2], heat[3] = 1, 3, -5, np.nan
    clip = figure(4, 2, 2, heatmaps={"a": heat}, valid=np.array([1, 1, 1, 0], bool))
    np.testing.assert_allclose(clip.energy("a"), [0.25, 0.75, 0, 0])
    both = dataclasses.replace(clip, signed=("a",))
    np.testing.assert_allclose(both.energy("a"), [1 / 9, 3 / 9, 5 / 9, 0])
    assert dataclasses.replace(clip, valid=None).energy("a") is None  # the NaN counts now
    assert figure(4, 2, 2, heatmaps={"a": heat}, valid=np.zeros(4, bool)).energy("a") is None


def test_short_names_tell_the_maps_apart():
    parts = {
        "Grad-CAM, layer a": ("Grad-CAM", "layer a"),
        "Grad-CAM, layer b": ("Grad-CAM", "layer b"),
        "RISE, 100 masks": ("RISE", "100 masks"),
    }
    clip = figure(heatmaps={name: blob(8, 32, 48) for name in parts}, parts=parts)
    names = clip.short_names
    assert list(names.values()) == ["Grad-CAM, layer a", "Grad-CAM, layer b", "RISE"]
    assert next(iter(clip.strips())) == "attention weight" and len(clip.strips()) == 4


def test_short_names_leave_out_what_is_alike():
    parts = {pool: ("Grad-CAM", "layer4", f"gradient pooled over {pool}") for pool in ("a, b", "c")}
    names = figure(heatmaps={name: blob(8, 32, 48) for name in parts}, parts=parts).short_names
    assert list(names.values()) == [
        "Grad-CAM, gradient pooled over a, b", "Grad-CAM, gradient pooled over c",
    ]  # fmt: skip


def test_a_caption_is_not_taken_apart():
    clip = figure(heatmaps={"mine, of two, commas": blob(8, 32, 48)})
    assert list(clip.short_names.values()) == ["mine, of two, commas"]


@pytest.mark.parametrize(
    ("label", "said"),
    [("a", "correct"), ("b", "confused"), ("c", "wrong"), ("elsewhere", "wrong"), (None, "")],
)
def test_outcomes(label, said):
    clip = figure(probabilities=[("c", 0.1), ("b", 0.3), ("a", 0.6)], label=label)
    assert clip.outcome == said
    assert dataclasses.replace(clip, probabilities=()).outcome == ""


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"heatmaps\['x'\].*\(8, 32, 48\), got \(8, 32, 40\)"):
        figure(heatmaps={"x": blob(8, 32, 40)})
    with pytest.raises(ValueError, match=r"attention.*\(8,\), got \(9,\)"):
        figure(attention=np.ones(9))
    with pytest.raises(ValueError, match=r"views\['IR'\].*\(8, 32, 48, 3\), got \(8, 32, 40, 3\)"):
        figure(views={"IR": noise(8, 32, 40)})
    with pytest.raises(
        ValueError, match=r"stacks\['s'\].*\(2, 8\), \(2,\), \(3,\).*got \(\(2, 9\)"
    ):
        figure(stacks={"s": Stack(["TV", "IR"], np.zeros((2, 9)), np.zeros(2))})


# --- text ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:no font here has")
@given(st.text(max_size=60), st.integers(30, 300))
def test_text_fits_the_width_it_is_given(text, width):
    assert text_width(shorten(text, 14, width), 14) <= width
    lines = wrap(text, 14, width, 3)
    assert 1 <= len(lines) <= 3 and all(text_width(line, 14) <= width for line in lines)


def test_what_the_font_lacks_is_written_plainly():
    assert (
        drawable("Café 2\N{MULTIPLICATION SIGN}3\n \N{GREEK SMALL LETTER ALPHA}=0.5 跳")
        == "Café 2x3 \N{GREEK SMALL LETTER ALPHA}=0.5 \\u8df3"
    )
    both_ends = shorten("group_07/a_very_long_name_of_a_clip_0042.avi", 14, 150)
    assert both_ends.startswith("group") and both_ends.endswith(".avi") and "…" in both_ends


def test_percentages_leave_no_false_certainty():
    assert [percent(p) for p in (0, 0.004, 0.5, 0.999, 1, np.nan)] == [
        "0%", "<1%", "50%", ">99%", "100%", "n/a",
    ]  # fmt: skip


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """Every canvas that is drawn on during the test."""
    return keep_canvases(monkeypatch)


LONG = "a_very_long_folder_name/v_synthetic_actions_group_07/v_spinning_clip_0042_of_many.mp4"
SENTENCE = "Turning the camera downwards while filming [something]"
ROLLING = "Putting [something] that can't roll onto a slanted surface, so it stays where it is"
AWKWARD = {
    "plain": {},
    "long": {
        "title": LONG,
        "label": "j" * 70,
        "target": "another very long class name that would never fit on one line " * 3,
        "probabilities": [("the likeliest class has a long name too", 0.999), (LONG, 0.001)],
        "heatmaps": {f"{LONG} {n}, with, commas {LONG}": blob(8, 32, 48) for n in range(3)},
    },
    "bare": {"label": None, "probabilities": (), "attention": None, "heatmaps": {}, "title": ""},
    "blank": {
        "heatmaps": {"Grad-CAM": np.zeros((8, 32, 48)), "SIDU": np.full((8, 32, 48), 1 / 3)},
        "attention": np.full(8, np.nan),
        "valid": np.arange(8) < 5,
        "times": np.arange(8) * 1000.5,
    },
    "signed": {"heatmaps": {"IG": -1e-30 * blob(8, 32, 48)}, "signed": ("IG",)},
    "many": {"heatmaps": {f"method {n}": blob(8, 32, 48) for n in range(7)}},
    "sentences": {"probabilities": [(SENTENCE, 0.6), (ROLLING, 0.4)], "label": ROLLING},
    "spectra": {
        "views": {"TV": noise(8, 32, 48), "IR": noise(8, 32, 48, seed=1)},
        "stacks": {
            "spectra by gradient": stack("TV", "IR"),
            "spectra by perturbation": stack("TV", "IR", drops=True),
        },
        "valid": np.arange(8) < 5,
    },
    "panels": {
        "panels": {"depth": noise(8, 32, 48), "error": noise(8, 16, 24)},
        "scales": {"depth": PanelScale(LUT, "2.1 m", "80 m", "by 1/depth")},
        "lines": {"translation (m)": series("tx", "ty", "tz"), "rotation (degrees)": series("rx")},
        "doubts": {"Recurrent Grad-CAM, layer trunk, pool space": "low gradient"},
        "label": None,
        "probabilities": (),
        "target": "-view_synthesis_loss",
        "value": -0.2134,
        "valid": np.arange(8) < 6,
    },
    "long panels": {
        "panels": {f"{LONG} {n}": noise(8, 32, 48) for n in range(5)},
        "scales": {f"{LONG} {n}": PanelScale(LUT, LONG, LONG, LONG) for n in range(2)},
        "lines": {
            f"{LONG} (m)": {f"{LONG} {n}": np.arange(8) * -1.234e-30 for n in range(9)},
            "gaps": {LONG: np.where(np.arange(8) % 2, 1.5e9, np.nan)},
            "nothing": {"a": np.full(8, np.nan), "b": np.full(8, np.inf)},
        },
        "doubts": {"Recurrent Grad-CAM, layer trunk, pool space": SENTENCE * 3},
        "target": LONG * 4,
        "value": 1e-30,
        "probabilities": (),
        "times": np.arange(8) * 1000.5,
    },
    "many spectra": {
        "views": {LONG: noise(8, 32, 48), "IR": noise(8, 32, 48), "UV": noise(8, 32, 48)},
        "stacks": {
            LONG: stack(LONG, "IR", "UV", drops=True),
            "none": stack("TV", "IR", high=0),
            "drops alone": stack("TV", "IR", high=0, drops=True),
        },
        "heatmaps": {f"method {n}": blob(8, 32, 48) for n in range(4)},
    },
}  # fmt: skip
SHAPES = {
    "small": (8, 32, 48),
    "tall": (8, 96, 24),
    "wide": (3, 32, 200),
    "one": (1, 8, 8),
    "lasting": (75, 24, 24),
}


def contrast(
    a: np.ndarray, b: np.ndarray, methods: tuple[str, ...] = ("Grad-CAM",), **changes: object
) -> ClipFigure:
    """An image of "spin" against "wave" by methods that all say the same."""
    threes = [tuple(f"{m} for {role}, layer4" for role in ("A", "B", "A - B")) for m in methods]
    heatmaps = dict(zip(sum(threes, ()), [a, b, a - b] * len(methods), strict=True))
    signed = [three[2] for three in threes]
    options = {"heatmaps": heatmaps, "signed": signed, "contrasts": threes, "against": "wave"}
    return figure(*a.shape, **{**options, **changes})  # type: ignore[arg-type]


def awkward(name: str) -> ClipFigure:
    return figure(**AWKWARD[name])


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("draw", [draw_video, draw_sheet])
def test_no_text_is_cut_off_or_runs_into_another(canvases, name, draw):
    draw(awkward(name))
    assert canvases
    assert_readable(canvases)


@pytest.mark.parametrize("methods", [("Grad-CAM",), ("Integrated recurrent Grad-CAM", "RISE")])
@pytest.mark.parametrize("draw", [draw_video, draw_sheet])
def test_contrasts_of_sentences_are_drawn_readably(canvases, methods, draw):
    heat = blob(8, 32, 48)
    classes = {"target": SENTENCE, "against": ROLLING, "label": ROLLING}
    ranked = [(SENTENCE, 0.6), (ROLLING, 0.4)]
    draw(contrast(heat, np.zeros_like(heat), methods, probabilities=ranked, **classes))
    assert_readable(canvases)
    words = " ".join(said(canvases))
    assert "…" not in words
    assert f"A: {SENTENCE} (60%)" in words and f"B: {ROLLING} (40%)" in words
    assert words.count("no evidence: map is zero everywhere") == len(methods)


@pytest.mark.parametrize("draw", [draw_video, draw_sheet])
def test_contrasts_in_two_spectra_are_drawn_readably(canvases, draw):
    heat = blob(8, 32, 48)
    views = {"TV": noise(8, 32, 48), "IR": noise(8, 32, 48, seed=1)}
    out = draw(contrast(heat, heat / 2, ("Grad-CAM", "RISE"), views=views))
    assert_readable(canvases)
    assert out.shape[-2] <= 1400


@pytest.mark.parametrize("width", [480, 560, 832, 1104, 1786])
def test_classes_that_are_sentences_are_wrapped_and_not_cut(canvases, width):
    header(awkward("sentences"), width)
    assert_readable(canvases)
    text = " ".join(said(canvases))
    assert f"true class: {ROLLING}" in text and "…" not in text
    lines = [text for text, _ in canvases[0].boxes]
    for name in (SENTENCE, ROLLING):
        (start,) = [n for n, line in enumerate(lines) if name.startswith(line) and len(line) > 8]
        words = ""
        while words != name:  # its lines follow one another
            words = f"{words} {lines[start]}".strip()
            start += 1
        assert lines[start] in ("60%", "40%")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("draw", [draw_video, draw_sheet])
def test_clips_of_every_shape_are_drawn_readably(canvases, shape, draw):
    clip = figure(*shape, times=np.arange(shape[0]) / 7.5)
    out = draw(clip)
    assert_readable(canvases)
    assert out.dtype == np.uint8 and out.shape[-1] == 3 and out.shape[-2] <= 2200


@pytest.mark.parametrize("shape", [(1, 1), (5, 16), (40, 32), (300, 100), (2, 3)])
def test_attention_is_drawn_readably(canvases, shape):
    weights = np.random.default_rng(0).random(shape)
    weights[-1, -1] = np.nan
    draw_attention(weights, title=LONG * 3)
    assert_readable(canvases)


@pytest.mark.parametrize("count", [1, 2, 16, 80])
@pytest.mark.parametrize("size", [(64, 208), (48, 16), (32, 32)])
@pytest.mark.parametrize("draw", [draw_video, draw_sheet])
def test_panels_and_plots_of_clips_of_every_shape_are_readable(canvases, count, size, draw):
    clip = figure(
        count, *size, panels={name: noise(count, *size) for name in ("depth", "warped", "error")},
        scales={"depth": PanelScale(LUT, "2.1 m", "80 m")}, times=np.arange(count) / 10,
        lines={"translation (m)": series("tx", "ty", "tz", frames=count)},
    )  # fmt: skip
    out = draw(clip)
    assert_readable(canvases)
    assert out.shape[-2] <= (1536 if draw is draw_video else 1800)


# --- the explanation video -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "panel"),
    [((64, 64), (256, 256)), ((112, 112), (224, 224)), ((256, 340), (256, 340)),
     ((128, 416), (128, 416)), ((1080, 1920), (270, 480)), ((120, 160), (240, 320))],
)  # fmt: skip
def test_panels_are_readable_and_keep_their_proportions(size, panel):
    assert panel_size(*size) == panel


def test_the_cursor_stands_at_the_current_frame():
    clip = figure(attention=np.zeros(8) + np.eye(8)[3])
    video = draw_video(clip)
    assert video.shape[0] == 8 and video.shape[1] % 2 == 0 and video.shape[2] % 2 == 0
    strip = Strip(clip, video.shape[2], 146, video.shape[2] - 16 - 64)
    for t, frame in enumerate(video):
        tinted = np.flatnonzero((frame == TINT).all(-1).sum(0) > 5)
        x0, x1 = strip.column(t)
        assert tinted.min() == x0 and tinted.max() == x1 - 1


def test_original_and_overlay_stand_side_by_side():
    heat = np.zeros((4, 64, 64), np.float32)
    heat[1], heat[2] = 0.5, 1  # one warm, one hot frame
    frames = np.full((4, 64, 64, 3), 90, np.uint8)
    video = draw_video(figure(4, 64, 64, frames=frames, heatmaps={"a": heat}))
    gray = (video == 90).all(-1).reshape(4, -1).sum(1)
    assert (gray[[0, 3]] >= 2 * 256 * 256).all()  # both panels plain
    assert (gray[[1, 2]] < 1.5 * 256 * 256).all()  # the overlay is coloured,
    assert (gray[[1, 2]] >= 256 * 256).all()  # the original is not
    for t, level in ((1, 128), (2, 255)):  # on one scale
        blended = (1 - OPACITY) * 90 + OPACITY * LUT[level].astype(float)
        assert (np.abs(video[t] - blended) <= 1.5).all(-1).sum() >= 256 * 256


def test_a_contrast_is_two_overlays_on_one_scale_and_their_difference():
    frames = np.full((4, 64, 64, 3), (120, 90, 60), np.uint8)
    a, b = np.zeros((2, 4, 64, 64), np.float32)
    a[1], a[2, :32], b[2], b[3, :32] = 1, 0.5, 0.25, 0.5
    video = draw_video(contrast(a, b, frames=frames))
    assert video.shape[2] == 4 * (256 + 16) + 16
    top = next(y for y in range(400) if (video[0, y, 20] == frames[0, 0, 0]).all())
    panels = [video[:, top : top + 256, 16 + 272 * n : 272 * n + 272].astype(int) for n in range(4)]
    assert (panels[0] == frames[0, 0, 0]).all()

    def blended(level: float, table: np.ndarray, below: object, alpha: float) -> np.ndarray:
        return (1 - alpha) * np.asarray(below) + alpha * table[round(255 * level)]

    def shows(panel: int, t: int, row: int, color: np.ndarray) -> bool:
        return bool(np.abs(panels[panel][t, row, 128] - color).max() <= 2)

    frame = frames[0, 0, 0]
    assert shows(1, 1, 10, blended(1, LUT, frame, OPACITY))
    assert shows(1, 2, 10, blended(0.5, LUT, frame, OPACITY))
    assert shows(2, 2, 10, blended(0.25, LUT, frame, OPACITY / 2))  # of A's maximum, not of its own
    assert shows(2, 3, 10, blended(0.5, LUT, frame, OPACITY))
    assert shows(1, 3, 10, frame) and shows(2, 1, 10, frame)
    gray = [90, 90, 90]  # below the difference, the image has no colours of its own
    assert shows(3, 0, 10, np.array(gray))
    assert shows(3, 1, 10, blended(1, SIGNED_LUT, gray, 0.8))  # A alone: red
    assert shows(3, 3, 10, blended(0.25, SIGNED_LUT, gray, 0.8))  # B alone, half: bluish
    assert panels[3][2, 10, 128, 0] > panels[3][2, 10, 128, 2]  # A has more
    assert panels[3][2, 250, 128, 0] < panels[3][2, 250, 128, 2]  # B has more


def test_each_method_of_a_contrast_has_a_row_of_its_own():
    heat = blob(4, 64, 64, 1)
    one, two = (draw_video(contrast(heat, heat[::-1], m)) for m in (("a",), ("a", "b")))
    assert two.shape[2] == one.shape[2] and two.shape[1] > one.shape[1] + 256
    assert draw_sheet(contrast(heat, heat, ("a", "b"))).shape[0] > one.shape[1]


def test_the_bars_of_a_contrast_have_the_colours_of_its_classes():
    heat = blob(4, 64, 64, 1)
    clip = contrast(heat, heat[::-1], attention=None)
    assert list(clip.strip_kinds().values()) == ["A", "B", "A - B"]
    bars = Strip(clip, 600, 146, 520).draw().pixels()
    rows = [bars[8 + 42 * n : 42 + 42 * n, 146:520].reshape(-1, 3) for n in range(3)]
    for row, color in zip(rows, (SIGNED_LUT[255], SIGNED_LUT[0], NEUTRAL), strict=True):
        assert (row == color).all(-1).sum() > 500
    assert not (rows[0] == SIGNED_LUT[0]).all(-1).any()


def test_only_the_moving_parts_move():
    clip = figure(4, 64, 64, frames=np.full((4, 64, 64, 3), 90, np.uint8), heatmaps={})
    video = draw_video(clip)
    top = header(clip, video.shape[2]).image.height + 256
    assert (video[:, :top] == video[0, :top]).all() and (video[1] != video[2]).any()


def test_padded_frames_are_gray():
    video = draw_video(figure(8, 64, 64, valid=np.arange(8) < 6))
    sheet = draw_sheet(figure(8, 64, 64, valid=np.arange(8) < 6, heatmaps={}))
    top = video.shape[1] // 3
    panels = video[:, top : top + 100, 20:250].astype(int)
    color = np.ptp(panels, axis=-1).reshape(8, -1).mean(1)
    assert (color[:6] > 30).all() and (color[6:] == 0).all()
    assert sheet.shape[0] > 64


def test_right_and_wrong_and_another_target_are_said(canvases):
    header(figure(), 500)
    header(figure(label="jump", target="jump"), 500)
    header(figure(label=None), 500)
    right, wrong, unknown = ([text for text, _ in canvas.boxes] for canvas in canvases)
    assert "true class: spin" in right and not [t for t in right if t.startswith("explaining")]
    assert "explaining: jump" in wrong and "true class: jump" in wrong
    assert not [text for text in unknown if text.startswith("true class")]
    assert right[-4:] == ["spin", "70%", "jump", "20%"]
    pixels = [canvas.pixels() for canvas in canvases]
    for canvas, image in zip(canvases, pixels, strict=True):
        for _, (x0, y0, x1, y1) in canvas.boxes:  # text stands beside the bars, not on them
            under = image[y0:y1, x0:x1]
            assert not any((under == c).all(-1).any() for c in (FAINT, RIGHT, WRONG, NEUTRAL))
    green, orange = ([(p == c).all(-1).sum() for p in pixels] for c in (RIGHT, WRONG))
    assert green[0] > 500 and green[1] > 100 and green[2] == 0
    assert orange[0] == 0 and orange[1] > 500 and orange[2] == 0


def test_a_blank_map_is_said_to_be_no_evidence(canvases):
    draw_video(awkward("blank"))
    words = said(canvases)
    assert "no evidence: map is zero everywhere" in words
    assert [text for text in words if text.startswith("no evidence: map is 0.333")]
    assert words.count("no evidence") >= 3  # both energies and the attention of NaN


# --- panels, plots, faint maps, values -------------------------------------------------------


def test_images_without_panels_stand_where_they_always_stood():
    def places(heatmaps: int, **changes: object) -> list[tuple[int, int]]:
        maps = {str(n): blob(8, 32, 48) for n in range(heatmaps)}
        return _places(figure(heatmaps=maps, **changes), 256, 256)

    assert places(0) == [(0, 0)] and places(3) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert places(4) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert places(8) == [divmod(n, 3) for n in range(9)]
    views = {"TV": noise(8, 32, 48), "IR": noise(8, 32, 48)}
    assert places(2, views=views) == [(0, 0), (0, 1), (1, 0)]
    clip = contrast(blob(8, 32, 48), blob(8, 32, 48), ("a", "b"))
    rows = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert _places(clip, 256, 256) == rows
    two = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (3, 0), (3, 1)]
    assert _places(dataclasses.replace(clip, views=views), 256, 512) == two


@pytest.mark.parametrize(
    ("heatmaps", "size", "rows"),
    [
        (0, (128, 416), ["fp", "pp"]),
        (1, (128, 416), ["fh", "pp", "p"]),
        (2, (128, 416), ["fhh", "ppp"]),
        (3, (145, 480), ["fh", "hh", "pp", "p"]),
        (2, (256, 256), ["fhh", "ppp"]),
        (1, (480, 240), ["fhppp"]),
    ],
)
def test_panels_stand_in_rows_of_their_own_where_that_leaves_no_holes(heatmaps, size, rows):
    maps = {str(n): blob(8, 32, 48) for n in range(heatmaps)}
    clip = figure(heatmaps=maps, panels={f"p{n}": noise(8, 32, 48) for n in range(3)})
    found: dict[int, str] = {}
    for (row, column), kind in zip(_places(clip, *size), "f" + "h" * heatmaps + "ppp", strict=True):
        assert len(found.get(row, "")) == column
        found[row] = found.get(row, "") + kind
    assert list(found.values()) == rows


def test_lines_and_panels_leave_the_rest_of_the_sheet_as_it_is():
    clip = figure()
    plain = draw_sheet(clip)
    lines = draw_sheet(dataclasses.replace(clip, lines={"motion (m)": series("a", "b")}))
    bottom = Strip(clip, plain.shape[1], 250, 0).height
    more = len(lines) - len(plain)
    assert more > 80
    np.testing.assert_array_equal(lines[: len(plain) - bottom], plain[:-bottom])
    np.testing.assert_array_equal(lines[-bottom:], plain[-bottom:])
    panels = draw_sheet(dataclasses.replace(clip, panels={"depth": noise(8, 32, 48, seed=3)}))
    np.testing.assert_array_equal(panels[: len(plain) - bottom - 2], plain[: -bottom - 2])
    np.testing.assert_array_equal(panels[-bottom:], plain[-bottom:])


def find(page: np.ndarray, part: np.ndarray) -> tuple[int, int]:
    """Where an image stands on a page."""
    spots = np.argwhere((page == part[0, 0]).all(-1))
    h, w = part.shape[:2]
    for y, x in spots:
        if (page[y : y + h, x : x + w].shape == part.shape) and (
            page[y : y + h, x : x + w] == part
        ).all():
            return int(y), int(x)
    raise AssertionError("not on the page")


def test_a_panel_is_drawn_without_heat_on_every_frame():
    size = 3, 256, 256
    panel = noise(*size, seed=7)
    clip = figure(*size, panels={"depth": panel, "tall": noise(3, 512, 128, seed=8)})
    video = draw_video(clip)
    spots = {find(video[t], panel[t]) for t in range(3)}
    assert len(spots) == 1
    tall = np.stack([cv2.resize(f, (64, 256), interpolation=cv2.INTER_AREA)
                     for f in clip.panels["tall"]])  # fmt: skip
    find(video[1], tall[1])  # keeps its proportions
    padded = draw_video(dataclasses.replace(clip, valid=np.arange(3) < 2))
    (y, x), = spots  # fmt: skip
    faded = padded[2, y : y + 256, x : x + 256].astype(int)
    assert (np.ptp(faded, axis=-1) == 0).all() and faded.mean() > 180
    np.testing.assert_array_equal(padded[1, y : y + 256, x : x + 256], panel[1])


def test_panels_of_nearly_the_frames_proportions_are_as_large():
    frames = noise(2, 94, 310)
    panel = np.full((2, 64, 208, 3), (10, 200, 30), np.uint8)
    video = draw_video(figure(2, 94, 310, frames=frames, panels={"a": panel}))
    assert (video[0] == (10, 200, 30)).all(-1).sum() == np.prod(panel_size(94, 310))


def plots_of(clip: ClipFigure, width: int = 720) -> tuple[Plots, Strip]:
    strip = Strip(clip, width, 220, width - 80)
    return Plots(clip, strip), strip


def has(pixels: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels.astype(int) - color).max(-1) <= 3).any())


def test_curves_lie_where_their_values_say():
    values = {"a": np.array([1, 2, 3, np.nan, np.nan, -1, np.nan, 4.0]), "b": np.arange(8) / 2}
    plots, strip = plots_of(figure(lines={"both (m)": values}, valid=np.arange(8) < 7))
    image, (plot,) = plots.draw()[0].pixels(), plots.plots
    for name, color in zip(values, COLORS, strict=False):
        for t, value in enumerate(values[name]):
            x0, x1 = strip.column(t)
            column = image[plot.y : plot.y + plot.height, x0 + 4 : x1 - 4]
            if np.isnan(value) or t == 7:
                assert not has(column, color), (name, t)  # a gap, or padding
                continue
            share = (plot.ticks[-1] - value) / (plot.ticks[-1] - plot.ticks[0])
            y, x = plot.y + 7 + round(share * (plot.height - 15)), (x0 + x1) // 2
            assert has(image[y - 2 : y + 3, x - 2 : x + 3], color), (name, t)
    zero = image[round(float(plot.level(0))), strip.left : strip.right]
    assert (zero == NEUTRAL).all(-1).sum() > 300
    assert plot.ticks[0] <= -1 and plot.ticks[-1] >= 3  # not the 4 of the padded frame


def test_the_cursor_moves_through_the_plots_and_the_values_are_read_off(canvases):
    clip = figure(lines={"t (m)": series("tx", "ty"), "r (degrees)": series("rx", "ry")})
    video = draw_video(clip)
    plots, strip = plots_of(clip, video.shape[2])
    top = video.shape[1] - strip.height - plots.height
    top -= top % 2  # a page of even height
    for t in range(8):
        band = video[t, top : top + plots.height]
        tinted = np.flatnonzero((band == TINT).all(-1).sum(0) > 20)
        x0, x1 = strip.column(t)
        assert abs(tinted.min() - x0) <= 8 and abs(tinted.max() - x1 + 1) <= 8
    made = len(canvases)
    plots.readings(2)
    assert said(canvases[made:]) == [
        f"{values[2]:.3g}" for plot in clip.lines.values() for values in plot.values()
    ]
    plots.readings(0)
    assert said(canvases[-1:]) == []  # a gap


def test_series_look_alike_in_every_plot():
    plots, _ = plots_of(figure(lines={"t": series("tx", "ty"), "r": series("rx", "ry", "rz")}))
    first, second = ([(s.color, s.mark) for s in plot.styles.values()] for plot in plots.plots)
    assert first == second[:2] and len({*second}) == 3


def test_a_map_that_is_not_to_be_trusted_is_drawn_faintly(canvases):
    frames, heat = noise(4, 256, 256), blob(4, 256, 256)
    clip = figure(4, 256, 256, frames=frames, heatmaps={"a": heat, "zero": 0 * heat})
    doubts = dataclasses.replace(clip, doubts={"a": "low gradient", "zero": "low gradient"})
    video = draw_video(doubts)
    find(video[2], overlay(frames, heat, OPACITY / 4)[2])
    find(draw_video(clip)[2], overlay(frames, heat, OPACITY)[2])
    canvases.clear()
    draw_video(doubts)
    words = said(canvases)
    assert words.count("faint: low gradient") == 1  # of the other one no evidence is said
    assert doubts.strip_kinds()["energy: a"] == "doubtful"


@pytest.mark.parametrize("reason", ["low gradient", "nearly no gradient (3e-9): near the optimum"])
def test_the_reason_stands_beside_the_scale_or_below_it(canvases, reason):
    draw_video(figure(heatmaps={"a": 37 * blob(8, 32, 48)}, doubts={"a": reason}))
    boxes = {text: box for canvas in canvases for text, box in canvas.boxes}
    (high,) = [box for text, box in boxes.items() if text.startswith("37")]
    if reason == "low gradient":
        x0, y0, *_ = boxes[f"faint: {reason}"]
        assert x0 > high[2] and abs(y0 - high[1]) < 8
    else:
        lines = [b for text, b in boxes.items() if len(text) > 3 and text in f"faint: {reason}"]
        assert lines and min(y0 for _, y0, *_ in lines) >= high[3]


def test_a_regressor_has_a_value_and_no_classes(canvases):
    regressor = {"label": None, "probabilities": (), "target": "-view_synthesis_loss"}
    header(figure(**regressor, value=-0.21345), 600)
    header(figure(**regressor), 600)
    header(figure(value=3.0), 600)
    assert said(canvases[:1])[1:] == ["explaining: -view_synthesis_loss = -0.213"]
    assert said(canvases[1:2])[1:] == ["explaining: -view_synthesis_loss"]
    assert "3" not in " ".join(said(canvases[2:3])[1:2])


def test_fields_that_belong_to_nothing_are_named():
    depth = {"depth": noise(8, 32, 48)}
    with pytest.raises(ValueError, match=r"panels\['depth'\]: expected 8 frames, got 7"):
        figure(panels={"depth": noise(7, 32, 48)})
    with pytest.raises(TypeError, match="uint8"):
        figure(panels={"depth": np.zeros((8, 32, 48, 3))})
    with pytest.raises(ValueError, match="'a' is the caption of a heatmap"):
        figure(heatmaps={"a": blob(8, 32, 48)}, panels={"a": noise(8, 32, 48)})
    with pytest.raises(ValueError, match=r"scales: there is no 'dept' in \['depth'\]"):
        figure(panels=depth, scales={"dept": PanelScale(LUT, "0", "1")})
    with pytest.raises(ValueError, match="doubts: there is no 'depth'"):
        figure(panels=depth, doubts={"depth": "why"})
    with pytest.raises(ValueError, match=r"lines\['t \(m\)'\]\['tx'\]: .*\(8,\), got \(9,\)"):
        figure(lines={"t (m)": {"tx": np.zeros(9)}})


# --- contact sheet and heat-strip ------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "columns", "frames"),
    [(4, 16, [0, 1, 2, 3]), (16, 16, list(range(16))), (32, 4, [4, 12, 20, 28]), (9, 3, [1, 4, 7])],
)
def test_frames_are_chosen_evenly(count, columns, frames):
    assert chosen_frames(count, columns).tolist() == frames


def test_the_sheet_has_a_row_for_each_method_and_a_column_for_each_frame(canvases):
    maps = {"Grad-CAM, layer trunk": blob(40, 32, 48), "RISE, 9 masks": blob(40, 32, 48)}
    one = draw_sheet(figure(40, attention=None, heatmaps={}))
    three = draw_sheet(figure(40, attention=None, heatmaps=maps))
    assert three.shape[0] > one.shape[0] + 2 * 50 and three.shape[1] == one.shape[1]
    texts = [text for text, _ in canvases[-3].boxes]
    assert [t for t in texts if t.isdigit()][:16] == [str(t) for t in chosen_frames(40, 16)]
    assert {"original", "Grad-CAM, layer trunk", "RISE, 9 masks"} <= set(texts)


def test_png_round_trip(tmp_path):
    sheet = draw_sheet(figure())
    back = cv2.imread(str(save_png(tmp_path / "new" / "a.png", sheet)))[..., ::-1]
    np.testing.assert_array_equal(back, sheet)


def test_the_heat_strip_is_darkest_at_the_largest_weight(canvases):
    weights = np.full((3, 4), 0.1)
    weights[2, 1] = 0.7
    image = draw_attention(weights, epochs=[0, 5, 10])
    texts = [text for text, _ in canvases[0].boxes]
    assert texts.count(".10") == 11 and texts.count(".70") == 1 and {"0", "5", "10"} <= set(texts)
    box = dict(canvases[0].boxes)[".70"]
    darkest = np.argwhere(image.sum(-1) < 200)
    inside = (np.abs(darkest[:, 1] - (box[0] + box[2]) / 2) < 30) & (
        np.abs(darkest[:, 0] - box[1]) < 25
    )
    assert inside.mean() > 0.4  # the rest is text and the end of the colour scale
    with pytest.raises(ValueError, match=r"\(E, T\)"):
        draw_attention(np.zeros(4))
    with pytest.raises(ValueError, match="epochs: expected 3"):
        draw_attention(weights, epochs=[1])


def test_real_frames_survive(real: Path, tmp_path):
    with av.open(str(real / "arm_wrestling.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in islice(container.decode(video=0), 8)]
    clip = figure(8, *frames[0].shape[:2], frames=np.stack(frames))
    path = write_video(tmp_path / "a.mp4", draw_video(clip))
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    drawn = draw_video(clip)[0]
    assert 10 * np.log10(255**2 / np.mean((first.astype(float) - drawn) ** 2)) > 33
