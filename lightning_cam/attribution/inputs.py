"""What a network's forward takes beside the clip."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lightning_cam.errors import ArgumentError, UnknownNameError


def taken(inputs: Mapping[str, Any], forward: Callable[..., Any]) -> dict[str, Any]:
    """Inputs of a forward beside its first, the clip.

    Raises:
        UnknownNameError: it takes no input of a name.
    """
    if not inputs:
        return {}
    given = list(inspect.signature(forward).parameters.values())
    known = [p.name for p in given[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in given):
        for name in inputs:
            if name not in known:
                raise UnknownNameError("input of the network", name, known)
    return dict(inputs)


def repeated(inputs: Mapping[str, Any], rows: int, batch: int) -> dict[str, Any]:
    """Further inputs for n*B rows; what the network changes in place are copies.

    As in batches, a tensor has a row and a list an item for each clip, also within a dict.
    """
    return {name: _repeated(name, given, rows // batch, batch) for name, given in inputs.items()}


def _repeated(name: str, given: Any, copies: int, batch: int) -> Any:
    if type(given) is dict:
        return {key: _repeated(f"{name}.{key}", of, copies, batch) for key, of in given.items()}
    if not (isinstance(given, Tensor) and given.ndim) and type(given) is not list:
        return given
    if len(given) != batch:
        size = f" {tuple(given.shape)}" if isinstance(given, Tensor) else ", a list"
        raise ArgumentError(
            f"input {name!r} is of {len(given)} clips{size}, the batch of {batch}; give a row or "
            "item for each clip, and what is the same for all of them as a tuple, or within "
            "Explainable.of(network, layers, forward=...)"
        )
    if isinstance(given, Tensor):
        return given.detach().repeat(copies, *[1] * (given.ndim - 1))
    return [part.detach().clone() if isinstance(part, Tensor) else part for part in given * copies]
