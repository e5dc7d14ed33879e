"""RISE against closed forms (R1-R6), plain loops, and what the caption says of its error."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FoldedLSTM, Gap3d, clip_of, describe
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import lightning_cam as lc
from lightning_cam.attribution import rise
from lightning_cam.attribution.guard import explaining


class Linear(nn.Module):
    """One column: sum of weight x clip, plus a bias."""

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, clip: Tensor) -> Tensor:
        return (clip * self.weight).flatten(1).sum(1, keepdim=True) + self.bias


class Tube(nn.Module):
    """The specification's toy: P(class 0) is a sigmoid of how much of a tube can be seen."""

    def __init__(self, size: tuple[int, int, int] = (8, 32, 32)) -> None:
        super().__init__()
        t, h, w = size
        self.inside = torch.zeros(size, dtype=torch.bool)
        self.inside[: t // 2, h // 4 : h // 2, w // 4 : w // 2] = True
        self.rows = 0

    def forward(self, clip: Tensor) -> Tensor:
        self.rows += len(clip)
        seen = clip.mean(1)[:, self.inside].mean(1)
        y = 10 * (seen - 0.3)
        return torch.stack([y, torch.zeros_like(y)], 1)


class Constant(nn.Module):
    def __init__(self, *outputs: float) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, clip: Tensor) -> Tensor:
        return torch.tensor(self.outputs).repeat(len(clip), 1)


def plain(net: nn.Module, **changes: Any) -> lc.Explainable:
    return lc.Explainable.of(net, [], **changes)


def ones(*size: int) -> Tensor:
    return torch.ones(1, 1, *size)


def reported(e: lc.Explanation) -> float:
    return float(e.numbers["error"].max())


def apart(heat: Tensor, truth: Tensor) -> float:
    """Root mean square error of the map without its mean, relative to the truth's spread."""
    difference = (heat - heat.mean()) - (truth - truth.mean())
    return float(difference.square().mean().sqrt() / truth.std(correction=0))


# R1 and R4: with a constant score k, `np` is k/p times the mean mask


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("grid", [(2, 8, 8), (3, 4, 5), (1, 1, 1)])
@pytest.mark.parametrize("published", [False, True])
def test_r1_every_voxel_is_seen_as_often(
    p: float, grid: tuple[int, int, int], published: bool
) -> None:
    masks = 4000
    method = lc.RISE(masks, grid, p, norm="np", raw=True, published_grid=published)
    heat = lc.explain(plain(Constant(2.0)), method, ones(5, 19, 26)).heatmap
    assert (heat / 2 * p - p).abs().max() <= 4 * (p * (1 - p) / masks) ** 0.5


@given(
    cells=st.integers(1, 9), length=st.integers(1, 40), corners=st.booleans()
)  # interpolation, as PyTorch does it
@settings(max_examples=60, deadline=None)
def test_linear_weights_are_pytorch_s(cells: int, length: int, corners: bool) -> None:
    values = torch.rand(1, 1, cells, dtype=torch.float64)
    expected = F.interpolate(values, length, mode="linear", align_corners=corners)[0, 0]
    weights = rise._linear(cells, length, corners=corners)
    torch.testing.assert_close(weights @ values[0, 0], expected)
    torch.testing.assert_close(weights.sum(1), torch.ones(length, dtype=torch.float64))


def test_r4_a_constant_score() -> None:
    clip = clip_of(2, 3, 4, 9, 7)
    count = lc.explain(plain(Constant(0.3, 1.7)), lc.RISE(50), clip, 1)
    probability = torch.tensor([0.3, 1.7]).softmax(0)[1]
    assert torch.equal(count.heatmap, probability.expand(2, 4, 9, 7))
    assert count.caption.endswith("error 0")
    center = lc.RISE(50, norm="center", relu=False)
    assert not lc.explain(plain(Constant(3.0), probability=None), center, clip).heatmap.any()


