"""Networks that recompute parts of their forward in the backward are explained as without."""

from __future__ import annotations

import pytest
import torch
from test_families import timm_net
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lightning_cam as lc
from lightning_cam.attribution import Attribution
from lightning_cam.errors import UserError

_VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


class Blocks(nn.Module):
    """Three blocks, each of them checkpointed or not."""

    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv3d(n, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv3d(4, 4, 1))
            for n in (3, 4, 4)
        )
        self.head, self.checkpointed = nn.Linear(4, 3), checkpointed

    def forward(self, clip: Tensor) -> Tensor:
        x = clip
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.head(x.relu().mean((2, 3, 4)))


@pytest.mark.attack
@pytest.mark.parametrize("layer", ["blocks.0.0", "blocks.1.1", "blocks.1", "blocks.2.2"])
@pytest.mark.parametrize(
    "method",
    [lc.GradCAM(relu=False), lc.GuidedGradCAM(), lc.Gradient(), lc.LayerCAM()],
    ids=lambda method: method.title,
)
def test_layers_within_checkpoints(layer: str, method: Attribution) -> None:
    """Activation checkpointing around the target layer: maps as without it, nothing left behind."""
    clip, found = torch.randn(2, 3, 4, 6, 6), []
    for checkpointed in (False, True):
        net = Blocks(checkpointed)
        model = lc.Explainable.of(net, [layer])
        # What one explanation leaves would show in the next.
        found += [lc.explain(model, method, clip, 1).heatmap for _ in range(2)]
        assert not any(part._forward_hooks for part in net.modules())
    assert found[0].any() and all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.attack
def test_rules_that_the_recomputation_does_not_follow_are_refused() -> None:
    """Activation checkpointing under a method with rules of its own: one sentence, no raw error."""

    model, clip = lc.Explainable.of(Blocks(True)), torch.randn(1, 3, 4, 6, 6)
    for method in (lc.ConservativePropagation(), lc.LRP()):
        with pytest.raises(UserError, match=rf"{method.title} .*activation checkpointing"):
            lc.explain(model, method, clip)


def test_timm_with_gradient_checkpointing() -> None:
    net, clip = timm_net("vit_tiny_patch16_224", **_VIT), torch.randn(2, 3, 3, 16, 16)
    model = lc.Explainable.of(net)
    wanted = lc.explain(model, lc.GradCAM(relu=False), clip, 1).heatmap
    net.trunk.set_grad_checkpointing()
    assert torch.equal(lc.explain(model, lc.GradCAM(relu=False), clip, 1).heatmap, wanted)
    assert wanted.any()
