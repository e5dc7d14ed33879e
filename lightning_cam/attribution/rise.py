"""RISE for video: how well does the network do where a voxel can be seen?

Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018;
Bayer et al., "Deep Saliency Map Generators for Multispectral Video Classification", RRPR 2022.
A coarse grid of cells is kept with probability p, resized linearly and shifted at random: a mask M
with values from 0 to 1 and mean p at every voxel. With N masks and the score f(x M_i),

    np:      S = 1/(N p) sum_i f_i M_i                    the papers' estimator
    count:   S = sum_i f_i M_i / sum_i M_i                the mean score where a voxel is seen
    center:  S = 1/(N p (1-p)) sum_i (f_i - mean f) M_i   the covariance with being seen

`np` carries the noise of sum_i M_i, which says nothing about the network: in toy models with mean
scores of 0.18, 0.32 and 0.79 it needs 2, 11 and 12 times the masks of `count` for the same error.
`center` is for scores that may be negative.

The cost is N + 1 forwards. Masks are never stored: they come from their cells, which are drawn all
at once, so that the batch size changes nothing but rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_cam.attribution.doubt import Doubt
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.fields import Cells, Count, Fraction, Positive, Seed
from lightning_cam.attribution.method import Cost, at_most
from lightning_cam.attribution.perturbation import (
    PerturbationAttribution,
    answers,
    black,
)
from lightning_cam.attribution.tensors import at_least_float32
from lightning_cam.progress import progress

Norm = Literal["count", "np", "center"]

_CHECK = 128  # masks between two looks at the error, where it decides
_SLICE = 2**22  # voxels of masks held at once (16 MB)


@dataclass(frozen=True)
class RISE(PerturbationAttribution):
    """RISE with masks of cells in time, height and width.

    Adds to `Explanation.numbers`, each `(B,)`:

    - "error": of the map, as root mean square over the voxels of valid frames without the mean, in
      units of the standard deviation that the map has without the error. Both come from the maps of
      the odd and of the even masks: half their difference, and what they share; infinite where they
      share nothing. The caption tells the worst clip's;
    - "masks": how many the clip needed; only with `tol`, without it they are a setting.

    Args:
        masks: N; with `tol` the most there may be.
        cells: of the grid, (time, height, width).
        p: probability that a cell is kept.
        seed: of the method's own generator.
        batch: rows that go through the network together; None: as many as fill the device.
        norm: estimator, see above; None: `"count"` for probabilities, `"center"` for other scores.
        tol: stop as soon as the error is at most this; None: use all masks.
        raw: score the columns of a classifier rather than its probabilities.
        published_grid: cells as the published code for video lays them: as long in time as if the
            clip had `cells[2]` of them, the outermost on the border (with two cells in time a mask
            changes almost linearly over 16 frames).
        relu: of `center`, keep the positive part; None: of classes, not of other columns, where
            what lowers them is as telling.
        bf16: run the network under bfloat16 autocast.

    Example:
        >>> explain(model, RISE(masks=4000, tol=0.1), clip).caption
        'RISE, 1280 masks of 2x8x8 cells, p=0.5, error 0.097'
    """

    title = "RISE"
    floating = True  # a voxel that does not matter has the mean score
    finds = ("error", "masks")
    doubts = (
        Doubt("error", "its estimated error is {error:.2g} of what it shows; take more masks"),
    )

    masks: Count = 2000
    cells: Cells = (2, 8, 8)
    p: Fraction = 0.5
    seed: Seed = 0
    batch: Count | None = None
    norm: Norm | None = None
    tol: Positive | None = None
    raw: bool = False
    published_grid: bool = False
    relu: bool | None = None
    bf16: bool = False

    @property
    def both_signs(self) -> RISE:
        return replace(self, relu=False)

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1 + self.masks)

    def grain(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        return at_most(self.cells, size)

    @classmethod
    def bayer2022(cls, masks: int = 1000, cells: int = 8, p: float = 0.1, seed: int = 0) -> RISE:
        """The published code of Bayer et al.: a grid of cells/4 x cells x cells, logits, `np`."""
        grid = (max(1, cells // 4), cells, cells)
        return cls(masks, grid, p, seed, norm="np", raw=True, published_grid=True)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        def score(rows: Tensor) -> Tensor:
            return model.score(rows, target.repeat(len(rows) // len(clip)))[:, None]  # (n*B, 1)

        return self._maps(model, clip, score)[:, 0]

    def columns(self, model: Explainable, clip: Tensor) -> Tensor:
        """The heatmaps of all K columns from the same masks, `(B, K, T, H, W)`.

        To be called within `explaining(model.module)`, or on a network in eval mode.
        """
        return self._maps(model, clip, lambda rows: rows)

    def _maps(
        self,
        model: Explainable,
        clip: Tensor,
        score: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Heatmaps `(B, R, T, H, W)` of R scores a clip: `score((n*B, K)) -> (n*B, R)`."""
        runner, outputs = self.runner(model, clip), self.first(model, clip).outputs
        unperturbed = score(answers(model, outputs, raw=self.raw))
        masks = _Masks(self, clip)
        sums = _Sums(unperturbed, clip, self.p, self._norm(model), model.valid_for(clip))
        hidden = black(model, clip)
        seen = clip - hidden
        result = _Result(len(clip), self.tol)
        done = 0
        with progress("RISE", self.masks) as advance:
            while done < self.masks and not result.complete:
                stop = min(done + runner.copies, self.masks)
                if self.tol is not None:  # the looks do not depend on the batch size
                    stop = min(stop, done - done % _CHECK + _CHECK)

                def fill(rows: Tensor, start: int, first: int = done) -> None:
                    start += first
                    for i, part in masks.slices(start, start + len(rows)):
                        into = rows[i - start : i - start + len(part)]
                        torch.addcmul(hidden, seen, part.to(clip)[:, None, None], out=into)

                found = answers(model, runner(stop - done, fill).flatten(0, 1), raw=self.raw)
                scores = score(found).unflatten(0, (stop - done, -1))
                for i, part in masks.slices(done, stop):
                    sums.add(scores[i - done : i - done + len(part)], part, i)
                advance(stop - done)
                done = stop
                if done == self.masks or (self.tol is not None and done % _CHECK == 0):
                    result.take_converged(sums, done)
        positive = model.probability is not None if self.relu is None else self.relu
        cells = "x".join(map(str, self.cells))
        model.notes.update(masks=f"{result.mask_count} masks of {cells} cells", p=f"p={self.p:g}")
        model.notes.update(error=result.note)
        model.numbers["error"] = unperturbed.new_tensor(result.errors)
        if self.tol is not None:
            model.numbers["masks"] = torch.tensor(result.masks, device=clip.device)
        maps = result.maps.relu_() if sums.norm == "center" and positive else result.maps
        return torch.stack([model.without_padding(m) for m in maps.unbind(1)], 1)

    def _norm(self, model: Explainable) -> Norm:
        return self.norm or ("center" if model.probability is None or self.raw else "count")


