"""Networks that normalise their input in place are explained as those that do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution import Attribution


class Normalises(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.in_place = nn.Conv3d(3, 4, 3), nn.Linear(4, 3), in_place

    def forward(self, clip: Tensor) -> Tensor:
        clip = clip.sub_(0.3).div_(0.5) if self.in_place else (clip - 0.3) / 0.5
        return self.head(self.conv(clip).relu().mean((2, 3, 4)))


@pytest.mark.attack
@pytest.mark.parametrize(
    "method", [lc.GradCAM(), lc.Gradient(), lc.Occlusion(), lc.RISE(masks=20), lc.SIDU()]
)
def test_a_network_that_normalises_in_place(method: Attribution) -> None:
    """A network that normalises its input in place: the map is right, the clip unchanged."""
    clip = torch.randn(1, 3, 4, 8, 8)
    kept = clip.clone()
    found, wanted = (
        lc.explain(lc.Explainable.of(Normalises(in_place), ["conv"]), method, clip, 1).heatmap
        for in_place in (True, False)
    )
    assert torch.equal(found, wanted) and torch.equal(clip, kept)
