"""Gradients averaged over many clips: around this one, or on the way to it from a reference.

SmoothGrad, Smilkov et al., arXiv:1706.03825: a gradient changes erratically from one clip to the
next; its mean over noise n around the clip does not,

    mean      E[dy/dx (x + n)]
    square    E[(dy/dx)^2]                    Hooker et al., NeurIPS 2019
    variance  E[(dy/dx)^2] - E[dy/dx]^2       VarGrad, Adebayo et al., NeurIPS 2018

Integrated gradients, Sundararajan et al., ICML 2017: where a network is saturated its gradient is
0, though all depends on the clip. On the straight way from a reference x' it is not,

    IG = (x - x') integral_0^1 dy/dx (x' + a (x - x')) da

and the sum of IG over all voxels and channels is y(x) - y(x'): completeness. The integral is taken
by Gauss-Legendre quadrature, exact for columns that are polynomials in x of degree 2 steps. (The
trapezoidal rule as captum weighs it falls short by 1/steps of a linear network.)

Gradients of many clips at once hold a graph each: they go through the network a few at a time, and
the memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cam.attribution.doubt import Doubt
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.fields import Count, Seed, ZeroOrMore
from lightning_cam.attribution.gradient import (
    Reduce,
    input_gradient,
    recorded,
    reduced,
)
from lightning_cam.attribution.method import Attribution, Cost
from lightning_cam.attribution.perturbation import Reference, Runner, reference
from lightning_cam.attribution.tensors import at_least_float32
from lightning_cam.progress import progress


@dataclass(frozen=True)
class SmoothGrad(Attribution):
    """The mean gradient around the clip; `samples` forwards and backwards, and one forward.

    All clips of a batch get the same noise, each in units of its own range.

    Args:
        samples: N, how many noisy clips.
        sigma: standard deviation of the noise, in units of the clip's range max - min over all
            voxels of valid frames.
        kind: `"mean"`, `"square"` or `"variance"` of the gradients, see above.
        reduce: channels to one number afterwards, see `Gradient`.
        seed: of the method's own generators, one a sample.
        batch: rows that go through the network together; None: as many as fill the device.

    Example:
        >>> explain(model, SmoothGrad(samples=50), clip).heatmap
    """

    title = "SmoothGrad"
    grainy = True

    samples: Count = 25
    sigma: ZeroOrMore = 0.15
    kind: Literal["mean", "square", "variance"] = "mean"
    reduce: Reduce = "abs_max"
    seed: Seed = 0
    batch: Count | None = None

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1 + self.samples, self.samples)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        # A generator for each sample, or the noise would depend on how many run at once.
        seeds = torch.randint(2**62, (self.samples,), generator=generator).tolist()
        scale = self.sigma * _range(model, clip)

        def fill(rows: Tensor, start: int) -> None:
            for i, row in enumerate(rows, start):
                generator.manual_seed(seeds[i])
                noise = torch.randn(clip.shape[1:], generator=generator)
                torch.addcmul(clip, scale, noise.to(clip), out=row)

        total = squares = zero = at_least_float32(torch.zeros_like(clip))
        passes = _Gradients(model, clip, target, self.batch).each(self.samples, fill, self.title)
        for start, found in passes:
            if self.kind == "variance":
                # Counted from the first gradient: where all are alike the variance is exactly 0.
                zero = found[0].clone() if start == 0 else zero
                found = found - zero
            total = total + found.sum(0)
            squares = squares if self.kind == "mean" else squares + found.square().sum(0)
        voxels = (total if self.kind == "mean" else squares) / self.samples
        if self.kind == "variance":
            voxels = (voxels - (total / self.samples).square()).clamp(min=0)
        of = "" if self.kind == "mean" else f"{self.kind} of "
        noise = f"sigma {self.sigma:g} of the range"
        model.notes.update(samples=f"{of}{self.samples} samples", noise=noise)
        return reduced(model, voxels, self.reduce)


@dataclass(frozen=True)
class IntegratedGradients(Attribution):
    """Integrated gradients; `steps` forwards and backwards, and two forwards.

    Adds "incomplete" `(B,)` to `Explanation.numbers`: by how much the sum over voxels and channels
    misses y(x) - y(x'), as a share of it. The caption tells the worst clip's. More steps help.

    Args:
        steps: nodes of the quadrature.
        reference: the baseline x', where nothing is to be seen, a kind of
            `perturbation.reference`. What looks like it gets 0: black things, with `"black"`.
        reduce: channels to one number, see `Gradient`; the heatmap adds up only with `"sum"`.
        batch: rows that go through the network together; None: as many as fill the device.

    Example:
        >>> e = explain(model, IntegratedGradients(reference="blur"), clip)
        >>> e.heatmap.sum((1, 2, 3)), e.numbers["incomplete"]
    """

    title = "Integrated gradients"
    grainy = True
    doubts = (Doubt("incomplete", "the map misses {incomplete:.0%} of what it should add up to"),)

    steps: Count = 50
    reference: Reference = "black"
    reduce: Reduce = "sum"
    batch: Count | None = None

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(2 + self.steps, self.steps)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        outputs = self.first(model, clip).outputs
        hidden = reference(model, clip, self.reference).contiguous()
        with torch.no_grad():
            moved = model.score(outputs, target) - model.score(model.forward(hidden), target)
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)  # on (-1, 1)

        def fill(rows: Tensor, start: int) -> None:
            for i, row in enumerate(rows, start):
                torch.lerp(hidden, clip, float(nodes[i] + 1) / 2, out=row)

        total = at_least_float32(torch.zeros_like(clip))
        passes = _Gradients(model, clip, target, self.batch).each(self.steps, fill, self.title)
        for start, found in passes:
            share = found.new_tensor(weights[start : start + len(found)] / 2)
            total = total + torch.tensordot(share, found, 1)
        voxels = (clip - hidden) * total
        moved, missed = moved.double(), voxels.double().sum((1, 2, 3, 4)) - moved.double()
        missed = missed.abs() / moved.abs().clamp(min=torch.finfo(torch.float32).tiny)
        model.numbers["incomplete"] = missed
        model.notes.update(steps=f"{self.steps} steps from {self.reference}")
        model.notes.update(missed=f"incomplete by {float(missed.max()):.1%}")
        return reduced(model, voxels, self.reduce)


class _Gradients(Runner):
    """A runner whose answers are the gradients of the score to the rows."""

    def __init__(self, model: Explainable, clip: Tensor, target: Tensor, batch: int | None) -> None:
        super().__init__(model, clip, batch)
        self.target = target
        if batch is None and clip.is_cuda:  # a graph holds the features of all layers at once
            self.copies = max(1, self.copies // 4)

    def forward(self, rows: Tensor) -> Tensor:
        target = self.target.repeat(len(rows) // len(self.target))
        return input_gradient(self.model, recorded(self.model, rows), target)

    def each(
        self, count: int, fill: Callable[[Tensor, int], None], title: str
    ) -> Iterator[tuple[int, Tensor]]:
        """(i, gradients of clips i, i+1, ... `(n, B, C, T, H, W)`), few at a time.

        Args:
            count: how many clips.
            fill: see `Runner`.
            title: of the progress bar.
        """
        done = 0
        with progress(title, count) as advance:
            while done < count:
                n = min(self.copies, count - done)

                def part(rows: Tensor, start: int, first: int = done) -> None:
                    fill(rows, first + start)

                yield done, self(n, part)
                advance(n)
                done += n


def _range(model: Explainable, clip: Tensor) -> Tensor:
    """max - min over voxels of valid frames, `(B, 1, 1, 1, 1)`."""
    low = high = clip
    valid = model.valid_for(clip)
    if valid is not None:
        padded = ~valid[:, None, :, None, None]
        low, high = clip.masked_fill(padded, torch.inf), clip.masked_fill(padded, -torch.inf)
    axes = (1, 2, 3, 4)
    return (high.amax(axes, keepdim=True) - low.amin(axes, keepdim=True)).clamp(min=0)
