"""Threads: a network is explained by one at a time, and what all networks share is put back once.

A guard sets flags of modules, parameters and buffers, and hooks see whoever runs the network. So a
thread that explains holds all of them, and others wait that want to explain a network which has
any of them: the same one, a wrapper around it, one that shares a part or a weight. Networks that
share nothing are explained side by side.

Of a training step in another thread is noticed: a forward that starts meanwhile (it raises), and
weights that change meanwhile (explaining raises). Not noticed are weights that are written through
`.data`, a forward that had begun before, and a backward whose forward lies before: its gradients
are lost. A program that trains and explains one network in two threads takes turns: `held(network)`
around a training step.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_cam.errors import UserError

_turn = threading.Condition()
_holders: dict[int, int] = {}  # id of a module, parameter or buffer -> its thread, while held
_wanted: dict[int, Sequence[object]] = {}  # thread that waits -> what for
_entered: dict[str, tuple[int, ExitStack]] = {}  # of the process -> how often, and its way out


class Parts(NamedTuple):
    """What a network is made of, each once: found in one walk, which costs more than a hook."""

    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    buffers: list[tuple[nn.Module, str, Tensor]]  # with their owners and names there

    @classmethod
    def of(cls, module: nn.Module) -> Parts:
        """The parts of a network, itself among them."""
        modules = list(module.modules())
        parameters = {id(p): p for m in modules for p in m._parameters.values() if p is not None}
        buffers = [(m, name, b) for m in modules for name, b in m._buffers.items() if b is not None]
        return cls(modules, list(parameters.values()), buffers)

    def each(self) -> list[object]:
        """All of them."""
        return [*self.modules, *self.parameters, *(buffer for _, _, buffer in self.buffers)]


@contextmanager
def held(module: nn.Module) -> Iterator[Parts]:
    """Have a network to this thread alone; the same thread may hold it again.

    Nothing is kept on the module or about it afterwards.

    Yields:
        What it is made of, now that nobody else may change it.

    Raises:
        UserError: another thread waits for what this one holds, and holds what is asked for.

    Example:
        >>> with held(network):
        ...     loss(network(clip)).backward()
        ...     optimizer.step()
    """
    me = threading.get_ident()
    with _turn:
        parts = _wait(me, module)
        own = {id(part) for part in parts.each() if id(part) not in _holders}
        _holders.update(dict.fromkeys(own, me))
    try:
        yield parts
    finally:
        with _turn:
            for key in own:
                del _holders[key]
            _turn.notify_all()


def _wait(me: int, module: nn.Module) -> Parts:
    """Wait until nobody else holds any part of a network; return its parts as they are then."""
    try:
        while True:
            parts = Parts.of(module)
            _wanted[me] = parts.each()
            if (holder := _holder(me)) is None:
                return parts
            while holder is not None:  # who waits for whom
                holder = _holder(holder)
                if holder == me:
                    raise UserError(
                        "two threads explain, each within the other's explanation, and would wait "
                        "for ever; explain one network after the other"
                    )
            _turn.wait()
    finally:
        _wanted.pop(me, None)


def _holder(thread: int) -> int | None:
    """Another thread that holds what this one waits for; None where it need not wait."""
    wanted = (_holders.get(id(part), thread) for part in _wanted.get(thread, ()))
    return next((holder for holder in wanted if holder != thread), None)


def is_mine(thread: int) -> bool:
    """Whether a thread's own forward runs here: in it, or recomputed by its backward."""
    # CUDA's backward, and what checkpointing recomputes in it, runs in a thread of autograd.
    return threading.get_ident() == thread or in_backward()


def in_backward() -> bool:
    """Whether this runs within a backward, which recomputes what was checkpointed."""
    return torch._C._current_graph_task_id() != -1


@contextmanager
def undisturbed(module: nn.Module, parts: Parts) -> Iterator[None]:
    """Notice a training step of another thread while a held network is explained.

    Raises:
        UserError: weights changed meanwhile. In the other thread, where its forward starts in train
            mode or with gradients: it would run in eval mode, and without.
    """
    me = threading.get_ident()
    trains = any(part.training for part in parts.modules)
    trainable = any(p.requires_grad for p in parts.parameters)
    weights = [p for p in parts.parameters if not p.is_inference()]
    before = [p._version for p in weights]

    def refuse(called: nn.Module, _inputs: Any) -> None:
        if called is not module or is_mine(me):
            return
        if trains or (trainable and torch.is_grad_enabled()):
            raise UserError(
                f"{type(module).__name__} is being explained in another thread, so that it would "
                "run in eval mode and without gradients; take turns, with "
                "lightning_cam.attribution.threads.held(network) around the training step, or run "
                "it in eval mode under torch.no_grad()"
            )

    handle = module.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()
    if [p._version for p in weights] != before:
        raise UserError(
            f"weights of {type(module).__name__} changed while it was explained; let a training "
            "step in another thread take turns, with "
            "lightning_cam.attribution.threads.held(network) around it"
        )


@contextmanager
def process_wide(cards: list[int]) -> Iterator[None]:
    """What belongs to the process, not to a thread, while any network is explained.

    Compiled code runs eagerly, and the states of the global generators are put back, of the CPU and
    of `cards`. The first explanation sets them and the last one puts them back: each for itself
    would put back what another one had set.
    """
    wanted: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "cpu": lambda: _kept_state(torch.get_rng_state, torch.set_rng_state)
    }
    for card in cards:
        wanted[f"cuda:{card}"] = lambda card=card: _kept_state(  # type: ignore[misc]
            lambda: torch.cuda.get_rng_state(card),
            lambda state: torch.cuda.set_rng_state(state, card),
        )
    if "torch._dynamo" in sys.modules:  # nothing is compiled where it was never imported
        wanted["compiler"] = lambda: torch.compiler.set_stance("force_eager")
    with ExitStack() as mine:
        for name, make in wanted.items():
            mine.enter_context(_entered_once(name, make))
        yield


@contextmanager
def _entered_once(name: str, make: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """A context that the first one in enters and the last one out leaves."""
    with _turn:
        count, way_out = _entered.get(name, (0, ExitStack()))
        if not count:
            way_out.enter_context(make())
        _entered[name] = count + 1, way_out
    try:
        yield
    finally:
        with _turn:
            count, way_out = _entered.pop(name)
            if count > 1:
                _entered[name] = count - 1, way_out
            else:
                way_out.close()


@contextmanager
def _kept_state(get: Callable[[], Tensor], put: Callable[[Tensor], None]) -> Iterator[None]:
    state = get()
    try:
        yield
    finally:
        put(state)
