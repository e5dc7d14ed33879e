"""LIME, KernelSHAP and Banzhaf values: closed forms, all orders written out, captum's answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import captum.attr
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from nets import Gap3d, clip_of, describe
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.supervoxels import _subsets

KINDS = ["shap", "lime", "banzhaf"]
each_kind = pytest.mark.parametrize("kind", KINDS)


class Game(nn.Module):
    """A column that is a function of which of the clip's voxels are not 0, `(n, M) -> (n,)`."""

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.value, self.rows = value, list[int]()

    def forward(self, clip: Tensor) -> Tensor:
        self.rows.append(len(clip))
        return self.value(clip[:, 0].flatten(1))[:, None]


def game(value: Callable[[Tensor], Tensor]) -> lc.Explainable:
    return lc.Explainable.of(Game(value), [], probability=None)


def ones(*size: int) -> Tensor:
    return torch.ones(1, 1, *size, dtype=torch.float64)


def weights(*size: int) -> Tensor:
    return clip_of(*size, seed=1, dtype=torch.float64)


def tangle(z: Tensor) -> Tensor:
    """Cells 0 to 4 work together, 5 and 6 alike, the last does nothing."""
    return z[:, 0] * z[:, 1] + 2 * z[:, 2] * z[:, 3] * z[:, 4] - z[:, 0] + z[:, 5] * z[:, 6]


@each_kind
@pytest.mark.parametrize("masks", [2 * 36, 300])
def test_a_sum_is_found_exactly(kind: Any, masks: int) -> None:
    w, offset = weights(3, 3, 4), 5.0
    model = game(lambda z: z @ w.flatten() + offset)
    for seed in range(3):
        e = lc.explain(model, lc.Supervoxels(kind, (3, 3, 4), masks, seed), ones(3, 3, 4))
        torch.testing.assert_close(e.heatmap[0], w, rtol=1e-9, atol=1e-9)
        assert e.numbers["r2"] == pytest.approx(1) and e.doubts == ("",)


@each_kind
def test_cells_have_the_sums_of_their_voxels(kind: Any) -> None:
    """Also where they do not divide the clip, and of a reference that is not 0."""
    w, clip = weights(5, 6, 7), clip_of(2, 1, 5, 6, 7, dtype=torch.float64)
    model = replace(game(lambda z: z @ w.flatten()), black=torch.tensor([0.7]))
    method = lc.Supervoxels(kind, (2, 2, 3), 60)
    heat = lc.explain(model, method, clip).heatmap
    share, expected = w * (clip[:, 0] - 0.7), torch.zeros(2, 5, 6, 7, dtype=torch.float64)
    parts = ((0, 3, 5), (0, 3, 6), (0, 3, 5, 7))
    for (a, b), (c, d), (e, f) in itertools.product(*(itertools.pairwise(p) for p in parts)):
        inside = (..., slice(a, b), slice(c, d), slice(e, f))
        expected[inside] = share[inside].sum((1, 2, 3), keepdim=True)
    torch.testing.assert_close(heat, expected, rtol=1e-6, atol=1e-6)  # black is float32
    assert method.grain((5, 6, 7)) == (2, 2, 3) and method.grain((1, 6, 2)) == (1, 2, 2)


def shapley(value: Callable[[Tensor], Tensor], cells: int) -> Tensor:
    """The mean over all subsets and sizes of what a cell adds, written out."""
    found = torch.zeros(cells, dtype=torch.float64)
    for i in range(cells):
        others = [j for j in range(cells) if j != i]
        for size in range(cells):
            for chosen in itertools.combinations(others, size):
                z = torch.zeros(2, cells, dtype=torch.float64)
                z[:, list(chosen)] = 1
                z[1, i] = 1
                without, having = value(z)
                found[i] += (having - without) / (cells * math.comb(cells - 1, size))
    return found