@pytest.mark.parametrize(("p", "times"), [(0.5, 1), (0.25, 3)])
def test_r2_all_masks_enumerated(p: float, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that do not move, each pattern as often as its probability says."""
    blocks = []
    for bits in product((0.0, 1.0), repeat=4):
        grid = torch.tensor(bits).view(1, 2, 2)
        mask = grid.repeat_interleave(3, 1).repeat_interleave(5, 2).expand(2, 6, 10)
        blocks += [mask] * times ** (4 - int(sum(bits)))
    table = torch.stack(blocks).double()
    monkeypatch.setattr(rise._Masks, "_make", lambda _, part: table[part])
    weight = clip_of(2, 2, 6, 10, dtype=torch.float64)
    clip = clip_of(1, 2, 2, 6, 10, seed=1, dtype=torch.float64)
    model = plain(Linear(weight, bias=0.7), probability=None)

    def run(norm: rise.Norm) -> Tensor:
        method = lc.RISE(len(table), (1, 2, 2), p, norm=norm, relu=False, batch=5)
        return lc.explain(model, method, clip).heatmap[0]

    product_ = (weight * clip[0]).sum(0)  # (T, H, W)
    cell = product_.unflatten(1, (2, 3)).unflatten(3, (2, 5)).sum((0, 2, 4))  # (2, 2)
    cell = cell.repeat_interleave(3, 0).repeat_interleave(5, 1).expand(2, 6, 10)
    torch.testing.assert_close(run("np"), p * product_.sum() + 0.7 + (1 - p) * cell)
    torch.testing.assert_close(run("count"), p * product_.sum() + 0.7 + (1 - p) * cell)
    torch.testing.assert_close(run("center"), cell.contiguous())


def test_r3_the_hottest_voxel_lies_in_the_tube() -> None:
    net = Tube()
    for seed in range(5):
        heat = lc.explain(plain(net), lc.RISE(500, seed=seed), ones(8, 32, 32), 0).heatmap[0]
        assert net.inside.flatten()[heat.argmax()]


# R5: the batch size changes nothing


@pytest.mark.parametrize("tol", [None, 0.35])
def test_r5_the_batch_size_changes_nothing(tol: float | None) -> None:
    model, clip = plain(Tube((4, 16, 16))), ones(4, 16, 16)
    found = [
        lc.explain(model, lc.RISE(600, batch=batch, tol=tol), clip, 0) for batch in (1, 7, 64, None)
    ]
    for e in found[1:]:
        torch.testing.assert_close(e.heatmap, found[0].heatmap, rtol=1e-5, atol=1e-7)
        assert e.caption == found[0].caption
    again = lc.explain(model, lc.RISE(600, batch=7, tol=tol), clip, 0).heatmap
    assert torch.equal(again, found[1].heatmap)
    other = lc.explain(model, lc.RISE(600, batch=7, tol=tol, seed=1), clip, 0).heatmap
    assert not torch.equal(other, again)


def test_the_batch_is_halved_where_memory_does_not_suffice() -> None:
    class Small(Tube):
        def forward(self, clip: Tensor) -> Tensor:
            if len(clip) > 6:
                raise torch.OutOfMemoryError("as asked")
            return super().forward(clip)

    net, clip = Small((4, 16, 16)), ones(4, 16, 16)
    expected = lc.explain(plain(Tube((4, 16, 16))), lc.RISE(100, batch=4), clip, 0).heatmap
    heat = lc.explain(plain(net), lc.RISE(100), clip, 0).heatmap
    torch.testing.assert_close(heat, expected, rtol=1e-6, atol=0)
    assert net.rows == 101  # nothing is run twice but what failed
    with pytest.raises(torch.OutOfMemoryError):
        lc.explain(plain(net), lc.RISE(10, batch=1), clip.repeat(7, 1, 1, 1, 1))


def test_forwards_are_masks_and_one() -> None:
    net = Tube((4, 16, 16))
    lc.explain(plain(net), lc.RISE(133, batch=10), ones(4, 16, 16).repeat(2, 1, 1, 1, 1))
    assert net.rows == 2 * 134


# R6 and the error


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """The toy's map from very many masks, to which both `count` and `np` converge."""
    return lc.explain(plain(Tube()), lc.RISE(40_000, seed=99), ones(8, 32, 32), 0).heatmap


@pytest.mark.slow
def test_r6_the_error_falls_with_the_root_of_the_masks(truth: Tensor) -> None:
    counts = (125, 500, 2000)
    errors = []
    for n in counts:
        maps = [
            lc.explain(plain(Tube()), lc.RISE(n, seed=s), ones(8, 32, 32), 0).heatmap
            for s in range(5)
        ]
        errors.append(torch.tensor([apart(m, truth) for m in maps]).square().mean().sqrt())
    slope = (errors[-1] / errors[0]).log() / torch.tensor(counts[-1] / counts[0]).log()
    assert abs(float(slope) + 0.5) < 0.15


@pytest.mark.slow
def test_counting_beats_the_published_normaliser_with_four_times_the_masks(truth: Tensor) -> None:
    def error(n: int, norm: rise.Norm) -> float:
        heat = [
            lc.explain(plain(Tube()), lc.RISE(n, seed=s, norm=norm), ones(8, 32, 32), 0).heatmap
            for s in range(3)
        ]
        return sum(apart(m, truth) for m in heat) / len(heat)

    for n in (250, 1000):
        assert error(n, "count") < error(4 * n, "np")


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["count", "np", "center"])
def test_the_reported_error_is_the_true_one(truth: Tensor, norm: rise.Norm) -> None:
    clip = ones(8, 32, 32)
    if norm == "center":  # which converges to another map
        method = lc.RISE(40_000, seed=98, norm="center", relu=False)
        truth = lc.explain(plain(Tube()), method, clip, 0).heatmap
    for seed in range(4):
        method = lc.RISE(2000, seed=seed, norm=norm, relu=False)
        e = lc.explain(plain(Tube()), method, clip, 0)
        assert 1 / 1.5 < reported(e) / apart(e.heatmap, truth) < 1.5


