"""Rules for what a network calls outside of its layers with weights.

zennit has rules for modules. Networks add, average, reshape and gate by functions: the two branches
of a residual block meet in a plain `+`, which as a gradient hands everything to both, so that from
block to block it doubles. Here every function has a rule, of whatever library the block is, or is
refused when something is to be passed through it. They are caught where PyTorch is called, so that
the network is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cam.attribution.function_mode import FunctionMode
from lightning_cam.attribution.relevance.rules import Part, Rules, Term, added, linear
from lightning_cam.attribution.relevance.trace import Trace, source


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions that move numbers, or choose some: what reaches one goes where it came from. Names are
# those of torch, Tensor and torch.nn.functional without underscores.
_MOVES = _names(
    """
    get getitem setitem view view_as reshape reshape_as flatten unflatten ravel transpose swapaxes
    permute movedim moveaxis t squeeze unsqueeze expand expand_as broadcast_to repeat tile
    repeat_interleave cat concat concatenate stack split split_with_sizes chunk unbind tensor_split
    narrow select index_select gather take_along_dim masked_fill masked_select where pad roll flip
    unfold clone contiguous to type type_as float double half bfloat16 cpu cuda detach requires_grad
    register_hook retain_grad copy index_put constant_pad_nd
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
    relu clamp clip clamp_min clamp_max max amax maximum
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices
    adaptive_max_pool3d_with_indices
    """
)
_GATES = ("Softmax", "Sigmoid", "Hardsigmoid")
_INPLACE = ("__iadd__", "__isub__", "__imul__", "__itruediv__")


class Functions(FunctionMode):
    """Inside it every function outside of the layers with weights has its rule."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def called(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        name = func.__name__.strip("_")
        if self.trace.inside or name in _MOVES:
            return func(*args, **kwargs)
        rule = _RULES.get(name)
        if rule is None or not any(map(_has_graph, args[:2])):
            out = func(*args, **kwargs)
            self.trace.refuse(name, out)
            return out
        return self._ruled(func, rule, args, kwargs)

    def _ruled(
        self,
        func: Callable[..., Any],
        rule: Callable[..., Tensor | None],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        known = func.__name__
        inplace = known in _INPLACE or known[-1] == "_" != known[0]
        if rule is _passed:  # tanh_(x), or elu(x, 1.0, True)
            inplace = inplace or kwargs.get("inplace") is True or args[-1] is True
        out = func(*((args[0].clone(), *args[1:]) if inplace else args), **kwargs)
        if not _has_graph(out):
            return args[0].copy_(out) if inplace else out
        ruled = rule(self.trace.rules, func, out, args, kwargs)
        if ruled is None:
            self.trace.refuse(known.strip("_"), out)
        else:
            out = self.trace.switch(out, ruled)
        return args[0].copy_(out) if inplace else out


def _has_graph(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _is_gate(x: Tensor) -> bool:
    """Whether a tensor is of numbers from 0 to 1 that weigh others, which are constants then."""
    node = source(x)
    return node is not None and node.name().startswith(_GATES)


def _passed(rules: Rules, func: Any, out: Tensor, args: Sequence[Any], kwargs: Any) -> Tensor:
    """Each number by itself: all of it is passed on."""
    return args[0]


def _sum(rules: Rules, func: Any, out: Tensor, args: Sequence[Any], kwargs: Any) -> Tensor:
    """x + y and x - y."""
    x, y = args[:2]
    if not (_has_graph(x) and _has_graph(y)):  # nothing is said of a constant
        return (x if _has_graph(x) else y).expand_as(out)
    times = kwargs.get("alpha", 1) * (-1 if func.__name__.strip("_") in ("sub", "isub") else 1)
    terms = [Term.of(x), Term(times * y.detach(), y)]
    return added(rules.signed, out, terms)


def _product(
    rules: Rules, func: Any, out: Tensor, args: Sequence[Any], kwargs: Any
) -> Tensor | None:
    """x * y and x / y of which one is a constant, or a gate; what is multiplied by 0 gets 0."""
    x, y = args[:2]
    if not _has_graph(y) or (_has_graph(x) and _is_gate(y)):
        return x.expand_as(out) * (torch.as_tensor(y, device=x.device).detach() != 0)
    if "div" in func.__name__ or (_has_graph(x) and not _is_gate(x)):
        return None
    return y.expand_as(out) * (torch.as_tensor(x, device=y.device).detach() != 0)


def _average(rules: Rules, func: Any, out: Tensor, args: Sequence[Any], kwargs: Any) -> Tensor:
    """A linear function without weights below 0."""
    return linear(
        rules.signed, out, [Part(Term.of(args[0]), lambda x: func(x, *args[1:], **kwargs))]
    )


def _matrix(
    rules: Rules, func: Any, out: Tensor, args: Sequence[Any], kwargs: Any
) -> Tensor | None:
    """A product of matrices of which one is a constant, or a gate."""
    x, y = args[:2]
    if _has_graph(x) and (not _has_graph(y) or _is_gate(y)):
        y = y.detach()
        parts = [Part(Term.of(x), *(lambda v, w=w: func(v, w) for w in _sides(y)))]
    elif not _has_graph(x) or _is_gate(x):
        x = x.detach()
        parts = [Part(Term.of(y), *(lambda v, w=w: func(w, v) for w in _sides(x)))]
    else:
        return None
    return linear(rules.signed, out, parts)


def _sides(weights: Tensor) -> Iterator[Tensor]:
    yield weights.clamp(min=0)
    yield (-weights).clamp(min=0)


_RULES: dict[str, Callable[..., Tensor | None]] = {
    **dict.fromkeys(("add", "radd", "iadd", "sub", "rsub", "isub"), _sum),
    **dict.fromkeys(
        ("mul", "multiply", "rmul", "imul", "div", "divide", "truediv", "itruediv"), _product
    ),
    **dict.fromkeys(("mean", "sum", "interpolate", "upsample"), _average),
    **{f"{kind}avg_pool{n}d": _average for kind in ("", "adaptive_") for n in (1, 2, 3)},
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "rmatmul"), _matrix),
    **dict.fromkeys(
        _names("""
        relu6 leaky_relu prelu elu selu celu gelu silu mish softplus softsign tanh sigmoid
        hardtanh hardswish hardsigmoid softmax neg negative positive abs square sqrt pow exp log
        """),
        _passed,
    ),
}
