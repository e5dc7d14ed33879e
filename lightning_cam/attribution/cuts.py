"""Where the way back from a network's outputs ends, for methods that need gradients.

Without one every gradient would be 0, and so would the map: a finding that nothing matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils.checkpoint import CheckpointError

from lightning_cam.attribution.tensors import NoGradientError
from lightning_cam.errors import UserError

_COMMON = (
    "no_grad, detach, inference_mode, a re-entrant checkpoint, a rounding, or what nothing uses"
)
_RECOMPUTED = "activation checkpointing"
_REENTRANT = "torch.utils.checkpoint is incompatible with .grad()"  # as PyTorch says it


@contextmanager
def naming_cuts(
    title: str, network: nn.Module, layer: str, again: Callable[[], object]
) -> Iterator[None]:
    """Turn `NoGradientError` into an error that names where the gradient is lost, and those of
    activation checkpointing into one that names the remedy.

    Args:
        title: of the method.
        network: what is explained.
        layer: where the graph starts, "" at the clip.
        again: runs it once more, with such a graph.
    """
    try:
        yield
    except NoGradientError as error:
        raise UserError(
            f"{title} needs gradients, and none come back from {type(network).__name__}: "
            f"{_found(network, layer, again)}; take a layer behind that, or explain=occlusion, "
            "which needs none"
        ) from error
    except CheckpointError as error:
        raise _recomputed(title, network) from error
    except RuntimeError as error:
        if _REENTRANT not in str(error):
            raise
        raise UserError(
            f"{title} needs gradients, which do not come through re-entrant checkpoints of "
            f"{type(network).__name__}; call torch.utils.checkpoint.checkpoint(block, x, "
            "use_reentrant=False) in it, or take explain=occlusion, which needs none"
        ) from error


@contextmanager
def no_checkpoints(title: str, network: nn.Module) -> Iterator[None]:
    """Refuse a forward that is recomputed in the backward, where rules of a method do not hold.

    The gradient would be another one, without a word.
    """
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(_RECOMPUTED):
            yield
    except RuntimeError as error:
        if _RECOMPUTED not in str(error):
            raise
        raise _recomputed(title, network) from error


def no_scripts(title: str, network: nn.Module) -> None:
    """Raise a UserError where rules of a method cannot reach a part: the map would be another one,
    without a word.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise UserError(
            f"{title} has no rule for what torch.jit.script has made, into which it cannot see; "
            "explain the network as it was before, or take explain=integrated_gradients"
        )


def _recomputed(title: str, network: nn.Module) -> UserError:
    return UserError(
        f"{title} cannot follow what {type(network).__name__} computes once more in the backward "
        "(activation checkpointing); switch that off while explaining, as "
        "network.set_grad_checkpointing(False) does for timm's, or take explain=gradcam"
    )


def _found(network: nn.Module, layer: str, again: Callable[[], object]) -> str:
    """The first module with a gradient going in and none coming out, or the gap before it."""
    last = [""]  # that had one
    lost: list[tuple[str, str, bool, str]] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            out = _tensors(output)
            inside = any(x.requires_grad for x in _tensors((args, kwargs)))
            quantised = "quantized" in type(module).__module__
            if (name and name == layer) or (
                any(x.requires_grad for x in out) and not (inside and quantised)
            ):
                last[0] = name
            elif (inside or last[0]) and any(x.is_floating_point() for x in out):
                reason = "it is quantised" if quantised else _COMMON
                reason = "inference_mode" if any(x.is_inference() for x in out) else reason
                lost.append((name, last[0], inside, reason))

        return hook

    named = [(name.replace("_orig_mod.", ""), part) for name, part in network.named_modules()]
    handles = [
        module.register_forward_hook(watch(name), with_kwargs=True) for name, module in named
    ]
    try:
        again()
    finally:
        for handle in handles:
            handle.remove()
    if not lost:
        return f"they end on the way ({_COMMON})"
    name, before, inside, reason = lost[0]
    if not name:
        return f"they end behind {before!r} ({reason})"
    place = f"in {name!r}" if inside else f"between {before!r} and {name!r}"
    return f"they end {place} ({reason})"


def _tensors(value: object) -> list[Tensor]:
    return [x for x in _pytree.tree_leaves(value) if isinstance(x, Tensor)]
