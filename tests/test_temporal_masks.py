"""Temporal masks: freezing and reversing on paper (F1-F6), planted motion."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nets import clip_of
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.temporal_masks import freeze, reverse


class Motion(nn.Module):
    """P(class 0) is a sigmoid of how much frames 5 to 12 differ from those before them."""

    def forward(self, clip: Tensor) -> Tensor:
        y = 6 * (clip.diff(dim=2)[:, :, 4:12].abs().mean((1, 3, 4)).sum(1) - 0.5)
        return torch.stack([y, torch.zeros_like(y)], 1)


def plain(net: nn.Module, **changes: object) -> lc.Explainable:
    return lc.Explainable.of(net, [], **changes)  # type: ignore[arg-type]


def test_f1_f3_freezing() -> None:
    clip = clip_of(2, 3, 5, 4, 6, dtype=torch.float64)
    assert torch.equal(freeze(clip, torch.zeros(2, 5)), clip)
    assert torch.equal(freeze(clip, torch.ones(2, 5)), clip[:, :, :1].expand_as(clip))
    mask = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    held = mask.clone()
    held[:, 0] = 0
    matrix = torch.zeros(2, 5, 5, dtype=torch.float64)
    for u in range(5):
        for s in range(u + 1):
            matrix[:, u, s] = (1 - held[:, s]) * held[:, s + 1 : u + 1].prod(1)
    torch.testing.assert_close(matrix.sum(2), torch.ones(2, 5, dtype=torch.float64))
    torch.testing.assert_close(freeze(clip, mask), torch.einsum("bus,bcshw->bcuhw", matrix, clip))


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_f2_reversing(frames: int) -> None:
    clip = clip_of(2, 3, frames, 4, 6)
    assert torch.equal(reverse(clip, torch.ones(2, frames)), clip.flip(2))
    assert torch.equal(reverse(clip, torch.full((2, frames), 0.09)), clip)
    mask = torch.zeros(2, frames)
    mask[1, :2] = torch.tensor([0.25, 0.9])[:frames]
    found = reverse(clip, mask)
    assert torch.equal(found[0], clip[0])
    if frames > 1:  # the earlier frame's mask counts for both
        a, b = clip[1, :, 0], clip[1, :, 1]
        torch.testing.assert_close(found[1, :, 0], 0.75 * a + 0.25 * b)
        torch.testing.assert_close(found[1, :, 1], 0.75 * b + 0.25 * a)
        assert torch.equal(found[1, :, 2:], clip[1, :, 2:])


def test_f4_a_network_without_order_answers_the_reversed_clip_as_before() -> None:
    class Mean(nn.Module):
        def forward(self, clip: Tensor) -> Tensor:
            y = clip.pow(3).mean((1, 2, 3, 4))
            return torch.stack([y, -y], 1)

    clip = clip_of(1, 3, 7, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[0, 1, 1, 0, 1, 1, 1]]).double()
    torch.testing.assert_close(Mean()(reverse(clip, mask)), Mean()(clip))


@pytest.mark.slow
def test_f5_the_frames_that_move_are_found_for_each_clip_by_itself() -> None:
    clip, valid = clip_of(2, 3, 16, 4, 6), torch.ones(2, 16, dtype=torch.bool)
    valid[1, 14:] = False
    model = replace(plain(Motion()), valid=valid)
    method = lc.TemporalMask()
    e = lc.explain(model, method, clip, 0)
    for b in range(2):
        found = e.heatmap[b, :, 0, 0] > 0.5
        inside = (torch.arange(16) >= 5) & (torch.arange(16) <= 12)
        both = (found & inside).sum() / (found | inside).sum()
        assert both >= 0.8, found
        assert e.numbers["score_freeze"][b] < 0.5 < 0.99 < e.numbers["score"][b]
        one = replace(model, valid=valid[b : b + 1])
        alone = lc.explain(one, method, clip[b : b + 1], 0).heatmap
        torch.testing.assert_close(alone[0], e.heatmap[b], rtol=1e-3, atol=1e-4)
    assert torch.equal(e.heatmap, e.heatmap[..., :1, :1].expand_as(e.heatmap))
    assert not e.heatmap[1, 14:].any() and e.grain == (16, 1, 1)


def test_f6_of_a_constant_network_nothing_is_left() -> None:
    class Constant(nn.Module):
        def forward(self, clip: Tensor) -> Tensor:
            return 0 * clip.sum((1, 2, 3, 4))[:, None] + torch.tensor([1.0, 2.0])

    sums = [
        float(
            lc.explain(plain(Constant()), lc.TemporalMask(n), clip_of(1, 1, 6, 4, 4)).heatmap.sum()
        )
        for n in (5, 20, 60, 200)
    ]
    assert sums == sorted(sums, reverse=True) and sums[-1] < 0.05 * sums[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be a whole number from 1 on"),
        ({"lr": 0}, "lr must be a finite number above 0"),
        ({"length": -1}, "length must be a finite number, 0 or more"),
        ({"roughness": float("nan")}, "roughness must be a finite number, 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lc.TemporalMask(**changes)
