"""Transformers that see a clip as a grid of small blocks of voxels, as ViViT and TimeSformer do.

Arnab et al., "ViViT", ICCV 2021 (tubelets, joint attention); Bertasius et al., "Is Space-Time
Attention All You Need for Video Understanding?", ICML 2021 (divided attention).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.errors import ConfigError
from lightning_cam.models.stems import check_channels
from lightning_cam.models.trunks import mean_weights, valid_frames

SPACE_TIME = ("joint", "divided")
READOUTS = ("mean", "class")
ATTENTION = ("fused", "explicit")
STEMS = ("tubelets", "convolutions")


class VideoViT(nn.Module):
    """A small video transformer: tubelets, pre-norm blocks, a linear head.

    Of a clip (B, C, T, H, W) each tubelet of `tubelet` = (p_t, p_h, p_w) voxels becomes a token of
    D numbers; t x h x w = T/p_t x H/p_h x W/p_w of them, in this order, plus a learned position in
    time and one in space. A block adds to the tokens what attention, then a perceptron make of
    their layer norms. Attention goes

    - `joint`: from every token to every other, (thw)^2 pairs;
    - `divided`: first along time at each place, then within each frame: thw (t + hw) pairs.

    The read-out is the mean of all tokens, or a class token in front of the others (in divided
    attention it takes part in each frame's, and is the mean of what the frames make of it).

    Where a whole tubelet's frames are padded, its tokens are attended by none and not read out.

    Submodules to hook: `blocks.I.norm1` (before the attention, that within frames if divided) and
    `norm`, both (B, [1 +] t*h*w, D); `explain_fold` reads them. The default target layer is the
    last block's `norm1`: behind the last attention a class token has no gradient to other tokens.
    With `attention="explicit"`, `blocks.I.attention.weights` returns (B*, heads, queries, keys).

    Args:
        num_outputs: K.
        num_frames: T of the clips.
        size: H and W of the clips.
        tubelet: voxels of a token, in time, height and width.
        width: D.
        depth: blocks.
        heads: of the attention, D/heads numbers each.
        space_time: joint or divided.
        readout: mean or class.
        attention: fused (PyTorch's `scaled_dot_product_attention`, which shows no weights) or
            explicit (matrix products and a softmax). The numbers are the same up to rounding.
        stem: tubelets (one linear map, ViViT's), or convolutions (a 3-D convolution and ReLU at
            half size in front of it, after Xiao et al., NeurIPS 2021).
        dropout: of the read-out and of what each block adds.
        in_channels: C.

    Raises:
        UserError: an unknown choice, or sizes that do not divide.
    """

    def __init__(
        self,
        num_outputs: int,
        num_frames: int = 16,
        size: int = 64,
        tubelet: Sequence[int] = (2, 8, 8),
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
        space_time: str = "divided",
        readout: str = "mean",
        attention: str = "fused",
        stem: str = "convolutions",
        dropout: float = 0.1,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        _choose("space_time", space_time, SPACE_TIME)
        _choose("readout", readout, READOUTS)
        _choose("attention", attention, ATTENTION)
        _choose("stem", stem, STEMS)
        self.clip = (in_channels, num_frames, size, size)
        self.grid = _grid(self.clip[1:], tubelet, stem, width, heads)
        self.explain_layers: tuple[str, ...] = (f"blocks.{depth - 1}.norm1", "norm")
        t, h, w = self.grid
        self.embed = _embedding(stem, in_channels, width, tubelet)
        self.time = nn.Parameter(torch.zeros(t, 1, width))
        self.space = nn.Parameter(torch.zeros(1, h * w, width))
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if readout == "class" else None
        fused, divided = attention == "fused", space_time == "divided"
        self.blocks = nn.ModuleList(
            Block(width, heads, divided, readout == "class", fused, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_outputs)
        for parameter in (self.time, self.space):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits (B, K) of a clip (B, C, T, H, W); `valid` (B, T) is False on padded frames."""
        check_channels(clip, self.clip[0])
        if tuple(clip.shape[1:]) != self.clip:
            raise ConfigError(
                f"the network takes clips of {_times(self.clip[1:])} voxels (frames, height, "
                f"width), these have {_times(clip.shape[2:])}: take the data it was trained on, or "
                "train one with model.num_frames and model.size as the data have them"
            )
        t = self.grid[0]
        steps = valid_frames(clip, valid).unflatten(1, (t, -1)).any(2)  # (B, t)
        masked = valid is not None
        x = self.embed(clip).flatten(3).permute(0, 2, 3, 1)  # (B, t, h*w, D)
        x = (x + self.time + self.space).flatten(1, 2)  # (B, t*h*w, D)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x, _rows(steps, x), masked)
        x = self.norm(x)
        return self.head(self.dropout(self._read(x, _rows(steps, x))))

    def explain_fold(self, activation: Tensor, batch: int) -> Tensor:
        """Tokens (B, [1 +] t*h*w, D) as a map (B, D, t, h, w), without the class token.

        Raises:
            ValueError: it is something else.
        """
        t, h, w = self.grid
        first = 0 if self.token is None else 1
        if activation.ndim != 3 or activation.shape[:2] != (batch, first + t * h * w):
            raise ValueError(
                f"expected tokens ({batch}, {first + t * h * w}, D), got "
                f"{tuple(activation.shape)}; choose a layer such as {self.explain_layers[0]}"
            )
        return activation[:, first:].transpose(1, 2).unflatten(2, self.grid)

    def _read(self, x: Tensor, steps: Tensor) -> Tensor:
        """(B, D) of tokens (B, [1 +] t*h*w, D)."""
        if self.token is not None:
            return x[:, 0]
        means = x.unflatten(1, (self.grid[0], -1)).mean(2)  # (B, t, D)
        return (mean_weights(steps)[..., None] * means).sum(1)


class Block(nn.Module):
    """x + attention(norm(x)), or along time and then within frames; then x + perceptron(norm(x)).

    Args:
        width: D.
        heads: of the attention.
        divided: attention goes along time, then within frames.
        token: a class token is in front of the others.
        fused: see `VideoViT`.
        dropout: of what is added.
    """

    def __init__(
        self, width: int, heads: int, divided: bool, token: bool, fused: bool, dropout: float
    ) -> None:
        super().__init__()
        self.divided = divided
        self.first = int(token)
        if divided:
            self.norm0 = nn.LayerNorm(width)
            self.along_time = Attention(width, heads, fused)
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, fused)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor, masked: bool) -> Tensor:
        """Tokens (B, [1 +] t*h*w, D) of the same shape.

        Args:
            x: such tokens.
            valid: (B, t), the steps that are not padding.
            masked: whether some may be padding.
        """
        if not self.divided:
            x = x + self.dropout(self._joint(self.norm1(x), valid, masked))
        else:
            added = self.dropout(self._time(self.norm0(x[:, self.first :]), valid, masked))
            x = torch.cat([x[:, : self.first], x[:, self.first :] + added], 1)
            x = x + self.dropout(self._frames(self.norm1(x), valid))
        return x + self.dropout(self.mlp(self.norm2(x)))

    def _joint(self, x: Tensor, valid: Tensor, masked: bool) -> Tensor:
        if not masked:
            return self.attention(x)
        places = (x.shape[1] - self.first) // valid.shape[1]
        keys = F.pad(valid.repeat_interleave(places, 1), (self.first, 0), value=True)
        return self.attention(x, keys)

    def _time(self, x: Tensor, valid: Tensor, masked: bool) -> Tensor:
        batch, t = valid.shape
        places = x.shape[1] // t
        rows = x.unflatten(1, (t, places)).transpose(1, 2).flatten(0, 1)  # (B*h*w, t, D)
        keys = valid.repeat_interleave(places, 0) if masked else None
        rows = self.along_time(rows, keys)
        return rows.unflatten(0, (batch, places)).transpose(1, 2).flatten(1, 2)

    def _frames(self, x: Tensor, valid: Tensor) -> Tensor:
        batch, t = valid.shape
        frames = x[:, self.first :].unflatten(1, (t, -1)).flatten(0, 1)  # (B*t, h*w, D)
        if self.first:
            frames = torch.cat([x[:, :1].repeat_interleave(t, 0), frames], 1)
        out = self.attention(frames).unflatten(0, (batch, t))  # (B, t, [1 +] h*w, D)
        rest = out[:, :, self.first :].flatten(1, 2)
        if not self.first:
            return rest
        token = (mean_weights(valid)[..., None] * out[:, :, 0]).sum(1, keepdim=True)
        return torch.cat([token, rest], 1)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with d = D/heads, each token a row.

    Args:
        width: D.
        heads: the D numbers are cut into.
        fused: take `scaled_dot_product_attention`.
    """

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.weights = None if fused else nn.Softmax(dim=-1)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """(N, n, D) of (N, n, D); `keys` (N, n) is False on those that none may attend."""
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind()  # (N, heads, n, d)
        hidden = None if keys is None else keys[:, None, None]  # (N, 1, 1, n)
        if self.weights is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)
        else:
            scores = self.scale * q @ k.transpose(2, 3)
            if hidden is not None:
                scores = scores.masked_fill(~hidden, -torch.inf)
            out = self.weights(scores) @ v
        return self.project(out.transpose(1, 2).flatten(2))


def _embedding(stem: str, channels: int, width: int, tubelet: Sequence[int]) -> nn.Module:
    t, h, w = tubelet
    if stem == "tubelets":
        return nn.Conv3d(channels, width, (t, h, w), (t, h, w))
    return nn.Sequential(
        nn.Conv3d(channels, width // 4, (3, 5, 5), (1, 2, 2), (1, 2, 2)),
        nn.ReLU(),
        nn.Conv3d(width // 4, width, (t, h // 2, w // 2), (t, h // 2, w // 2)),
    )


def _grid(
    clip: Sequence[int], tubelet: Sequence[int], stem: str, width: int, heads: int
) -> tuple[int, int, int]:
    """Tokens along each axis."""
    if len(tubelet) != 3 or any(n < 1 or size % n for size, n in zip(clip, tubelet, strict=True)):
        raise ConfigError(
            f"model.tubelet={list(tubelet)} must be three numbers that divide the clip's frames, "
            f"height and width, {_times(clip)}"
        )
    if stem == "convolutions" and any(n % 2 for n in tubelet[1:]):
        raise ConfigError(
            f"model.tubelet={list(tubelet)} must be even in height and width behind convolutions "
            "of stride 2; or set model.stem=tubelets"
        )
    if width % heads or width % 4:
        raise ConfigError(f"model.width={width} must be a multiple of 4 and of heads={heads}")
    t, h, w = (size // n for size, n in zip(clip, tubelet, strict=True))
    return t, h, w


def _choose(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r} is unknown; choose one of {', '.join(known)}")


def _rows(steps: Tensor, x: Tensor) -> Tensor:
    """`steps` (B, t) for n*B rows: a hook may hand on n copies of the batch."""
    return steps.repeat(len(x) // len(steps), 1)


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
