"""The run-time side of explaining: a network is watched, and left exactly as it was found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cam.attribution.threads import (
    Parts,
    held,
    in_backward,
    is_mine,
    process_wide,
    undisturbed,
)
from lightning_cam.errors import UnknownNameError, UserError

SCRIPTED = (
    "the layer was scripted or traced, and cannot be watched any more; explain the network as it "
    "was before, or take explain=occlusion, which needs no layer"
)


@contextmanager
def capture(
    module: nn.Module, *, leaf: bool = False, alone: bool = False
) -> Iterator[list[Tensor]]:
    """Collect every output of a module, in call order.

    Args:
        module: the module to watch.
        leaf: cut the graph here, so that nothing before the module is recorded and the cost of a
            gradient is the tail's backward alone. An output that already carries a graph (a layer
            whose later calls depend on earlier ones) stays on it.
        alone: refuse a tuple or list, for what is captured is to be `replaced`.

    Of a tuple or list it is the first tensor. The hook hands on a clone: an in-place ReLU behind
    the layer would otherwise overwrite what was captured. It does not see what other threads run.
    Within `explaining` it stays for what a checkpoint recomputes in the backward, which has to go
    as the forward went.
    """
    calls: list[Tensor] = []
    thread = threading.get_ident()
    kept_in: list[Tensor] | None = calls  # None when the capture is over, so that nothing is held

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not is_mine(thread) or (kept_in is None and not in_backward()):
            return output
        first = first_tensor(output)
        if first is None or (alone and first is not output):
            raise UserError(
                f"layer of type {type(_module).__name__} returns {type(output).__name__}, not one "
                "tensor; choose a layer that returns a tensor"
            )
        with torch.inference_mode(False), torch.set_grad_enabled(leaf or torch.is_grad_enabled()):
            if leaf and not first.requires_grad:  # also of a part that is run without a graph
                kept = first.clone() if first.is_inference() else first.detach()
                kept.requires_grad_()
            else:
                kept = first
            if kept_in is not None:
                kept_in.append(kept)
            passed = kept.clone()
        if first is output:
            return passed
        parts = [passed if part is first else part for part in output]
        return output._make(parts) if hasattr(output, "_fields") else type(output)(parts)

    try:
        handle = module.register_forward_hook(hook)
    except RuntimeError as error:  # of ScriptModules
        raise UserError(SCRIPTED) from error
    try:
        yield calls
    finally:
        kept_in = None
        _outlive(thread, handle.remove)


# Of each thread that explains, what its guards do at their end.
_at_end: dict[int, list[Callable[[], None]]] = {}


def _outlive(thread: int, undo: Callable[[], None]) -> None:
    """Call it at the end of the thread's guard; now where there is none."""
    if thread in _at_end:
        _at_end[thread].append(undo)
    else:
        undo()


@contextmanager
def _undone_at_end() -> Iterator[None]:
    thread = threading.get_ident()
    outer = _at_end.get(thread)
    _at_end[thread] = []
    try:
        yield
    finally:
        undo = _at_end.pop(thread)
        if outer is not None:
            _at_end[thread] = outer
        for each in undo:
            each()


def first_tensor(output: object) -> Tensor | None:
    """What a module returns, or the first tensor of a tuple or list; None: there is none."""
    if isinstance(output, tuple | list):
        return next((part for part in output if isinstance(part, Tensor)), None)
    return output if isinstance(output, Tensor) else None


@contextmanager
def replaced(module: nn.Module, outputs: Iterable[Tensor]) -> Iterator[None]:
    """Let a module return given tensors, one a call, without computing anything.

    Layers behind it may work in place on them. In other threads it computes as ever.
    """
    queue, thread = iter(outputs), threading.get_ident()
    own, computes = module.__dict__.get("forward"), module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return next(queue) if is_mine(thread) else computes(*args, **kwargs)

    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


@contextmanager
def explaining(module: nn.Module) -> Iterator[None]:
    """The guard: inside it a network can be explained, after it nothing has changed.

    - The network is `held`: other threads that want to explain it, or a part of it, wait.
    - Lightning validates under `no_grad` and tests under `inference_mode`: both are left.
    - Autocast is off and compiled code runs eagerly, or hooks and gradients would miss.
    - Every submodule is in eval mode, except recurrent ones: cuDNN refuses their backward in eval
      mode (pytorch #15788), so they train with dropout 0, which computes the same.
    - Parameters do not require gradients, so only the part behind the target layer is recorded.
    - RNG states and buffers are put back should the network touch them.

    Raises:
        UserError: another thread trained the network meanwhile, as far as that can be noticed.
    """
    with held(module) as parts, undisturbed(module, parts), _settled(parts), _undone_at_end():
        yield


@contextmanager
def _settled(parts: Parts) -> Iterator[None]:
    """A held network's state, and that of PyTorch, as explaining needs them."""
    training = [(m, m.training) for m in parts.modules]
    recurrent = [(m, m.dropout) for m in parts.modules if isinstance(m, nn.RNNBase)]
    trainable = [p for p in parts.parameters if p.requires_grad]
    buffers = [(*named, named[2].detach().clone()) for named in parts.buffers]
    devices = {p.device for p in parts.parameters} - {torch.device("meta")}
    cards = [d.index for d in devices if d.type == "cuda" and d.index is not None]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(process_wide(cards))
        for device in sorted({d.type for d in devices} | {"cpu"}):
            stack.enter_context(torch.autocast(device, enabled=False))
        try:
            for submodule in parts.modules:
                submodule.training = False
            for rnn, _ in recurrent:
                rnn.training, rnn.dropout = True, 0.0
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for rnn, dropout in recurrent:
                rnn.dropout = dropout
            for submodule, mode in training:
                submodule.training = mode
            for owner, name, buffer, saved in buffers:
                owner._buffers[name] = buffer  # the network may have put another one there
                # .data: a graph that waits for its backward must not see a version bump.
                if not torch.equal(buffer, saved):
                    buffer.data.copy_(saved)


def unwrap(module: nn.Module) -> nn.Module:
    """The network itself inside DDP, DataParallel and `torch.compile` wrappers."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = module.module if isinstance(module, wrappers) else module
        inner = getattr(inner, "_orig_mod", inner)
        if inner is module:
            return module
        module = inner


def find_module(module: nn.Module, name: str) -> nn.Module:
    """A submodule by dotted name, which may be typed as a number; parts compiled on their own
    keep their plain names.

    Raises:
        UnknownNameError: with the nearest names.
    """
    names = {n.replace("_orig_mod.", ""): m for n, m in module.named_modules() if n}
    if (name := str(name)) not in names:
        raise UnknownNameError("layer", name, names)
    return unwrap(names[name])


def model_input(module: nn.Module, clip: Tensor) -> Tensor:
    """A copy of the clip as the network can take it and gradients can pass through it.

    Of its own: a network or a method that works in place leaves the caller's clip as it was. Nor
    could tensors born in inference mode be differentiated.
    """
    return clip.detach().to(compute_dtype(module, clip), copy=True)


def compute_dtype(module: nn.Module, clip: Tensor) -> torch.dtype:
    """The precision of the weights, of the clip where there are none: weights held in another
    precision ("bf16-true") take clips of that precision.
    """
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), clip.dtype)
