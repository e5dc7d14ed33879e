"""Extremal perturbation: closed forms (E1-E9), planted answers, and what it may depend on."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FoldedLSTM, Gap3d, clip_of, describe
from scenes import batch_of, drive, network
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.extremal.answer import Answer
from lightning_cam.attribution.extremal.soft_masks import (
    Appearing,
    SmoothMasks,
    core_loss,
    ellipsoid,
    hottest,
    largest,
    ranking_loss,
)
from lightning_cam.attribution.perturbation import Runner
from lightning_cam.tasks import StructureFromMotion

SIZE = (6, 20, 26)
FAST = {"iterations": 60, "lr": 0.8, "sigma": 3, "reference": "black", "smooth": 0}


class Tube(nn.Module):
    """P(class 0) is a sigmoid of how much of some voxels can be seen; counts its rows."""

    def __init__(self, frames: Any = slice(1, 4), size: tuple[int, int, int] = SIZE) -> None:
        super().__init__()
        self.inside = torch.zeros(size, dtype=torch.bool)
        self.inside[frames, 4:12, 12:20] = True
        self.rows: list[int] = []

    def forward(self, clip: Tensor) -> Tensor:
        self.rows.append(len(clip))
        y = 10 * (clip.mean(1)[:, self.inside].mean(1) - 0.5)
        return torch.stack([y, torch.zeros_like(y)], 1)


class Raw(Tube):
    """The same evidence as a column in any unit."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, clip: Tensor) -> Tensor:
        seen = clip.mean(1)[:, self.inside].mean(1, keepdim=True)
        return self.factor * seen + self.offset


def plain(net: nn.Module, **changes: Any) -> lc.Explainable:
    return lc.Explainable.of(net, [], **changes)


def ones(count: int = 1) -> Tensor:
    return torch.ones(count, 1, *SIZE)


def method(variant: Any = "3d", **more: Any) -> lc.ExtremalPerturbation:
    return lc.ExtremalPerturbation(variant, **{**FAST, **more})


# Masks from their parameters


