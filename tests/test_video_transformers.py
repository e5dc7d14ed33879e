"""torchvision's video transformers: its weights and numbers, and relevance that adds up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from nets import clip_of
from torch import nn

import lightning_cam as lc
from lightning_cam.models import MViTV2S, Swin3DT

pytestmark = pytest.mark.slow

BUILDS: dict[str, Callable[..., nn.Module]] = {
    "swin3d_t": lambda **more: Swin3DT(3, **more),
    "mvit_v2_s": lambda **more: MViTV2S(3, 8, 64, **more),
}


@pytest.mark.parametrize("name", BUILDS)
def test_weights_of_torchvision_and_what_is_made_of_them(name: str, tmp_path: Path) -> None:
    """The features are torchvision's own; conservative propagation adds up without biases."""
    torch.manual_seed(0)
    original = torchvision.models.get_model(name, weights=None).eval()
    path = tmp_path / "weights.pt"
    torch.save(original.state_dict(), path)
    net = BUILDS[name](weights=str(path)).eval()
    clip = clip_of(1, 3, 8, 64, 64)
    original.head = nn.Identity()
    if isinstance(net, MViTV2S):
        original.pos_encoding.temporal_size, original.pos_encoding.spatial_size = 4, (16, 16)
    with torch.no_grad():
        assert torch.equal(net.trunk(clip), original(clip))
        for key, parameter in net.named_parameters():
            if key.endswith("bias") or "pos_encoding" in key:
                parameter.zero_()
        output = net(clip)[:, 1]
    model = lc.Explainable.of(net, net.explain_layers)
    heat = lc.explain(model, lc.ConservativePropagation(), clip, 1).heatmap
    torch.testing.assert_close(heat.sum((1, 2, 3)), output, rtol=1e-3, atol=1e-4)
    assert lc.explain(model, lc.GradCAM(relu=False), clip, 1).heatmap.any()
