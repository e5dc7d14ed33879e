"""Attention rollout and Chefer's relevance: as by hand, refused where attention is not joint."""

from __future__ import annotations

import pytest
import torch
from nets import clip_of
from test_conservative import Encoder
from test_families import REAL, hugging_face
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution import LayerAttribution
from lightning_cam.errors import UserError
from lightning_cam.models import VideoViT

CLIP = clip_of(2, 3, 4, 16, 16).double()
METHODS = [lc.AttentionRollout(), lc.AttentionRelevance()]


def vit(**choices: str) -> VideoViT:
    torch.manual_seed(0)
    choices = {"space_time": "joint", **choices}
    return VideoViT(3, 4, 16, (2, 8, 8), width=16, depth=3, **choices).double().eval()


def by_hand(method: LayerAttribution, weights: list[Tensor], score: Tensor, first: int) -> Tensor:
    """Tokens' heat (B, n) of weights on the graph; `first` class tokens are read out, or all."""
    n = weights[0].shape[-1]
    rows = torch.eye(n, dtype=torch.float64).expand(len(weights[0]), n, n)
    for weight, slope in zip(weights, torch.autograd.grad(score, weights), strict=True):
        if isinstance(method, lc.AttentionRollout):
            step = (weight.mean(1) + torch.eye(n)) / 2  # rows sum to 1 and 1
            rows = step @ rows
        else:
            rows = rows + (slope * weight).relu().mean(1) @ rows
    if isinstance(method, lc.AttentionRelevance):
        rows = rows - torch.eye(n)
    return (rows[:, :first] if first else rows).mean(1).detach()