def test_all_subsets_of_eight_cells_give_shapley_values_as_captum_has_them() -> None:
    model, clip = game(tangle), ones(2, 2, 2)
    e = lc.explain(model, lc.Supervoxels("shap", (2, 2, 2)), clip)
    found = e.heatmap.flatten()
    torch.testing.assert_close(found, shapley(tangle, 8), rtol=1e-9, atol=1e-10)
    assert found[7].abs() < 1e-12 and found[5] == pytest.approx(float(found[6]))  # dummy, alike
    assert found[5] == pytest.approx(1 / 2) and found[2] == pytest.approx(2 / 3)
    assert e.caption == "KernelSHAP, all 254 subsets of 2x2x2 cells, black, R2 0.00"
    assert sum(model.module.rows) == 256 == e.method.cost(model, clip).forwards  # type: ignore[union-attr]
    small = lambda z: tangle(torch.cat([z, z[:, :3]], 1))  # noqa: E731
    ours = lc.explain(game(small), lc.Supervoxels("shap", (1, 1, 5)), ones(1, 1, 5)).heatmap
    theirs = captum.attr.ShapleyValues(game(small).module).attribute(
        ones(1, 1, 5), target=0, feature_mask=torch.arange(5).view(1, 1, 1, 1, 5)
    )
    torch.testing.assert_close(ours, theirs[:, 0].double(), rtol=1e-5, atol=1e-6)


def test_banzhaf_values_are_the_mean_with_a_cell_less_that_without() -> None:
    z = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64)
    f = tangle(z)
    expected = torch.stack([f[z[:, i] == 1].mean() - f[z[:, i] == 0].mean() for i in range(8)])
    method = lc.Supervoxels("banzhaf", (2, 2, 2))
    found = lc.explain(game(tangle), method, ones(2, 2, 2)).heatmap.flatten()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert found[2] == pytest.approx(2 / 4)


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_shap_add_up_and_like_cells_are_alike_within_their_error(seed: int) -> None:
    torch.manual_seed(seed)
    net, clip = Gap3d().eval(), clip_of(2, 3, 4, 8, 8)
    model = describe(net, black=[-0.5, 0.3, -1.0])
    hidden = torch.tensor([-0.5, 0.3, -1.0]).view(1, 3, 1, 1, 1).expand_as(clip)
    with torch.no_grad():
        ends = torch.stack([net(clip), net(hidden)]).softmax(2)[..., 1]
    heat = lc.explain(model, lc.Supervoxels("shap", (2, 4, 4), 40, seed), clip, 1).heatmap
    total = heat[:, ::2, ::2, ::2].double().sum((1, 2, 3))  # a voxel of every cell
    torch.testing.assert_close(total, (ends[0] - ends[1]).double(), rtol=0, atol=1e-6)
    method = lc.Supervoxels("shap", (2, 2, 3), 200)
    found = [
        lc.explain(game(tangle), replace(method, seed=10 * seed + s), ones(2, 2, 3)).heatmap
        for s in range(10)
    ]
    gaps = torch.stack([m.flatten()[5] - m.flatten()[6] for m in found])
    assert 0 < gaps.mean().abs() < 3 * gaps.std() / 10**0.5


def test_the_regression_is_captums_lime_of_the_same_subsets() -> None:
    """And that of scikit-learn behind it: the same draws, weights and intercept."""
    drawn = _subsets("lime", 12, 100, seed=3)
    queue = iter(drawn.kept.long()[:, None])
    distance = 1 - (drawn.kept.sum(1).double() / 12).sqrt()
    assert torch.equal(drawn.weight, torch.exp(-(distance**2) / 0.25**2))
    theirs = captum.attr.Lime(
        game(tangle).module,
        interpretable_model=SkLearnLinearRegression(),
        similarity_func=lambda a, b, z, **_: float(
            torch.exp(-((1 - (z.sum() / 12).sqrt()) ** 2) / 0.25**2)
        ),
        perturb_func=lambda *_, **__: next(queue),
    ).attribute(
        ones(2, 2, 3), target=0, n_samples=100, feature_mask=torch.arange(12).view(1, 1, 2, 2, 3)
    )
    ours = lc.explain(game(tangle), lc.Supervoxels("lime", (2, 2, 3), 100, 3), ones(2, 2, 3))
    torch.testing.assert_close(ours.heatmap, theirs[:, 0].double(), rtol=1e-4, atol=1e-5)


