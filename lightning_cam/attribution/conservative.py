"""Conservative propagation: gradient x input of a transformer whose attention weights stand still.

Ali et al., "XAI for Transformers: Better Explanations through Conservative Propagation", ICML 2022.
Gradient x input adds up to the column y only where every layer is linear in what it gets or at
least of degree 1 (ReLU). Softmax attention and layer norm are neither, and the parts that they get
are far from y. So in the backward pass, and there alone,

    attention      the weights softmax(q k^T) are constants:         y_i = sum_j w_ij v_j
    layer norm     the standard deviation is a constant:             y = g (x - mean(x)) / s + b
    GELU, SiLU     the factor behind x is a constant:                y = x f(x), f constant

which makes of each a linear layer (the paper has the first two; the third is of the same kind).
Then R = x dy/dx of a voxel, summed over its channels, is LRP with these rules, and without biases,
positions and class token the sum of R is y. RMS norm is as layer norm. Functions are caught where
PyTorch is called, so that the network is not touched. Norms and activations written by hand are not
caught, nor is what is in compiled or scripted parts: they pass the plain gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx
from torch.nn import functional as F

from lightning_cam.attribution.cuts import no_checkpoints
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.fields import Cells
from lightning_cam.attribution.function_mode import FunctionMode
from lightning_cam.attribution.gradient import input_gradient, recorded
from lightning_cam.attribution.method import Attribution, Cost
from lightning_cam.errors import UserError


@dataclass(frozen=True)
class ConservativePropagation(Attribution):
    """How much of the column each place makes up, with attention and norms held still.

    Works at the clip, so it needs no target layer and no layout. Networks without attention, layer
    norm, GELU and SiLU get gradient x input, which of ReLUs alone is conservative as it is; the
    caption says how many were met. A voxel that is 0 in model space gets 0, so relevance is shared
    evenly within blocks of the clip, as large as a transformer's tubelets. The map is signed.
    One forward and one backward.

    Args:
        patch: frames, height and width of a block, smaller at the end of the clip where it does
            not fit; None: each voxel for itself.

    Raises:
        UserError: the outputs themselves are a softmax, which stands still.

    Example:
        >>> explain(model, ConservativePropagation(patch=(2, 8, 8)), clip).heatmap
    """

    title = "Conservative propagation"

    patch: Cells | None = (2, 8, 8)

    @property
    def grainy(self) -> bool:
        return self.patch is None

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        with no_checkpoints(self.title, model.module), _Still() as mode:
            forward = recorded(model, clip)
        if not forward.outputs.requires_grad:
            raise UserError(
                "conservative propagation holds every softmax still, and the outputs of "
                f"{type(model.module).__name__} are one, or do not depend on the clip; explain "
                "the logits: Explainable.of(model, forward=...), or take explain=gradient_x_input"
            )
        met = ", ".join(f"{n} {name}" for name, n in mode.met.items())
        model.notes.update(still=f"held still: {met}" if met else "nothing to hold still")
        return forward

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        gradient = input_gradient(model, self.first(model, clip), target)
        heat = (gradient * clip).sum(1)  # (B, T, H, W)
        return heat if self.patch is None else _in_blocks(heat, self.patch)


def _in_blocks(heat: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, T, H, W) of which each block holds its mean, so that the sum stays."""
    sizes = heat.shape[1:]
    patch = [min(n, size) for n, size in zip(patch, sizes, strict=True)]
    mean = F.avg_pool3d(heat[:, None], patch, ceil_mode=True)[:, 0]
    for axis, (n, size) in enumerate(zip(patch, sizes, strict=True), start=1):
        mean = mean.repeat_interleave(n, axis).narrow(axis, 0, size)
    return mean