@pytest.mark.parametrize(
    ("size", "step", "sigma", "grid", "canvas", "taps", "low"),
    [
        ((112, 112), 7, 11, (16, 16), (134, 134), 49, 0.863),
        ((224, 224), 7, 23, (32, 32), (260, 260), 121, 0.980),
        ((64, 208), 4, 6, (16, 52), (70, 214), 49, 0.918),
        ((30, 41), 4, 4, (8, 11), (37, 49), 25, 0.918),
    ],
)
def test_e4_the_published_geometry(
    size: Any, step: int, sigma: int, grid: Any, canvas: Any, taps: int, low: float
) -> None:
    masks = SmoothMasks(size, step, sigma, torch.zeros(()))
    assert (masks.grid, masks.canvas, masks.window**2) == (grid, canvas, taps)
    found = masks(torch.stack([torch.ones(grid), torch.zeros(grid)]))
    assert found.shape == (2, *canvas)
    whole, empty = masks.crop(found)
    assert whole.shape == size and not empty.any()
    assert whole.min() == pytest.approx(low, abs=0.005) and 0.97 < whole.mean() < whole.max() <= 1
    point = torch.zeros(1, *grid)
    point[0, grid[0] // 2, grid[1] // 2] = 1
    share = (masks.crop(masks(point)) > 0.5).float().mean()
    assert share == pytest.approx(math.pi * (1.089 * sigma) ** 2 / math.prod(size), rel=0.05)


def test_masks_are_their_formula_and_its_derivative() -> None:
    (height, width), step, sigma = (9, 13), 2, 3
    like = torch.zeros((), dtype=torch.float64)
    masks = SmoothMasks((height, width), step, sigma, like)
    grids = torch.rand(3, *masks.grid, dtype=torch.float64, generator=torch.Generator())
    # every pixel and every point, without windows and tables; far points count as zeros
    y, x = (torch.arange(n).double() for n in (height, width))
    v, u = (step * torch.arange(n).double() for n in masks.grid)
    gap = ((y[:, None, None, None] - v[:, None]) ** 2 + (x[:, None, None] - u) ** 2).sqrt()
    kappa = torch.exp(-2 * (gap / sigma - 0.5).clamp(min=0) ** 2)  # (H, W, h, w)
    near = ((y[:, None] - v).abs() < step * masks.window)[:, None, :, None]
    for grid, found in zip(grids, masks.crop(masks(grids)), strict=True):
        parts = (kappa * grid * near).flatten(2)
        hard = parts.amax(2)
        assert (found <= hard + 1e-12).all() and (hard - found).max() < 0.15  # E5
        weight = (20 * parts).exp()
        # Where a window holds fewer points than there are, the rest adds weights of 1 to nothing.
        expected = (parts * weight).sum(2) / (weight.sum(2) + masks.window**2 - parts.shape[2])
        torch.testing.assert_close(found, expected, rtol=0.02, atol=2e-3)
    cold = [
        SmoothMasks((height, width), step, sigma, like, coldness=c)(grids) for c in (20, 80, 320)
    ]
    assert (cold[0] <= cold[1] + 1e-9).all() and (cold[2] - cold[1]).max() < 0.04
    masks.at_once = 2
    assert torch.equal(masks(grids), cold[0])
    assert torch.autograd.gradcheck(masks, (grids.requires_grad_(),))


@pytest.mark.parametrize("kind", ["blur", "black", "mean"])
def test_e6_e9_a_clip_appears(kind: Any) -> None:
    clip = clip_of(2, 3, 2, 12, 15)
    model = plain(Tube(), black=[-1.0, 0.5, 2.0])
    appearing = Appearing(model, clip, kind, blur=4)
    full = torch.ones(2, 2, 12, 15)
    assert torch.equal(appearing(full), clip)
    assert torch.equal(appearing(0 * full), appearing.levels[0])
    some = torch.rand(2, 2, 12, 15, generator=torch.Generator())
    if kind == "blur":
        assert torch.equal(appearing(full * 3 / 7)[0], appearing.levels[3, 0])
        assert appearing.levels[0].std() < 0.4 * clip.std()
    else:
        hidden = appearing.levels[0]
        torch.testing.assert_close(appearing(some), hidden + some[:, None] * (clip - hidden))
    for mask in (full, some, 0 * full):  # at 1 too: the published index leaves no gradient there
        mask = mask.clone().requires_grad_()
        (slope,) = torch.autograd.grad((appearing(mask) * clip).sum(), mask)
        assert (slope != 0).float().mean() > 0.99


# Sizes


@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=6),
    area=st.sampled_from([0.1, 0.34, 0.5, 0.9]),
)
@settings(max_examples=50, deadline=None)
def test_e2_the_ranking_loss_is_the_sorted_one(values: list[float], area: float) -> None:
    n = len(values)
    count = n - math.floor(n * (1 - area))
    step = torch.tensor([0.0] * (n - count) + [1.0] * count, dtype=torch.float64)
    mask = torch.tensor(values, dtype=torch.float64).requires_grad_()
    loss = ranking_loss(mask, area)
    assert float(loss.detach()) == pytest.approx(
        float((mask.detach().sort().values - step).pow(2).mean())
    )
    (slope,) = torch.autograd.grad(loss, mask)
    orders = [p for p in permutations(range(n)) if [values[k] for k in p] == sorted(values)]
    expected = torch.zeros(n, dtype=torch.float64)  # the mean over all ways to sort equal values
    for order in orders:
        expected[list(order)] += 2 * (mask.detach()[list(order)] - step) / n / len(orders)
    torch.testing.assert_close(slope, expected)
    assert float(largest(mask.detach(), count).sum()) == pytest.approx(count)


def test_e2_its_zeros() -> None:
    for area, count in ((0.05, 50), (0.1, 100), (0.9, 900), (0.123, 123)):
        mask = torch.zeros(1000, dtype=torch.float64)
        assert ranking_loss(mask, area) == pytest.approx(area)
        assert ranking_loss(mask + 1, area) == pytest.approx(1 - area)
        mask[:count] = 1
        assert ranking_loss(mask[torch.randperm(1000)], area) == 0
        mask[count] = 1
        assert ranking_loss(mask, area) > 0


