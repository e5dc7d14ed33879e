"""Conservative propagation: its closed forms, on the package's transformer and on others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nets import clip_of
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution.conservative import _Still
from lightning_cam.errors import UserError
from lightning_cam.models import VideoViT

SIZE = (2, 3, 4, 16, 16)
CP = lc.ConservativePropagation


def vit(**choices: str) -> nn.Module:
    torch.manual_seed(0)
    return VideoViT(3, 4, 16, (2, 8, 8), width=16, depth=2, **choices).double().eval()


class Encoder(nn.Module):
    """nn.TransformerEncoder on frames' vectors: attention by nn.MultiheadAttention."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv3d(3, 8, (1, 8, 8), (1, 8, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.axis = 1 if batch_first else 0
        self.head = nn.Linear(8, 3)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.trunk(clip).flatten(2).transpose(1, 2)  # (B, N, D)
        x = x if self.axis else x.transpose(0, 1)
        return self.head(self.encoder(x).mean(self.axis))


class Gated(nn.Module):
    """RMS norm and SiLU, in place and not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv3d(3, 8, (1, 8, 8), (1, 8, 8))
        self.norm = nn.RMSNorm(8, eps=1e-12)
        self.act = nn.SiLU(inplace=inplace)
        self.head = nn.Linear(8, 3)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.trunk(clip).flatten(2).transpose(1, 2))).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "divided": lambda: vit(space_time="divided"),
    "joint, explicit": lambda: vit(space_time="joint", attention="explicit"),
    "joint, class token": lambda: vit(space_time="joint", readout="class"),
    "divided, class token, tubelets": lambda: vit(readout="class", stem="tubelets"),
    "MultiheadAttention": lambda: Encoder().double().eval(),
    "MultiheadAttention, time first": lambda: Encoder(batch_first=False).double().eval(),
    "SiLU in place": lambda: Gated(True).double().eval(),
    "SiLU": lambda: Gated(False).double().eval(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_forward_is_unchanged_to_the_bit(name: str) -> None:
    net = NETWORKS[name]()
    clip = clip_of(*SIZE, dtype=torch.float64).requires_grad_()
    with _Still() as mode:
        still = net(clip)
    assert torch.equal(still, net(clip)) and mode.met


@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_adds_up_to_the_output_without_biases(name: str) -> None:
    net = NETWORKS[name]()
    clip = clip_of(*SIZE, dtype=torch.float64)
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if "bias" in key or key in ("time", "space", "token"):
                parameter.zero_()
    model = lc.Explainable.of(net, ["trunk" if hasattr(net, "trunk") else "norm"])
    outputs = net(clip)[:, 1].detach()
    for patch in ((2, 8, 8), (3, 5, 7), None):
        heat = lc.explain(model, CP(patch), clip, 1).heatmap.to(outputs)
        torch.testing.assert_close(heat.sum((1, 2, 3)), outputs, rtol=1e-5, atol=1e-6)
    plain = lc.explain(model, lc.GradientXInput(), clip, 1).heatmap.to(outputs)
    assert (plain.sum((1, 2, 3)) - outputs).abs().max() > 1e-3  # the rules matter


def test_without_anything_to_hold_still_it_is_gradient_x_input() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    model, clip = lc.Explainable.of(net, ["0"]), clip_of(*SIZE)
    found = lc.explain(model, CP(None), clip, 0)
    assert torch.equal(found.heatmap, lc.explain(model, lc.GradientXInput(), clip, 0).heatmap)
    assert "nothing to hold still" in found.caption


def test_attention_weights_are_constants() -> None:
    """y = softmax(q k^T) v with q, k, v linear: dy/dx is that of the values alone."""
    q, k, v = (clip_of(2, 5, 4, seed=i, dtype=torch.float64) for i in range(3))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    with _Still():
        out = F.scaled_dot_product_attention(*leaves)
    found = torch.autograd.grad(out.sum(), leaves, allow_unused=True)
    weights = (q @ k.transpose(1, 2) / 2).softmax(-1)
    assert found[0] is None and found[1] is None
    torch.testing.assert_close(found[2], weights.sum(1)[..., None].expand(2, 5, 4))


def test_probabilities_are_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 16 * 16, 2), nn.Softmax(1))
    with pytest.raises(UserError, match="holds every softmax still"):
        lc.explain(lc.Explainable.of(net, ["1"]), CP(), clip_of(*SIZE), 0)
