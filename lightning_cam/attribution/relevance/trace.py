"""One run of a network on whose graph two gradients can be taken: the plain one, and the rules'."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, Function

from lightning_cam.attribution.relevance.rules import Rules
from lightning_cam.errors import UserError

# Nodes of a graph that move all they get, as autograd names them.
_VIEWS = frozenset(
    {"View", "UnsafeView", "ReshapeAlias", "Alias", "Unsqueeze", "Squeeze", "Expand", "Transpose"}
    | {"Permute", "T", "Slice", "Select", "Unbind", "Split", "SplitWithSizes", "Clone", "ToCopy"}
    | {"Repeat"}
)
_SWITCH, _LAYER, _LEAF = "_SwitchBackward", "_LayerBackward", "torch::autograd::AccumulateGrad"
# Nodes that are within a layer with weights, or should be.
_UNSEEN = (
    "Convolution",
    "Addmm",
    "NativeBatchNorm",
    "CudnnBatchNorm",
    "NativeLayerNorm",
    "torch::jit",
)


class Trace:
    """What a run says of itself.

    Attributes:
        rules: the method's.
        clip: whether the graph starts at the clip, rather than at a layer.
        active: whether gradients are the rules'.
        inside: how many layers with weights the run is in, one within the other.
        folded: parameters that layers have while rules are active, in place of their own.
        norms: each call of a batch norm: itself, and the layer whose output it got; None: another.
    """

    def __init__(self, rules: Rules, clip: bool) -> None:
        self.rules = rules
        self.clip = clip
        self.active = False
        self.inside = 0
        self.folded: dict[nn.Module, dict[str, nn.Parameter]] = {}
        self.norms: list[tuple[nn.Module, nn.Module | None]] = []

    def switch(self, plain: Tensor, ruled: Tensor) -> Tensor:
        """A tensor with the value of `plain`, and the gradient of `ruled` when rules are active."""
        return _Switch.apply(self, plain, ruled)

    def start(self, x: Tensor) -> Tensor:
        """The tensor itself, at which what is passed down may start."""
        return _Layer.apply(self, None, x, x)

    def layer(self, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """The output of a layer with weights, with its rule."""
        if module._parameters.get("weight") is None:
            self.refuse(f"{type(module).__name__} whose weights are computed", output)
            return output
        return _Layer.apply(self, module, x, output)

    def norm(self, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """The output of a batch norm, which is passed over: its layer takes it in."""
        node = source(x)
        if not _is_leaf(node):
            self.norms.append((module, node.module if node.name() == _LAYER else None))
        return self.switch(output, x)

    def refuse(self, name: str, output: Any) -> None:
        """Nothing may be passed through this output."""

        def refuse(gradient: Tensor | None) -> None:
            if self.active and gradient is not None:
                raise UserError(self.refusal(name))

        for tensor in tensors(output):
            if tensor.requires_grad:
                tensor.register_hook(refuse)

    def refusal(self, name: str) -> str:
        """What to say of something without a rule."""
        return (
            f"{self.rules.title} has no rule for {name}, and a plain gradient in its place would "
            "be another method; give it a layer behind that (layer=NAME), or take "
            "explain=integrated_gradients, which works in all networks"
        )

    def relevance(self, module: nn.Module | None, x: Tensor, gradient: Tensor) -> Tensor:
        """What a layer's input gets of what its output got, by zennit's rule."""
        if module is None:
            return gradient
        pixels = self.clip and _is_leaf(source(x))
        x = x.detach()
        rule: Any = self.rules.layer(module, x, pixels)
        rule.stored_tensors["input"] = (x,)
        twin = _twin(module, self.folded.get(module, {}))
        return rule.backward(twin, (x,), (gradient,))[0]


class _Switch(Function):
    @staticmethod
    def forward(ctx: Any, trace: Trace, plain: Tensor, ruled: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.trace = trace
        return plain.detach()  # not a view, which could not be changed in place

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        active = ctx.trace.active
        return None, None if active else gradient, gradient if active else None


class _Layer(Function):
    @staticmethod
    def forward(
        ctx: Any, trace: Trace, module: nn.Module | None, x: Tensor, plain: Tensor
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.trace, ctx.module = trace, module
        ctx.save_for_backward(x)
        return plain.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None or not ctx.trace.active:
            return None, None, None, gradient
        (x,) = ctx.saved_tensors
        return None, None, ctx.trace.relevance(ctx.module, x, gradient), None


def starts(score: Tensor) -> list[Any]:
    """Nodes of the graph: the last layers with weights that a score is computed of.

    What gates them is a constant, so it is not followed.
    """
    below = _below([score.grad_fn], ends=lambda node: node.name() == _LAYER)
    return [node for node in below if node.name() == _LAYER]


def check(trace: Trace, nodes: Iterable[Any]) -> None:
    """Raises UserError for what rules would pass through unseen, such as scripted layers."""
    for node in _below(node.next_functions[0][0] for node in nodes):
        name = node.name()
        own = isinstance(node, BackwardCFunction) and name not in (_LAYER, _SWITCH)
        if own or name.startswith(_UNSEEN):
            raise UserError(trace.refusal(name.partition("Backward")[0]))


def _below(nodes: Iterable[Any], ends: Callable[[Any], bool] = lambda node: False) -> Iterator[Any]:
    """Nodes of a graph, and those that the rules reach from them; not beyond where it ends."""
    seen, todo = set(), list(nodes)
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if ends(node):
            continue
        following = [below for below, _ in node.next_functions]
        if node.name() == _SWITCH:
            following = following[1:]  # the rule's
        elif node.name() == _LAYER:
            following = following[:1]  # what it sees
        todo += following


def source(x: Tensor) -> Any:
    """The node of the graph that made a tensor, before it was reshaped, cut or copied."""
    node = x.grad_fn
    while node is not None:
        if node.name() != _SWITCH and node.name().partition("Backward")[0] not in _VIEWS:
            break
        node = node.next_functions[0][0]
    return node


def _is_leaf(node: Any) -> bool:
    return node is None or node.name() == _LEAF


def fold(trace: Trace) -> int:
    """Let layers compute what they and the batch norm behind them do together.

    Where one layer and one batch norm belong to each other; its running statistics make it linear.

    Returns:
        How many batch norms belong to no layer; they are passed over as they are.
    """
    pairs = dict(trace.norms)
    for norm, layer in pairs.items():
        if (
            layer is not None
            and _can_be_folded(norm, layer)
            and sum(other is layer for other in pairs.values()) == 1
            and all(with_ is layer for of, with_ in trace.norms if of is norm)
        ):
            trace.folded[layer] = _folded(norm, layer)
    return len(pairs) - len(trace.folded)


_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def _can_be_folded(norm: nn.Module, layer: nn.Module) -> bool:
    """Whether its running statistics are used, and channels are one axis of the weights."""
    grouped = isinstance(layer, _Transposed) and layer.groups > 1
    return norm._buffers.get("running_var") is not None and not grouped


def _folded(norm: Any, layer: Any) -> dict[str, nn.Parameter]:
    """The parameters of the layer that does what both do."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    weight = layer.weight
    shape = (1, -1) if isinstance(layer, _Transposed) else (-1,)
    shape += (1,) * (weight.ndim - len(shape))
    bias = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias
    both = {"weight": weight * scale.view(shape), "bias": bias}
    return {name: nn.Parameter(x.to(weight.dtype), False) for name, x in both.items()}


def _twin(module: nn.Module, parameters: Mapping[str, nn.Parameter | None]) -> nn.Module:
    """The same layer with parameters of its own, which rules may set: others may run the layer."""
    twin = copy.copy(module)
    twin.__dict__["_parameters"] = {**module._parameters, **parameters}
    twin.__dict__.pop("forward", None)  # of the module itself
    return twin


def tensors(output: Any) -> Iterator[Tensor]:
    """All tensors in what a module is given, or returns."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from tensors(part)