@pytest.mark.parametrize("readout", ["class", "mean"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
def test_explicit_and_fused_attention_are_those_by_hand(
    readout: str, method: LayerAttribution
) -> None:
    net = vit(readout=readout, attention="explicit")
    weights: list[Tensor] = []
    for block in net.blocks:
        block.attention.weights.register_forward_hook(lambda m, i, out: weights.append(out))
    target = torch.tensor([1, 2])
    score = net(CLIP)[[0, 1], target].sum()
    first = int(readout == "class")
    tokens = by_hand(method, list(weights), score, first)[:, first:].unflatten(1, net.grid)
    wanted = nn.functional.interpolate(tokens[:, None], size=CLIP.shape[2:], mode="trilinear")[:, 0]
    for attention in ("explicit", "fused"):
        net = vit(readout=readout, attention=attention)
        model = lc.Explainable.of(net, net.explain_layers, fold=net.explain_fold)
        e = lc.explain(model, method, CLIP, target)
        torch.testing.assert_close(e.heatmap, wanted, rtol=1e-9, atol=1e-12)
        assert torch.equal(e.outputs, net(CLIP).detach()) and "3 attentions" in e.caption


def test_rollout_is_the_same_for_every_column_and_relevance_is_not() -> None:
    net = vit(readout="class")
    model = lc.Explainable.of(net, net.explain_layers, fold=net.explain_fold)
    one, other = (
        [lc.explain(model, method, CLIP, column).heatmap for column in (0, 2)] for method in METHODS
    )
    assert torch.equal(*one) and not torch.allclose(*other)


def encoded(net: Encoder, clip: Tensor) -> tuple[list[Tensor], Tensor]:
    """The weights and the score of column 1 of nn.TransformerEncoder, written out."""
    x, kept = net.trunk(clip).flatten(2).transpose(1, 2), []
    for layer in net.encoder.layers:
        part = layer.self_attn
        q, k, v = (
            y.unflatten(-1, (2, 4)).transpose(1, 2)
            for y in nn.functional.linear(x, part.in_proj_weight, part.in_proj_bias).chunk(3, -1)
        )
        kept.append((q @ k.transpose(2, 3) / 2).softmax(-1))
        x = layer.norm1(x + part.out_proj((kept[-1] @ v).transpose(1, 2).flatten(2)))
        x = layer.norm2(x + layer.linear2(nn.functional.gelu(layer.linear1(x))))
    return kept, net.head(x.mean(1))[:, 1].sum()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
def test_multihead_attention_of_pytorch(batch_first: bool, method: LayerAttribution) -> None:
    weights, score = encoded(Encoder(batch_first).double().eval(), CLIP)
    wanted = by_hand(method, weights, score, 0).unflatten(1, (4, 2, 2))
    net = Encoder(batch_first).double().eval()
    model = lc.Explainable.of(net, ["encoder"], layout="b (t h w) d", grid=(4, 2, 2))
    found = lc.explain(model, method, CLIP, 1).heatmap
    wanted = nn.functional.interpolate(wanted, size=CLIP.shape[3:], mode="bilinear")
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
def test_frames_each_by_itself(method: LayerAttribution) -> None:
    """A ViT by frames attends jointly within each."""
    torch.manual_seed(0)
    model = lc.Explainable.of(REAL["torchvision ViT"].net().eval())
    clip = torch.randn(2, 3, 3, 16, 16)
    heat = lc.explain(model, method, clip, 1).heatmap
    moved = torch.cat([clip[:, :, :2], torch.randn(2, 3, 1, 16, 16)], 2)
    other = lc.explain(model, method, moved, 1).heatmap
    torch.testing.assert_close(heat[:, :2], other[:, :2])
    assert not torch.allclose(heat[:, 2], other[:, 2])


@pytest.mark.attack
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
def test_other_attention_is_refused_with_the_reason(method: LayerAttribution) -> None:
    """Divided, windowed and pooled attention, none at all, and a loop over frames."""
    divided = vit(space_time="divided")
    refused = [
        (lc.Explainable.of(divided, divided.explain_layers, fold=divided.explain_fold),
         CLIP, "attends in more than one way"),
        (lc.Explainable.of(REAL["torchvision R3D"].net().eval()), CLIP.float(), "has no attention"),
        (lc.Explainable.of(REAL["torchvision MViT"].net().eval()), CLIP.float(),
         "attends (in more than one way|from)"),
        (lc.Explainable.of(REAL["torchvision Swin3D"].net().eval()), CLIP.float(),
         "attends|not those"),
    ]  # fmt: skip
    for model, clip, says in refused:
        with pytest.raises(UserError, match=rf"{method.title} is for joint attention.*{says}"):
            lc.explain(model, method, clip)

    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = REAL["torchvision ViT"].net().trunk

        def forward(self, clip: Tensor) -> Tensor:
            return torch.stack([self.trunk(frame) for frame in clip.unbind(2)], 1).mean(1)

    with pytest.raises(UserError, match="once a frame"):
        lc.explain(lc.Explainable.of(Looped().eval()), method, CLIP.float())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
@pytest.mark.parametrize("name", ["VideoMAE", "Vivit"])
def test_hugging_face_with_its_own_weights(name: str, method: LayerAttribution) -> None:
    """Fused attention against the weights that the library itself returns."""
    torch.manual_seed(0)
    sizes = {"VideoMAE": {"patch_size": 16}, "Vivit": {"tubelet_size": [2, 16, 16]}}[name]
    net = hugging_face(name, image_size=32, num_frames=4, intermediate_size=32, **sizes)
    net = net.double().eval()
    clip = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    found = lc.explain(lc.Explainable.of(net), method, clip, 1).heatmap
    net.set_attn_implementation("eager")
    out = net(clip.transpose(1, 2).requires_grad_(), output_attentions=True)
    first = int(name == "Vivit")
    tokens = by_hand(method, list(out.attentions), out.logits[:, 1].sum(), first)[:, first:]
    wanted = tokens.unflatten(1, (2, 2, 2))[:, None]
    wanted = nn.functional.interpolate(wanted, size=clip.shape[2:], mode="trilinear")[:, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
