"""Occlusion: sums of windows on paper (O1-O3), every window by itself, captum's answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FoldedLSTM, Gap3d, clip_of
from scenes import batch_of, drive
from scenes import network as sfm_network
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.perturbation import reference
from lightning_cam.tasks import StructureFromMotion

BLACK = [-0.5, 0.3, -1.0]


class Additive(nn.Module):
    """One column: the sum of weight x clip; remembers how many rows each forward had."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.rows = nn.Parameter(weight), list[int]()

    def forward(self, clip: Tensor) -> Tensor:
        self.rows.append(len(clip))
        return (clip * self.weight).flatten(1).sum(1, keepdim=True)


def double(*shape: int, seed: int = 0) -> Tensor:
    return clip_of(*shape, seed=seed, dtype=torch.float64)


def plain(net: nn.Module, **changes: Any) -> lc.Explainable:
    return lc.Explainable.of(net, [], **changes)


def additive(*size: int, **changes: Any) -> tuple[lc.Explainable, Tensor, Tensor]:
    """A model, a batch of two clips, and what each voxel has of the fall `(2, T, H, W)`."""
    weight, clip = double(3, *size, seed=1), double(2, 3, *size)
    model = plain(Additive(weight), probability=None, black=BLACK, **changes)
    return model, clip, (weight * (clip - reference(model, clip, "black"))).sum(1)


# O1-O3


def test_o1_windows_side_by_side_have_their_sums() -> None:
    model, clip, share = additive(4, 6, 10)
    heat = lc.explain(model, lc.Occlusion((2, 3, 5), (2, 3, 5)), clip).heatmap
    sums = share.unflatten(1, (2, 2)).unflatten(3, (2, 3)).unflatten(5, (2, 5)).sum((2, 4, 6))
    expected = sums
    for axis, n in ((1, 2), (2, 3), (3, 5)):
        expected = expected.repeat_interleave(n, axis)
    torch.testing.assert_close(heat, expected)


def test_o2_one_window_for_the_whole_clip() -> None:
    model, clip, share = additive(4, 6, 10)
    for window in ((4, 6, 10), (99, 99, 99)):
        e = lc.explain(model, lc.Occlusion(window), clip)
        expected = share.sum((1, 2, 3))[:, None, None, None].expand_as(share)
        torch.testing.assert_close(e.heatmap, expected.contiguous())
        assert e.caption == "Occlusion, 1 window of 4x6x10, black"