def test_tol_stops_when_the_error_is_small_enough() -> None:
    net, clip = Tube((4, 16, 16)), ones(4, 16, 16)
    e = lc.explain(plain(net), lc.RISE(20_000, tol=0.2), clip, 0)
    used = int(e.numbers["masks"])
    assert f"RISE, {used} masks of" in e.caption
    assert f"error {reported(e):.2g}" in e.caption
    assert used % 128 == 0 and 128 < used < 20_000
    assert net.rows <= used + 1
    assert 0 < reported(e) <= 0.2
    full = lc.explain(plain(Tube((4, 16, 16))), lc.RISE(20_000), clip, 0).heatmap
    assert apart(e.heatmap, full) < 1.5 * 0.2
    missed = lc.explain(plain(net), lc.RISE(300, tol=0.01), clip, 0)
    assert re.search(r"^RISE, 300 masks .* \(above tol=0.01\)$", missed.caption)
    without = lc.explain(plain(net), lc.RISE(300), clip, 0)
    torch.testing.assert_close(missed.heatmap, without.heatmap, rtol=1e-6, atol=0)
    assert set(missed.numbers) == {"masks", "error"}
    assert set(without.numbers) == {"error"}  # how many masks is a setting then


def test_one_mask_has_no_known_error() -> None:
    e = lc.explain(plain(Tube((4, 16, 16))), lc.RISE(1), ones(4, 16, 16))
    assert e.caption.endswith("error unknown")
    assert e.heatmap.isfinite().all()


def test_each_clip_gets_what_it_would_get_alone() -> None:
    model = plain(Tube((4, 16, 16)))
    clip = torch.cat([ones(4, 16, 16), 0.6 * ones(4, 16, 16), 0.35 * ones(4, 16, 16)])
    target = torch.tensor([0, 1, 0])
    method = lc.RISE(4000, tol=0.25)
    batch = lc.explain(model, method, clip, target)
    used = []
    for i in range(3):
        e = lc.explain(model, method, clip[i : i + 1], target[i : i + 1])
        torch.testing.assert_close(batch.heatmap[i], e.heatmap[0], rtol=1e-5, atol=1e-7)
        used.append(int(e.numbers["masks"]))
    assert min(used) < max(used)
    assert batch.numbers["masks"].tolist() == used
    assert f"{min(used)} to {max(used)} masks" in batch.caption


