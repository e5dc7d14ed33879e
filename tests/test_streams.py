"""Networks of two streams, or two speeds, are explained on one clip."""

from __future__ import annotations

import pytest
import torch
from nets import clip_of
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.spectrum_relevance import SPECTRUM_MEASURES

STREAMS = {"rgb": (0, 1, 2), "flow": (3, 4)}


class TwoStreams(nn.Module):
    """y = a mean(rgb) + b mean(flow), each stream through a layer of its own."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.rgb, self.flow, self.weights = nn.Identity(), nn.Identity(), (a, b)

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        streams = zip(self.weights, (self.rgb(rgb), self.flow(flow)), strict=True)
        return sum(w * x.mean((1, 2, 3, 4)) for w, x in streams)


def two(a: float, b: float) -> lc.Explainable:
    net = TwoStreams(a, b)
    return lc.Explainable.of(
        net, forward=lambda clip: net(clip[:, :3], clip[:, 3:]), probability=None
    )


@pytest.mark.parametrize("method", SPECTRUM_MEASURES)
@pytest.mark.parametrize(("a", "b"), [(1, 3), (5, 0), (0, 2)])
def test_the_stream_that_mattered_is_said(method: str, a: float, b: float) -> None:
    found = lc.spectrum_relevance(two(a, b), torch.ones(2, 5, 4, 6, 6), STREAMS, method=method)
    share = torch.tensor([a, b]) / (a + b)
    torch.testing.assert_close(found.total, share.expand(2, 2))
    torch.testing.assert_close(found.share, share[:, None].expand(2, 2, 4) / 4)


def test_grad_cam_at_both_streams_is_the_weighted_sum_of_what_they_see() -> None:
    """dy/dA is a / Z of the first stream and b / Z of the second: the sum of a x and b x."""
    clip = clip_of(1, 5, 4, 6, 6)
    e = lc.explain(two(2, -3), lc.GradCAM(["rgb", "flow"], relu=False), clip)
    expected = 2 * clip[:, :3].mean(1) - 3 * clip[:, 3:].mean(1)
    torch.testing.assert_close(e.heatmap, expected / (4 * 6 * 6))


@pytest.mark.parametrize("method", [lc.GradientXInput(), lc.Occlusion((1, 6, 6))])
def test_a_slow_path_made_by_forward_has_its_heat_on_the_clip_s_frames(
    method: lc.Attribution,
) -> None:
    slow = nn.Sequential(nn.Conv3d(3, 2, (1, 3, 3)), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    model = lc.Explainable.of(slow, forward=lambda clip: slow(clip[:, :, ::4]), probability=None)
    heat = lc.explain(model, method, clip_of(1, 3, 8, 6, 6).abs()).heatmap[0].flatten(1).abs()
    assert 0 <= heat[[1, 2, 3, 5, 6, 7]].max() < 1e-5 * heat[::4].max()
