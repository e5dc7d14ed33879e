"""Deletion and insertion against closed forms (D1-D9) and the published step-by-step loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FoldedLSTM, Gap3d, clip_of, describe
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution import perturbation as perturb
from lightning_cam.errors import UnknownNameError
from lightning_cam.metrics import PROTOCOLS

MEAN, STD = torch.tensor([0.4, 0.5, 0.3]), torch.tensor([0.2, 0.3, 0.25])
BLACK = (-MEAN / STD).tolist()


class Share(nn.Module):
    """P(class 0) is exactly the sum of a x, of clips of ones the visible share of a."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a, self.seen = a / a.sum(), []

    def forward(self, clip: Tensor) -> Tensor:
        self.seen.append(clip.clone())
        share = (clip.double() * self.a).flatten(1).sum(1).clamp(0, 1)
        return torch.stack([share.log(), (1 - share).log()], 1)


SAME = lc.Protocol(inserted="black")  # both curves hide with black


def curves(
    a: Tensor, heat: Tensor, protocol: lc.Protocol | str = SAME, **changes: Any
) -> tuple[float, float]:
    """AUC of deletion and insertion of a clip of ones, for heat `(T, H, W)`."""
    model = lc.Explainable.of(Share(a.double()), [])
    clip = torch.ones(1, 1, *a.shape)
    protocol = lc.Protocol.of(protocol, **changes)
    found = [f(model, clip, heat[None], 0, protocol=protocol) for f in (lc.deletion, lc.insertion)]
    return float(found[0].auc), float(found[1].auc)


def distinct(*size: int, seed: int = 0) -> Tensor:
    """Heat without ties."""
    n = torch.Size(size).numel()
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).float().view(size)


def test_d1_a_uniform_score_gives_a_half_in_any_order() -> None:
    a = torch.ones(2, 5, 10)
    for heat in (distinct(2, 5, 10), torch.zeros(2, 5, 10)):
        assert curves(a, heat, steps=20) == pytest.approx((0.5, 0.5))


def test_d2_one_voxel_carries_everything() -> None:
    a = torch.zeros(3, 4, 5)
    a[1, 2, 3] = 1
    for steps in (1, 7, 20, 60):
        low, high = 1 / (2 * steps), 1 - 1 / (2 * steps)
        assert curves(a, a, steps=steps) == pytest.approx((low, high))
        assert curves(a, a, steps=steps, order="least") == pytest.approx((high, low))


def test_d3_a_linear_ramp_gives_thirds() -> None:
    a = distinct(8, 20, 25) + 1
    assert curves(a, a, steps=100) == pytest.approx((1 / 3, 2 / 3), abs=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_d4_the_top_share_carries_everything_evenly(share: float) -> None:
    heat = distinct(5, 10, 8)
    a = (heat >= heat.numel() * (1 - share)).float()
    assert curves(a, heat, steps=20) == pytest.approx((share / 2, 1 - share / 2))


@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(2, 6)),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_d5_insertion_is_deletion_s_complement_and_lerf_its_reverse(
    seed: int, size: tuple[int, int, int], data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, heat = torch.rand(2, *size, generator=generator).double() + 1e-3
    n = heat.numel()
    steps = data.draw(st.integers(1, n))
    deleted, inserted = curves(a, heat, steps=steps)
    assert inserted == pytest.approx(1 - deleted, abs=1e-6)
    divisors = [s for s in range(1, n + 1) if n % s == 0]
    steps = data.draw(st.sampled_from(divisors))
    model, clip = lc.Explainable.of(Share(a), []), torch.ones(1, 1, *size)
    most = lc.insertion(model, clip, heat[None], 0, steps, protocol=SAME)
    least = lc.deletion(model, clip, heat[None], 0, steps, protocol=SAME, order="least")
    torch.testing.assert_close(most.score, least.score.flip(1), rtol=1e-5, atol=1e-6)


def test_d6_constant_heat_is_half_on_average() -> None:
    a = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)) ** 8
    found = [curves(a, torch.ones(4, 8, 8), steps=16, seed=s)[0] for s in range(60)]
    assert abs(sum(found) / 60 - 0.5) < 0.02
    assert len(set(found)) == 60