def test_columns_are_the_maps_of_the_single_targets() -> None:
    torch.manual_seed(0)
    model, clip = describe(FoldedLSTM()), clip_of(2, 3, 4, 8, 8)
    method = lc.RISE(100, (2, 3, 3))
    with explaining(model.module):
        columns = method.columns(model, clip)
    assert columns.shape == (2, 4, 4, 8, 8)
    for c in range(4):
        torch.testing.assert_close(columns[:, c], lc.explain(model, method, clip, c).heatmap)


# plain loops


MEAN, STD = torch.tensor([0.4, 0.5, 0.3]), torch.tensor([0.2, 0.3, 0.25])
BLACK = (-MEAN / STD).tolist()


def normalised(raw: Tensor) -> Tensor:
    return (raw - MEAN.view(3, 1, 1, 1)) / STD.view(3, 1, 1, 1)


def test_bayer2022_is_the_published_loop() -> None:
    torch.manual_seed(0)
    net = Gap3d().eval()
    raw = torch.rand(1, 3, 9, 20, 28, generator=torch.Generator().manual_seed(5))
    n, s, p, target = 30, 8, 0.1, 2
    # cells' sides come from s on all three axes, although there are s/4 of them in time
    sides = [-(-length // s) for length in raw.shape[2:]]
    generator = torch.Generator().manual_seed(3)
    grids = (torch.rand(n, s // 4, s, s, generator=generator) < p).float()
    shifts = [torch.randint(side, (n,), generator=generator) for side in sides]
    large = [(s + 1) * side for side in sides]
    heat = torch.zeros(raw.shape[2:])
    for i in range(n):
        mask = F.interpolate(grids[i, None, None], large, mode="trilinear", align_corners=True)
        at = [int(axis[i]) for axis in shifts]
        mask = mask[0, 0][tuple(slice(k, k + m) for k, m in zip(at, raw.shape[2:], strict=True))]
        with torch.no_grad():  # the raw clip is masked, then normalised
            heat += net(normalised(raw * mask))[0, target] * mask
    heat /= n * p
    model = describe(net, black=BLACK)
    method = lc.RISE.bayer2022(n, s, p, seed=3)
    assert method.cells == (2, 8, 8)
    e = lc.explain(model, method, normalised(raw), target)
    torch.testing.assert_close(e.heatmap[0], heat, rtol=1e-4, atol=1e-6)


def loop(
    net: nn.Module, clip: Tensor, method: lc.RISE, target: int, black: Tensor
) -> tuple[Tensor, Tensor]:
    """Masks `(N, T, H, W)` and scores `(N,)`, one mask after the other."""
    generator = torch.Generator().manual_seed(method.seed)
    grids = (torch.rand(method.masks, *method.cells, generator=generator) < method.p).float()
    sides = [-(-m // c) for m, c in zip(clip.shape[2:], method.cells, strict=True)]
    shifts = [torch.randint(side, (method.masks,), generator=generator) for side in sides]
    large = [(c + 1) * side for c, side in zip(method.cells, sides, strict=True)]
    masks, scores = [], []
    for i, grid in enumerate(grids):
        mask = F.interpolate(grid[None, None], large, mode="trilinear", align_corners=False)[0, 0]
        at = [int(axis[i]) for axis in shifts]
        mask = mask[tuple(slice(k, k + m) for k, m in zip(at, clip.shape[2:], strict=True))]
        with torch.no_grad():
            y = net(clip * mask + black.view(-1, 1, 1, 1) * (1 - mask))
        scores.append(y[0, target] if method.norm == "center" else y.softmax(1)[0, target])
        masks.append(mask)
    return torch.stack(masks), torch.stack(scores)


def test_count_and_center_are_what_a_plain_loop_gives() -> None:
    torch.manual_seed(0)
    net = FoldedLSTM().eval()
    clip = clip_of(1, 3, 5, 11, 14)
    method = lc.RISE(40, (3, 4, 2), p=0.4, seed=8)
    masks, scores = loop(net, clip, method, 1, torch.tensor(BLACK))
    expected = torch.einsum("n,nthw->thw", scores, masks) / masks.sum(0)
    heat = lc.explain(describe(net, black=BLACK), method, clip, 1).heatmap[0]
    torch.testing.assert_close(heat, expected, rtol=1e-5, atol=0)

    # columns that are not classes: the covariance with being seen
    method = replace(method, norm="center")
    masks, scores = loop(net, clip, method, 1, torch.tensor(BLACK))
    expected = torch.einsum("n,nthw->thw", scores - scores.mean(), masks) / (40 * 0.4 * 0.6)
    model = describe(net, black=BLACK, probability=None)
    signed = lc.explain(model, lc.RISE(40, (3, 4, 2), p=0.4, seed=8, relu=False), clip, 1)
    torch.testing.assert_close(signed.heatmap[0], expected, rtol=1e-4, atol=1e-6)
    assert (signed.heatmap < 0).any()
    unsaid = lc.explain(model, lc.RISE(40, (3, 4, 2), p=0.4, seed=8), clip, 1).heatmap
    assert torch.equal(unsaid, signed.heatmap)  # what lowers such a column counts
    kept = lc.RISE(40, (3, 4, 2), p=0.4, seed=8, relu=True)
    positive = lc.explain(model, kept, clip, 1).heatmap
    assert torch.equal(positive, signed.heatmap.relu())
    logits = lc.RISE(40, (3, 4, 2), p=0.4, seed=8, raw=True)  # of a classifier
    classifier = replace(model, probability="softmax")
    torch.testing.assert_close(lc.explain(classifier, logits, clip, 1).heatmap, positive)


def test_each_clip_has_its_own_black() -> None:
    torch.manual_seed(0)
    model, clip = describe(FoldedLSTM()), clip_of(2, 3, 4, 8, 8)
    blacks = torch.tensor([BLACK, [0.0, 0.0, 0.0]])
    batch = lc.explain(replace(model, black=blacks), lc.RISE(30), clip, 0).heatmap
    for i in range(2):
        alone = lc.explain(replace(model, black=blacks[i]), lc.RISE(30), clip[i : i + 1], 0)
        torch.testing.assert_close(batch[i], alone.heatmap[0], rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="black has 2 channels, the clip 3"):
        lc.explain(replace(model, black=blacks[:, :2]), lc.RISE(30), clip, 0)


def test_contrast_is_the_difference_of_the_maps() -> None:
    torch.manual_seed(0)
    model, clip = describe(FoldedLSTM()), clip_of(2, 3, 4, 8, 8)
    a, b = (lc.explain(model, lc.RISE(50), clip, c).heatmap for c in (0, 1))
    both = lc.explain(model.contrast(1), lc.RISE(50), clip, 0).heatmap
    torch.testing.assert_close(both, a - b, rtol=1e-4, atol=1e-6)


# padding, precision, memory, state


def test_padded_frames_get_exactly_zero_and_do_not_count_in_the_error() -> None:
    torch.manual_seed(0)
    model, clip = describe(Gap3d()), clip_of(2, 3, 6, 8, 8)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    plain_ = lc.explain(model, lc.RISE(200), clip, 0)
    e = lc.explain(replace(model, valid=valid), lc.RISE(200), clip, 0)
    assert not e.heatmap[1, 4:].any()
    kept = valid[..., None, None].expand_as(e.heatmap)
    assert torch.equal(e.heatmap[kept], plain_.heatmap[kept])
    first = [lc.explain(replace(model, valid=v), lc.RISE(200), clip[:1], 0)
             for v in (valid[:1], torch.arange(6)[None] < 2)]  # fmt: skip
    assert reported(first[0]) != reported(first[1])
    signed = lc.RISE(200, norm="np", raw=True)
    assert not lc.explain(replace(model, valid=valid), signed, clip, 0).heatmap[1, 4:].any()


def test_bfloat16_is_close() -> None:
    torch.manual_seed(0)
    model, clip = plain(Tube((4, 16, 16))), ones(4, 16, 16)
    expected = lc.explain(model, lc.RISE(400), clip, 0).heatmap
    conv = describe(Gap3d())
    video = clip_of(1, 3, 4, 16, 16)
    exact = lc.explain(conv, lc.RISE(100), video, 0)
    half = lc.explain(conv, lc.RISE(100, bf16=True), video, 0)
    assert half.heatmap.dtype == half.outputs.dtype == torch.float32
    assert not torch.equal(half.heatmap, exact.heatmap)
    torch.testing.assert_close(half.heatmap, exact.heatmap, rtol=0.02, atol=0)
    # weights held in bfloat16: the sums over masks keep their precision
    heat = lc.explain(model, lc.RISE(400), clip.bfloat16(), 0).heatmap
    assert heat.dtype == torch.float32
    assert apart(heat, expected) < 0.02


def test_float64_stays_float64() -> None:
    e = lc.explain(plain(Tube((4, 16, 16))), lc.RISE(50), ones(4, 16, 16).double(), 0)
    assert e.heatmap.dtype == torch.float64


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().size() // 4)
        return out


def test_no_tensor_grows_with_the_number_of_masks() -> None:
    largest = []
    for masks in (200, 2000):
        with Largest() as seen:
            lc.explain(
                plain(Tube((4, 16, 16))), lc.RISE(masks, (2, 2, 2), batch=16), ones(4, 16, 16)
            )
        largest.append(seen.numel)
    assert largest[0] == largest[1] <= 16 * 4 * 16 * 16


@pytest.mark.slow
@pytest.mark.parametrize("masks", [40, 400])
def test_memory_above_bare_forwards(masks: int) -> None:
    """400 masks of 16 x 112 x 112 alone would be 320 MB."""
    code = f"""
import resource, torch, lightning_cam as lc
torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3, (1, 4, 4)), torch.nn.ReLU(),
                          torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(4, 5))
clip = torch.randn(1, 3, 16, 112, 112)
model = lc.Explainable.of(net, ["0"])
with torch.no_grad():
    net(clip.repeat(8, 1, 1, 1, 1))
lc.explain(model, lc.RISE(1), clip[..., :16, :16])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lc.explain(model, lc.RISE({masks}, batch=8), clip)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    grown = float(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert grown < 150


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    model, clip = plain(Tube((4, 16, 16))), ones(4, 16, 16)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.no_grad():
        target = model.forward(clip).argmax(1)
        first = lc.RISE(20)(model, clip, target)  # outside explain's guard
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(lc.RISE(20)(model, clip, target), first)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"masks": 0}, "masks must be a whole number from 1 on, got 0"),
        ({"cells": (2, 8)}, "cells must be three whole numbers from 1 on"),
        ({"cells": (2, 0, 8)}, "cells must be three whole numbers from 1 on"),
        ({"p": 0}, "p must be a number between 0 and 1, both excluded, got 0"),
        ({"p": 1.0}, "p must be a number between 0 and 1"),
        ({"norm": "mean"}, "norm must be one of count, np, center, None"),
        ({"tol": 0}, "tol must be a finite number above 0 or None, got 0"),
        ({"batch": 0}, "batch must be a whole number from 1 on or None, got 0"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        lc.explain(plain(Tube((4, 8, 8))), lc.RISE(**settings), ones(4, 8, 8))
    assert "\n" not in str(error.value)


def test_lists_from_yaml_are_taken() -> None:
    assert lc.RISE(cells=[2, 4, 4]) == lc.RISE(cells=(2, 4, 4))  # type: ignore[arg-type]
    assert hash(lc.RISE(cells=[2, 4, 4])) is not None  # type: ignore[arg-type]


def test_the_configurations_are_the_methods_defaults() -> None:
    from lightning_cam.commands.search import PACKAGE
    from lightning_cam.training.build import build

    folder = PACKAGE / "explain"
    for name, method in (
        ("rise", lc.RISE()),
        ("rise_bayer2022", lc.RISE.bayer2022()),
        ("sidu", lc.SIDU()),
        ("sidu_bayer2022", lc.SIDU.bayer2022()),
    ):
        assert build({name: yaml.safe_load((folder / f"{name}.yaml").read_text())}) == {
            name: method
        }
