"""What perturbation methods and deletion/insertion share: baselines, and the network's answers.

A hidden voxel is that of a baseline, the *reference* clip. Black is `Explainable.black`: in the
normalised space that networks see, 0 is the mean colour of the training data.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.method import Attribution
from lightning_cam.attribution.outputs import outputs_of
from lightning_cam.attribution.tensors import at_least_float32

Reference = Literal["black", "mean", "blur", "rise", "zoom"]


def reference(model: Explainable, clip: Tensor, kind: Reference | Tensor) -> Tensor:
    """The clip whose voxels stand for hidden ones, `(B, C, T, H, W)`.

    Args:
        model: knows what black is.
        clip: in model space.
        kind: `"black"`; `"mean"`: 0 in model space; `"blur"`: a Gaussian over height and width with
            a standard deviation of H/11 pixels, at least 5, mirrored at the border; `"rise"`:
            RISE's own 11 x 11 kernel, which is nearly a box, 0 beyond the border; `"zoom"`: a
            quarter of T, H and W and back (Bayer et al., 2022); or a clip that broadcasts to this.

    Raises:
        ValueError: an unknown kind.
    """
    if isinstance(kind, Tensor):
        return kind.to(clip).expand_as(clip)
    if kind == "black":
        return black(model, clip).expand_as(clip)
    if kind == "mean":
        return torch.zeros_like(clip)
    if kind == "blur":
        return blurred(clip, max(5.0, clip.shape[-2] / 11))
    if kind == "rise":
        return _blurred(clip, _rise_kernel(), mirrored=False)
    if kind == "zoom":
        small = [max(1, n // 4) for n in clip.shape[2:]]
        options = {"mode": "trilinear", "align_corners": True}
        return F.interpolate(F.interpolate(clip, small, **options), clip.shape[2:], **options)  # type: ignore[arg-type]
    raise ValueError(f"unknown reference {kind!r}; choose one of {', '.join(get_args(Reference))}")


def blurred(clip: Tensor, sigma: float, cut: float = 3) -> Tensor:
    """Every frame of `(..., H, W)` under a Gaussian of `sigma` pixels, mirrored at the border.

    Args:
        clip: of any size.
        sigma: standard deviation.
        cut: standard deviations beyond which weights are 0.
    """
    return _blurred(clip, _gaussian(sigma, round(cut * sigma)), mirrored=True)


def black(model: Explainable, clip: Tensor) -> Tensor:
    """Black in model space, `(B, C, 1, 1, 1)`, or one for all clips `(1, C, 1, 1, 1)`."""
    if model.black is None:
        return clip.new_zeros(1, clip.shape[1], 1, 1, 1)
    value = model.black.to(clip)
    if value.shape[-1] not in (1, clip.shape[1]):
        raise ValueError(f"black has {value.shape[-1]} channels, the clip {clip.shape[1]}")
    return value.reshape(-1, value.shape[-1], 1, 1, 1)


def answers(model: Explainable, outputs: Tensor, *, raw: bool = False) -> Tensor:
    """What perturbations look at: probabilities `(B, K)` of a classifier, else the columns.

    Args:
        model: knows which of the two it is.
        outputs: `(B, K)`.
        raw: the columns, of a classifier as well: logits.
    """
    outputs = at_least_float32(outputs.detach())
    return outputs if raw else model.probabilities(outputs)


def rows_at_once(clip: Tensor, batch: int | None) -> int:
    """How many perturbed copies of a batch of clips go through the network together.

    A rule, not a measurement: a probe that is timed would choose another number every time, and
    with it the last bits of the outputs.

    Args:
        clip: `(B, C, T, H, W)`, or features of it.
        batch: rows the user wants; None: as many as fill the device.
    """
    if batch is not None:
        return max(1, batch // len(clip))
    # 16 x 3 x 112 x 112: 64 rows and 1. CPUs are slower with more than their caches hold: a
    # ResNet-18 LRCN takes 1.7 times as long for each of 16 rows as for one alone.
    voxels = 2**27 if clip.is_cuda else 2**20
    return max(1, min(64, voxels // clip.numel()))


class Runner:
    """Runs perturbed copies of a batch of clips, as many at once as fit.

    Args:
        model: the network.
        clip: `(B, C, T, H, W)`.
        batch: rows at once; None for a number that fills the device. Where the memory of a GPU
            does not suffice, the number is halved.
        bf16: run the network under bfloat16 autocast.
    """

    def __init__(
        self, model: Explainable, clip: Tensor, batch: int | None = None, *, bf16: bool = False
    ) -> None:
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.model, self.clip, self.batch, self.bf16 = model, clip, batch, bf16
        self.copies = rows_at_once(clip, batch)
        self._buffer = clip.new_empty(0)

    def __call__(self, count: int, fill: Callable[[Tensor, int], None]) -> Tensor:
        """Outputs `(count, B, K)` of perturbed copies.

        Args:
            count: how many copies.
            fill: writes copies i, i+1, ... into its first argument `(n, B, C, T, H, W)`; the
                second is i. Called again from i=0 should the memory not suffice.
        """
        while True:
            try:
                return self._run(count, fill)
            except torch.OutOfMemoryError:
                if self.copies == 1:
                    raise
            # Only here, behind the handler, does nothing hold on to what the failed run made.
            self.copies //= 2
            self._buffer = self.clip.new_empty(0)
            torch.cuda.empty_cache()

    def _run(self, count: int, fill: Callable[[Tensor, int], None]) -> Tensor:
        found = []
        for start in range(0, count, self.copies):
            n = min(self.copies, count - start)
            if len(self._buffer) < n:
                self._buffer = self.clip.new_empty(n, *self.clip.shape)
            rows = self._buffer[:n]
            fill(rows, start)
            found.append(self.forward(rows.flatten(0, 1)).unflatten(0, (n, -1)))
        return torch.cat(found)

    def forward(self, rows: Tensor) -> Tensor:
        """The network's outputs, without a graph."""
        with torch.no_grad(), self._precision():
            return outputs_of(self.model, rows, len(self.clip))

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.clip.device.type, torch.bfloat16, enabled=self.bf16)


