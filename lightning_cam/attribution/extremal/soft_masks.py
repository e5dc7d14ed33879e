"""What methods that optimise a mask share: smooth masks from few numbers, and their size.

Masks have no weights: they come from a coarse grid of numbers from 0 to 1 for each frame, through a
maximum that is smooth in them, as in Fong et al., ICCV 2019 (their package TorchRay). Patterns of
single pixels, which fool networks, cannot be made of them.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.perturbation import blurred, reference
from lightning_cam.attribution.tensors import at_least_float32


class SmoothMasks:
    """Makes masks of H x W pixels from grids of h x w numbers, h = H/step rounded up.

    Pixel u of a mask is the smooth maximum of s_i = kappa(|u - u_i| / sigma) m_i over the grid's
    points u_i near by,

        m(u) = sum_i s_i softmax_i(20 s_i),    kappa(z) = exp(-2 max(z - 1/2, 0)^2).

    Masks are made on a canvas that reaches `sigma` and a little more beyond the frame. Where the
    grid is 1 throughout, the mask is 0.86 to 1.

    The weights repeat with every step, so they are a table of step x step pixels. What autograd
    would keep, (2R+1)^2 numbers a pixel, is computed again in the backward, few frames at a time.

    Args:
        size: (H, W).
        step: pixels between two points of the grid, at most `sigma`: further apart leaves holes.
        sigma: pixels that a point reaches.
        like: a tensor of the masks' device and dtype.
        coldness: the larger, the nearer to the maximum.
    """

    def __init__(
        self,
        size: tuple[int, int],
        step: int,
        sigma: int,
        like: Tensor,
        coldness: float = 20.0,
    ) -> None:
        self.size, self.step, self.sigma, self.coldness = size, step, sigma, coldness
        radius = 1 + math.ceil(sigma / step)
        self.window, self.padding = 2 * radius + 1, 1 + math.ceil(2 * sigma / step)
        self.grid = tuple(math.ceil(n / step) for n in size)  # (h, w)
        self.blocks = tuple(n + 2 * (self.padding - radius) for n in self.grid)
        self.canvas = tuple(  # as published, where that holds the whole frame
            max(step * (n - 1) + 1, sigma + m) for n, m in zip(self.blocks, size, strict=True)
        )
        # A pixel's distance to a point is the same in every block of step x step pixels.
        pixel, point = torch.arange(step), torch.arange(self.window) - self.padding
        along = (pixel - sigma - step * point[:, None]).double()  # (window, step)
        z = (along[:, None, :, None].square() + along[None, :, None].square()).sqrt() / sigma
        weight = torch.exp(-2 * (z - 0.5).clamp(min=0).square())
        self.weight = weight.reshape(self.window**2, step**2).to(like)
        numel = self.weight.numel() * math.prod(self.blocks)
        self.at_once = max(1, (2**24 if like.is_cuda else 2**21) // numel)

    def __call__(self, grids: Tensor) -> Tensor:
        """Masks on the canvas `(N, H', W')` of grids `(N, h, w)`."""
        masks: Tensor = _SmoothMax.apply(grids, self)
        masks = masks.unflatten(2, (self.step, self.step)).unflatten(1, self.blocks)
        masks = masks.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return masks[:, : self.canvas[0], : self.canvas[1]]

    def crop(self, canvas: Tensor) -> Tensor:
        """The frame's own part `(..., H, W)` of a canvas `(..., H', W')`."""
        (height, width), margin = self.size, self.sigma
        return canvas[..., margin : margin + height, margin : margin + width]

    def parts(self, grids: Tensor) -> Tensor:
        """s_i of every pixel, `(N, points, blocks, pixels of a block)`."""
        near = F.unfold(grids[:, None], self.window, padding=self.padding)
        return near[..., None] * self.weight[:, None]