@pytest.mark.parametrize("name", ["default", "bayer2022", "rise"])
def test_d7_the_curves_end_at_the_clip_and_at_the_references(name: str) -> None:
    torch.manual_seed(0)
    net = Gap3d().eval()
    model, clip = describe(net, black=BLACK), clip_of(2, 3, 4, 16, 18)
    heat = clip_of(2, 4, 16, 18, seed=1)
    target = torch.tensor([1, 3])
    protocol = PROTOCOLS[name]
    deleted, inserted = (
        f(model, clip, heat, target, protocol=name) for f in (lc.deletion, lc.insertion)
    )
    with torch.no_grad():
        p, hidden, blurred = (
            net(c).softmax(1).gather(1, target[:, None])[:, 0]
            for c in (
                clip,
                perturb.reference(model, clip, protocol.deleted),
                perturb.reference(model, clip, protocol.inserted),
            )
        )
    for found, expected in (
        (deleted.score[:, 0], p),
        (deleted.score[:, -1], hidden),
        (inserted.score[:, 0], blurred),
        (inserted.score[:, -1], p),
    ):
        torch.testing.assert_close(found, expected)
    assert deleted.fraction[0] == 0 and deleted.fraction[-1] == 1
    assert deleted.score.shape == (2, len(deleted.fraction))