class PerturbationAttribution(Attribution):
    """A method that asks for the network's answers to changed clips.

    Its fields `batch` and `bf16` are arguments of `Runner`.
    """

    batch: int | None
    bf16: bool

    def runner(self, model: Explainable, clip: Tensor) -> Runner:
        """Runs changed copies of the clip."""
        return Runner(model, clip, self.batch, bf16=self.bf16)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return Forward(self.runner(model, clip).forward(clip))


def _gaussian(sigma: float, radius: int) -> Tensor:
    """Weights `(2 radius + 1,)` that sum to 1."""
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).double() / sigma) ** 2)
    return weights / weights.sum()


def _rise_kernel(size: int = 11, sigma: float = 5) -> Tensor:
    """One axis of SciPy's Gaussian filter of a delta, in a window smaller than the Gaussian.

    SciPy cuts the Gaussian at 4 sigma and mirrors the window, its border repeated, so that the
    tails come back: what is left is nearly a box.
    """
    radius = int(4 * sigma + 0.5)
    weights, kernel = _gaussian(sigma, radius), torch.zeros(size, dtype=torch.float64)
    for k in range(size):
        index = (k + torch.arange(-radius, radius + 1)) % (2 * size)
        index = torch.where(index < size, index, 2 * size - 1 - index)
        kernel[k] = weights[index == size // 2].sum()  # all mirror images of the delta
    return kernel


def _blurred(clip: Tensor, kernel: Tensor, *, mirrored: bool) -> Tensor:
    """Every frame with one kernel along height and along width.

    Beyond the border the frame is mirrored, its border not repeated, or 0.
    """
    height, width = (
        _convolution(n, kernel, mirrored=mirrored).to(clip.device, at_least_float32(clip).dtype)
        for n in clip.shape[-2:]
    )
    return (height @ (at_least_float32(clip) @ width.T)).to(clip.dtype)


def _convolution(n: int, kernel: Tensor, *, mirrored: bool) -> Tensor:
    """The matrix `(n, n)` of a convolution of n numbers with a symmetric kernel of odd length."""
    radius = len(kernel) // 2
    index = torch.arange(n)[:, None] + torch.arange(-radius, radius + 1)
    weights = kernel.expand_as(index)
    if mirrored:
        period = max(1, 2 * n - 2)
        index = index.abs() % period
        index = torch.where(index < n, index, period - index)
    else:
        weights = weights.where((index >= 0) & (index < n), 0)
        index = index.clamp(0, n - 1)
    return torch.zeros(n, n, dtype=kernel.dtype).scatter_add(1, index, weights)