class _Masks:
    """The masks, made from their cells when they are needed.

    Linear interpolation is a matrix for each axis, one for each possible shift.
    """

    def __init__(self, method: RISE, clip: Tensor) -> None:
        generator = torch.Generator().manual_seed(method.seed)
        count = method.masks
        kept = torch.rand((count, *method.cells), generator=generator) < method.p
        self.kept = kept.to(clip.device)  # (N, a, b, c)
        self.windows, self.shifts = [], []
        for n, cells in zip(clip.shape[2:], method.cells, strict=True):
            parts = method.cells[2] if method.published_grid else cells
            side = -(-n // parts)
            table = _linear(cells, (parts + 1) * side, corners=method.published_grid)
            windows = torch.stack([table[k : k + n] for k in range(side)])
            self.windows.append(windows.to(clip.device, at_least_float32(clip).dtype))
            self.shifts.append(torch.randint(side, (count,), generator=generator).to(clip.device))
        self.at_once = max(1, _SLICE // clip[0, 0].numel())
        self._last: tuple[int, int, Tensor] | None = None

    def slices(self, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """(i, masks i, i+1, ... `(n, T, H, W)`) from `start` to `stop`, few at a time."""
        for i in range(start, stop, self.at_once):
            end = min(i + self.at_once, stop)
            if self._last is None or self._last[:2] != (i, end):
                self._last = None  # or there would be two in memory
                self._last = (i, end, self._make(slice(i, end)))
            yield i, self._last[2]

    def _make(self, part: slice) -> Tensor:
        time, height, width = (w[s[part]] for w, s in zip(self.windows, self.shifts, strict=True))
        cells = self.kept[part].to(time.dtype)
        maps = torch.einsum("nabc,nwc->nabw", cells, width)
        maps = torch.einsum("nabw,nhb->nahw", maps, height)
        return torch.bmm(time, maps.flatten(2)).view(-1, time.shape[1], *maps.shape[2:])


def _linear(cells: int, length: int, *, corners: bool) -> Tensor:
    """Weights `(length, cells)` of linear interpolation; `corners` as `align_corners`."""
    position = torch.arange(length, dtype=torch.float64)
    if corners:
        source = position * (cells - 1) / max(1, length - 1)
    else:
        source = ((position + 0.5) * cells / length - 0.5).clamp(0, cells - 1)
    return (1 - (source[:, None] - torch.arange(cells)).abs()).clamp(min=0)


class _Sums:
    """Running sums over masks, of the odd and of the even ones, and the maps they make."""

    def __init__(
        self, unperturbed: Tensor, clip: Tensor, p: float, norm: Norm, valid: Tensor | None
    ) -> None:
        self.p, self.norm, self.valid = p, norm, valid
        # Scores are counted from that of the clip itself: a constant score is exact then.
        self.zero = unperturbed.double()  # (B, R)
        size, rows = clip.shape[2:], unperturbed.numel() + 1
        self.weighted = torch.zeros(  # last row: the sum of the masks
            2, rows, size.numel(), dtype=at_least_float32(clip).dtype, device=clip.device
        )
        self.total = self.zero.new_zeros(2, *unperturbed.shape)
        self.count = torch.zeros(2)
        self.shape = (*unperturbed.shape, *size)

    def add(self, scores: Tensor, masks: Tensor, first: int) -> None:
        """Add masks `(n, T, H, W)`, the first of which is number `first`; scores `(n, B, R)`."""
        scores = scores.double() - self.zero
        ones = torch.ones(len(scores), 1, dtype=masks.dtype, device=masks.device)
        weights = torch.cat([scores.flatten(1).to(masks), ones], 1)  # (n, B*R + 1)
        for start in range(min(2, len(scores))):
            half, part = (first + start) % 2, slice(start, None, 2)
            self.weighted[half].addmm_(weights[part].T, masks[part].flatten(1))
            self.total[half] += scores[part].sum(0)
            self.count[half] += len(scores[part])

    def maps(self) -> tuple[Tensor, Tensor]:
        """Heatmaps `(B, R, T, H, W)` of all masks, and their errors `(B, R)`.

        One map after the other: the maps of all columns are large enough.
        """
        maps = self.weighted.new_empty(self.shape)
        errors = torch.full_like(self.zero, torch.inf)
        for b, r in itertools.product(*map(range, self.zero.shape)):
            maps[b, r] = self._map(b, r, slice(2)).view(self.shape[2:])
            if self.count.min() > 0:
                errors[b, r] = self._error(b, r)
        return maps, errors

    def _error(self, b: int, r: int) -> Tensor:
        """Two halves share the signal, and their difference is twice the error of the whole."""
        halves = torch.stack([self._map(b, r, slice(h, h + 1)) for h in (0, 1)])
        if self.valid is not None:
            halves = halves.view(2, self.shape[2], -1)[:, self.valid[b]].flatten(1)
        halves -= halves.mean(1, keepdim=True)  # that all of a map is too high does not matter
        noise = ((halves[0] - halves[1]) / 2).square().mean()
        signal = (halves[0] * halves[1]).mean().clamp(min=0)
        return torch.where(noise > 0, noise / signal, 0).sqrt()

    def _map(self, b: int, r: int, halves: slice) -> Tensor:
        """The map `(T*H*W,)` of clip b and score r, from one or both halves of the masks."""
        row = b * self.shape[1] + r
        sums, seen = self.weighted[halves, row].sum(0), self.weighted[halves, -1].sum(0)
        zero, count = self.zero[b, r], self.count[halves].sum().item()
        mean = self.total[halves, b, r].sum() / count
        if self.norm == "count":  # a voxel that was never seen gets the mean of all scores
            return zero + torch.where(seen > 0, sums / seen, mean)
        if self.norm == "np":
            return (sums + zero * seen) / (count * self.p)
        return (sums - mean * seen) / (count * self.p * (1 - self.p))


class _Result:
    """Each clip's maps as they were when they had converged."""

    def __init__(self, batch: int, tol: float | None) -> None:
        self.tol = tol
        self.maps = torch.empty(0)
        self.errors = [math.inf] * batch
        self.masks = [0] * batch
        self.complete = False

    def take_converged(self, sums: _Sums, done: int) -> None:
        """Take the maps of the clips that had not converged before."""
        maps, errors = sums.maps()
        if not len(self.maps):
            self.maps = maps
        for row, error in enumerate(errors.amax(1).tolist()):
            if self.tol is None or self.errors[row] > self.tol:
                self.maps[row], self.errors[row], self.masks[row] = maps[row], error, done
        self.complete = self.tol is not None and max(self.errors) <= self.tol

    @property
    def mask_count(self) -> str:
        """How many masks, in words."""
        low, high = min(self.masks), max(self.masks)
        return str(low) if low == high else f"{low} to {high}"

    @property
    def note(self) -> str:
        """The worst clip's error, in words."""
        worst = max(self.errors)
        missed = "" if self.tol is None or worst <= self.tol else f" (above tol={self.tol:g})"
        return f"error {worst:.2g}{missed}" if math.isfinite(worst) else f"error unknown{missed}"