@given(seed=st.integers(0, 10**6), power=st.sampled_from([0.3, 1.0, 3.0]))
@settings(max_examples=20, deadline=None)
def test_d8_only_the_order_of_heat_counts(seed: int, power: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(3, 4, 5, generator=generator)
    heat = torch.rand(3, 4, 5, generator=generator).double().round(decimals=1)  # with ties
    expected = curves(a, heat, steps=12)
    assert curves(a, 5 * heat**power - 3, steps=12) == expected


@pytest.mark.parametrize("batch", [1, 5, None])
def test_d9_batched_steps_equal_the_plain_loop(batch: int | None) -> None:
    torch.manual_seed(0)
    net = Gap3d().eval()
    model, clip = describe(net, black=BLACK), clip_of(2, 3, 4, 9, 11)
    heat = torch.stack([distinct(4, 9, 11), distinct(4, 9, 11, seed=1)])
    steps, n = 13, 4 * 9 * 11
    hidden = torch.tensor(BLACK).view(3, 1, 1, 1).expand_as(clip)
    blurred = perturb.reference(model, clip, "blur")
    for f, first, last in ((lc.deletion, clip, hidden), (lc.insertion, blurred, clip)):
        found = f(model, clip, heat, 2, steps, batch=batch).score
        for b in range(2):
            order = heat[b].flatten().argsort(descending=True)
            for s in range(steps + 1):
                now, changed = first[b].clone(), order[: n * s // steps]
                now.flatten(1)[:, changed] = last[b].flatten(1)[:, changed]
                with torch.no_grad():
                    p = net(now[None]).softmax(1)[0, 2]
                torch.testing.assert_close(found[b, s], p, rtol=1e-5, atol=1e-7)


# references

# The middle row of scipy.ndimage.gaussian_filter(delta, 5) for a delta in an 11 x 11 window.
HALF = [0.00826649, 0.00835464, 0.00850295, 0.00866431, 0.00878633, 0.00883263]
ROW = torch.tensor(HALF + HALF[4::-1], dtype=torch.float64)
KERNEL = ROW[:, None] * ROW / ROW[5]


def test_rise_s_blur_kernel() -> None:
    assert float(KERNEL[5, 5]) == pytest.approx(0.0088, abs=5e-5)
    assert float(KERNEL[0, 0]) == pytest.approx(0.0077, abs=5e-5)
    kernel = perturb._rise_kernel()
    torch.testing.assert_close(kernel[:, None] * kernel, KERNEL, rtol=2e-6, atol=0)
    clip = clip_of(2, 3, 2, 9, 14)
    blurred = perturb.reference(lc.Explainable.of(Share(torch.ones(1)), []), clip, "rise")
    weight = torch.zeros(3, 3, 11, 11)
    for c in range(3):
        weight[c, c] = KERNEL
    for t in range(2):
        expected = F.conv2d(clip[:, :, t], weight, padding=5)
        torch.testing.assert_close(blurred[:, :, t], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(3, 5), (40, 12), (1, 9)])
def test_the_blur_is_a_mirrored_gaussian_of_each_frame(size: tuple[int, int]) -> None:
    clip = clip_of(2, 3, 2, *size, dtype=torch.float64)
    model = lc.Explainable.of(Share(torch.ones(1)), [])
    blurred = perturb.reference(model, clip, "blur")
    sigma = max(5, size[0] / 11)
    r = round(3 * sigma)
    weights = [2.718281828459045 ** (-0.5 * (k / sigma) ** 2) for k in range(-r, r + 1)]

    def mirrored(i: int, n: int) -> int:
        while n > 1 and not 0 <= i < n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i if n > 1 else 0

    for axis, n in ((3, size[0]), (4, size[1])):
        lines = [
            sum(
                w * clip.select(axis, mirrored(i + k, n))
                for w, k in zip(weights, range(-r, r + 1), strict=True)
            )
            / sum(weights)
            for i in range(n)
        ]
        clip = torch.stack(lines, axis)  # type: ignore[arg-type]
    torch.testing.assert_close(blurred, clip)
    constant = torch.full((1, 1, 1, *size), 3.0)
    torch.testing.assert_close(perturb.reference(model, constant, "blur"), constant)


def test_other_references() -> None:
    model, clip = lc.Explainable.of(nn.Identity(), [], black=BLACK), clip_of(2, 3, 9, 8, 7)
    assert not perturb.reference(model, clip, "mean").any()
    assert torch.equal(perturb.reference(model, clip, "black")[1, :, 3, 2, 1], torch.tensor(BLACK))
    assert perturb.reference(model, clip[:, :, :3], "zoom").shape == (2, 3, 3, 8, 7)
    own = torch.ones(1, 3, 1, 1, 1)
    assert torch.equal(perturb.reference(model, clip, own), torch.ones_like(clip))
    with pytest.raises(ValueError, match="unknown reference 'grey'; choose one of black, mean"):
        perturb.reference(model, clip, "grey")  # type: ignore[arg-type]


# presets against loops written from the publications


def causal_metric(
    net: nn.Module, image: Tensor, saliency: Tensor, mode: str, target: int, pixels: int
) -> tuple[Tensor, float]:
    """RISE's deletion ("del") and insertion ("ins") of one image `(1, 3, H, W)`."""
    total = saliency.numel()
    count = (total + pixels - 1) // pixels
    weight = torch.zeros(3, 3, 11, 11)
    for c in range(3):
        weight[c, c] = KERNEL
    if mode == "del":
        start, finish = image.clone(), torch.zeros_like(image)
    else:
        start, finish = F.conv2d(image, weight, padding=5), image.clone()
    order = saliency.flatten().argsort(descending=True)
    scores = torch.zeros(count + 1)
    for i in range(count + 1):
        with torch.no_grad():
            scores[i] = net(start[:, :, None]).softmax(1)[0, target]
        if i < count:
            at = order[pixels * i : pixels * (i + 1)]
            start.view(3, -1)[:, at] = finish.view(3, -1)[:, at]
    return scores, float((scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1))


@pytest.mark.parametrize("size", [(40, 33), (56, 56)])
def test_preset_rise_on_images_is_the_published_loop(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = Gap3d().eval()
    with torch.no_grad():
        net.fc.weight *= 8
    model, clip, heat = describe(net, black=BLACK), clip_of(1, 3, 1, *size), distinct(1, *size)
    target = int(net(clip).argmax())
    for mode, f in (("del", lc.deletion), ("ins", lc.insertion)):
        scores, area = causal_metric(net, clip[:, :, 0], heat, mode, target, 224)
        found = f(model, clip, heat[None], protocol="rise")
        torch.testing.assert_close(found.score[0], scores, rtol=0, atol=1e-5)
        assert abs(float(found.auc) - area) < 1e-5
        assert found.score.std() > 0.001
        other = f(model, clip, heat[None], protocol="rise", voxels=100).score
        expected = causal_metric(net, clip[:, :, 0], heat, mode, target, 100)[0]
        torch.testing.assert_close(other[0], expected, rtol=0, atol=1e-5)


def test_preset_bayer2022_is_the_published_loop() -> None:
    torch.manual_seed(0)
    net = Gap3d().eval()
    raw = torch.rand(1, 3, 8, 16, 20, generator=torch.Generator().manual_seed(2))
    heat = distinct(8, 16, 20)

    def score(clip: Tensor) -> Tensor:
        with torch.no_grad():
            return net((clip - MEAN.view(3, 1, 1, 1)) / STD.view(3, 1, 1, 1)).softmax(1)[0]

    target = int(score(raw).argmax())
    small = F.interpolate(raw, (2, 4, 5), mode="trilinear", align_corners=True)
    coarse = F.interpolate(small, raw.shape[2:], mode="trilinear", align_corners=True)
    order = heat.flatten().argsort(descending=True)
    points = torch.linspace(0, heat.numel(), 100, dtype=torch.float64)
    expected: dict[Callable[..., lc.Curve], Tensor] = {}
    for f, start, end in ((lc.deletion, raw, torch.zeros_like(raw)), (lc.insertion, coarse, raw)):
        scores = []
        for point in points:
            now, changed = start.clone(), order[: int(point + 1e-9)]
            now.view(3, -1)[:, changed] = end.view(3, -1)[:, changed]
            scores.append(score(now)[target])
        expected[f] = torch.stack(scores)
    clip = (raw - MEAN.view(3, 1, 1, 1)) / STD.view(3, 1, 1, 1)
    for f, scores_ in expected.items():
        found = f(describe(net, black=BLACK), clip, heat[None], protocol="bayer2022")
        torch.testing.assert_close(found.score[0], scores_, rtol=1e-4, atol=1e-6)
        area = torch.trapezoid(scores_, points.float() / heat.numel())
        torch.testing.assert_close(found.auc[0], area, rtol=1e-4, atol=1e-6)


# what is shared


class Counting(FoldedLSTM):
    def __init__(self) -> None:
        super().__init__()
        self.frames = self.rows = 0
        self.trunk.register_forward_hook(self._count)
        self.sizes: list[int] = []

    def _count(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self.frames += 1

    def forward(self, clip: Tensor) -> Tensor:
        self.rows += len(clip)
        self.sizes.append(len(clip))
        return super().forward(clip)


@pytest.mark.parametrize("known", [False, True])
def test_both_curves_share_their_ends(known: bool) -> None:
    torch.manual_seed(0)
    net = Counting()
    model, clip = describe(net, black=BLACK), clip_of(1, 3, 4, 8, 8)
    e = lc.explain(model, lc.RandomMap(), clip)
    net.rows = 0
    ends = lc.Ends.of(model, clip, protocol="default", outputs=e.outputs if known else None)
    found = [f(model, clip, e.heatmap, steps=20, ends=ends) for f in (lc.deletion, lc.insertion)]
    assert net.rows == (40 if known else 41)
    for f, curve in zip((lc.deletion, lc.insertion), found, strict=True):
        alone = f(model, clip, e.heatmap, steps=20)
        torch.testing.assert_close(alone.score, curve.score)
    net.rows = 0
    lc.deletion(model, clip, e.heatmap, steps=1, ends=ends)
    assert net.rows == 0


def test_ends_of_another_target_are_refused() -> None:
    model, clip = describe(Gap3d()), clip_of(2, 3, 4, 8, 8)
    heat = clip_of(2, 4, 8, 8)
    ends = lc.Ends.of(model, clip, 1)
    same = lc.deletion(model, clip, heat, 1, steps=3, ends=ends)
    assert torch.equal(same.score, lc.deletion(model, clip, heat, steps=3, ends=ends).score)
    with pytest.raises(ValueError, match="these ends are of another target"):
        lc.deletion(model, clip, heat, 2, steps=3, ends=ends)


def test_ends_of_another_protocol_are_refused() -> None:
    model, clip = describe(Gap3d()), clip_of(2, 3, 4, 8, 8)
    heat = clip_of(2, 4, 8, 8)
    ends = lc.Ends.of(model, clip, kinds=("deleted",))
    lc.deletion(model, clip, heat, steps=3, ends=ends)
    for f, changes, n in (
        (lc.insertion, {}, 2),
        (lc.deletion, {"raw": True}, 2),
        (lc.deletion, {"deleted": "mean"}, 2),
        (lc.deletion, {}, 1),
    ):
        with pytest.raises(ValueError, match="these ends are of another clip or protocol"):
            f(model, clip[:n], heat[:n], steps=3, ends=ends, **changes)


@pytest.mark.parametrize("batch", [2, None])
def test_whole_frames_run_the_head_alone(batch: int | None) -> None:
    torch.manual_seed(0)
    net = Counting()
    clip, heat = clip_of(2, 3, 8, 8, 8), clip_of(2, 8, 8, 8, seed=1)
    cached, uncached = describe(net, frames="trunk", black=BLACK), describe(net, black=BLACK)
    settings_ = lc.Protocol(steps=8, unit="frame", batch=batch)
    ends = lc.Ends.of(cached, clip, 1, protocol=settings_)
    assert net.sizes == [2, 2, 2]
    features = [0]  # clips that the convolutions see
    with net.trunk.conv.register_forward_hook(lambda *_: features.append(1)):
        found = [
            f(cached, clip, heat, 1, protocol=settings_, ends=ends)
            for f in (lc.deletion, lc.insertion)
        ]
    assert sum(features) == 0
    for f, curve in zip((lc.deletion, lc.insertion), found, strict=True):
        plain = f(uncached, clip, heat, 1, protocol=settings_)
        torch.testing.assert_close(curve.score, plain.score, rtol=1e-5, atol=1e-7)
        # ends without features serve frames, ends with features serve voxels
        other = f(cached, clip, heat, 1, protocol=settings_, ends=lc.Ends.of(uncached, clip, 1))
        torch.testing.assert_close(curve.score, other.score, rtol=1e-5, atol=1e-7)
        voxels = f(cached, clip, heat, 1, 8, protocol=settings_, unit="voxel", ends=ends)
        torch.testing.assert_close(voxels.score, f(uncached, clip, heat, 1, 8).score)
    assert not torch.equal(voxels.score, curve.score)


def test_frames_are_ranked_by_their_mean_heat() -> None:
    a = torch.zeros(4, 3, 3)
    a[2] = 1
    heat = torch.zeros(4, 3, 3)
    heat[2] = 0.5
    heat[0, 0, 0] = 3  # the hottest voxel is not in the hottest frame
    assert curves(a, heat, unit="frame", steps=4) == pytest.approx((1 / 8, 7 / 8))


# ties, padding, blocks


def seen_by(heat: Tensor, steps: int, valid: Tensor | None = None, **changes: Any) -> list[Tensor]:
    """Where the clip is still there, `(T, H, W)` bool, at steps 1 to S - 1 of deletion."""
    net = Share(torch.ones_like(heat, dtype=torch.float64))
    model = replace(lc.Explainable.of(net, []), valid=valid)
    lc.deletion(model, torch.ones(1, 1, *heat.shape), heat[None], 0, steps, batch=1, **changes)
    return [rows[0, 0] > 0 for rows in net.seen[2:]]


def test_ties_are_broken_at_random_but_seeded() -> None:
    heat = torch.zeros(8, 10, 10)
    heat[3] = 1  # plains of equal heat
    first = seen_by(heat, 8)
    assert not first[0][3].any() and first[0].sum() == 700
    gone = [int((~first[1][t]).sum()) for t in range(8)]
    assert gone[3] == 100 and sum(gone) == 200
    assert all(4 < n < 30 for t, n in enumerate(gone) if t != 3)  # from everywhere
    again, other = seen_by(heat, 8), seen_by(heat, 8, seed=1)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    seen_by(heat, 8)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_tied_share_is_told() -> None:
    model, clip = (
        lc.Explainable.of(Share(torch.ones(2, 3, 4).double()), []),
        torch.ones(3, 1, 2, 3, 4),
    )
    heat = distinct(2, 3, 4).repeat(3, 1, 1, 1)
    heat[1] = 0
    heat[2].flatten()[:6] = 50
    found = lc.deletion(model, clip, heat, 0, steps=4).tied
    assert found.tolist() == pytest.approx([0, 1, 6 / 24])
    one = lc.deletion(model, clip, heat, 0, steps=1, unit=(2, 3, 4))
    assert one.tied.tolist() == [0, 0, 0]


def test_padded_frames_are_no_units() -> None:
    heat = distinct(6, 4, 5)
    valid = torch.tensor([[True] * 4 + [False] * 2])
    for unit, steps in (("voxel", 10), ("frame", 4), ((2, 2, 2), 5), ((4, 4, 5), 1)):
        steps_ = seen_by(heat, steps, valid, unit=unit)
        alone = seen_by(heat[:4], steps, unit=unit)
        assert len(steps_) == steps - 1
        for now, short in zip(steps_, alone, strict=True):
            assert now[4:].all()  # until the last step
            assert torch.equal(now[:4], short)
    # a block's heat is that of its valid frames
    blocks = torch.zeros(4, 1, 2)
    blocks[:2, 0, 0], blocks[2, 0, 0] = 0.6, 1.0
    (first, *_) = seen_by(blocks, 4, torch.tensor([[True] * 3 + [False]]), unit=(2, 1, 1))
    assert not first[2:, 0, 0].any() and first[:2].all()
    # fewer valid frames than steps: some steps change nothing
    found = seen_by(heat, 6, valid, unit="frame")
    assert [int(now[:, 0, 0].sum()) for now in found] == [6, 5, 4, 4, 3]


def test_a_short_clip_s_curve_is_that_without_its_padding() -> None:
    torch.manual_seed(0)
    a = torch.rand(6, 4, 5).double()
    a[4:] = 0
    heat = distinct(6, 4, 5)
    valid = torch.tensor([[True] * 4 + [False] * 2])
    padded = replace(lc.Explainable.of(Share(a), []), valid=valid)
    alone = lc.Explainable.of(Share(a[:4]), [])
    for protocol in ("default", "bayer2022"):
        for f in (lc.deletion, lc.insertion):
            settings_ = {"protocol": protocol, "inserted": "blur", "steps": 16}
            long = f(padded, torch.ones(1, 1, 6, 4, 5), heat[None], 0, **settings_)
            short = f(alone, torch.ones(1, 1, 4, 4, 5), heat[None, :4], 0, **settings_)
            torch.testing.assert_close(long.score, short.score)
    long = lc.deletion(padded, torch.ones(1, 1, 6, 4, 5), heat[None], 0, protocol="rise", voxels=12)
    short = lc.deletion(
        alone, torch.ones(1, 1, 4, 4, 5), heat[None, :4], 0, protocol="rise", voxels=8
    )
    torch.testing.assert_close(long.score, short.score)


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)),
    block=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 10)),
)
@settings(max_examples=40, deadline=None)
def test_blocks_that_do_not_divide(size: tuple[int, int, int], block: tuple[int, int, int]) -> None:
    heat = distinct(*size)
    means = {
        (t, i, j): float(heat[t : t + block[0], i : i + block[1], j : j + block[2]].mean())
        for t in range(0, size[0], block[0])
        for i in range(0, size[1], block[1])
        for j in range(0, size[2], block[2])
    }
    steps = min(5, len(means))
    found = seen_by(heat, steps, unit=block)
    for s, now in enumerate(found, 1):
        gone = []
        for (t, i, j), mean in means.items():
            part = now[t : t + block[0], i : i + block[1], j : j + block[2]]
            assert part.all() or not part.any()
            if not part.any():
                gone.append(mean)
        assert len(gone) == len(means) * s // steps
        kept = sorted(means.values())[: len(means) - len(gone)]
        assert min(gone, default=1e9) >= max(kept) - 1e-4


