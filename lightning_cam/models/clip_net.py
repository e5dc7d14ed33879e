"""What the 3D networks share: a trunk that sees the whole clip, pooling over valid time, a head."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_cam.models.stems import check_channels
from lightning_cam.models.trunks import mean_weights, read_out, valid_frames


class ClipNet(nn.Module):
    """A 3D trunk, the mean over space and valid time, dropout and a linear head.

    Grad-CAM at `trunk` is CAM: its channel weights are the head's, up to a constant.

    Padded frames do not count in the mean over time. The temporal kernels do see them, though: a
    step within their reach of the padding differs from that of the clip cut off there.

    Args:
        layers: named children of the trunk, clip (B, C, T, H, W) -> map (B, D, t, h, w).
        features: D.
        num_outputs: K.
        dropout: of the pooled features.
        checkpointing: recompute the residual blocks in the backward pass, see `Stage`.
    """

    explain_layers: tuple[str, ...] = ("trunk",)
    explain_attention: tuple[str, ...] = ()
    in_channels: int = 3

    def __init__(
        self,
        layers: OrderedDict[str, nn.Module],
        features: int,
        num_outputs: int,
        dropout: float,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        if checkpointing:
            for name, layer in layers.items():
                if name.startswith("layer"):
                    layers[name] = Stage(*layer.children())
        self.trunk = nn.Sequential(layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_outputs)

    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits (B, K) of a clip (B, C, T, H, W); `valid` (B, T) is False on padded frames."""
        check_channels(clip, self.in_channels)
        maps = self.trunk(clip)  # (n*B, D, t, h, w): a hook may hand on n copies of the batch
        valid = valid_frames(clip, valid)
        # A step stands for T/t frames and counts by how many of them are valid.
        share = F.adaptive_avg_pool1d(valid.float(), maps.shape[2])  # (B, t)
        weights = mean_weights(share.repeat(maps.shape[0] // clip.shape[0], 1))
        vector = read_out(maps.mean((3, 4)).transpose(1, 2), weights)  # (n*B, D)
        return self.head(self.dropout(vector.to(self.head.weight.dtype)))


class Stage(nn.Sequential):
    """Blocks of which only the inputs are kept in training; the backward pass runs them again.

    Trades a third more computing for memory. Gradients, running statistics and random numbers are
    those of a plain `nn.Sequential`, and so are the names in the state dict. `torch.compile` does
    not take it.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(maps)
        for block in self:
            contexts = partial(_contexts, block)
            maps = checkpoint(block, maps, use_reentrant=False, context_fn=contexts)
        return maps


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Of the first run of a block and of its recomputation."""
    return nullcontext(), _OnCopies(block)


class _OnCopies(AbstractContextManager):
    """Lets a block work on copies of its buffers, so that running statistics move only once.

    Entered in every backward pass, so more than once where the graph is retained.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __enter__(self) -> None:
        self.own = [(module, dict(module._buffers)) for module in self.block.modules()]
        for module, buffers in self.own:
            for name, buffer in buffers.items():
                module._buffers[name] = None if buffer is None else buffer.clone()

    def __exit__(self, *_: Any) -> None:
        for module, buffers in self.own:
            module._buffers.update(buffers)
