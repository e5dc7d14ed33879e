"""What a function of a transformer passes back in place of its gradient: rules as surrogates.

A rule returns PyTorch's own result, to the bit, with the gradient of another function (`Swap`).
Norms and activations have one rule; of attention there are two kinds, `STILL` and `SHARED`:

    STILL     weights are constants: nothing goes back through them
    SHARED    a product of two things that both depend on the clip gives half to each
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx
from torch.nn import functional as F

from lightning_cam.attribution.function_mode import FunctionMode
from lightning_cam.errors import UserError

Rule = Callable[..., Any]  # (func, *args, **kwargs) -> what func gives
Rules = Mapping[Callable[..., Any], tuple[str, Rule]]  # function -> what it is called, its rule


class Ruled(FunctionMode):
    """Inside it functions pass back what their rules say.

    Args:
        rules: of functions; all others pass the gradient.

    Attributes:
        met: how often each was called.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules
        self.met: dict[str, int] = {}

    def called(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if func not in self.rules:
            return func(*args, **kwargs)
        name, rule = self.rules[func]
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


def _still_softmax(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        return func(*args, **kwargs)


def _still_fused(
    func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> Any:
    return func(query.detach(), key.detach(), value, *args, **kwargs)


def _still_multihead(func: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return of_multihead(func, args, kwargs, lambda weights, v: (weights.detach(), v))[0]


def _shared_fused(func: Any, query: Tensor, key: Tensor, value: Tensor, *a: Any, **b: Any) -> Any:
    return func(_part(query, 1 / 4), _part(key, 1 / 4), _part(value, 1 / 2), *a, **b)


def _shared_multihead(func: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Of the weights' half, half goes to the queries and half to the keys, by the same gradient."""
    return of_multihead(
        func, args, kwargs, lambda weights, v: (_part(weights, 1 / 4), _part(v, 1 / 2))
    )[0]


def _shared_product(func: Any, *factors: Any, **kwargs: Any) -> Tensor:
    """A product, of matrices or by elements: what depends on the clip shares alike."""
    if func is torch.einsum and isinstance(factors[1], list | tuple):
        factors = (factors[0], *factors[1])
    count = sum(isinstance(x, Tensor) and x.requires_grad for x in factors)
    if count < 2:
        return func(*factors, **kwargs)
    return func(*(_part(x, 1 / count) for x in factors), **kwargs)


def _shared_inplace(func: Any, x: Tensor, y: Any) -> Tensor:
    """x *= y."""
    if not (x.requires_grad and isinstance(y, Tensor) and y.requires_grad):
        return func(x, y)
    return x.copy_(_shared_product(torch.mul, x, y))


def _part(x: Any, share: float) -> Any:
    """The same tensor, which passes back a share of its gradient; other things as they are."""
    if not isinstance(x, Tensor) or not x.requires_grad:
        return x
    return Swap.apply(x.detach(), x * share)


def of_multihead(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    passing: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda weights, v: (weights, v),
) -> tuple[tuple[Tensor, Tensor | None], Tensor]:
    """nn.MultiheadAttention: its values, weighted by what it says its weights are.

    Args:
        func: `F.multi_head_attention_forward`.
        args: what it is called with.
        kwargs: likewise.
        passing: what stands for weights and values, equal to them, where they meet.

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
    weights = func(*given.args, **given.kwargs)[1]
    dim, bias = a["embed_dim_to_check"], a["in_proj_bias"]
    weight = a["v_proj_weight"] if a["use_separate_proj_weight"] else a["in_proj_weight"][2 * dim :]
    v = F.linear(value, weight, None if bias is None else bias[2 * dim :])  # (S, [B,] D)
    v = v.unflatten(-1, (a["num_heads"], -1)).movedim(0, -2)  # ([B,] heads, S, d)
    met, v = passing(weights, v)
    mixed = (met @ v).movedim(-2, 0).flatten(-2)  # (L, [B,] D)
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


_PRODUCTS = (
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum),
    *(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply, Tensor.multiply),
)
_COMMON: Rules = {
    **dict.fromkeys((F.layer_norm, torch.layer_norm), ("layer norm", _layer_norm)),
    **dict.fromkeys((F.rms_norm, torch.rms_norm), ("RMS norm", _rms_norm)),
    F.gelu: ("GELU", _activation),
    F.silu: ("SiLU", _activation),
}
STILL: Rules = {
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax), ("softmax", _still_softmax)),
    F.scaled_dot_product_attention: ("attention", _still_fused),
    F.multi_head_attention_forward: ("attention", _still_multihead),
    **_COMMON,
}
SHARED: Rules = {
    F.scaled_dot_product_attention: ("attention", _shared_fused),
    F.multi_head_attention_forward: ("attention", _shared_multihead),
    **dict.fromkeys(_PRODUCTS, ("product", _shared_product)),
    **dict.fromkeys((Tensor.mul_, Tensor.__imul__), ("product", _shared_inplace)),
    **_COMMON,
}