def test_equal_heat_is_tied_in_blocks_that_do_not_divide() -> None:
    model, clip = (
        lc.Explainable.of(Share(torch.ones(5, 7, 9).double()), []),
        torch.ones(1, 1, 5, 7, 9),
    )
    found = lc.deletion(model, clip, torch.full((1, 5, 7, 9), 0.1), 0, 3, unit=(2, 3, 4))
    assert found.tied.tolist() == [1]


# curves


def test_a_batch_equals_its_clips_one_by_one() -> None:
    torch.manual_seed(0)
    model, clip = describe(Gap3d(), black=BLACK), clip_of(3, 3, 4, 8, 9)
    heat = clip_of(3, 4, 8, 9, seed=1).relu()
    batch = lc.deletion(model, clip, heat, torch.tensor([0, 2, 1]), 11)
    for i, target in enumerate((0, 2, 1)):
        alone = lc.deletion(model, clip[i : i + 1], heat[i : i + 1], target, 11)
        torch.testing.assert_close(batch.score[i], alone.score[0], rtol=1e-5, atol=1e-7)
        assert batch.tied[i] == alone.tied[0]


def test_normalised_area() -> None:
    score = torch.tensor([[5.0, 2, 0, 1], [1, 2, 3, 7], [0.5, 0.9, 0.5, 0.5], [4, 5, 2, 1]])
    curve = lc.Curve(torch.linspace(0, 1, 4), score, torch.zeros(4))
    first = torch.tensor([[1, 0.25, 0, 0], [1, 5 / 6, 4 / 6, 0], [1, 1, 1 / 3, 0]])
    expected = torch.trapezoid(first, dx=1 / 3)
    found = curve.normalised_auc
    torch.testing.assert_close(found[[0, 1, 3]], expected)
    assert found[2].isnan()
    small = replace(curve, score=score / 1000).normalised_auc  # in another unit
    torch.testing.assert_close(small, found, equal_nan=True)
    # insertion: the clip itself is the last point
    inserted = replace(curve, clip_first=False)
    torch.testing.assert_close(inserted.normalised_auc[1], torch.tensor((0 + 1 + 2 + 3) / 6 / 3))
    torch.testing.assert_close(curve.auc[0], torch.tensor(5 / 3))
    model, clip = describe(Gap3d(), probability=None), clip_of(1, 3, 4, 8, 8)
    for f, flag in ((lc.deletion, True), (lc.insertion, False)):
        assert f(model, clip, clip_of(1, 4, 8, 8), 0, 4).clip_first is flag