class _Still(FunctionMode):
    """Inside it attention weights, norms' deviations and activations' factors are constants.

    Only the backward pass differs: what is returned is PyTorch's own result, to the bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met: dict[str, int] = {}

    def called(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if func not in _RULES:
            return func(*args, **kwargs)
        name, rule = _RULES[func]
        self.met[name] = self.met.get(name, 0) + 1
        return rule(func, *args, **kwargs)


class Swap(Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


def _softmax(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        return func(*args, **kwargs)


def _fused(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    return func(query.detach(), key.detach(), value, *args, **kwargs)


def _multihead(func: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return of_multihead(func, args, kwargs, still=True)[0]


def of_multihead(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, still: bool
) -> tuple[tuple[Tensor, Tensor | None], Tensor]:
    """nn.MultiheadAttention: its values, weighted by what it says its weights are.

    Args:
        func: `F.multi_head_attention_forward`.
        args: what it is called with.
        kwargs: likewise.
        still: whether the weights are constants.

    Returns:
        What it returns, and the weights ([B,] heads, L, S).
    """
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    given.apply_defaults()
    a = given.arguments
    if a["bias_k"] is not None or a["add_zero_attn"] or a["static_v"] is not None:
        raise UserError(
            "an nn.MultiheadAttention with add_bias_kv or add_zero_attn has no rule here; take "
            "explain=gradient_x_input"
        )
    value = a["value"]
    with torch.no_grad():
        out, shown = func(*args, **kwargs)
    a.update(need_weights=True, average_attn_weights=False)
    with torch.set_grad_enabled(not still):
        weights = func(*given.args, **given.kwargs)[1]
    dim, bias = a["embed_dim_to_check"], a["in_proj_bias"]
    weight = a["v_proj_weight"] if a["use_separate_proj_weight"] else a["in_proj_weight"][2 * dim :]
    v = F.linear(value, weight, None if bias is None else bias[2 * dim :])  # (S, [B,] D)
    v = v.unflatten(-1, (a["num_heads"], -1)).movedim(0, -2)  # ([B,] heads, S, d)
    mixed = (weights @ v).movedim(-2, 0).flatten(-2)  # (L, [B,] D)
    surrogate = F.linear(mixed, a["out_proj_weight"], a["out_proj_bias"])
    return (Swap.apply(out, surrogate), shown), weights


def _layer_norm(
    func: Any,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *more: Any,
    **named: Any,
) -> Tensor:
    out = func(input, normalized_shape, weight, bias, eps, *more, **named).detach()
    axes = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(axes, keepdim=True)
    scale = (centred.detach().square().mean(axes, keepdim=True) + eps).rsqrt()
    surrogate = centred * scale
    return Swap.apply(out, surrogate if weight is None else surrogate * weight)


def _rms_norm(
    func: Any,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    out = func(input, normalized_shape, weight, eps).detach()
    axes = tuple(range(-len(normalized_shape), 0))
    least = torch.finfo(input.dtype).eps if eps is None else eps
    scale = (input.detach().square().mean(axes, keepdim=True) + least).rsqrt()
    return Swap.apply(out, input * scale if weight is None else input * scale * weight)


def _activation(func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """GELU and SiLU are x f(x), f(0) = 1/2."""
    before = input.clone()  # it may work in place
    with torch.no_grad():
        x = input.detach()
        out = func(x.clone(), *args, **kwargs)
        factor = torch.where(x == 0, 0.5, out / x)
    found = Swap.apply(out, before * factor)
    inplace = kwargs.get("inplace", False) or (args and args[0] is True)
    return input.copy_(found) if inplace else found


_RULES: dict[Callable[..., Any], tuple[str, Callable[..., Any]]] = {
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax), ("softmax", _softmax)),
    F.scaled_dot_product_attention: ("attention", _fused),
    F.multi_head_attention_forward: ("attention", _multihead),
    **dict.fromkeys((F.layer_norm, torch.layer_norm), ("layer norm", _layer_norm)),
    **dict.fromkeys((F.rms_norm, torch.rms_norm), ("RMS norm", _rms_norm)),
    F.gelu: ("GELU", _activation),
    F.silu: ("SiLU", _activation),
}