@each_kind
def test_r2_is_that_of_rows_left_out(kind: Any) -> None:
    method = lc.Supervoxels(kind, (2, 2, 3), 60, ridge=0.5)
    e = lc.explain(game(tangle), method, ones(2, 2, 3))
    drawn = _subsets(kind, 12, 60, 0)
    z, w, f = drawn.kept.double(), drawn.weight, tangle(drawn.kept.double())
    whole = float(tangle(torch.ones(1, 12, dtype=torch.float64)))
    left = []
    for i in range(60):
        rows = torch.arange(60) != i
        if kind == "shap":  # the last value is what the others leave of the whole
            y = (f - z[:, -1] * whole)[rows]
            x = (z[:, :-1] - z[:, -1:])[rows]
            back = torch.cat([torch.eye(11), -torch.ones(1, 11)]).double()
            pull = back.T @ (back / 2)
            shift = back.T @ (torch.eye(12).double()[-1] * whole / 2)
            phi = torch.linalg.solve(x.T @ (w[rows, None] * x) + pull, x.T @ (w[rows] * y) - shift)
            values = back @ phi + torch.eye(12).double()[-1] * whole
            left.append(f[i] - z[i] @ values)
        else:
            x = torch.cat([torch.ones(60, 1).double(), z], 1)
            pull = torch.eye(13).double() / 2
            pull[0, 0] = 0
            both = x[rows].T * w[rows]
            left.append(f[i] - x[i] @ torch.linalg.solve(both @ x[rows] + pull, both @ f[rows]))
    around = f - (w * f).sum() / w.sum()
    expected = 1 - (w * torch.stack(left) ** 2).sum() / (w * around**2).sum()
    assert 0 < expected < 0.9
    assert e.numbers["r2"] == pytest.approx(float(expected), abs=1e-9)


def test_a_score_that_no_sum_tells_is_doubtful_and_so_are_too_few_masks() -> None:
    odd = lc.explain(game(lambda z: z.sum(1) % 2), lc.Supervoxels("banzhaf"), ones(4, 5, 5))
    assert odd.numbers["r2"] < 0.3
    assert odd.doubts == (
        f"a sum over cells tells only {float(odd.numbers['r2']):.0%} of how the score varies; "
        "take more masks or other cells",
    )
    for masks, doubtful in ((30, True), (99, True), (220, False)):
        model = game(lambda z: z.cumsum(1).sum(1))
        e = lc.explain(model, lc.Supervoxels("banzhaf", masks=masks), ones(4, 5, 5))
        assert bool(e.doubts[0]) is doubtful, masks


@each_kind
def test_a_score_that_does_not_vary_is_told_and_one_that_is_not_finite_is_not(kind: Any) -> None:
    for value, r2 in ((3.0, 1.0), (float("nan"), float("nan"))):
        model = game(lambda z, value=value: 0 * z.sum(1) + value)
        if r2 == 1:
            e = lc.explain(model, lc.Supervoxels(kind, masks=30), ones(4, 5, 5))
            assert not e.heatmap.any() and e.numbers["r2"] == 1
            assert e.doubts == ("the map is zero everywhere",)
        else:
            with pytest.warns(UserWarning, match="not finite"):
                e = lc.explain(model, lc.Supervoxels(kind, masks=30), ones(4, 5, 5))
            assert e.numbers["r2"].isnan().all() and e.doubts[0]


@each_kind
def test_a_single_cell_has_all_of_the_score(kind: Any) -> None:
    model = game(lambda z: 4 * z[:, 0] + 1)
    e = lc.explain(model, lc.Supervoxels(kind), ones(1, 1, 1))
    assert e.heatmap.item() == pytest.approx(4) and e.numbers["r2"] == 1
    assert sum(model.module.rows) == e.method.cost(model, ones(1, 1, 1)).forwards  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "anchors"}, "kind must be one of shap, lime, banzhaf, got 'anchors'"),
        ({"cells": [0, 5, 5]}, r"cells must be three whole numbers from 1 on, got \[0, 5, 5\]"),
        ({"cells": 5}, "cells must be three whole numbers from 1 on, got 5"),
        ({"masks": 0}, "masks must be a whole number from 1 on"),
        ({"ridge": -1}, "ridge must be a finite number, 0 or more"),
        ({"reference": "grey"}, "reference must be one of black"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lc.Supervoxels(**changes)