def test_regressors_and_raw_are_scored_by_their_column() -> None:
    torch.manual_seed(0)
    net = Gap3d().eval()
    clip, heat = clip_of(2, 3, 4, 8, 8), clip_of(2, 4, 8, 8)
    raw = lc.deletion(describe(net), clip, heat, 1, 5, raw=True)
    columns = lc.deletion(describe(net, probability=None), clip, heat, 1, 5)
    assert torch.equal(raw.score, columns.score)
    torch.testing.assert_close(raw.score[:, 0], net(clip)[:, 1].detach())


def test_dtypes() -> None:
    torch.manual_seed(0)
    model = describe(Gap3d().double(), black=BLACK)
    clip, heat = clip_of(1, 3, 4, 8, 8, dtype=torch.float64), distinct(4, 8, 8)[None]
    found = lc.insertion(model, clip, heat, 0, 6)
    assert found.score.dtype == found.auc.dtype == torch.float64
    for dtype in (torch.float64, torch.int64, torch.float16, torch.bfloat16):
        again = lc.insertion(model, clip.float(), heat.to(dtype), 0, 6)
        torch.testing.assert_close(again.score, found.score, rtol=1e-5, atol=1e-6)
    for unit in ("frame", (2, 4, 4)):
        a, b = (
            lc.deletion(model, clip, heat.to(d), 0, 4, unit=unit)
            for d in (torch.int64, torch.float32)
        )
        assert torch.equal(a.score, b.score)
    half = lc.deletion(describe(Gap3d()), clip, heat, 0, 4, bf16=True)
    assert half.score.dtype == torch.float32