def test_e7_the_core_loss() -> None:
    assert ellipsoid((7, 11, 11), torch.zeros(())).sum() == 311
    for frames in (1, 2, 7, 16):
        mask = torch.rand(frames, 23, 34, generator=torch.Generator())
        for area in (0.01, 0.3, 0.99):
            assert core_loss(mask, area, (7, 11, 11)).isfinite()
    assert core_loss(torch.rand(1, 3, 3), 0.5, (7, 11, 11)).isfinite()  # one window
    mask = torch.zeros(7, 33, 33)
    mask[:, 11:22, 11:22] = ellipsoid((7, 11, 11), mask)
    area = 440 / mask.numel()  # one ellipsoid's nominal volume is 443
    assert core_loss(mask, area, (7, 11, 11)) < 1e-9
    assert core_loss(mask.roll(3, 1), area, (7, 11, 11)) > 0.1
    flicker = mask.clone()
    flicker[::2] = 0
    assert core_loss(flicker, area, (7, 11, 11)) > 0.1


# What is asked


def answer_of(model: lc.Explainable, clip: Tensor, chosen: list[int], game: Any) -> Answer:
    valid = torch.ones(len(clip), clip.shape[2], dtype=torch.bool)
    runner, target = Runner(model, clip), torch.tensor(chosen)
    return Answer(model, runner, runner.forward(clip), target,
                  Appearing(model, clip, "black", 20), valid, game)  # fmt: skip


def test_the_cost_of_classes() -> None:
    torch.manual_seed(0)
    model, clip = describe(Gap3d()), clip_of(2, 3, 4, 8, 8)
    outputs = 3 * torch.randn(6, 4)  # three copies of two clips
    p = outputs.double().softmax(1)
    rows, columns = torch.arange(6), torch.tensor([1, 3] * 3)
    of = p[rows, columns]
    cases = [
        (model, -of.log(), -(1 - of).log()),
        (model.contrast(2), -((1 + of - p[:, 2]) / 2).log(), -((1 - of + p[:, 2]) / 2).log()),
        (model.counterfactual(), -(1 - of).log(), -of.log()),
    ]
    for asked, kept, deleted in cases:
        answer = answer_of(asked, clip, [1, 3], "preserve")
        torch.testing.assert_close(answer.cost(outputs), kept)
        torch.testing.assert_close(answer.cost(outputs, deletion=True), deleted)
    # a class against itself, and a class without any probability
    assert answer_of(model.contrast(1), clip, [1, 1], "preserve").cost(outputs).isfinite().all()
    hopeless = torch.tensor([[0.0, -1e4, 0, 0]] * 2, requires_grad=True)
    assert answer_of(model, clip, [1, 1], "preserve").cost(hopeless).isfinite().all()


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (1e-4, 30.0), (2e5, -7.0)])
def test_the_cost_of_columns_has_no_unit(factor: float, offset: float) -> None:
    model = plain(Raw(factor, offset).double(), probability=None)
    answer = answer_of(model, ones().double(), [0], "preserve")
    for r in (0.0, 0.5, 1.0, 1.7, -3.0):
        outputs = torch.tensor([[factor * r + offset]], dtype=torch.float64)
        p = torch.tensor(10 * (r - 0.5), dtype=torch.float64).sigmoid()
        assert float(answer.cost(outputs)) == pytest.approx(float(-p.log()), rel=1e-5)
        assert float(answer.cost(outputs, True)) == pytest.approx(float(-(1 - p).log()), rel=1e-5)


# Planted answers


@pytest.mark.parametrize("variant", ["3d", "step", "2d"])
@pytest.mark.parametrize("area", [0.1, 0.2])
def test_e1_e3_the_tube_is_found(variant: Any, area: float) -> None:
    net = Tube()
    e = lc.explain(plain(net), method(variant, areas=(area,)), ones(), 0)
    heat, inside = e.heatmap[0], net.inside
    assert heat.shape == SIZE and heat.min() >= 0 and heat.max() <= 1
    assert abs(float(heat.mean()) - area) <= 0.03  # E1
    assert float(e.numbers[f"area_{area:g}"]) == pytest.approx(float(heat.mean()), rel=1e-4)
    assert heat[inside].mean() > (0.75 if variant == "2d" and area == 0.1 else 0.9)
    assert float(e.numbers[f"score_{area:g}"]) > 0.9
    frames = heat.mean((1, 2))
    if variant == "2d":
        assert frames.max() - frames.min() < 0.06  # E3
    else:
        assert frames[1:4].min() > 1.4 * frames[[0, 4, 5]].max()


