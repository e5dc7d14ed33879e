"""When a map is doubtful: one rule, drawn and said; and networks that are not finite."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from enumerated import REASONS, methods
from nets import FoldedLSTM, Gap3d, batch_of, clip_of, describe
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.doubt import LIMIT, Doubt, is_too_much, not_finite
from lightning_cam.attribution.tensors import all_finite, finite_rows
from lightning_cam.errors import UserError
from lightning_cam.explaining.clip_drawing import draw_clip
from lightning_cam.explaining.clip_explanations import explain_clip
from lightning_cam.explaining.clip_files import write_clip
from lightning_cam.viz import ReportEntry, draw_sheet, write_report

METHODS = methods()
CLIP = clip_of(1, 3, 4, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_whether_all_numbers_are_finite(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    rows = [
        [most, most],
        [1, -1],
        [1, float("inf")],
        [float("inf"), -float("inf")],
        [1, float("nan")],
    ]
    values = torch.tensor(rows, dtype=dtype)
    assert finite_rows(values).tolist() == [True, True, False, False, False]
    assert [all_finite(row) for row in values] == [True, True, False, False, False]
    assert all_finite(values[:2]) and finite_rows(values[1:2]).tolist() == [True]
    assert all_finite(values[:0])


@dataclass(frozen=True)
class Knows(lc.Attribution):
    """A method of a user that knows its own error."""

    title = "Knows"
    doubts = (Doubt("off", "off by {off:.0%}"),)
    off: tuple[float, ...] = (0.0,)

    def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        model.numbers["off"] = torch.tensor(self.off)
        return clip.mean(1).abs()


def test_one_threshold_for_every_clip_of_a_batch() -> None:
    off = (0.0, LIMIT, LIMIT + 0.01, float("inf"), float("nan"))
    e = lc.explain(describe(Gap3d()), Knows(off), clip_of(5, 3, 2, 8, 8), 0)
    assert e.doubts == ("", "", "off by 51%", "off by inf%", "off by nan%")
    assert is_too_much(True) and not is_too_much(False)


@pytest.mark.attack
def test_each_method_that_knows_its_error_doubts_by_a_number_it_gives() -> None:
    """Their sentences can be filled, and only by numbers that exist."""
    doubting = {name: m for name, m in METHODS.items() if m.doubts}
    kinds = {type(m) for m in doubting.values()}
    assert kinds == {
        lc.RISE, lc.SIDU, lc.IntegratedGradients, lc.RegressionGradCAM, lc.ExtremalPerturbation,
        lc.Supervoxels, lc.ExcitationBackprop,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, method in doubting.items():
            e = lc.explain(describe(FoldedLSTM()), method, 3 * CLIP, 1)
            for doubt in method.doubts:
                assert doubt.number in e.numbers, name
                assert doubt.says.format(**{n: float(v) for n, v in e.numbers.items()})
                assert bool(e.doubts[0]) == is_too_much(float(e.numbers[doubt.number])), name


def test_rise_doubts_few_masks_and_trusts_many() -> None:
    model = bright_corner()
    clip = torch.ones(1, 3, 4, 16, 16)
    few = lc.explain(model, lc.RISE(8, cells=(1, 4, 4)), clip, 0)
    many = lc.explain(model, lc.RISE(2000, cells=(1, 4, 4)), clip, 0)
    assert float(few.numbers["error"]) > LIMIT and "estimated error" in few.doubts[0]
    assert float(many.numbers["error"]) < LIMIT and many.doubts == ("",)


def test_extremal_perturbation_doubts_masks_of_another_size() -> None:
    constant = describe(Gap3d())
    with torch.no_grad():
        constant.module.fc.weight.zero_()  # type: ignore[union-attr]
    method = lc.ExtremalPerturbation("3d", areas=(0.01,), iterations=1)
    with pytest.warns(UserWarning, match="of area 0.01 masks of"):
        e = lc.explain(constant, method, CLIP, 0)
    assert "differs from the area" in e.doubts[0]
    size = float(e.numbers["area_0.01"])
    assert float(e.numbers["off_area"]) == pytest.approx((size - 0.01) / size, rel=1e-5)


def test_sidu_doubts_where_no_mask_keeps_the_answer() -> None:
    net = Gap3d()
    with torch.no_grad():
        net.fc.weight *= 1000  # logits that any mask moves by far more than sigma
    clip = 3 * clip_of(1, 3, 4, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        e = lc.explain(describe(net), lc.SIDU(threshold="quantile:0.9", raw=True), clip, 0)
    assert float(e.numbers["lost"]) > LIMIT and "loses" in e.doubts[0]


@pytest.mark.attack
def test_spectra_that_stand_in_for_each_other_are_doubtful() -> None:
    """Two spectra, either of which is enough."""

    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, clip: Tensor) -> Tensor:
            seen = self.layer(clip).mean((2, 3, 4))  # (B, 2)
            return torch.stack([seen.amax(1), 0 * seen[:, 0]], 1)

    def found(clip: Tensor) -> lc.SpectrumRelevance:
        model = lc.Explainable.of(Either(), ["layer"], probability=None)
        return lc.spectrum_relevance(model, clip, {"a": [0], "b": [1]}, 0, "perturbation")

    both = torch.ones(1, 2, 4, 8, 8)
    either = found(both)
    assert "misses 100% of what hiding all" in either.doubts[0]
    both[:, 1] = 0
    assert found(both).doubts == ("",)  # all is the first one's
    gradient = lc.spectrum_relevance(describe(Gap3d()), CLIP, {"a": [0], "b": [1]}, 0)
    assert gradient.doubts == ("",)


def bright_corner() -> lc.Explainable:
    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, clip: Tensor) -> Tensor:
            seen = self.layer(clip)[..., :8, :8].mean((1, 2, 3, 4))
            return torch.stack([4 * seen, 0 * seen], 1)

    return lc.Explainable.of(Corner(), ["layer"], outputs=["corner", "nothing"])


def drawn(tmp_path: Path, model: lc.Explainable, method: lc.Attribution, **of: Any) -> Any:
    clip = torch.ones(1, 3, 4, 16, 16)
    batch = batch_of(clip)
    explanations = explain_clip(model, {"m": method}, clip, 0, **of)
    frames = np.full((4, 64, 64, 3), 128, np.uint8)
    figure = draw_clip(model, explanations, frames, batch, "clip")
    files = write_clip(tmp_path, figure, explanations, batch, fps=8)
    entry = ReportEntry.of(figure, files.video, files.sheet, files.arrays)
    return figure, write_report(tmp_path, [entry]).read_text(encoding="utf-8")


@pytest.mark.attack
def test_a_doubtful_rise_map_is_faint_in_the_picture_and_said_on_the_page(tmp_path: Path) -> None:
    """A map of RISE from too few masks, in the picture and on the page."""
    few, page = drawn(tmp_path / "few", bright_corner(), lc.RISE(8, cells=(1, 4, 4)))
    (reason,) = few.doubts.values()
    assert f"faint: {reason}" in page
    trusted = dataclasses.replace(few, doubts={})
    sheets = [draw_sheet(f).astype(int) for f in (few, trusted)]
    coloured = [int((sheet.std(-1) > 60).sum()) for sheet in sheets]
    assert coloured[0] < coloured[1] / 10
    many, page = drawn(tmp_path / "many", bright_corner(), lc.RISE(2000, cells=(1, 4, 4)))
    assert not many.doubts and "faint: its" not in page


def test_each_class_of_a_contrast_has_its_own_doubt(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class OfA(Knows):
        def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
            heat = super().__call__(model, clip, target)
            model.numbers["off"] = 1.0 * (target == 1)
            return heat * torch.linspace(0, 1, 16)

    figure, _ = drawn(tmp_path, bright_corner(), OfA(), against=1)
    a, b, both = figure.heatmaps
    assert set(figure.doubts) == {b, both} and a not in figure.doubts


# Networks that are not finite ---------------------------------------------------------------------


@pytest.mark.attack
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.filterwarnings("ignore:SIDU's map is 0", "ignore:.*of area .* came out")
def test_weights_that_are_not_finite_are_doubted_by_every_method(name: str, value: float) -> None:
    """NaN and infinity in one weight, explained by every method: a warning and a doubtful map."""
    net = FoldedLSTM()
    with torch.no_grad():
        net.trunk.conv.weight[0, 0, 0, 0] = value
    try:
        with pytest.warns(UserWarning, match=r"weights of FoldedLSTM are not finite \(trunk.conv"):
            model = dataclasses.replace(describe(net, steps="head"), truth=CLIP[:, 0] > 0)
            e = lc.explain(model, METHODS[name], CLIP)
    except UserError as error:
        if not any(reason in str(error) for reason in REASONS):
            raise
        pytest.skip(str(error))
    assert e.doubts == ("the network's weights are not finite (trunk.conv.weight)",)


@pytest.mark.attack
def test_buffers_and_outputs_that_are_not_finite_are_doubted() -> None:
    """NaN statistics of batch norm; a finite network whose outputs are not, in one clip of two."""
    net = Gap3d()
    net.norm.running_var[2] = torch.nan
    with pytest.warns(UserWarning, match=r"norm.running_var"):
        e = lc.explain(describe(net), lc.GradCAM(), CLIP)
    assert "norm.running_var" in e.doubts[0]

    class Divides(Gap3d):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip) / clip[:, 0, 0, 0, 0, None]

    clip = torch.cat([CLIP, CLIP])
    clip[1, 0, 0, 0, 0] = 0
    with pytest.warns(UserWarning, match="outputs of Divides are not finite, its weights are"):
        e = lc.explain(describe(Divides()), lc.GradCAM(), clip, 0)
    assert e.doubts == ("", "the network's outputs are not finite")


class Root(Gap3d):
    """Its last step has no gradient at black clips, on which its outputs are finite."""

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip) + clip.square().sum((1, 2, 3, 4)).sqrt()[:, None]


@pytest.mark.attack
def test_maps_that_are_not_finite_are_doubted() -> None:
    """A finite network with finite outputs whose gradient is NaN, in one clip of two; a method
    whose map has one infinite voxel; padding is no part of the map.
    """
    clip = torch.cat([CLIP, torch.zeros_like(CLIP)])
    for method in (lc.Gradient(), lc.GradientXInput(), lc.GuidedBackprop()):
        with pytest.warns(UserWarning, match="has values that are not finite, outputs of Root are"):
            e = lc.explain(describe(Root()), method, clip, 0)
        assert e.doubts == ("", "values of the map are not finite")

    def one_infinite(_model: lc.Explainable, rows: Tensor, _target: Tensor) -> Tensor:
        heat = rows.mean(1)
        heat[0, -1, 2, 3] = torch.inf
        return heat

    with pytest.warns(UserWarning, match="^one_infinite has values that are not finite"):
        e = lc.explain(describe(Gap3d()), one_infinite, clip, 0)
    assert e.doubts == ("values of the map are not finite", "the map is zero everywhere")
    valid = torch.ones(2, CLIP.shape[2], dtype=torch.bool)
    valid[:, -1] = False
    padded = dataclasses.replace(describe(Gap3d()), valid=valid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not lc.explain(padded, one_infinite, clip, 0).doubts[0]


@pytest.mark.attack
def test_weights_are_looked_at_again_when_they_change() -> None:
    """Weights turn NaN in place, by loading, and by another tensor; and finite again."""
    net = Gap3d()
    good, bad = copy.deepcopy(net.state_dict()), copy.deepcopy(net.state_dict())
    bad["fc.bias"][0] = torch.nan
    assert not_finite(net) == ()
    net.load_state_dict(bad)
    assert not_finite(net) == ("fc.bias",)
    net.load_state_dict(good)
    assert not_finite(net) == ()
    net.fc = nn.Linear(6, 4)
    assert not_finite(net) == ()
    with torch.no_grad():
        net.fc.bias[:] = torch.inf
    assert not_finite(net) == ("fc.bias",)
    net.fc.weight.data = torch.full_like(net.fc.weight, torch.nan)
    assert not_finite(net) == ("fc.weight", "fc.bias")
    assert not_finite(nn.Identity()) == ()


@pytest.mark.attack
@pytest.mark.parametrize(
    "method",
    [lc.GradCAM(), lc.RISE(masks=4), lc.Occlusion(), lc.Gradient(), lc.TemporalMask(iterations=2)],
)
def test_a_network_without_weights_has_nothing_to_show(method: lc.Attribution) -> None:
    """All weights are zero; all classes get the same answer; every clip gets the same answer."""
    nothing, alike, deaf = (Gap3d() for _ in range(3))
    for weight in (*nothing.parameters(), *alike.fc.parameters(), deaf.fc.weight):
        torch.nn.init.zeros_(weight)
    for net in (nothing, alike):
        e = lc.explain(describe(net), method, CLIP, 0)
        assert e.doubts == ("the network's outputs are all the same",)
    if not isinstance(method, lc.TemporalMask):  # which starts from a mask that is not flat
        said = lc.explain(describe(deaf), method, CLIP, 0).doubts[0]
        assert said.startswith("the map is ") and said.endswith(" everywhere")
