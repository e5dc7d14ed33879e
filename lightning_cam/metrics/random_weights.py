"""A network with weights drawn anew, stage by stage from the head down; its own are not touched.

Inside `with_weights` other tensors stand in the places of a network's parameters, so that whatever
refers to its modules (a closure, a task, named layers) runs with them. The parameters themselves
are never written, and stand in their places again afterwards.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.guard import explaining
from lightning_cam.attribution.outputs import outputs_of
from lightning_cam.attribution.threads import held, process_wide

_drawing = threading.Lock()


class Stage(NamedTuple):
    """Part of a network.

    Attributes:
        name: a module's, or of several "first to last" in the order in which they run.
        weights: names of its parameters.
    """

    name: str
    weights: tuple[str, ...]


@runtime_checkable
class _Resets(Protocol):
    """A layer that knows how its weights begin."""

    def reset_parameters(self) -> None: ...


def stages(model: Explainable, clip: Tensor, most: int = 8) -> list[Stage]:
    """A network's stages from the last one that runs, the head, to the first, the stem.

    Modules are taken at the greatest depth at which there are no more than `most` of them; more
    children of the network itself are taken together.

    Args:
        model: the network.
        clip: `(B, C, T, H, W)`, run once to see the order.
        most: how many stages.
    """
    owners = _in_order(model, clip)
    deepest = max((name.count(".") + 1 for name, _ in owners), default=1)
    grouped = _at_depth(owners, 1)
    for depth in range(2, deepest + 1):
        finer = _at_depth(owners, depth)
        if len(finer) > most:
            break
        grouped = finer
    if len(grouped) > most:
        chunks = torch.arange(len(grouped)).tensor_split(most)
        grouped = [_together([grouped[i] for i in chunk.tolist()]) for chunk in chunks]
    return grouped[::-1]


def _in_order(model: Explainable, clip: Tensor) -> list[tuple[str, tuple[str, ...]]]:
    """Modules with weights of their own and the names of these, in the order of their first run.

    What is not run itself, but by another module, runs with the one before it.
    """
    runs: dict[nn.Module, int] = {}

    def note(module: nn.Module, _inputs: object) -> None:
        runs.setdefault(module, len(runs))

    named = list(model.module.named_modules())
    with explaining(model.module), torch.no_grad():
        handles = [module.register_forward_pre_hook(note) for _, module in named]
        try:
            outputs_of(model, clip.clone())
        finally:
            for handle in handles:
                handle.remove()
    seen, place, found = set(), 0, []
    for name, module in named:
        own = [leaf for leaf, p in module._parameters.items() if p is not None and p not in seen]
        seen |= {module._parameters[leaf] for leaf in own}
        place = runs.get(module, place)
        if own:
            prefix = f"{name}." if name else ""
            found.append((place, name, tuple(f"{prefix}{leaf}" for leaf in own)))
    return [(name, weights) for _, name, weights in sorted(found, key=lambda each: each[0])]


def _at_depth(owners: Sequence[tuple[str, tuple[str, ...]]], depth: int) -> list[Stage]:
    def top(owner: tuple[str, tuple[str, ...]]) -> str:
        return ".".join(owner[0].split(".")[:depth])

    return [
        Stage(name, tuple(weight for _, weights in group for weight in weights))
        for name, group in groupby(owners, top)
    ]


def _together(parts: Sequence[Stage]) -> Stage:
    first, last = parts[0].name, parts[-1].name
    name = first if len(parts) == 1 else f"{first} to {last}"
    return Stage(name, tuple(weight for part in parts for weight in part.weights))


def drawn(module: nn.Module, parts: Sequence[Stage], seed: int = 0) -> list[dict[str, Tensor]]:
    """Weights of each stage as they might have begun, name -> tensor.

    Layers draw as `reset_parameters` does; weights without it are normal, with their own mean and
    deviation. Norms get their weight and bias alone: with statistics of 0 and 1 in place of those
    of training, activations explode behind them, and any map would change.

    Args:
        module: the network.
        parts: of `stages`.
        seed: each stage has a generator of its own, so what it draws depends on no other.
    """
    found = []
    for number, part in enumerate(parts):
        # Layers draw by the global generator, which all threads share.
        with _drawing, process_wide([]), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + number)
            found.append(_begun(module, part))
    return found


def _begun(module: nn.Module, part: Stage) -> dict[str, Tensor]:
    """The weights of one stage, by the CPU's global generator, so that all devices draw alike."""
    begun: dict[str, Tensor] = {}
    for owner_name, names in groupby(part.weights, lambda name: name.rpartition(".")[0]):
        owner = module.get_submodule(owner_name)
        twin = copy.copy(owner)  # of the layer alone, with weights and statistics of its own
        twin.__dict__["_modules"] = {}
        twin.__dict__["_buffers"] = {name: _own(b) for name, b in owner._buffers.items()}
        twin.__dict__["_parameters"] = {
            name: None if p is None else nn.Parameter(_own(p), requires_grad=p.is_floating_point())
            for name, p in owner._parameters.items()
        }
        resets = isinstance(owner, _Resets) and not is_parametrized(owner)
        if isinstance(twin, _Resets) and resets:
            twin.reset_parameters()
        for name in names:
            leaf = name.rpartition(".")[2]
            old, new = owner._parameters[leaf], twin._parameters[leaf]
            assert old is not None and new is not None
            begun[name] = (new.detach() if resets else _alike(new.detach())).to(old)
    return begun


def _own(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().clone().cpu()


def _alike(weight: Tensor) -> Tensor:
    """Normal numbers of the same mean and deviation."""
    values = weight.double()
    spread = values.std(correction=0) if values.numel() > 1 else values.abs().mean()
    return values.mean() * (values.numel() > 1) + spread * torch.randn(values.shape).double()


@contextmanager
def with_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let other tensors stand in the places of a network's parameters, for this thread alone.

    Args:
        module: the network.
        weights: name of a parameter -> what stands in its place, wherever it is shared.
    """
    with held(module), _exchanged(module, weights):
        yield


@contextmanager
def _exchanged(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    named = dict(module.named_parameters())
    others = {
        id(named[name]): nn.Parameter(value, requires_grad=named[name].requires_grad)
        for name, value in weights.items()
    }
    places = [
        (owner, leaf, parameter)
        for owner in module.modules()
        for leaf, parameter in owner._parameters.items()
        if id(parameter) in others
    ]
    try:
        for owner, leaf, parameter in places:
            setattr(owner, leaf, others[id(parameter)])  # recurrent layers keep a list of theirs
        for owner in {owner for owner, _, _ in places if isinstance(owner, nn.RNNBase)}:
            owner.flatten_parameters()
        yield
    finally:
        for owner, leaf, parameter in places:
            setattr(owner, leaf, parameter)