class _SmoothMax(torch.autograd.Function):
    """Grids `(N, h, w)` -> `(N, blocks, pixels of a block)`."""

    @staticmethod
    def forward(ctx: Any, grids: Tensor, masks: SmoothMasks) -> Tensor:
        found = []
        for some in grids.detach().split(masks.at_once):
            parts = masks.parts(some)
            weight = (masks.coldness * parts).exp_()
            total = weight.sum(1)
            found.append(weight.mul_(parts).sum(1).div_(total))
        out = torch.cat(found)
        ctx.masks = masks
        ctx.save_for_backward(grids, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        masks, (grids, out) = ctx.masks, ctx.saved_tensors
        found, n = [], masks.at_once
        for some, value, slope in zip(
            grids.split(n), out.split(n), gradient[0].split(n), strict=True
        ):
            parts = masks.parts(some)
            weight = (masks.coldness * parts).exp_()
            weight *= (slope / weight.sum(1))[:, None]
            # d m / d s_i = softmax_i (1 + coldness (s_i - m))
            weight *= parts.sub_(value[:, None]).mul_(masks.coldness).add_(1)
            to_points = torch.einsum("npqr,pr->npq", weight, masks.weight)
            found.append(F.fold(to_points, masks.grid, masks.window, padding=masks.padding)[:, 0])
        return torch.cat(found), None


class Appearing:
    """Shows as much of a clip as a mask says: the baseline at 0, the clip at 1.

    Args:
        model: knows what black is.
        clip: `(B, C, T, H, W)`.
        kind: `"blur"`: between the two, it is ever less blurred; `"black"` or `"mean"` (0 in model
            space): it fades in.
        blur: standard deviation in pixels of the blur at 0; frames are mirrored at their borders.
        levels: of the blur; between two levels clips are mixed.
    """

    def __init__(
        self,
        model: Explainable,
        clip: Tensor,
        kind: Literal["blur", "black", "mean"],
        blur: float,
        levels: int = 8,
    ) -> None:
        self.dtype, clip = clip.dtype, at_least_float32(clip)
        if kind == "blur":
            shares = (1 - n / (levels - 1) for n in range(levels - 1))
            self.levels = torch.stack([*(blurred(clip, blur * s, cut=4) for s in shares), clip])
        else:
            self.levels = torch.stack([reference(model, clip, kind), clip])  # (L, B, C, T, H, W)

    def __call__(self, masks: Tensor) -> Tensor:
        """The clips behind masks `(B, T, H, W)`."""
        top = len(self.levels) - 1
        place = top * masks
        # At 1 the level below is the last but one, or there would be no gradient.
        lower = place.detach().floor().clamp(0, top - 1)
        index = lower.long()[None, :, None].expand(1, *self.levels.shape[1:])
        below, above = (self.levels.gather(0, index + n)[0] for n in (0, 1))
        share = (place - lower)[:, None].expand_as(below)
        return torch.lerp(below, above, share).to(self.dtype)


def largest(values: Tensor, count: int) -> Tensor:
    """1 for the `count` largest of the last axis, 0 for the others; equal values share.

    Values within 1e-5 are equal: rounding, which no two devices do alike, must not choose.
    """
    edge = values.topk(count, -1, sorted=False).values.amin(-1, keepdim=True)
    above, below = values > edge + 1e-5, values < edge - 1e-5
    at = ~(above | below)
    share = (count - above.sum(-1, keepdim=True)) / at.sum(-1, keepdim=True)
    return above + at * share.to(values)


def hottest(values: Tensor, counts: Tensor, seed: int = 0) -> Tensor:
    """1 for the `counts` (...) largest of the last axis of values (..., n), 0 for the others.

    Of equal values, within 1e-5, a generator chooses, as it chooses for every clip: they must not
    come in the order of rows and frames.
    """
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randperm(values.shape[-1], generator=generator).to(values.device)
    order = (values[..., mixed] * 1e5).round().sort(stable=True, dim=-1, descending=True).indices
    places = torch.arange(values.shape[-1], device=values.device)
    chosen = (places < counts[..., None]).to(values)
    return torch.zeros_like(values).scatter(-1, mixed[order], chosen)


def ranking_loss(values: Tensor, area: float) -> Tensor:
    """How far values `(..., n)` are from being 1 for a share `area` of them and 0 for the others.

    The mean square difference of the sorted values to floor(n (1 - area)) zeros and then ones, of
    Fong et al. Only who is among the largest matters, so nothing is sorted. Where values are equal
    it is the mean over all orders in which they could be sorted: no voxel is preferred.
    """
    n = values.shape[-1]
    ones = largest(values.detach(), max(1, n - math.floor(n * (1 - area) + 1e-9)))
    return (ones * (1 - values).square() + (1 - ones) * values.square()).mean(-1)


def ellipsoid(size: tuple[int, int, int], like: Tensor) -> Tensor:
    """A kernel `(t, h, w)` of 1 within the ellipsoid that touches its faces, 0 outside."""
    time, height, width = (
        torch.linspace(-1, 1, n).square() if n > 1 else torch.zeros(1) for n in size
    )
    inside = time[:, None, None] + height[:, None] + width <= 1 + 1e-6
    return inside.to(like)


def core_loss(mask: Tensor, area: float, core: tuple[int, int, int]) -> Tensor:
    """How far a mask `(T, H, W)` is from filled ellipsoids with nothing between.

    The core regulariser of STEP (Li et al., WACV 2021): c are the means of the mask within
    ellipsoids of `core` frames and pixels, at all frames and every core height and width. The K
    largest of them should be 1 and the others 0, K = area * T H W / (volume of an ellipsoid).
    """
    time, height, width = (min(c, n) for c, n in zip(core, mask.shape, strict=True))
    kernel = ellipsoid((time, height, width), mask)
    kernel = (kernel / kernel.sum())[None, None]
    filled = F.conv3d(mask[None, None], kernel, stride=(1, height, width)).flatten()
    volume = max(1, int(time * height * width * math.pi / 6))
    n = len(filled)
    count = min(max(1, math.ceil(area * mask.numel() / volume)), max(1, n - 1))
    ones = largest(filled.detach(), count)
    empty = ((1 - ones) * filled.square()).sum() / max(1, n - count)
    return (ones * (1 - filled).square()).sum() / count + empty
