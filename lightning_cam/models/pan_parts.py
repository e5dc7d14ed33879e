"""The parts of PAN: what moved, segments that see their neighbours, pooling over timescales."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOTION = 8  # features whose change between two frames is one motion map
_EPSILON = 1e-6  # the root has no gradient at 0, where two frames are identical


class Appearance(nn.Module):
    """PA, persistence of appearance: how much each place changes between adjacent frames.

    With F = conv(frame) and eps = 1e-6, map j is

        PA_j(x, y) = sqrt(sum_c (F_j^c(x, y) - F_{j+1}^c(x, y) + eps)^2)

    so a still scene gives sqrt(8) eps everywhere. The norm is taken over channels by hand:
    `nn.PairwiseDistance`, which the authors used, takes it over the last axis by now.

    Args:
        channels: of a frame, C.
        std: of the initial weights.
    """

    def __init__(self, channels: int, std: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, MOTION, 7, padding=3)
        nn.init.normal_(self.conv.weight, std=std)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, m, C, H, W) of N segments to maps (N, m-1, H, W), none negative."""
        maps = self.conv(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # (N, m, 8, H, W)
        # eps^2 is 0 in half precision.
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        motion = (maps[:, :-1] - maps[:, 1:] + _EPSILON).square().sum(2).sqrt()
        return motion.to(frames.dtype)


class ShiftedConv2d(nn.Conv2d):
    """A convolution that sees its neighbours in time (TSM, Lin et al., ICCV 2019).

    It takes the place, parameters included, of one without bias.
    """

    def __init__(self, conv: nn.Conv2d, segments: int) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            bias=False,
            device="meta",  # no numbers are drawn
        )
        self.weight = conv.weight
        self.segments = segments

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(shift_segments(input, self.segments))


def shift_segments(maps: Tensor, segments: int) -> Tensor:
    """Moves an eighth of the channels one segment back and an eighth one forth.

    Args:
        maps: (B*S, D, h, w), batch-major.
        segments: S.

    Returns:
        As many maps; channels 0 to D/8 of segment s are those of s+1, the next D/8 those of s-1,
        and 0 where there is no such segment.
    """
    maps = maps.unflatten(0, (-1, segments))  # (B, S, D, h, w)
    back = maps.shape[2] // 8
    forth = 2 * back
    shifted = torch.zeros_like(maps)
    shifted[:, :-1, :back] = maps[:, 1:, :back]
    shifted[:, 1:, back:forth] = maps[:, :-1, back:forth]
    shifted[:, :, forth:] = maps[:, :, forth:]
    return shifted.flatten(0, 1)


class TimescalePooling(nn.Module):
    """VAP, various-timescale aggregation pooling: a weighted sum of maxima over segments.

    With 8 segments these are 7: the maximum over all, over the even and over the odd ones, and over
    i and i+4. Their weights come from their means over channels and sum to 1.

    `weights` is the module to hook: its output are the weights of the timescales (B, S-1).

    Args:
        segments: S, a power of two.
        std: of the initial weights, so small that all timescales count alike at first.
    """

    def __init__(self, segments: int, std: float) -> None:
        super().__init__()
        count = segments - 1
        self.strides = [2**i for i in range(segments.bit_length() - 1)]
        self.score = nn.Sequential(
            nn.Linear(count, 4 * count, bias=False),
            nn.ReLU(),
            nn.Linear(4 * count, count, bias=False),
        )
        for linear in (self.score[0], self.score[2]):
            nn.init.normal_(linear.weight, std=std)  # type: ignore[arg-type]
        self.weights = nn.Softmax(dim=1)

    def maxima(self, vectors: Tensor) -> Tensor:
        """The maxima (B, S-1, D) over segments of (B, S, D), longest timescale first."""
        return torch.cat([vectors.unflatten(1, (-1, d)).amax(1) for d in self.strides], 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (B, S, D) of the segments to those of the clips, (B, D)."""
        maxima = self.maxima(vectors)
        weights = self.weights(self.score(maxima.mean(2)))  # (B, S-1)
        return (weights.unsqueeze(-1) * maxima).sum(1)