def test_o3_windows_side_by_side_add_up_also_where_the_last_are_cut() -> None:
    model, clip, share = additive(5, 7, 11)
    heat = lc.explain(model, lc.Occlusion((2, 3, 4), (2, 3, 4)), clip).heatmap
    sizes = [
        torch.tensor([n] * n * (d // n) + [d % n] * (d % n)) for n, d in ((2, 5), (3, 7), (4, 11))
    ]
    voxels = sizes[0][:, None, None] * sizes[1][:, None] * sizes[2]
    torch.testing.assert_close((heat / voxels).sum((1, 2, 3)), share.sum((1, 2, 3)))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_overlapping_windows_are_averaged(data: st.DataObject) -> None:
    """Written out: every window by itself, every voxel the mean of those that hold it."""
    size = tuple(data.draw(st.integers(1, 7), f"axis {n}") for n in range(3))
    window = tuple(data.draw(st.integers(1, n), "window") for n in size)
    stride = tuple(data.draw(st.integers(1, n), "stride") for n in window)
    model, clip, share = additive(*size)
    total, count = torch.zeros_like(share), torch.zeros_like(share)
    starts = [
        range(0, n - w + s, s) if n > w else [0]
        for n, w, s in zip(size, window, stride, strict=True)
    ]
    for corner in itertools.product(*starts):
        inside = (..., *(slice(c, c + w) for c, w in zip(corner, window, strict=True)))
        total[inside] += share[inside].sum((1, 2, 3), keepdim=True)
        count[inside] += 1
    assert count.min() >= 1
    e = lc.explain(model, lc.Occlusion(window, stride), clip)  # type: ignore[arg-type]
    torch.testing.assert_close(e.heatmap, total / count, rtol=1e-9, atol=1e-10)
    assert f" {math.prod(len(s) for s in starts)} window" in e.caption


def test_windows_in_time_alone_say_which_frames_matter() -> None:
    model, clip, share = additive(6, 4, 4)
    heat = lc.explain(model, lc.Occlusion((1, 4, 4), (1, 4, 4)), clip).heatmap
    expected = share.sum((2, 3), keepdim=True).expand_as(share)
    torch.testing.assert_close(heat, expected.contiguous())


def test_windows_are_an_eighth_of_the_clip_and_overlap_by_half() -> None:
    clip = clip_of(1, 1, 16, 24, 40)
    net = Additive(clip_of(1, 16, 24, 40))
    e = lc.explain(plain(net, probability=None), lc.Occlusion(), clip)
    count = 15 * 22 * 19  # of 2 x 3 x 5, every 1, 1 and 2
    assert e.caption == f"Occlusion, {count} windows of 2x3x5, black"
    assert sum(net.rows) == count + 1


def test_what_hides() -> None:
    model, clip, _ = additive(2, 12, 12)
    weight = model.module.weight.detach()
    for kind in ("black", "mean", "blur"):
        share = (weight * (clip - reference(model, clip, kind))).sum(1)  # type: ignore[arg-type]
        method = lc.Occlusion((2, 12, 12), reference=kind)  # type: ignore[arg-type]
        e = lc.explain(model, method, clip)
        torch.testing.assert_close(e.heatmap[:, 0, 0, 0], share.sum((1, 2, 3)))
        assert e.caption.endswith(kind)


# What is scored


def test_probabilities_of_classes_and_logits_on_request() -> None:
    torch.manual_seed(0)
    net = Gap3d().double().eval()
    clip, target = double(2, 3, 4, 6, 6), torch.tensor([1, 3])
    model = plain(net, black=BLACK)
    hidden = clip.clone()
    hidden[:, :, :2] = reference(model, clip, "black")[:, :, :2]
    with torch.no_grad():
        ends = torch.stack([net(clip), net(hidden)])

    def fall(scores: Tensor) -> Tensor:
        return (scores[0] - scores[1]).gather(1, target[:, None])[:, 0]

    window = (2, 6, 6)
    for raw, expected in ((False, fall(ends.softmax(2))), (True, fall(ends))):
        heat = lc.explain(model, lc.Occlusion(window, window, raw=raw), clip, target).heatmap
        torch.testing.assert_close(heat[:, 0, 0, 0], expected)
    method = lc.Occlusion(window, window)
    a, b = (lc.explain(model, method, clip, c).heatmap for c in (1, 2))
    torch.testing.assert_close(lc.explain(model.contrast(2), method, clip, 1).heatmap, a - b)
    torch.testing.assert_close(lc.explain(model.counterfactual(), method, clip, 1).heatmap, -a)
    highest = net(clip).argmax(1)
    found = lc.explain(model, method, clip)
    assert torch.equal(found.target, highest)
    assert torch.equal(found.heatmap, lc.explain(model, method, clip, highest).heatmap)


@pytest.mark.parametrize("net", ["3d", "frames"])
def test_equals_captum(net: str) -> None:
    torch.manual_seed(0)
    module = {"3d": Gap3d, "frames": FoldedLSTM}[net]().double().eval()
    clip, target = double(2, 3, 5, 8, 7), torch.tensor([2, 0])
    model = plain(module, black=BLACK)
    black = reference(model, clip, "black").contiguous()
    for window, stride in (((2, 3, 4), (1, 2, 3)), ((2, 4, 3), (2, 4, 3))):
        theirs = captum.attr.Occlusion(lambda rows: module(rows).softmax(1)).attribute(
            clip,
            (3, *window),
            (3, *stride),
            baselines=black,
            target=target,
            perturbations_per_eval=4,
        )
        heat = lc.explain(model, lc.Occlusion(window, stride), clip, target).heatmap
        theirs = theirs[:, 0].double()  # it answers in float32
        torch.testing.assert_close(heat, theirs, rtol=1e-5, atol=1e-7)


# To first order


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_approximation_is_exact_where_the_score_is_linear(data: st.DataObject) -> None:
    size = tuple(data.draw(st.integers(1, 7), f"axis {n}") for n in range(3))
    window = tuple(data.draw(st.integers(1, n), "window") for n in size)
    stride = tuple(data.draw(st.integers(1, n), "stride") for n in window)
    kind = data.draw(st.sampled_from(["black", "mean", "blur"]))
    model, clip, _ = additive(*size)
    exact = lc.Occlusion(window, stride, reference=kind)  # type: ignore[arg-type]
    expected = lc.explain(model, exact, clip)
    model.module.rows.clear()
    found = lc.explain(model, replace(exact, approximate=True), clip)
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=1e-9, atol=1e-9)
    assert model.module.rows == [2] and found.caption == f"{expected.caption}, first order"
    assert found.grain == expected.grain


@pytest.mark.parametrize("raw", [False, True])
def test_the_approximation_has_an_error_of_second_order(raw: bool) -> None:
    """Of probabilities and of logits, contrasts and counterfactuals: half the step, half of it."""
    torch.manual_seed(0)
    net, (start, step) = Gap3d().double().eval(), double(2, 1, 3, 4, 6, 6)
    net.relu = nn.Softplus()  # type: ignore[assignment]  # has a second derivative
    plainly = replace(plain(net), forward=lambda rows: net(start + rows))
    exact = lc.Occlusion((2, 3, 3), reference="mean", raw=raw)
    for model in (plainly, plainly.contrast(2), plainly.counterfactual()):
        errors = []
        for share in (0.02, 0.01):
            maps = [
                lc.explain(model, method, share * step, 1).heatmap
                for method in (exact, replace(exact, approximate=True))
            ]
            errors.append(float((maps[0] - maps[1]).abs().max() / maps[0].abs().max()))
        assert 0 < errors[0] < 0.1 and errors[1] == pytest.approx(errors[0] / 2, rel=0.1)


# Batches, memory, padding


def test_the_batch_size_changes_nothing_and_bounds_the_rows() -> None:
    model, clip, _ = additive(4, 6, 10)
    method = lc.Occlusion((2, 3, 5), (1, 2, 2))
    expected = lc.explain(model, method, clip).heatmap
    for batch, most in ((1, 2), (5, 4), (8, 8)):
        model.module.rows.clear()
        heat = lc.explain(model, replace(method, batch=batch), clip).heatmap
        torch.testing.assert_close(heat, expected, rtol=1e-12, atol=1e-13)
        assert max(model.module.rows) == most
    for b in range(2):
        alone = lc.explain(model, method, clip[b : b + 1]).heatmap
        torch.testing.assert_close(alone[0], expected[b], rtol=1e-12, atol=1e-13)


def test_rows_are_copies_of_the_batch() -> None:
    weight, clip = double(2, 3, 4, 6, 6, seed=1), double(2, 3, 4, 6, 6)

    def bound(rows: Tensor) -> Tensor:
        of_row = weight.repeat(len(rows) // len(weight), 1, 1, 1, 1)
        return (rows * of_row).flatten(1).sum(1, keepdim=True)

    model = replace(plain(nn.Identity(), probability=None), forward=bound)
    window = (2, 3, 3)
    heat = lc.explain(model, lc.Occlusion(window, window), clip).heatmap
    pooled = torch.nn.functional.avg_pool3d((weight * clip).sum(1), window) * math.prod(window)
    torch.testing.assert_close(heat[:, ::2, ::3, ::3], pooled)


def test_padded_frames_are_zero() -> None:
    valid = torch.tensor([[True] * 4, [True] * 3 + [False]])
    model, clip, _ = additive(4, 6, 6)
    heat = lc.explain(replace(model, valid=valid), lc.Occlusion((2, 3, 3)), clip).heatmap
    assert torch.equal(heat.flatten(2).any(-1), valid)
    unpadded = lc.explain(model, lc.Occlusion((2, 3, 3)), clip).heatmap
    assert torch.equal(heat[1, :3], unpadded[1, :3])


def test_what_does_not_matter_is_zero() -> None:
    class Deaf(Additive):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip * torch.tensor([1.0, 1, 0, 0]).view(4, 1, 1))

    model = plain(Deaf(clip_of(3, 4, 8, 8)), probability=None)
    heat = lc.explain(model, lc.Occlusion((1, 4, 4)), clip_of(2, 3, 4, 8, 8)).heatmap
    assert heat[:, :2].all() and not heat[:, 2:].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: lc.Occlusion((2, 3)),
            r"window must be three whole numbers from 1 on or None, got \(2, 3\)",
        ),
        (lambda: lc.Occlusion(stride=(0, 1, 1)), "stride must be three whole numbers"),
        (lambda: lc.Occlusion((2, 3, 4), (2, 4, 4)), "voxels between two windows would never"),
        (lambda: lc.Occlusion(reference="grey"), "reference must be one of black, mean"),
        (
            lambda: lc.explain(
                additive(8, 8, 8)[0], lc.Occlusion(stride=(4, 4, 4)), clip_of(1, 3, 8, 8, 8)
            ),
            "must not exceed the window, of this clip 1 of 8; also give the window",
        ),
    ],
)
def test_settings_that_make_no_sense_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_lists_of_a_configuration_are_taken() -> None:
    assert lc.Occlusion([2, 3, 4], [1, 2, 3]) == lc.Occlusion((2, 3, 4), (1, 2, 3))  # type: ignore[arg-type]


# Columns that are not classes


@pytest.mark.parametrize("column", ["-view_synthesis_loss", "pose/ry", "depth/box"])
def test_depth_and_motion(column: str) -> None:
    batch = batch_of(drive(5), drive(5, tilt=0.2))
    batch["valid"][1, -1] = False
    model, clip = StructureFromMotion(sfm_network()).explainable(batch), batch["video"]
    e = lc.explain(model, lc.Occlusion((1, 32, 64), (1, 32, 64)), clip, column)
    assert not e.heatmap[1, -1].any()
    index = model.column(column)
    for t in (1, 3):
        hidden = clip.clone()
        hidden[:, :, t] = -1  # black
        with torch.no_grad():
            fall = (model.forward(clip) - model.forward(hidden))[:, index]
        torch.testing.assert_close(e.heatmap[:, t, 0, 0], fall, rtol=1e-3, atol=1e-7)
    if column.startswith("depth"):  # the first and the last frame are not targets
        assert e.heatmap[:, [0, -1]].abs().max() < 1e-6