def test_the_network_is_left_as_it_was() -> None:
    net = Gap3d().train()
    clip = clip_of(2, 3, 4, 8, 8)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.inference_mode():
        born = clip_of(2, 3, 4, 8, 8)
        inside = lc.deletion(describe(net), born, clip_of(2, 4, 8, 8), 0, 5).score
    assert torch.equal(inside, lc.deletion(describe(net), clip, clip_of(2, 4, 8, 8), 0, 5).score)
    assert net.training and net.norm.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_protocols() -> None:
    assert lc.Protocol.of("rise", steps=10).voxels is None
    assert lc.Protocol.of("rise", steps=None, voxels=64).voxels == 64
    assert lc.Protocol(unit=[1, 4, 4]) == lc.Protocol(unit=(1, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="no protocol 'rsie'; nearest: rise"):
        lc.Protocol.of("rsie")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 on, got 0"),
        ({"steps": 2.5}, "steps must be a whole number from 1 on, got 2.5"),
        ({"protocol": "rise", "unit": "frame"}, "voxels=224 is for single voxels; give steps"),
        (
            {"unit": "pixel"},
            "unit must be one of voxel, frame or three whole numbers from 1 on, got",
        ),
        (
            {"unit": (1, 0, 2)},
            "unit must be one of voxel, frame or three whole numbers from 1 on, got",
        ),
        ({"order": "random"}, "order must be one of most, least, got 'random'"),
        ({"batch": 0}, "batch must be a whole number from 1 on or None, got 0"),
        ({"unit": "frame"}, "steps=100 is more than the clip's 4 units; choose 4 or fewer"),
        (
            {"deleted": "grey"},
            "deleted must be one of black, mean, blur, rise, zoom, road, road_time, got 'grey'",
        ),
        ({"unit": 5}, "unit must be one of voxel, frame or three whole numbers from 1 on, got"),
    ],
)
def test_wrong_settings_are_named_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        lc.deletion(describe(Gap3d()), clip_of(1, 3, 4, 8, 8), clip_of(1, 4, 8, 8), **changes)
    assert "\n" not in str(error.value)


def test_wrong_heatmaps_are_named() -> None:
    model, clip, heat = describe(Gap3d()), clip_of(1, 3, 4, 8, 8), clip_of(1, 4, 8, 8)
    with pytest.raises(ValueError, match=r"expected a clip .* its heatmap \(1, 4, 8, 8\), got"):
        lc.deletion(model, clip, heat[0])
    with pytest.raises(ValueError, match="expected a clip"):
        lc.deletion(model, clip[0], heat)
    heat[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="the heatmap is not finite"):
        lc.deletion(model, clip, heat)


def test_scores_that_are_not_finite_are_refused() -> None:
    class Broken(Gap3d):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip) / (clip[:, :1, 0, 0, 0] != 0).float()

    clip = torch.ones(1, 3, 4, 8, 8)
    heat = torch.arange(4 * 64.0).view(1, 4, 8, 8)
    with pytest.raises(ValueError, match="scores of perturbed clips are not finite"):
        lc.deletion(describe(Broken()), clip, heat, 0, 4)
