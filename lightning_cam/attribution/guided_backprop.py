"""Guided backpropagation: a gradient along paths of excitation alone.

Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR workshop 2015. At
every ReLU, R_out what comes from the score and x what went in,

    R_in = R_out [R_out > 0] [x > 0]

It is a sharp image of edges near what the network responds to, and it hardly depends on the
column (Nie et al., ICML 2018) or on the upper layers' weights (Adebayo et al., NeurIPS 2018). Never
judge a decision by it alone.

ReLUs are caught where PyTorch is called rather than at `nn.ReLU` modules: so functional ones, those
in place, and one module that is used several times are all guided, the rule acts on each ReLU's own
output rather than on what a skip connection shares with it, and the network is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx
from torch.nn import functional as F

from lightning_cam.attribution.cuts import no_scripts
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.function_mode import FunctionMode
from lightning_cam.attribution.gradient import (
    Reduce,
    input_gradient,
    recorded,
    reduced,
)
from lightning_cam.attribution.method import Attribution, Cost


@dataclass(frozen=True)
class GuidedBackprop(Attribution):
    """Guided backpropagation through every ReLU that the forward calls, module or function.

    Other nonlinearities (ReLU6, leaky ReLU, GELU, an LSTM's) pass the plain gradient; the caption
    says how many ReLUs there were. One forward and one backward.

    Args:
        reduce: channels to one number, see `Gradient`.

    Example:
        >>> explain(model, GuidedBackprop(), clip).caption
        'Guided backpropagation, 17 ReLUs, largest of the channels'
    """

    title = "Guided backpropagation"
    grainy = True

    reduce: Reduce = "abs_max"

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return guided(self.title, model, clip)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        gradient = input_gradient(model, self.first(model, clip), target)
        return reduced(model, gradient, self.reduce)


def guided(title: str, model: Explainable, clip: Tensor) -> Forward:
    """A run `recorded` from the clip for a method, of which every ReLU is a guided one.

    Raises:
        UserError: a part of the network is scripted, whose ReLUs would pass the plain gradient.
    """
    no_scripts(title, model.module)
    with _Guided() as mode:
        forward = recorded(model, clip)
    met = f"{mode.met} ReLU{'s' if mode.met > 1 else ''}"
    model.notes.update(relus=met if mode.met else "no ReLU: the plain gradient")
    return forward


class _Guided(FunctionMode):
    """Inside it every ReLU is a guided one."""

    def __init__(self) -> None:
        super().__init__()
        self.met = 0

    def called(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if func not in _RELUS:
            return func(*args, **kwargs)
        self.met += 1
        return _RELUS[func](*args, **kwargs)


class _Rule(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, inplace: bool) -> Tensor:
        y = x.relu_() if inplace else x.relu()
        if inplace:
            ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return gradient.clamp(min=0).where(y > 0, 0), None


def _relu(input: Tensor, inplace: bool = False) -> Tensor:  # named as PyTorch's own arguments
    return _Rule.apply(input, inplace)


def _relu_(input: Tensor) -> Tensor:
    return _Rule.apply(input, True)


_RELUS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    torch.relu_: _relu_,  # also F.relu_
    Tensor.relu_: _relu_,
}
