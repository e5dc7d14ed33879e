"""Gradients of a column to the voxels of the clip: what would move it, if it changed a little.

Simonyan et al., "Deep Inside Convolutional Networks", ICLR workshop 2014, and gradient x input,
Shrikumar et al., arXiv:1605.01713. With the score y of a column and the clip x,

    Gradient          max_c |dy/dx_c|
    GradientXInput    sum_c dy/dx_c (x_c - x'_c)

at every voxel, c its channels. It is the column itself that is differentiated, a logit of a
classifier: the gradient of a probability vanishes where the network is sure. A gradient has as many
channels as the clip, a heatmap has none, so the reduction must be named:

    abs_max     max_c |g_c|, of the published saliency maps
    abs_sum     sum_c |g_c|
    abs_mean    the mean of |g_c|: the same image as abs_sum
    sum         sum_c g_c, signed: what integrated gradients need in order to add up

The cost is one forward and the backward to the clip. No gradient reaches a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.method import Attribution, Cost
from lightning_cam.attribution.perturbation import Reference, reference
from lightning_cam.attribution.tensors import at_least_float32, gradients

Reduce = Literal["abs_max", "abs_sum", "abs_mean", "sum"]

_SAID = {
    "abs_max": "largest of the channels",
    "abs_sum": "absolute sum over channels",
    "abs_mean": "absolute mean over channels",
    "sum": "signed sum over channels",
}


@dataclass(frozen=True)
class Gradient(Attribution):
    """How fast the column changes with each voxel; one forward and one backward.

    Args:
        reduce: channels to one number, see the top of this file.

    Example:
        >>> explain(model, Gradient(), clip).heatmap
    """

    title = "Gradient"
    grainy = True

    reduce: Reduce = "abs_max"

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return recorded(model, clip)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        return reduced(model, input_gradient(model, self.first(model, clip), target), self.reduce)


@dataclass(frozen=True)
class GradientXInput(Attribution):
    """Gradient times the voxel: how much of the column each voxel makes up, to first order.

    Exact for a network that is linear in the clip. One forward and one backward.

    Args:
        reduce: channels to one number, see the top of this file.
        reference: the baseline from which the voxel is counted, a kind of
            `perturbation.reference`; `"mean"` is 0 in model space, so that the voxel is what the
            network gets.

    Example:
        >>> explain(model, GradientXInput(reference="black"), clip).heatmap
    """

    title = "Gradient x input"
    grainy = True

    reduce: Reduce = "sum"
    reference: Reference = "mean"

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return recorded(model, clip)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        gradient = input_gradient(model, self.first(model, clip), target)
        model.notes.update(reference=f"from {self.reference}")
        return reduced(
            model, gradient * (clip - reference(model, clip, self.reference)), self.reduce
        )


def recorded(model: Explainable, clip: Tensor) -> Forward:
    """A run whose graph starts at the clip `(B, C, T, H, W)`, captured as "clip"."""
    leaf = clip.detach().requires_grad_()
    return Forward(model.forward(leaf), {"clip": [leaf]})


def input_gradient(model: Explainable, forward: Forward, target: Tensor) -> Tensor:
    """The gradient of the score to the clip, `(B, C, T, H, W)`, at least float32.

    Args:
        model: what to look into.
        forward: a run that was `recorded`.
        target: `(B,)`, the columns.
    """
    [gradient] = gradients(model.score(forward.outputs, target), forward.captured["clip"])
    return at_least_float32(gradient)


def reduced(model: Explainable, voxels: Tensor, how: Reduce) -> Tensor:
    """The heatmap `(B, T, H, W)` of numbers `(B, C, T, H, W)`."""
    model.notes.update(reduce=_SAID[how])
    if how == "sum":
        return voxels.sum(1)
    size = voxels.abs()
    return size.amax(1) if how == "abs_max" else size.sum(1) if how == "abs_sum" else size.mean(1)