def test_e3_frames_without_evidence_have_nothing() -> None:
    net = Tube()
    heat = lc.explain(plain(net), method(areas=(0.04,)), ones(), 0).heatmap[0]
    assert float(heat[1:4].sum() / heat.sum()) >= 0.95
    assert net.inside.flatten()[heat.argmax()]


def test_step_lasts_where_3d_flickers() -> None:
    """Every other frame has evidence: STEP shows those between as well."""
    size = (12, 20, 20)
    net, clip = Tube(slice(1, 12, 2), size), torch.ones(1, 1, *size)
    between, flicker = {}, {}
    for variant in ("3d", "step"):
        heat = lc.explain(plain(net), method(variant, areas=(0.2,)), clip, 0).heatmap[0]
        assert heat[net.inside].mean() > 0.85
        between[variant] = float(heat[2:11:2, 4:12, 12:20].mean())
        flicker[variant] = float(heat.diff(dim=0).abs().mean() / heat.mean())
    assert between["3d"] < 0.1 and between["step"] > 0.3
    assert flicker["step"] < 0.75 * flicker["3d"]


@pytest.mark.parametrize("variant", ["3d", "step"])
def test_a_column_is_explained_like_a_class(variant: Any) -> None:
    """The same evidence as a probability and in metres; its negative asks for the opposite."""
    classes = lc.explain(plain(Tube().double()), method(variant), ones().double(), 0)
    for factor, offset in ((1e-3, 0.0), (-3e4, 12.0)):
        net = Raw(factor, offset).double()
        model = plain(net, probability=None)
        asked = model if factor > 0 else model.counterfactual()
        e = lc.explain(asked, method(variant), ones().double(), 0)
        torch.testing.assert_close(e.heatmap, classes.heatmap, rtol=1e-4, atol=1e-5)
        score = float(e.numbers["score_0.1"])
        seen = (score - offset) / factor if factor > 0 else (-score - offset) / factor
        assert 0.85 < seen <= 1
    against = lc.explain(model, method(variant), ones().double(), 0).heatmap[0]
    assert against[net.inside].mean() < 0.01  # the column is lower where the tube is seen


def test_hiding_hurts() -> None:
    net = Tube()
    e = lc.explain(plain(net), method(game="delete"), ones(), 0)
    assert float(e.numbers["score_0.1"]) < 0.2  # of what is left
    assert e.heatmap[0][net.inside].mean() > 4 * e.heatmap.mean()
    both = lc.explain(plain(net), method(game="dual"), ones(), 0)
    assert both.heatmap[0][net.inside].mean() > 0.85
    assert "dual black" in both.caption


# Exact sizes, and stopping early


def test_the_hottest_voxels_are_exactly_as_many_and_equal_ones_are_drawn() -> None:
    values = torch.tensor([[0.1, 0.9, 0.9 - 1e-7, 0.5], [0, 0, 0, 0.0]])
    found = hottest(values, torch.tensor([3, 2]))
    assert found.sum(1).tolist() == [3, 2] and found[0].tolist() == [0, 1, 1, 1]
    even = hottest(torch.zeros(1, 10000), torch.tensor([1000]))[0]
    assert even.sum() == 1000 and even.view(10, 1000).sum(1).min() > 60  # not the first ones
    assert torch.equal(even, hottest(torch.zeros(2, 10000), torch.tensor([5, 1000]))[1])
    assert not hottest(values, torch.tensor([0, 0])).any()


