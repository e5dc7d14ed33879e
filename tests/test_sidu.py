"""SIDU against its formulas (S1-S5), written out without any of the shortcuts."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FoldedLSTM, Gap3d, LoopedLSTM, clip_of, describe
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution import sidu
from lightning_cam.attribution.guard import explaining

BLACK = [-0.5, 0.3, -1.0]


class Masks(nn.Module):
    """Hands out given features `(D, t, h, w)`, and answers by what can be seen of regions."""

    def __init__(self, features: Tensor, regions: Tensor) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.features, self.regions, self.rows = features, regions, 0

    def forward(self, clip: Tensor) -> Tensor:
        self.rows += len(clip)
        self.layer(self.features.expand(len(clip), -1, -1, -1, -1))
        seen = torch.einsum("bcthw,kthw->bk", clip, self.regions) / self.regions.sum((1, 2, 3))
        return 4 * seen


def formulas(
    features: Tensor,
    net: nn.Module,
    clip: Tensor,
    method: lc.SIDU,
    target: int,
    *,
    black: Tensor,
    level: Tensor | float,
) -> Tensor:
    """Every channel of `(D, t, h, w)` a mask of its own, resized and run by itself."""
    black = black.view(-1, 1, 1, 1)
    masks = [
        (a > lv).float() for a, lv in zip(features, _levels(level, len(features)), strict=True)
    ]
    masks = [m for m in masks if m.any()]
    masks = [
        F.interpolate(m[None, None], clip.shape[2:], mode="trilinear", align_corners=False)[0, 0]
        for m in masks
    ]
    with torch.no_grad():
        rows = [
            net(seen)[0].double() for seen in (clip, *(black + m * (clip - black) for m in masks))
        ]
    p0, *p = rows if method.raw else [row.softmax(0) for row in rows]
    u = torch.stack([sum((a - b).norm() for b in p) for a in p])  # type: ignore[misc]
    u = (u - u.min()) / (u.max() - u.min() + 1e-13)
    heat = torch.zeros(clip.shape[2:], dtype=torch.float64)
    for pk, uk, mask in zip(p, u, masks, strict=True):
        if method.sd == "class":
            sd = (-((p0 - pk)[target] ** 2) / (2 * method.sigma**2)).exp()
        else:
            sd = (-(p0 - pk).norm() / (2 * method.sigma**2)).exp()
        heat += sd * uk * mask
    return (heat / (0.5 * len(masks))).float()


def _levels(level: Tensor | float, count: int) -> list[Any]:
    return list(level) if isinstance(level, Tensor) else [level] * count


def net3d() -> Gap3d:
    torch.manual_seed(0)
    net = Gap3d().eval()
    with torch.no_grad():
        net.fc.weight *= 3  # answers that differ
        net.conv.weight[2] = net.conv.weight[4]  # equal channels make equal masks
        for name in ("weight", "bias", "running_mean", "running_var"):
            values = getattr(net.norm, name)
            values[2] = values[4]
    return net


@pytest.mark.parametrize("sd", ["class", "vector"])
@pytest.mark.parametrize("threshold", [0.5, 0.0, "quantile:0.6"])
def test_the_map_is_that_of_the_formulas(sd: Any, threshold: float | str) -> None:
    net = net3d()
    clip = clip_of(1, 3, 5, 13, 10)
    kept: list[Tensor] = []
    with net.layer.register_forward_hook(lambda _m, _i, out: kept.append(out.clone())):
        net(clip)
    features = kept[0][0].detach()
    level: Tensor | float = threshold  # type: ignore[assignment]
    if isinstance(threshold, str):
        level = torch.stack([a.quantile(0.6, interpolation="lower") for a in features.flatten(1)])
    method = lc.SIDU(threshold=threshold, sd=sd)
    expected = formulas(features, net, clip, method, 2, black=torch.tensor(BLACK), level=level)
    heat = lc.explain(describe(net, black=BLACK), method, clip, 2).heatmap[0]
    assert heat.max() > 0.01
    torch.testing.assert_close(heat, expected, rtol=1e-4, atol=1e-6)


def test_bayer2022_compares_logits() -> None:
    """Features above 0.5, sigma 0.25, and the columns of a classifier as they are."""
    net = net3d()
    with torch.no_grad():
        net.fc.weight /= 3  # or nothing would be similar
    clip = clip_of(1, 3, 5, 13, 10)
    kept: list[Tensor] = []
    with net.layer.register_forward_hook(lambda _m, _i, out: kept.append(out.clone())):
        net(clip)
    method = lc.SIDU.bayer2022()
    assert method == lc.SIDU(threshold=0.5, sigma=0.25, sd="class", raw=True)
    black = torch.tensor(BLACK)
    expected = formulas(kept[0][0].detach(), net, clip, method, 2, black=black, level=0.5)
    model = describe(net, black=BLACK)
    heat = lc.explain(model, method, clip, 2).heatmap[0]
    assert heat.max() > 0.01
    torch.testing.assert_close(heat, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(heat, lc.explain(model, lc.SIDU(), clip, 2).heatmap[0], rtol=0.1)


def test_frames_in_the_batch_and_frames_one_by_one() -> None:
    torch.manual_seed(0)
    folded = FoldedLSTM().eval()
    clip = clip_of(2, 3, 4, 9, 12)
    method = lc.SIDU(threshold=0.2)
    heat = lc.explain(describe(folded, black=BLACK), method, clip, 1).heatmap
    looped = describe(LoopedLSTM(folded), "relu", black=BLACK)
    torch.testing.assert_close(
        lc.explain(looped, method, clip, 1).heatmap, heat, rtol=1e-4, atol=1e-6
    )
    for i in range(2):
        with torch.no_grad():
            features = folded.trunk(clip[i : i + 1]).transpose(0, 1)  # (D, T, h, w)
        black = torch.tensor(BLACK)
        expected = formulas(features, folded, clip[i : i + 1], method, 1, black=black, level=0.2)
        torch.testing.assert_close(heat[i], expected, rtol=1e-4, atol=1e-6)


def regions(count: int, size: tuple[int, int, int] = (4, 8, 8)) -> Tensor:
    """Disjoint columns of the image, `(count, T, H, W)`."""
    found = torch.zeros(count, *size)
    for k in range(count):
        found[k, :, :, k * size[2] // count : (k + 1) * size[2] // count] = 1
    return found


def test_s1_equal_masks_give_0() -> None:
    features = torch.ones(5, 4, 8, 8)
    features[:, :, 3] = 0
    net = Masks(features, regions(4))
    with pytest.warns(UserWarning, match=r"SIDU's map is 0: no mask of layer 'layer' at thresh"):
        e = lc.explain(lc.Explainable.of(net, ["layer"]), lc.SIDU(), torch.ones(1, 1, 4, 8, 8))
    assert not e.heatmap.any()
    assert net.rows == 2


@pytest.mark.parametrize("threshold", [-1, 10])
def test_s2_a_threshold_below_or_above_all_features_gives_0_and_a_warning(threshold: int) -> None:
    with pytest.warns(
        UserWarning, match=r"features lie from 0 to .*try explain.NAME.threshold=quantile:0.8"
    ):
        e = lc.explain(describe(net3d()), lc.SIDU(threshold=threshold), clip_of(1, 3, 4, 8, 8))
    assert torch.equal(e.heatmap, torch.zeros(1, 4, 8, 8))


def test_s3_the_mask_that_keeps_the_answer_alone_weighs_most() -> None:
    places = regions(4)
    rest = 1 - places[0]
    junk = torch.zeros_like(rest)
    junk[:, 6:] = 1
    net = Masks(torch.stack([rest, places[0], junk]), places)
    clip = torch.zeros(1, 1, 4, 8, 8)
    clip[0, 0] = places[0]  # the answer depends on region 0 alone
    heat = lc.explain(lc.Explainable.of(net, ["layer"]), lc.SIDU(), clip, 0).heatmap[0]
    inside = places[0].bool()
    assert heat[inside].min() > 2 * heat[~inside].max()


@given(
    answers=st.lists(
        st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3), min_size=2, max_size=8
    ),
    counts=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_s4_uniqueness_lies_in_0_to_1(answers: list[list[float]], counts: st.DataObject) -> None:
    found = torch.tensor(answers, dtype=torch.float64)
    count = torch.tensor(
        counts.draw(st.lists(st.integers(1, 4), min_size=len(found), max_size=len(found)))
    )
    model = lc.Explainable.of(nn.Identity(), [])
    # P_0 is that of the first mask: its similarity is 1, its weight its uniqueness
    similar, unique = lc.SIDU()._weights(
        model, torch.cat([found[:1], found]), torch.cat([found[:1], found]), count
    )
    weights = similar * unique[:, None]
    wide, same = lc.SIDU(sigma=1e6)._weights(
        model, torch.cat([found[:1], found]), torch.cat([found[:1], found]), count
    )
    torch.testing.assert_close(wide, torch.ones_like(wide))
    assert torch.equal(same, unique)
    assert unique.min() == 0
    assert unique.max() <= 1
    distinct = len(found.unique(dim=0)) > 1
    assert bool(unique.max() > 0.5) == distinct or float(unique.max()) < 1e-3
    torch.testing.assert_close(weights[0], unique[:1].expand(3))
    # counting a mask n times is the same as having it n times
    repeated = found.repeat_interleave(count, 0)
    similar, unique = lc.SIDU()._weights(
        model, torch.cat([found[:1], repeated]), torch.cat([found[:1], repeated]),
        torch.ones(len(repeated)),
    )  # fmt: skip
    each = similar * unique[:, None]
    torch.testing.assert_close(each, weights.repeat_interleave(count, 0), rtol=1e-4, atol=1e-6)


def test_s5_the_order_of_channels_changes_nothing() -> None:
    net, clip = net3d(), clip_of(1, 3, 4, 8, 8)
    expected = lc.explain(describe(net), lc.SIDU(threshold=0.3), clip, 1).heatmap
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        net.conv.weight[:] = net.conv.weight[order]
        net.conv.bias[:] = net.conv.bias[order]  # type: ignore[index]
        net.fc.weight[:] = net.fc.weight[:, order]
        for name in ("weight", "bias", "running_mean", "running_var"):
            values = getattr(net.norm, name)
            values[:] = values[order].clone()
    heat = lc.explain(describe(net), lc.SIDU(threshold=0.3), clip, 1).heatmap
    torch.testing.assert_close(heat, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batch", [1, 3, None])
def test_dead_and_equal_channels_cost_no_forward(batch: int | None) -> None:
    places = regions(4)
    dead = torch.zeros(3, 4, 8, 8)
    features = torch.cat([places, dead, places[1:3], places[1:2]])  # 10 channels, 4 masks
    net = Masks(features, places)
    clip = torch.rand(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    method = lc.SIDU(batch=batch)
    heat = lc.explain(lc.Explainable.of(net, ["layer"]), method, clip, 2).heatmap[0]
    assert net.rows == 1 + 4
    expected = formulas(features, net, clip, method, 2, black=torch.zeros(1), level=0.5)
    torch.testing.assert_close(heat, expected, rtol=1e-4, atol=1e-6)


def test_clips_of_a_batch_have_masks_of_their_own() -> None:
    net = net3d()
    clip = clip_of(3, 3, 4, 8, 8)
    clip[1] *= 0.4  # fewer masks
    model, method = describe(net, black=BLACK), lc.SIDU(threshold=0.6, batch=4)
    target = torch.tensor([0, 3, 1])
    batch = lc.explain(model, method, clip, target).heatmap
    for i in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = lc.explain(model, method, clip[i : i + 1], target[i : i + 1]).heatmap
        torch.testing.assert_close(batch[i], alone[0], rtol=1e-5, atol=1e-7)


def test_columns_are_the_maps_of_the_single_targets() -> None:
    model, clip = describe(net3d()), clip_of(2, 3, 4, 8, 8)
    method = lc.SIDU(threshold="quantile:0.5")
    with explaining(model.module):
        columns = method.columns(model, clip)
    assert columns.shape == (2, 4, 4, 8, 8)
    for c in range(4):
        torch.testing.assert_close(columns[:, c], lc.explain(model, method, clip, c).heatmap)


def test_a_quantile_shows_the_same_share_in_every_mask() -> None:
    features = clip_of(6, 4, 8, 8)
    features *= torch.logspace(-2, 2, 6).view(6, 1, 1, 1)
    masks = lc.SIDU(threshold="quantile:0.75")._masks(features)
    assert (masks.shapes.flatten(1).float().mean(1) - 0.25).abs().max() < 0.01
    # layers with more than 2^24 features, where torch.quantile gives up
    large = torch.zeros(2, 1, 4096, 2100)
    large[:, :, :100] = torch.rand(2, 1, 100, 2100)
    assert len(lc.SIDU(threshold="quantile:0.99")._masks(large).shapes) == 2


def test_regressors_answers_have_no_unit() -> None:
    """Columns are compared in units of their change: their scale plays no part."""
    net, clip = net3d(), clip_of(1, 3, 4, 8, 8)
    model = describe(net, probability=None, black=BLACK)
    method = lc.SIDU(threshold=0.3)
    heat = lc.explain(model, method, clip, 1).heatmap
    assert heat.max() > 0.001
    with torch.no_grad():
        net.fc.weight *= 100
        net.fc.bias *= 100
    torch.testing.assert_close(
        lc.explain(model, method, clip, 1).heatmap, heat, rtol=1e-4, atol=1e-6
    )
    values = torch.tensor([[1.0], [1.0], [2.0], [4.0]], dtype=torch.float64)
    change = sidu._change(values, torch.tensor([2, 1, 1]))
    assert float(change) == pytest.approx((10 / 4) ** 0.5)


def test_a_contrast_asks_for_the_difference() -> None:
    model, clip = describe(net3d()), clip_of(1, 3, 4, 8, 8)
    method = lc.SIDU(threshold=0.3, sigma=0.05)
    plain = lc.explain(model, method, clip, 0).heatmap
    contrast = lc.explain(model.contrast(1), method, clip, 0)
    assert not torch.allclose(contrast.heatmap, plain)
    assert contrast.caption == "SIDU, layer, threshold 0.3, rather than output 1"


def test_padding_bfloat16_and_float64() -> None:
    net, clip = net3d(), clip_of(2, 3, 6, 8, 8)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    model, method = describe(net, black=BLACK), lc.SIDU(threshold="quantile:0.5")
    plain = lc.explain(model, method, clip, 1).heatmap
    padded = lc.explain(replace(model, valid=valid), method, clip, 1).heatmap
    assert not padded[1, 4:].any()
    assert torch.equal(padded[0], plain[0]) and torch.equal(padded[1, :4], plain[1, :4])
    half = lc.explain(model, lc.SIDU(threshold="quantile:0.5", bf16=True), clip, 1).heatmap
    assert half.dtype == torch.float32
    assert (half - plain).norm() < 0.2 * plain.norm()
    net.double()
    double = lc.explain(model, method, clip.double(), 1).heatmap
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"sd": "norm"}, "sd must be one of class, vector"),
        ({"sigma": 0}, "sigma must be a finite number above 0"),
        ({"threshold": "quantile:1"}, 'threshold must be a number or "quantile:q"'),
        ({"threshold": "otsu"}, 'threshold must be a number or "quantile:q"'),
        ({"batch": 0}, "batch must be a whole number from 1 on"),
    ],
)
def test_wrong_settings_are_named(settings_: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lc.explain(describe(net3d()), lc.SIDU(**settings_), clip_of(1, 3, 4, 8, 8))
