"""Which spectrum mattered: shares that are known on paper, in numbers, images and tables."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import Gap3d, batch_of, clip_of, describe
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lightning_cam as lc
from lightning_cam.attribution.spectrum_relevance import SPECTRUM_MEASURES, _windows
from lightning_cam.data.multispectral.module import Multispectral
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.clip_drawing import clip_views, draw_clip
from lightning_cam.explaining.clip_explanations import explain_clip, explain_spectra
from lightning_cam.explaining.clip_files import write_clip
from lightning_cam.explaining.score_tables import (
    RELEVANCE_COLUMNS,
    SCORE_COLUMNS,
    page_scores,
    relevance_rows,
    score_rows,
)
from lightning_cam.files import write_csv
from lightning_cam.viz import ReportEntry, draw_sheet, draw_video, write_report
from lightning_cam.viz.clip_video import panel_size
from lightning_cam.viz.drawing import SPECTRUM_COLORS as COLORS
from lightning_cam.viz.time_bars import Strip

SPECTRA = {"tv": (0, 1, 2), "ir": (3,)}
BLACK = (-1.0, -1.5, -2.0, -0.5)


class Made(nn.Module):
    """A column (B, 2) made of the evidence (B, T) in each spectrum, above black; the other is 0."""

    def __init__(self, rule: object) -> None:
        super().__init__()
        self.rule, self.rows, self.forwards = rule, 0, 0

    def forward(self, clip: Tensor) -> Tensor:
        self.rows += len(clip)
        self.forwards += 1
        seen = clip - torch.tensor(BLACK).to(clip)[:, None, None, None]
        evidence = seen.mean((3, 4))  # (B, C, T)
        column = self.rule(evidence[:, :3].mean(1), evidence[:, 3])  # type: ignore[operator]
        return torch.stack([column, torch.zeros_like(column)], 1)


def made(rule: object, probability: str | None = None) -> lc.Explainable:
    return lc.Explainable.of(Made(rule), [], ["yes", "no"], probability=probability, black=BLACK)


def bright(batch: int = 1, frames: int = 8) -> Tensor:
    """Clips above black in every voxel."""
    return clip_of(batch, 4, frames, 5, 3, dtype=torch.float64).abs()


def evidence(clip: Tensor) -> tuple[Tensor, Tensor]:
    seen = (clip - torch.tensor(BLACK).to(clip)[:, None, None, None]).mean((3, 4))
    return seen[:, :3].mean(1), seen[:, 3]  # (B, T)


def all_finite(found: lc.SpectrumRelevance) -> bool:
    return bool(found.share.isfinite().all() and found.total.isfinite().all())


# --- closed forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", SPECTRUM_MEASURES)
@pytest.mark.parametrize("probability", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("only", [0, 1])
def test_a_network_that_reads_one_spectrum_has_all_of_it_there(method, probability, only) -> None:
    model = made(lambda *both: both[only].mean(1), probability)
    found = lc.spectrum_relevance(model, bright(2), SPECTRA, "yes", method)
    assert found.spectra == ("tv", "ir") and found.share.shape == (2, 2, 8)
    assert found.total[:, only].tolist() == [1, 1]  # exactly
    assert (found.share[:, 1 - only] == 0).all() and (found.total[:, 1 - only] == 0).all()
    torch.testing.assert_close(found.share.sum((1, 2)), torch.ones(2, dtype=torch.float64))


def test_an_additive_column_is_divided_by_what_each_spectrum_adds() -> None:
    clip = bright(3)
    tv, ir = evidence(clip)
    model = made(lambda tv, ir: (0.5 * tv + 2 * ir).mean(1))
    parts = torch.stack([0.5 * tv, 2 * ir], 1) / 8  # (B, S, T)
    whole = parts.sum((1, 2), keepdim=True)
    found = lc.spectrum_relevance(model, clip, SPECTRA, 0)
    torch.testing.assert_close(found.share, parts / whole)
    torch.testing.assert_close(found.total, (parts / whole).sum(2))
    torch.testing.assert_close(found.mixture, parts / parts.sum(1, keepdim=True))
    each = lc.spectrum_relevance(model, clip, SPECTRA, 0, "perturbation", window=1)
    assert each.drop is not None and each.drop_all is not None and each.window_drop is not None
    torch.testing.assert_close(each.share, found.share)
    torch.testing.assert_close(each.total, found.total)
    torch.testing.assert_close(each.drop, parts.sum(2))
    torch.testing.assert_close(each.drop_all, each.drop.sum(1))
    torch.testing.assert_close(each.window_drop, parts)
    assert each.windows == tuple((t, t + 1) for t in range(8))


def test_where_both_are_needed_drops_do_not_add_up() -> None:
    clip = bright(2)
    tv, ir = evidence(clip)
    both = tv.mean(1) * ir.mean(1)
    found = lc.spectrum_relevance(
        made(lambda tv, ir: tv.mean(1) * ir.mean(1)), clip, SPECTRA, 0, "perturbation"
    )
    assert found.drop is not None
    torch.testing.assert_close(found.drop, both[:, None].expand(2, 2))
    torch.testing.assert_close(found.drop_all, both)  # not the sum
    torch.testing.assert_close(found.total, torch.full((2, 2), 0.5, dtype=torch.float64))


def test_where_either_suffices_neither_drops() -> None:
    model = made(lambda tv, ir: torch.maximum(tv.mean(1).sign(), ir.mean(1).sign()))
    found = lc.spectrum_relevance(model, bright(), SPECTRA, 0, "perturbation")
    assert found.drop is not None and found.drop_all is not None
    assert found.drop.tolist() == [[0, 0]] and found.drop_all.tolist() == [1]
    assert (found.total == 0).all() and (found.share == 0).all()


def test_a_spectrum_that_speaks_against_the_column_has_no_share_but_a_negative_drop() -> None:
    clip = bright()
    tv, ir = evidence(clip)
    model = made(lambda tv, ir: tv.mean(1) - ir.mean(1))
    found = lc.spectrum_relevance(model, clip, SPECTRA, 0, "perturbation")
    assert found.drop is not None and found.total.tolist() == [[1, 0]]
    torch.testing.assert_close(found.drop, torch.stack([tv.mean(1), -ir.mean(1)], 1))
    gradient = lc.spectrum_relevance(model, clip, SPECTRA, 0)  # counts amounts
    torch.testing.assert_close(gradient.total[:, 1], (ir.sum() / (tv + ir).sum())[None])


@pytest.mark.parametrize("method", SPECTRUM_MEASURES)
@pytest.mark.parametrize("when", [0, 5, 15])
def test_the_curve_peaks_where_the_evidence_is(method, when) -> None:
    model = made(lambda tv, ir: ir[:, when] + 0.01 * tv.mean(1), probability="softmax")
    found = lc.spectrum_relevance(model, bright(frames=16), SPECTRA, 0, method)
    curve = found.share[0, 1]
    assert curve[when] == curve.max()
    near = slice(max(0, when - 3), when + 4)  # windows are four frames long
    assert curve[near].sum() == pytest.approx(float(curve.sum())) and curve[near].sum() > 0.9


def test_the_drop_is_that_of_the_probability() -> None:
    clip = bright()
    tv, ir = (e.mean(1) for e in evidence(clip))
    model = made(lambda tv, ir: 2 * tv.mean(1) + ir.mean(1), probability="softmax")
    found = lc.spectrum_relevance(model, clip, SPECTRA, "no", "perturbation")
    p = torch.sigmoid(-torch.stack([2 * tv + ir, ir, 2 * tv, 0 * tv]))
    assert found.drop is not None and found.drop_all is not None
    torch.testing.assert_close(found.drop, (p[0] - p[1:3]).T)
    torch.testing.assert_close(found.drop_all, p[0] - p[3])


# --- what must not count ---------------------------------------------------------------------


@pytest.mark.parametrize("method", SPECTRUM_MEASURES)
def test_a_spectrum_that_is_black_already_does_not_matter(method) -> None:
    clip = bright(2)
    clip[:, 3] = BLACK[3]
    model = made(lambda tv, ir: tv.mean(1) + 100 * ir.mean(1))
    found = lc.spectrum_relevance(model, clip, SPECTRA, 0, method)
    assert found.total.tolist() == [[1, 0], [1, 0]]
    if found.drop is not None:
        assert found.drop[:, 1].tolist() == [0, 0]


@pytest.mark.parametrize("method", SPECTRUM_MEASURES)
def test_padded_frames_get_nothing(method) -> None:
    clip = bright(2)
    valid = torch.arange(8)[None] < torch.tensor([[8], [3]])
    model = made(lambda tv, ir: (tv + ir).mean(1))  # reads the padding as well
    found = lc.spectrum_relevance(replace(model, valid=valid), clip, SPECTRA, 0, method)
    assert (found.share[1, :, 3:] == 0).all() and (found.share[1, :, :3] > 0).all()
    torch.testing.assert_close(found.share.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    none = replace(model, valid=torch.zeros(2, 8, dtype=torch.bool))
    silent = lc.spectrum_relevance(none, clip, SPECTRA, 0, method)
    assert all_finite(silent) and (silent.share == 0).all()


@pytest.mark.parametrize("method", SPECTRUM_MEASURES)
def test_where_nothing_matters_all_is_zero(method) -> None:
    for rule in (
        lambda tv, ir: 0 * (tv + ir).sum(1),
        lambda tv, ir: (tv + ir).sum(1) * torch.inf * 0,  # NaN
    ):
        found = lc.spectrum_relevance(made(rule), bright(2), SPECTRA, 0, method)
        assert all_finite(found) and all_finite(replace(found, share=found.mixture))
        assert (found.share == 0).all() and (found.total == 0).all()


def test_no_gradient_at_all_is_an_error() -> None:
    model = made(lambda tv, ir: torch.ones_like(tv[:, 0]))
    with pytest.raises(lc.errors.UserError, match="has no gradient"):
        lc.spectrum_relevance(model, bright(2), SPECTRA, 0, "gradient")
    assert (lc.spectrum_relevance(model, bright(2), SPECTRA, 0, "perturbation").share == 0).all()


def test_rounding_is_no_evidence() -> None:
    class Rounding(Made):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip) + 1e-7 * len(clip)  # as if kernels depended on the batch

    net = Rounding(lambda tv, ir: 0.3 + 0 * tv.mean(1))
    model = lc.Explainable.of(net, [], probability=None, black=BLACK)
    found = lc.spectrum_relevance(model, bright().float(), SPECTRA, 0, "perturbation", batch=3)
    assert found.drop is not None and (found.drop != 0).any()
    assert (found.total == 0).all() and (found.share == 0).all()


# --- how it is run ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", SPECTRUM_MEASURES)
def test_clips_of_a_batch_do_not_depend_on_one_another(method) -> None:
    torch.manual_seed(0)
    model = describe(Gap3d(4).eval().double(), black=BLACK)
    clips = clip_of(3, 4, 7, 12, 10, dtype=torch.float64)
    together = lc.spectrum_relevance(model, clips, SPECTRA, None, method)
    for b in range(3):
        alone = lc.spectrum_relevance(model, clips[b : b + 1], SPECTRA, None, method, batch=1)
        for name in ("share", "total", "target", "drop", "drop_all", "window_drop"):
            ours, theirs = getattr(together, name), getattr(alone, name)
            if ours is not None:
                torch.testing.assert_close(ours[b], theirs[0], rtol=1e-9, atol=1e-12)


def test_the_cost() -> None:
    for frames in (1, 3, 8, 16, 32, 75):
        model = made(lambda tv, ir: tv.mean(1) + ir.mean(1))
        net = model.module
        lc.spectrum_relevance(model, bright(frames=frames), SPECTRA, 0)
        assert net.rows == net.forwards == 1
        net.rows = 0
        found = lc.spectrum_relevance(model, bright(frames=frames), SPECTRA, 0, "perturbation")
        assert net.rows == 2 * len(found.windows) + 4 <= 18
        if frames == 32:
            net.forwards = 0
            lc.spectrum_relevance(model, bright(frames=32), SPECTRA, 0, "perturbation", batch=6)
            assert net.forwards == 1 + 3


@given(st.integers(1, 80), st.integers(1, 90) | st.none(), st.integers(1, 90) | st.none())
def test_windows_hold_every_frame(steps, window, stride) -> None:
    try:
        windows = _windows(steps, window, stride)
    except ValueError:
        assert stride is not None
        return
    assert {t for a, b in windows for t in range(a, b)} == set(range(steps))
    assert len({b - a for a, b in windows}) == 1 and len(set(windows)) == len(windows)
    if window is None and stride is None:
        assert len(windows) <= 7


@pytest.mark.parametrize("method", SPECTRUM_MEASURES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_network_is_left_as_it_was_found(method, context) -> None:
    net = Gap3d(4).train()
    net.fc.bias.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    clip = clip_of(2, 4, 6, 8, 8)
    kept, state = clip.clone(), torch.get_rng_state()
    with context():
        lc.spectrum_relevance(describe(net, black=BLACK), clip, SPECTRA, None, method)
        with pytest.raises(ValueError, match="target"):
            lc.spectrum_relevance(describe(net, black=BLACK), clip, SPECTRA, 9, method)
    assert torch.equal(clip, kept) and torch.equal(torch.get_rng_state(), state)
    assert all(m.training and not m._forward_hooks for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert [p.requires_grad for p in net.fc.parameters()] == [True, False]


def test_a_network_that_works_in_place_on_its_input() -> None:
    class InPlace(Made):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip.clamp_(min=-0.5))

    clip = clip_of(1, 4, 6, 5, 5, dtype=torch.float64)
    kept = clip.clone()
    for method in SPECTRUM_MEASURES:
        model = lc.Explainable.of(InPlace(lambda tv, ir: (tv + ir).mean(1)), [], black=BLACK)
        assert all_finite(lc.spectrum_relevance(model, clip, SPECTRA, 0, method))
        assert torch.equal(clip, kept), method


def test_half_precision_networks() -> None:
    torch.manual_seed(0)
    net = Gap3d(4).eval()
    clip = clip_of(1, 4, 8, 16, 16)
    for method in SPECTRUM_MEASURES:
        full = lc.spectrum_relevance(describe(net.float(), black=BLACK), clip, SPECTRA, 0, method)
        half = lc.spectrum_relevance(
            describe(net.bfloat16(), black=BLACK), clip, SPECTRA, 0, method
        )
        assert half.share.dtype == torch.float32 and all_finite(half)
        if method == "gradient":
            torch.testing.assert_close(half.total, full.total, atol=0.02, rtol=0)


def test_a_question_is_answered_by_its_own_score() -> None:
    model = made(lambda tv, ir: tv.mean(1) - ir.mean(1), probability="softmax")
    plain = lc.spectrum_relevance(model, bright(), SPECTRA, "yes", "perturbation")
    against = lc.spectrum_relevance(
        model.counterfactual(), bright(), SPECTRA, "yes", "perturbation"
    )
    assert plain.drop is not None and against.drop is not None
    torch.testing.assert_close(against.drop, -plain.drop)
    assert (plain.total.tolist(), against.total.tolist()) == ([[1, 0]], [[0, 1]])


@pytest.mark.parametrize(
    ("spectra", "options", "words"),
    [
        ({}, {}, "at least one channel"),
        ({"tv": (0, 1), "ir": ()}, {}, "at least one channel"),
        ({"tv": (0, 1), "ir": (1,)}, {}, "different channels from 0 to 3"),
        ({"tv": (0, 1), "ir": (4,)}, {}, r"different channels from 0 to 3.*'ir': \(4,\)"),
        (SPECTRA, {"method": "guess"}, "unknown method 'guess'; choose one of gradient"),
        (SPECTRA, {"window": 2, "stride": 3}, "windows of 2 frames every 3 leave frames out"),
        (SPECTRA, {"window": 0}, "windows of 0"),
        (SPECTRA, {"hidden": "pink"}, "unknown reference 'pink'"),
        (SPECTRA, {"target": "maybe"}, "no target 'maybe'"),
    ],
)
def test_what_makes_no_sense_is_refused(spectra, options, words) -> None:
    model = made(lambda tv, ir: tv.mean(1))
    with pytest.raises(ValueError, match=words):
        lc.spectrum_relevance(model, bright(), spectra, **options)
    with pytest.raises(ValueError, match=r"clip \(B, C, T, H, W\)"):
        lc.spectrum_relevance(model, bright()[0], SPECTRA)


# --- images and tables ---------------------------------------------------------------------


class Data:
    """What the multispectral data module says of its fused clips."""

    spectra = SPECTRA

    def views(self, clip: Tensor) -> dict[str, np.ndarray]:
        seen = (clip.float() * 80).clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()
        return {"tv": seen[..., :3], "ir": seen[..., 3:].repeat(3, -1)}


CLASSES = ["wave", "smile", "c", "d"]


@pytest.fixture
def explained() -> SimpleNamespace:
    torch.manual_seed(0)
    model = describe(Gap3d(4).eval(), outputs=CLASSES, black=BLACK)
    batch = batch_of(clip_of(1, 4, 6, 16, 16), padded=1)
    model = replace(model, valid=batch["valid"])
    found = explain_clip(model, {"gradcam": lc.GradCAM()}, batch["video"], "smile", against=0)
    spectra = explain_spectra(model, batch["video"], Data(), found["gradcam"].target)
    return SimpleNamespace(model=model, batch=batch, found=found, spectra=spectra)


@pytest.mark.parametrize("spectra", [None, {}, {"tv": (0, 1, 2, 3)}])
def test_clips_of_one_spectrum_are_not_asked(spectra) -> None:
    data = SimpleNamespace() if spectra is None else SimpleNamespace(spectra=spectra)
    model = made(lambda tv, ir: tv.mean(1))
    assert explain_spectra(model, bright(), data, torch.tensor([0])) == {}
    assert model.module.forwards == 0 and clip_views(data, bright()) == {}
    assert explain_spectra(model, bright(), None, torch.tensor([0])) == {}


def test_a_measure_that_fails_is_left_out() -> None:
    def needs_gradients(tv: Tensor, ir: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or not tv.requires_grad:
            raise RuntimeError("no gradient")
        return tv.mean(1)

    failed: list[str] = []
    model, target = made(needs_gradients), torch.tensor([0])
    found = explain_spectra(model, bright(), Data(), target, lambda name, _: failed.append(name))
    assert list(found) == ["gradient"] and failed == ["spectrum by perturbation"]
    with pytest.raises(RuntimeError, match="no gradient"):
        explain_spectra(model, bright(), Data(), target)


def test_the_image_shows_both_views_and_the_shares(explained) -> None:
    large = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    views = clip_views(Data(), explained.batch["video"])
    plain = draw_clip(explained.model, explained.found, large, explained.batch, "clip")
    full = draw_clip(
        explained.model, explained.found, large, explained.batch, "clip",
        spectra=explained.spectra, views=views,
    )  # fmt: skip
    assert not plain.views and not plain.stacks
    assert list(full.views) == ["TV", "IR"] and list(full.stacks) == [
        "spectra for A by gradient", "spectra for A by perturbation",
    ]  # fmt: skip
    assert full.views["TV"] is large and full.views["IR"].shape == large.shape
    stack = full.stacks["spectra for A by gradient"]
    np.testing.assert_array_equal(stack.shares, explained.spectra["gradient"].share[0])
    np.testing.assert_array_equal(stack.totals, explained.spectra["gradient"].total[0])
    drops = full.stacks["spectra for A by perturbation"].drops
    perturbation = explained.spectra["perturbation"]
    assert stack.drops is None and drops is not None
    np.testing.assert_array_equal(drops[:2], perturbation.drop[0])
    assert drops[2] == perturbation.drop_all[0]

    video, before = draw_video(full), draw_video(plain)
    width = panel_size(32, 32)[1]
    grey = video[0, :, 16 + width + 4 : 16 + 2 * width + 4].std(-1) == 0  # the infrared view
    assert grey.mean(1).max() > 0.9 and video.shape[1] > before.shape[1]
    assert draw_sheet(full).shape[0] > draw_sheet(plain).shape[0]


def test_the_bars_are_as_high_as_the_shares(explained) -> None:
    model = made(lambda tv, ir: tv[:, 1] + ir[:, 1] + 2 * ir[:, 2])
    batch = batch_of(torch.tensor(BLACK).double()[:, None, None, None] + torch.ones(1, 4, 3, 5, 3))
    found = explain_clip(model, {"centre": lc.CentreMap()}, batch["video"], "yes")
    spectra = explain_spectra(model, batch["video"], Data(), found["centre"].target)
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    figure = draw_clip(model, found, frames, batch, "clip", spectra=spectra)
    strip = Strip(figure, 400, 150, 330)
    row = next(row for row in strip.rows if row.name == "spectra by gradient")
    pixels = strip.draw().pixels()
    x0, x1 = strip.column(0)[0], strip.column(1)
    columns = [pixels[row.y : row.y + row.height, sum(strip.column(t)) // 2] for t in range(3)]
    heights = [[int((c == color).all(-1).sum()) for color in COLORS[:2]] for c in columns]
    full = row.height - 2
    assert heights[0] == [0, 0] and x0 < x1[0]
    assert heights[1] == pytest.approx([full / 2, full / 2], abs=1)  # dashes may cost a pixel
    assert heights[2][0] == 0 and heights[2][1] == pytest.approx(full, abs=1)


def test_the_arrays_hold_shares_and_drops(explained, tmp_path: Path) -> None:
    frames = np.zeros((6, 16, 16, 3), np.uint8)
    figure = draw_clip(explained.model, explained.found, frames, explained.batch, "clip")
    files = write_clip(
        tmp_path, figure, explained.found, explained.batch, 4, spectra=explained.spectra
    )
    with np.load(files.arrays) as arrays:
        assert {name for name in arrays.files if name.startswith("spectrum")} == {
            *(f"spectrum{what}/{measure}/{name}" for what in ("", "_total")
              for measure in SPECTRUM_MEASURES for name in ("tv", "ir")),
            "spectrum_drop/tv", "spectrum_drop/ir", "spectrum_drop_all",
        }  # fmt: skip
        share = arrays["spectrum/gradient/ir"]
        assert share.shape == (6,) and share[5] == 0  # padding
        total = sum(arrays[f"spectrum/gradient/{name}"].sum() for name in SPECTRA)
        assert total == pytest.approx(1)
        drop = explained.spectra["perturbation"].drop
        assert float(arrays["spectrum_drop/ir"]) == float(drop[0, 1])


def test_the_tables_have_columns_for_the_spectra_of_the_class_asked_for(
    explained, tmp_path: Path
) -> None:
    args = explained.model, explained.found, explained.batch, explained.spectra
    scored = list(score_rows(*args))
    with write_csv(tmp_path / "s.csv", scored, SCORE_COLUMNS).open() as file:
        smile, wave = csv.DictReader(file)
    added = [
        "share_tv_gradient", "share_ir_gradient", "share_tv_perturbation",
        "share_ir_perturbation", "drop_tv", "drop_ir", "drop_all",
    ]  # fmt: skip
    assert list(smile) == [*SCORE_COLUMNS, *added]
    assert (smile["target"], wave["target"]) == ("smile", "wave")
    assert not any(wave[name] for name in added)  # the other class was not asked about
    gradient, perturbation = (explained.spectra[measure] for measure in SPECTRUM_MEASURES)
    assert float(smile["share_ir_gradient"]) == pytest.approx(float(gradient.total[0, 1]), abs=1e-6)
    assert float(smile["drop_tv"]) == pytest.approx(float(perturbation.drop[0, 0]), abs=1e-6)
    assert "probability drops" not in page_scores(scored)  # read from no column
    assert page_scores(scored, explained.spectra)["probability drops"] == (
        f"by {float(smile['drop_tv']):.2f} without TV, by {float(smile['drop_ir']):.2f} without "
        f"IR, by {float(smile['drop_all']):.2f} without any"
    )
    with write_csv(
        tmp_path / "r.csv", list(relevance_rows(*args)), RELEVANCE_COLUMNS
    ).open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[len(RELEVANCE_COLUMNS) :] == [
        f"share_{name}_{measure}" for measure in SPECTRUM_MEASURES for name in SPECTRA
    ]
    shares = [float(row[f"share_{name}_gradient"]) for row in rows[:5] for name in SPECTRA]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert all(row["share_ir_gradient"] == "" for row in rows[5:])
    bare = list(score_rows(*args[:3])) + list(relevance_rows(*args[:3]))
    assert all(set(row) <= {*SCORE_COLUMNS, *RELEVANCE_COLUMNS} for row in bare)


def test_what_is_silent_leaves_the_cells_empty() -> None:
    model = made(lambda tv, ir: 0 * tv.sum(1))
    batch = batch_of(bright())
    found = explain_clip(model, {"centre": lc.CentreMap()}, batch["video"], "yes")
    spectra = explain_spectra(model, batch["video"], Data(), found["centre"].target)
    (row,) = score_rows(model, found, batch, spectra)
    assert row["share_ir_gradient"] == row["share_tv_perturbation"] == ""
    assert row["drop_ir"] == row["drop_all"] == "0.000000"
    assert not any("share_ir" in name for row in relevance_rows(model, found, batch, spectra)
                   for name in row)  # fmt: skip


def test_spectra_named_like_columns_are_told_apart(explained) -> None:
    """The page knows spectra by their names, not by what columns are called."""
    odd = {
        measure: replace(found, spectra=("all", "drop_x"))
        for measure, found in explained.spectra.items()
    }
    rows = list(score_rows(explained.model, explained.found, explained.batch))
    shown = page_scores(rows, odd)["probability drops"]
    assert [part.rpartition(" ")[2] for part in shown.split(", ")] == ["ALL", "DROP_X", "any"]
    with pytest.raises(ConfigError, match="all spectra finds 'drop_all', but a spectrum has"):
        list(score_rows(explained.model, explained.found, explained.batch, odd))


def test_the_page_shows_the_shares(explained, tmp_path: Path) -> None:
    frames = np.zeros((6, 16, 16, 3), np.uint8)
    figure = draw_clip(
        explained.model, explained.found, frames, explained.batch, "c", spectra=explained.spectra
    )
    files = write_clip(tmp_path, figure, explained.found, explained.batch, 4)
    entry = ReportEntry.of(figure, files.video, files.sheet, files.arrays)
    page = write_report(tmp_path, [entry]).read_text()
    assert page.count('<svg class="spectra"') == 2
    assert page.count('<rect class="spectrum1"') == 2 * 6
    assert "spectra for A by gradient" in page and "</b>IR" in page
    without = replace(entry, stacks={})
    assert "spectra for" not in write_report(tmp_path, [without]).read_text()


def test_the_callback_draws_the_spectra(tmp_path: Path) -> None:
    class Task(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Gap3d(4)

        def explainable(self, batch: Any) -> lc.Explainable:
            return describe(self.net, outputs=CLASSES, black=BLACK)

        def validation_step(self, batch: Any, index: int) -> None: ...

    class Fused(Data, pl.LightningDataModule):
        def val_dataloader(self) -> DataLoader:
            return DataLoader(
                [{"video": v, "label": torch.tensor(0)} for v in clip_of(2, 4, 6, 16, 16)]
            )  # type: ignore[arg-type]

    callback = lc.ExplainCallback({"gradcam": lc.GradCAM()}, clips=2, folder=tmp_path)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        callbacks=[callback], accelerator="cpu", default_root_dir=tmp_path, **options
    )
    trainer.validate(Task(), Fused(), verbose=False)
    for clip in ("clip_0", "clip_1"):
        with np.load(tmp_path / "validate" / f"{clip}.npz") as arrays:
            assert {"spectrum/gradient/ir", "spectrum_drop/tv"} < set(arrays.files)


def test_views_of_the_data_module(tmp_path: Path) -> None:
    data = Multispectral(str(tmp_path), fusion="early", num_frames=4)
    pixels = torch.randint(0, 256, (2, 4, 4, 6, 5), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v)[:, None, None, None] for v in (data.mean, data.std))
    clip = (pixels / 255 - mean) / std
    views = data.views(clip)
    assert list(views) == list(data.spectra) == ["tv", "ir"]
    np.testing.assert_array_equal(views["tv"], pixels[:, :3].movedim(1, -1))
    np.testing.assert_array_equal(views["tv"], data.to_frames(clip))
    np.testing.assert_array_equal(
        views["ir"], pixels[:, 3:].movedim(1, -1).expand(-1, -1, -1, -1, 3)
    )
    union = Multispectral(str(tmp_path), fusion="union", num_frames=4)
    assert union.spectra == union.views(clip[:, :3]) == {}
