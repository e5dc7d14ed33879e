"""A network run with rules, and what its score rests on by them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cam.attribution.cuts import no_checkpoints, no_scripts
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.gradcam import map_calls
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.relevance.functions import Functions
from lightning_cam.attribution.relevance.recurrent import of_cell, of_layers
from lightning_cam.attribution.relevance.rules import Rules
from lightning_cam.attribution.relevance.trace import Trace, check, fold, starts, tensors
from lightning_cam.attribution.tensors import NoGradientError
from lightning_cam.attribution.threads import is_mine
from lightning_cam.errors import UserError

_Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_Weighted = (
    nn.Linear
    | nn.Conv1d
    | nn.Conv2d
    | nn.Conv3d
    | nn.ConvTranspose1d
    | nn.ConvTranspose2d
    | nn.ConvTranspose3d
)
_Cell = nn.LSTMCell | nn.GRUCell | nn.RNNCell


def run_with_rules(model: Explainable, rules: Rules, clip: Tensor, layer: str | None) -> Forward:
    """A run on whose graph the rules can be applied.

    Args:
        model: what to look into.
        rules: of the method.
        clip: `(B, C, T, H, W)`.
        layer: where the graph is to start; None: at the clip.

    Raises:
        UserError: a part of the network is scripted.

    Returns:
        The outputs, and what the graph starts at: as "clip", or as "layer" the `map_calls`.
    """
    no_scripts(rules.title, model.module)
    trace = Trace(rules, clip=layer is None)
    with ExitStack() as stack:
        stack.enter_context(no_checkpoints(rules.title, model.module))
        if layer is None:
            captured = {"clip": [clip.detach().requires_grad_()]}
        else:
            name, module = model.layer(layer)
            calls = stack.enter_context(capture(module, leaf=True))
        stack.enter_context(_watched(model.module, trace))
        stack.enter_context(Functions(trace))
        outputs = model.forward(clip if layer is not None else captured["clip"][0])
    if layer is not None:
        model.notes.update(layer=name)
        captured = {"layer": map_calls(model, name, calls, clip)}
    return Forward(outputs, captured)


def relevance(
    model: Explainable,
    forward: Forward,
    score: Tensor,
    start: Callable[[list[Tensor]], list[Tensor]],
) -> list[Tensor]:
    """What each number that the graph starts at gets.

    The score is a linear function of the inputs of its last layers with weights, or is taken as
    one: each of these inputs starts with its part in it, input times gradient.

    Args:
        model: gets a note of batch norms that are passed over.
        forward: a run with rules.
        score: `(B,)`, of the outputs.
        start: what is passed down instead of the parts, of the same shapes; the first axis is the
            clips', B or B*t of them.

    Raises:
        UserError: something on the way has no rule.
    """
    leaves = next(iter(forward.captured.values()))
    nodes = starts(score)
    if not nodes:
        raise UserError(
            f"what {type(model.module).__name__} returns comes from no layer with weights behind "
            "what is explained, so there is nothing to start from; take a layer before its last "
            "ones, or explain=integrated_gradients"
        )
    inputs = [node.saved_tensors[0] for node in nodes]
    trace = nodes[0].trace
    gradients = torch.autograd.grad(score.sum(), inputs, retain_graph=True)
    parts = [(x * g).detach() for x, g in zip(inputs, gradients, strict=True)]
    passed = fold(trace)
    trace.active = True
    found = torch.autograd.grad(inputs, leaves, start(parts), allow_unused=True)
    check(trace, nodes)
    if all(g is None for g in found):
        raise NoGradientError
    if passed:
        model.notes.update(norms=f"{passed} batch norm{'s' * (passed > 1)} passed over")
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


@contextmanager
def _watched(network: nn.Module, trace: Trace) -> Iterator[None]:
    """Layers with weights have their rules, in this thread."""
    thread = threading.get_ident()
    handles = []

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_mine(thread):
            return None
        trace.inside += 1
        if not args and "input" in kwargs:
            args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
        if args and isinstance(args[0], Tensor) and args[0].requires_grad:
            # A node of its own: of what else the tensor is used for, its gradient has nothing.
            args = (args[0].view_as(args[0]), *args[1:])
        return args, kwargs

    def after(
        module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> Any:
        if not is_mine(thread):
            return None
        try:
            return _with_rule(trace, module, args, kwargs, output) if trace.inside == 1 else None
        finally:
            trace.inside -= 1

    kinds = (*_Weighted.__args__, *_Norm.__args__, *_Cell.__args__, nn.RNNBase)
    try:
        for module in network.modules():
            if isinstance(module, kinds):
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(module.register_forward_hook(after, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_rule(
    trace: Trace, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
) -> Any:
    """A module's output with its rule."""
    x = args[0] if args else None
    given = args[1] if len(args) > 1 else kwargs.get("hx")
    if not any(tensor.requires_grad for tensor in tensors((x, given))):
        return output  # the graph starts behind it
    if isinstance(module, nn.RNNBase | _Cell):
        return _with_states(
            trace, module, x, args[1] if len(args) > 1 else kwargs.get("hx"), output
        )
    if isinstance(output, Tensor) and isinstance(x, Tensor):
        if isinstance(module, _Norm):
            return trace.norm(module, x, output)
        return trace.layer(module, x, output)
    trace.refuse(type(module).__name__, output)
    return output


def _with_states(trace: Trace, module: nn.Module, x: Any, given: Any, output: Any) -> Any:
    """The outputs and states of a recurrent layer, from which relevance may start as well."""
    ruled = None
    if isinstance(x, Tensor):
        rule: Any = of_layers if isinstance(module, nn.RNNBase) else of_cell
        ruled = rule(trace.rules.signed, module, x, given)
    if ruled is None:
        trace.refuse(f"such a {type(module).__name__}", output)
        return output

    def switched(plain: Tensor, ruled: Tensor) -> Tensor:
        return trace.start(trace.switch(plain, ruled)) if plain.requires_grad else plain

    if isinstance(output, Tensor):
        return switched(output, ruled[0])
    first, *states = ruled
    if isinstance(module, nn.LSTMCell):
        return switched(output[0], first), switched(output[1], states[0])
    out, last = output
    if not isinstance(last, tuple):
        return switched(out, first), switched(last, states[0])
    return switched(out, first), tuple(map(switched, last, states))
