"""Occlusion for video: how much of the score goes when a window of the clip is hidden?

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, with a window
that also slides over time. With x_w the clip whose voxels in window w are those of a reference,

    S(voxel) = mean over the windows w that hold the voxel of f(x) - f(x_w)

in which f is the probability of a class, or a regressor's plain column. Signed: below 0 the score
rises when the voxel cannot be seen. Windows start at every multiple of the stride; the last ones
along an axis may stick out of the clip and are cut. With windows side by side (stride = window)
the map of an additive score is exact: each voxel has the sum of its window.

The cost is a forward a window, and one. All channels are hidden together.

To first order, f(x) - f(x_w) is the sum over the window of df/dx (x - x'), x' the reference: one
forward and one backward give all windows (`approximate`). It is exact for a score that is linear
in the clip; where a network is sure of a class, the gradient of its probability vanishes, and
logits (`raw`) tell more.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.fields import Cells, Count
from lightning_cam.attribution.gradient import recorded
from lightning_cam.attribution.method import Cost
from lightning_cam.attribution.perturbation import (
    PerturbationAttribution,
    Reference,
    answers,
    reference,
)
from lightning_cam.attribution.tensors import at_least_float32, gradients
from lightning_cam.errors import ArgumentError
from lightning_cam.progress import progress


@dataclass(frozen=True)
class Occlusion(PerturbationAttribution):
    """Occlusion with a window in time, height and width.

    Args:
        window: its size in frames and pixels, (time, height, width), cut to that of the clip; None:
            an eighth of the clip along each axis.
        stride: from window to window, at most the window's size; None: half of it. Halving the
            stride of all axes costs eight times as much.
        reference: the baseline, a kind of `perturbation.reference`.
        batch: rows that go through the network together; None: as many as fill the device.
        raw: the columns of a classifier rather than its probabilities.
        bf16: run the network under bfloat16 autocast.
        approximate: all windows to first order, from one forward and one backward.

    Example:
        >>> explain(model, Occlusion(window=(4, 16, 16), stride=(4, 8, 8)), clip).heatmap
        >>> explain(model, Occlusion(window=(1, 112, 112)), clip)  # frame by frame
    """

    title = "Occlusion"

    window: Cells | None = None
    stride: Cells | None = None
    reference: Reference = "black"
    batch: Count | None = None
    raw: bool = False
    bf16: bool = False
    approximate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window and self.stride and any(map(int.__gt__, self.stride, self.window)):
            raise ArgumentError(
                f"stride {self.stride} must not exceed the window {self.window}: voxels between "
                "two windows would never be hidden"
            )

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        if not self.approximate:
            return super().run(model, clip)
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=self.bf16):
            return recorded(model, clip)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        axes = self._axes(clip)
        found = self._first_order if self.approximate else self._falls
        falls = found(model, clip, target, axes)  # (B, a, b, c)
        holds = [_holds(axis, n) for axis, n in zip(axes, clip.shape[2:], strict=True)]
        # The windows that hold a voxel are those that hold its frame, row and column: the mean over
        # all is the mean along one axis after the other.
        heat = _along(falls, *(h / h.sum(1, keepdim=True) for h in holds))
        sizes = "x".join(str(axis[0].stop) for axis in axes)
        count = math.prod(map(len, axes))
        many = "s" if count > 1 else ""
        model.notes.update(windows=f"{count} window{many} of {sizes}", reference=self.reference)
        if self.approximate:
            model.notes.update(order="first order")
        return heat

    def _falls(
        self, model: Explainable, clip: Tensor, target: Tensor, axes: list[list[slice]]
    ) -> Tensor:
        """By how much the score falls with each window hidden, `(B, a, b, c)`."""
        runner, outputs = self.runner(model, clip), self.first(model, clip).outputs
        windows = list(itertools.product(*axes))
        count = len(windows)
        hidden = reference(model, clip, self.reference)
        with progress(self.title, count) as advance:

            def fill(rows: Tensor, start: int) -> None:
                rows.copy_(clip)
                for row, (time, height, width) in zip(rows, windows[start:], strict=False):
                    row[..., time, height, width] = hidden[..., time, height, width]
                advance(len(rows))

            found = runner(count, fill)  # (N, B, K)
        score = model.score(answers(model, outputs, raw=self.raw), target)
        scores = model.score(
            answers(model, found.flatten(0, 1), raw=self.raw), target.repeat(count)
        ).unflatten(0, (count, -1))
        return (score - scores).T.unflatten(1, [len(axis) for axis in axes])

    def _first_order(
        self, model: Explainable, clip: Tensor, target: Tensor, axes: list[list[slice]]
    ) -> Tensor:
        """The same from the gradient: sums of gradient x (clip - reference) within windows."""
        outputs, captured = self.first(model, clip)
        outputs = at_least_float32(outputs)
        asked = outputs if self.raw else model.probabilities(outputs)
        [gradient] = gradients(model.score(asked, target), captured["clip"])
        hidden = reference(model, clip, self.reference)
        share = (at_least_float32(gradient) * at_least_float32(clip - hidden)).sum(1)
        return _along(share, *(_holds(a, n).T for a, n in zip(axes, clip.shape[2:], strict=True)))

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        if self.approximate:
            return Cost(1, 1)
        return Cost(1 + math.prod(map(len, self._axes(clip))))

    def grain(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """As many windows as lie side by side."""
        window = self.window or tuple(max(1, n // 8) for n in size)
        t, h, w = (math.ceil(n / min(n, k)) for n, k in zip(size, window, strict=True))
        return t, h, w

    def _axes(self, clip: Tensor) -> list[list[slice]]:
        """The windows along time, height and width.

        Raises:
            ValueError: the stride exceeds the window that none was given for.
        """
        axes = []
        for axis, n in enumerate(clip.shape[2:]):
            size = min(n, self.window[axis] if self.window else max(1, n // 8))
            stride = self.stride[axis] if self.stride else max(1, size // 2)
            if size < min(n, stride):
                raise ValueError(
                    f"stride {self.stride} must not exceed the window, of this clip {size} of {n}; "
                    "also give the window"
                )
            last = math.ceil((n - size) / stride)
            axes.append([slice(k * stride, min(n, k * stride + size)) for k in range(last + 1)])
        return axes


def _holds(axis: list[slice], n: int) -> Tensor:
    """Which windows hold each position, `(n, windows)` of 0 and 1."""
    holds = torch.zeros(n, len(axis), dtype=torch.float64)
    for k, part in enumerate(axis):
        holds[part, k] = 1
    return holds


def _along(values: Tensor, time: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Values `(B, a, b, c)` times a matrix along each axis, `(t, a)`, `(h, b)` and `(w, c)`."""
    found = torch.einsum("nabc,wc->nabw", values, width.to(values))
    found = torch.einsum("nabw,hb->nahw", found, height.to(values))
    return torch.einsum("nahw,ta->nthw", found, time.to(values))
