"""Occlusion for video: how much of the score goes when a window of the clip is hidden?

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, with a window
that also slides over time. With x_w the clip whose voxels in window w are those of a reference,

    S(voxel) = mean over the windows w that hold the voxel of f(x) - f(x_w)

in which f is the probability of a class, or a regressor's plain column. Signed: below 0 the score
rises when the voxel cannot be seen. Windows start at every multiple of the stride; the last ones
along an axis may stick out of the clip and are cut. With windows side by side (stride = window)
the map of an additive score is exact: each voxel has the sum of its window.

The cost is a forward a window, and one. All channels are hidden together.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.gradient import check_reference
from lightning_cam.attribution.method import Cost
from lightning_cam.attribution.perturbation import (
    PerturbationAttribution,
    Reference,
    answers,
    reference,
)
from lightning_cam.progress import progress


@dataclass(frozen=True)
class Occlusion(PerturbationAttribution):
    """Occlusion with a window in time, height and width.

    Args:
        window: its size in frames and pixels, (time, height, width), cut to that of the clip; None:
            an eighth of the clip along each axis.
        stride: from window to window, at most the window's size; None: half of it. Halving the
            stride of all axes costs eight times as much.
        reference: what hides, a kind of `perturbation.reference`.
        batch: rows that go through the network together; None: as many as fill the device.
        raw: the columns of a classifier rather than its probabilities.
        bf16: run the network under bfloat16 autocast.

    Example:
        >>> explain(model, Occlusion(window=(4, 16, 16), stride=(4, 8, 8)), clip).heatmap
        >>> explain(model, Occlusion(window=(1, 112, 112)), clip)  # frame by frame
    """

    title = "Occlusion"

    window: tuple[int, int, int] | None = None
    stride: tuple[int, int, int] | None = None
    reference: Reference = "black"
    batch: int | None = None
    raw: bool = False
    bf16: bool = False

    def __post_init__(self) -> None:
        check_reference(self.reference)
        for name in ("window", "stride"):
            value = getattr(self, name)
            if value is None:
                continue
            value = tuple(value)  # a list, from a configuration
            if len(value) != 3 or not all(isinstance(n, int) and n > 0 for n in value):
                raise ValueError(f"{name} must be three whole numbers from 1 on, got {value}")
            object.__setattr__(self, name, value)
        if self.window and self.stride and any(map(int.__gt__, self.stride, self.window)):
            raise ValueError(
                f"stride {self.stride} must not exceed the window {self.window}: voxels between "
                "two windows would never be hidden"
            )

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        runner, outputs = self.runner(model, clip), self.first(model, clip).outputs
        axes = self._axes(clip)
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
        falls = (score - scores).T.unflatten(1, [len(axis) for axis in axes])  # (B, a, b, c)
        time, height, width = (
            _means(axis, n).to(falls) for axis, n in zip(axes, clip.shape[2:], strict=True)
        )
        heat = torch.einsum("nabc,wc->nabw", falls, width)
        heat = torch.einsum("nabw,hb->nahw", heat, height)
        heat = torch.einsum("nahw,ta->nthw", heat, time)
        sizes = "x".join(str(axis[0].stop) for axis in axes)
        many = "s" if count > 1 else ""
        model.notes.update(windows=f"{count} window{many} of {sizes}", reference=self.reference)
        return heat

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
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


def _means(axis: list[slice], n: int) -> Tensor:
    """Weights `(n, windows)` of the mean over the windows that hold each position.

    The windows that hold a voxel are those that hold its frame, row and column: the mean over all
    is the mean along one axis after the other.
    """
    holds = torch.zeros(n, len(axis), dtype=torch.float64)
    for k, part in enumerate(axis):
        holds[part, k] = 1
    return holds / holds.sum(1, keepdim=True)
