"""Conservative propagation: its closed forms, on the package's transformer and on others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nets import clip_of
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution.transformer_rules import SHARED, STILL, Ruled, Rules
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


@pytest.mark.parametrize("rules", [STILL, SHARED], ids=["still", "shared"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_forward_is_unchanged_to_the_bit(name: str, rules: Rules) -> None:
    net = NETWORKS[name]()
    clip = clip_of(*SIZE, dtype=torch.float64).requires_grad_()
    with Ruled(rules) as mode:
        ruled = net(clip)
    assert torch.equal(ruled, net(clip)) and mode.met


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
    assert "no rule was needed" in found.caption


def test_attention_weights_are_constants() -> None:
    """y = softmax(q k^T) v with q, k, v linear: dy/dx is that of the values alone."""
    q, k, v = (clip_of(2, 5, 4, seed=i, dtype=torch.float64) for i in range(3))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    with Ruled(STILL):
        out = F.scaled_dot_product_attention(*leaves)
    found = torch.autograd.grad(out.sum(), leaves, allow_unused=True)
    weights = (q @ k.transpose(1, 2) / 2).softmax(-1)
    assert found[0] is None and found[1] is None
    torch.testing.assert_close(found[2], weights.sum(1)[..., None].expand(2, 5, 4))


def test_probabilities_are_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 16 * 16, 2), nn.Softmax(1))
    with pytest.raises(UserError, match="holds every softmax still"):
        lc.explain(lc.Explainable.of(net, ["1"]), CP(), clip_of(*SIZE), 0)


class Block(nn.Module):
    """One attention of one head over four patches, on which a linear head reads the mean."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(12, 12, bias=False) for _ in range(3))
        self.head = nn.Linear(12, 3, bias=False)
        self.attention = attention

    def forward(self, clip: Tensor) -> Tensor:
        x = clip.flatten(2).transpose(1, 2).unflatten(1, (4, -1)).flatten(2)  # (B, 4, 12)
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.attention == "fused":
            return self.head(F.scaled_dot_product_attention(q, k, v).mean(1))
        if self.attention == "einsum":
            weights = (torch.einsum("bid,bjd->bij", [q, k]) * 12**-0.5).softmax(-1)
            return self.head(torch.einsum("bij,bjd->bid", weights, v).mean(1))
        if self.attention == "module":
            weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
            x = x.transpose(0, 1)
            out, _ = F.multi_head_attention_forward(
                *(x, x, x, 12, 1, weight, None, None, None, False, 0.0, torch.eye(12).to(x), None),
                need_weights=False,
            )
            return self.head(out.mean(0))
        return self.head(((q @ k.transpose(1, 2) * 12**-0.5).softmax(-1) @ v).mean(1))

    def relevance(self, clip: Tensor, column: int) -> Tensor:
        """By the propositions of Achtibat et al., layer for layer, without any gradient: (B, 4)."""
        x = clip.flatten(2).transpose(1, 2).unflatten(1, (4, -1)).flatten(2)
        q, k, v = (x @ part.weight.T for part in (self.q, self.k, self.v))
        scores = q @ k.transpose(1, 2) * 12**-0.5
        weights = scores.softmax(-1)
        out = weights @ v
        r_out = out * self.head.weight[column] / 4  # of y = mean over tokens of head . out
        ratio = r_out / (2 * out)  # R_ji = sum_k w_ji v_ik R_jk / (2 out_jk)
        r_weights = torch.einsum("bji,bik,bjk->bji", weights, v, ratio)
        r_v = torch.einsum("bji,bik,bjk->bik", weights, v, ratio)
        r_scores = scores * (r_weights - weights * r_weights.sum(-1, keepdim=True))
        half = r_scores / (2 * scores) * 12**-0.5
        r_q = q * torch.einsum("bij,bjd->bid", half, k)
        r_k = k * torch.einsum("bij,bid->bjd", half, q)
        parts = ((r_q, q, self.q), (r_k, k, self.k), (r_v, v, self.v))
        return sum(x * ((r / z) @ part.weight) for r, z, part in parts).sum(-1)


@pytest.mark.parametrize("attention", ["fused", "einsum", "module", "@"])
def test_attnlrp_is_that_of_its_propositions(attention: str) -> None:
    net, clip = Block(attention).double().eval(), clip_of(2, 3, 4, 2, 2, dtype=torch.float64)
    model = lc.Explainable.of(net, ["head"])
    heat = lc.explain(model, CP.achtibat2024((1, 2, 2)), clip, 1).heatmap
    found = heat.sum((2, 3)).double()
    torch.testing.assert_close(found, net.relevance(clip, 1).detach(), rtol=1e-5, atol=1e-7)
    still = lc.explain(model, CP((1, 2, 2)), clip, 1).heatmap
    assert (still - heat).abs().max() > 1e-2 * heat.abs().max()


@pytest.mark.parametrize(
    "product",
    [
        lambda x, y: x * y,
        lambda x, y: x.clone().mul_(y),
        lambda x, y: torch.einsum("i,i->i", x, y),
        lambda x, y: torch.bmm(x[:, None, None], y[:, None, None]).flatten(),
    ],
)
def test_the_factors_of_a_product_share_by_halves(product: Callable[..., Tensor]) -> None:
    x, y = (clip_of(5, seed=i, dtype=torch.float64).requires_grad_() for i in range(2))
    with Ruled(SHARED):
        out = product(x, y)
        constant = product(x, y.detach())
    for leaf, found in zip((x, y), torch.autograd.grad(out.sum(), (x, y)), strict=True):
        torch.testing.assert_close(leaf * found, out / 2)
    torch.testing.assert_close(torch.autograd.grad(constant.sum(), x)[0], y.detach())