@pytest.mark.parametrize("game", ["preserve", "delete"])
def test_the_exact_score_is_that_of_the_hottest_share_of_valid_frames(game: Any) -> None:
    valid, areas = padding([6, 4]), (0.05, 0.15)
    net, clip = Tube(), ones(2)
    steps = method("step", areas=areas[:1], game=game, iterations=8)
    model = replace(plain(net), valid=valid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        e = lc.explain(model, steps, clip, 0)  # smooth=0 and one area: the map is the mask
        both = lc.explain(model, replace(steps, areas=areas), clip, 0)
    for b, frames in enumerate((6, 4)):
        mask = e.heatmap[b, :frames]
        count = math.floor(0.05 * mask.numel())
        edge = mask.flatten().sort(descending=True).values[count - 1]
        shown = torch.zeros(SIZE)
        shown[:frames] = hottest(mask.flatten()[None], torch.tensor([count])).view_as(mask)
        tied = (mask >= edge - 2e-5).sum() != count
        seen = 1 - shown if game == "delete" else shown
        seen[frames:] = 0
        p = net(seen[None, None]).softmax(1)[0, 0]
        assert tied or e.numbers["exact_0.05"][b] == pytest.approx(float(p), rel=1e-5)
    assert {"exact_0.05", "exact_0.15"} <= set(both.numbers)


@pytest.mark.parametrize(("variant", "game"), [("3d", "preserve"), ("step", "dual")])
def test_masks_that_settle_are_those_of_as_many_iterations(variant: Any, game: Any) -> None:
    """Each clip by itself, and never before the weights have grown."""
    net, clip = Tube(), ones(2) * torch.tensor([1, 0.8]).view(2, 1, 1, 1, 1)
    steps = method(variant, game=game, iterations=240, growth=1, tol=0.02)
    e = lc.explain(plain(net), steps, clip, 0)
    used = e.numbers["iterations"].tolist()
    assert all(n % 10 == 0 and 60 <= n < 240 for n in used)
    assert sum(net.rows) < 2 * (steps.cost(plain(net), clip).forwards)
    for b, n in enumerate(used):
        one = slice(b, b + 1)
        alone = lc.explain(plain(net), steps, clip[one], 0)
        assert alone.numbers["iterations"].tolist() == [n] and n >= 60  # a quarter
        torch.testing.assert_close(alone.heatmap, e.heatmap[one], rtol=1e-4, atol=1e-5)
        if variant == "3d":  # growth=1: it has no schedule
            same = lc.explain(plain(net), replace(steps, tol=None, iterations=n), clip[one], 0)
            assert torch.equal(same.heatmap, alone.heatmap)
    low, high = min(used), max(used)
    said = f"{low} iterations" if low == high else f"{low} to {high} iterations"
    assert e.caption.endswith(said)


def test_a_tolerance_that_is_never_met_changes_no_bit() -> None:
    steps = method("3d", iterations=40, growth=1)
    plainly = lc.explain(plain(Tube()), steps, ones(), 0)
    never = lc.explain(plain(Tube()), replace(steps, tol=1e-12), ones(), 0)
    assert torch.equal(plainly.heatmap, never.heatmap)
    assert never.numbers["iterations"].tolist() == [40] and "iterations" not in plainly.numbers
    with pytest.raises(ValueError, match="tol must be a finite number above 0 or None, got 0"):
        method(tol=0)


@pytest.mark.parametrize(("tol", "grown"), [(None, 40), (1e-12, 10)])
def test_weights_grow_before_masks_may_settle(
    tol: float | None, grown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all iterations, with a tolerance over a quarter of them."""
    times: list[float] = []
    size = lc.ExtremalPerturbation._size

    def seen(self: Any, masks: Tensor, valid: Tensor, time: float, sigma: int) -> Tensor:
        times.append(time)
        return size(self, masks, valid, time, sigma)

    monkeypatch.setattr(lc.ExtremalPerturbation, "_size", seen)
    lc.explain(plain(Tube()), method("step", iterations=40, tol=tol), ones(), 0)
    assert times == [min(1, n / grown) for n in range(40)]


# What a mask may depend on


def padding(frames: list[int]) -> Tensor:
    return torch.arange(SIZE[0])[None] < torch.tensor(frames)[:, None]


@pytest.mark.parametrize("variant", ["3d", "step", "2d"])
@pytest.mark.parametrize("batch", [None, 1])
def test_each_clip_gets_what_it_would_get_alone(variant: Any, batch: int | None) -> None:
    clip = (ones(3) * torch.tensor([1, 0.7, 0.9]).view(3, 1, 1, 1, 1)).double()
    valid = padding([6, 4, 6])
    target, model = torch.tensor([0, 0, 1]), plain(Tube().double())
    steps = method(variant, areas=(0.05, 0.2), iterations=12, reference="blur", batch=batch)
    together = lc.explain(replace(model, valid=valid), steps, clip, target)
    assert not together.heatmap[1, 4:].any() and together.heatmap[1, :4].any()
    for i in range(3):
        one = slice(i, i + 1)
        alone = lc.explain(replace(model, valid=valid[one]), replace(steps, batch=None),
                           clip[one], target[one])  # fmt: skip
        torch.testing.assert_close(together.heatmap[one], alone.heatmap, rtol=1e-9, atol=1e-11)
        for name, value in alone.numbers.items():
            torch.testing.assert_close(together.numbers[name][one], value, rtol=1e-9, atol=0)


def test_padded_frames_have_no_share() -> None:
    valid = padding([4])
    for variant in ("step", "2d"):
        for game in ("preserve", "delete"):
            steps = method(variant, areas=(0.15,), game=game, iterations=40)
            padded = lc.explain(replace(plain(Tube()), valid=valid), steps, ones(), 0)
            assert not padded.heatmap[0, 4:].any()
            assert abs(float(padded.heatmap[0, :4].mean()) - 0.15) <= 0.05

    # The clip without its padding has the same mask: nothing of it is ever shown.
    class Short(Tube):
        def forward(self, clip: Tensor) -> Tensor:
            clip = torch.cat([clip, clip.new_zeros(len(clip), 1, 6 - clip.shape[2], *SIZE[1:])], 2)
            return super().forward(clip)

    for frames in (slice(1, 4), slice(2, 6)):  # also where the network reads the padding
        short = lc.explain(plain(Short(frames)), method(), ones()[:, :, :4], 0).heatmap
        long = lc.explain(replace(plain(Short(frames)), valid=valid), method(), ones(), 0).heatmap
        torch.testing.assert_close(long[:, :4], short, rtol=1e-4, atol=1e-5)
    nothing = lc.explain(replace(plain(Tube()), valid=padding([0])), method(), ones(), 0)
    assert not nothing.heatmap.any()


def test_nothing_is_moved_and_nothing_is_random() -> None:
    torch.manual_seed(0)
    net = FoldedLSTM()
    net.trunk.conv.weight.requires_grad_(False)
    net.train()
    model, clip = describe(net), clip_of(2, 3, 4, 16, 18)
    before = [(n, t.clone(), t.requires_grad) for n, t in net.state_dict(keep_vars=True).items()]
    state, given_ = torch.get_rng_state(), clip.clone()
    steps = lc.ExtremalPerturbation(iterations=4, areas=(0.1, 0.3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.no_grad():
            first = lc.explain(model, steps, clip)
        torch.manual_seed(99)
        after = torch.get_rng_state()
        with torch.inference_mode():
            second = lc.explain(model, steps, clip)
    assert torch.equal(first.heatmap, second.heatmap)
    assert torch.equal(torch.get_rng_state(), after) and not torch.equal(after, state)
    assert torch.equal(clip, given_) and net.training and net.lstm.training
    for (name, value, wanted), (n, t) in zip(
        before, net.state_dict(keep_vars=True).items(), strict=True
    ):
        assert name == n and torch.equal(value, t) and t.requires_grad == wanted and t.grad is None


# Cost


@pytest.mark.parametrize(("batch", "rows"), [(2, 2), (4, 4), (None, 6)])
def test_rows_and_forwards(batch: int | None, rows: int) -> None:
    net = Tube()
    steps = method(areas=(0.1, 0.2, 0.3), iterations=3, batch=batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lc.explain(plain(net), steps, ones(2))
        assert max(net.rows) == rows
        assert sum(net.rows) == 2 * (1 + 3 * 3 + 6)
        net.rows.clear()
        lc.explain(plain(net, probability=None), steps, ones(2))
        assert sum(net.rows) == 2 * (1 + 8 + 3 * 3 + 6) and max(net.rows) <= max(rows, 16)


def test_the_batch_is_halved_where_memory_does_not_suffice() -> None:
    class Small(Tube):
        def forward(self, clip: Tensor) -> Tensor:
            if len(clip) > 2:
                raise torch.OutOfMemoryError("as asked")
            return super().forward(clip)

    steps = method(areas=(0.1, 0.2, 0.3), iterations=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = lc.explain(plain(Tube()), steps, ones(), 0).heatmap
        heat = lc.explain(plain(Small()), steps, ones(), 0).heatmap
        torch.testing.assert_close(heat, expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(torch.OutOfMemoryError):
            lc.explain(plain(Small()), steps, ones(3), 0)


def test_precision() -> None:
    torch.manual_seed(0)
    model, clip = describe(Gap3d()), clip_of(1, 3, 4, 16, 16)
    steps = lc.ExtremalPerturbation("3d", iterations=5, areas=(0.5,))
    plain_ = lc.explain(model, steps, clip, 0).heatmap
    half = lc.explain(model, replace(steps, bf16=True), clip, 0).heatmap
    assert half.dtype == torch.float32 and not torch.equal(half, plain_)
    torch.testing.assert_close(half, plain_, rtol=0.05, atol=0.05)
    model.module.double()
    double = lc.explain(model, steps, clip.double(), 0).heatmap
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), plain_, rtol=1e-3, atol=1e-3)
    model.module.bfloat16()
    weights = lc.explain(model, steps, clip.bfloat16(), 0).heatmap
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, plain_, rtol=0.05, atol=0.05)


# SfMLearner


@pytest.mark.parametrize("variant", ["step", "3d", "2d"])
def test_columns_of_sfmlearner(variant: Any) -> None:
    batch = batch_of(drive(4))
    batch["valid"][:, 3:] = False
    task = StructureFromMotion(network())
    model, clip = task.explainable(batch), batch["video"]
    steps = lc.ExtremalPerturbation(variant, areas=(0.2,), iterations=2, batch=1)
    for column in ("-view_synthesis_loss", "pose/tx"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # three iterations keep no area
            e = lc.explain(model, steps, clip, column)
        assert e.heatmap.shape == (len(clip), *clip.shape[2:])
        assert e.heatmap.isfinite().all() and not e.heatmap[:, 3:].any()
        frames = e.heatmap.flatten(2)
        assert (frames[:, :3].std(2) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("column", ["depth/mean", "pose/tx"])
def test_a_mask_keeps_more_of_a_column_than_the_same_share_at_random(column: str) -> None:
    batch = batch_of(drive(5))
    model, clip = StructureFromMotion(network()).explainable(batch), batch["video"][:1]
    batch = {k: v[:1] if isinstance(v, Tensor) else v for k, v in batch.items()}
    model = StructureFromMotion(network()).explainable(batch)
    outputs = lc.explain(model, lc.RandomMap(), clip, column).outputs[0]
    index = model.column(column)
    steps = lc.ExtremalPerturbation("3d", areas=(0.3,), iterations=60, lr=0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        e = lc.explain(model, steps, clip, column)
    hidden = Appearing(model, clip, "blur", 20)
    generator = torch.Generator().manual_seed(0)
    scores = []
    for _ in range(8):
        masks = SmoothMasks((clip.shape[3], clip.shape[4]), 4, 6, clip)
        kept = (torch.rand(clip.shape[2], *masks.grid, generator=generator) < 0.1).float()
        with torch.no_grad():
            rows = hidden(masks.crop(masks(kept))[None])
            scores.append(float(model.forward(rows)[0, index]))
    assert float(e.numbers["score_0.3"]) > max(scores), (scores, outputs)


# Settings


def test_areas_are_averaged_and_told() -> None:
    model = plain(Tube())
    masks = [lc.explain(model, method(areas=(a,)), ones(), 0) for a in (0.1, 0.3)]
    e = lc.explain(model, method(areas=(0.1, 0.3)), ones(), 0)
    torch.testing.assert_close(
        e.heatmap, (masks[0].heatmap + masks[1].heatmap) / 2, rtol=1e-4, atol=1e-5
    )
    each = {f"{name}_{area}" for name in ("area", "score", "exact") for area in (0.1, 0.3)}
    assert set(e.numbers) == each | {"off_area"}
    assert e.caption.startswith("3D extremal perturbation, area 0.1/0.3 (found 0.1")
    assert e.caption.endswith(", preserve black")


def test_areas_of_the_canvas_are_smaller_on_the_frame() -> None:
    found = [
        float(lc.explain(plain(Tube()), method(area_on=on), ones(), 0).heatmap.mean())
        for on in ("crop", "canvas")
    ]
    assert found[1] > found[0] + 0.01


def test_a_mask_that_vanishes_is_told() -> None:
    class Constant(Tube):
        def forward(self, clip: Tensor) -> Tensor:
            return 0 * clip.mean((1, 2, 3, 4))[:, None] + torch.tensor([[1.0, 2.0]])

    for probability in ("softmax", None):
        with pytest.warns(UserWarning, match=r"of area 0.1 masks of .* came out; a weak answer"):
            e = lc.explain(plain(Constant(), probability=probability),
                           method(iterations=2, areas=(0.1,)), ones(), 0)  # fmt: skip
        assert e.heatmap.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variant": "4d"}, "variant must be one of step, 3d, 2d, got '4d'"),
        ({"game": "keep"}, "game must be one of preserve, delete, dual"),
        ({"reference": "zoom"}, "reference must be one of blur, black, mean"),
        ({"area_on": "frame"}, "area_on must be one of crop, canvas"),
        ({"areas": ()}, "areas must be one share of the clip or more"),
        ({"areas": (0.1, 1.0)}, "areas must be several of: a number between 0 and 1"),
        (
            {"areas": 0.1},
            "areas must be several of: a number between 0 and 1, both excluded, got 0.1",
        ),
        ({"areas": (0.1, 0.1)}, "areas must differ"),
        ({"iterations": 0}, "iterations must be a whole number from 1 on, got 0"),
        ({"sigma": 2.5}, "sigma must be a whole number from 1 on or None, got 2.5"),
        ({"step": 0}, "step must be a whole number from 1 on or None, got 0"),
        ({"sigma": 2, "step": 3}, "step must be at most sigma=2, got 3"),
        ({"lr": 0}, "lr must be a finite number above 0"),
        ({"data_weight": -1}, "data_weight must be a finite number, 0 or more"),
        ({"core": (7, 11)}, "core must be three whole numbers"),
        ({"batch": 0}, "batch must be a whole number from 1 on"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        lc.explain(plain(Tube()), lc.ExtremalPerturbation(**changes), ones(), 0)
    assert "\n" not in str(error.value)


def test_the_configurations_are_the_methods_defaults() -> None:
    from lightning_cam.commands.search import PACKAGE
    from lightning_cam.training.build import build

    folder = PACKAGE / "explain"
    for name, variant in (("step", "step"), ("extremal_3d", "3d"), ("extremal_2d", "2d")):
        built = build({name: yaml.safe_load((folder / f"{name}.yaml").read_text())})
        assert built == {name: lc.ExtremalPerturbation(variant)}  # type: ignore[arg-type]
        assert hash(built[name]) is not None


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "area"), [("3d", 0.05), ("step", 0.1), ("3d", 0.2)])
def test_the_defaults_find_two_places_at_two_times(variant: Any, area: float) -> None:
    """Correlation with a texture in both of two boxes, T x H x W = 8 x 40 x 56, blurred."""
    clip = 3 * nn.functional.avg_pool2d(clip_of(24, 1, 40, 56), 3, 1, 1).view(1, 3, 8, 40, 56)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.boxes = torch.zeros(2, 8, 40, 56)
            self.boxes[0, 1:5, 5:17, 30:42] = 1
            self.boxes[1, 4:7, 24:36, 8:20] = 1

        def forward(self, x: Tensor) -> Tensor:
            parts = []
            for box in self.boxes:
                texture = clip[0] * box
                parts.append((x * texture).flatten(1).sum(1) / texture.square().sum())
            weakest = torch.minimum(*parts)
            y = 12 * (0.7 * weakest + 0.15 * sum(parts) - 0.5)
            return torch.stack([y, torch.zeros_like(y)], 1)

    net = Two()
    inside = net.boxes.sum(0) > 0  # 5.6% of the clip
    e = lc.explain(plain(net), lc.ExtremalPerturbation(variant, (area,), smooth=0), clip, 0)
    assert abs(float(e.numbers[f"area_{area:g}"]) - area) <= 0.035
    assert float(e.numbers[f"score_{area:g}"]) > 0.9
    heat = e.heatmap[0]
    assert heat[inside].mean() > (0.8 if area < 0.1 else 0.95)
    if area <= 0.1:
        assert heat[1:7].sum() > 0.98 * heat.sum()
