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
    """Further inputs for n*B rows; what the network changes in place are copies."""
    found = dict(inputs)
    for name, given in inputs.items():
        if not isinstance(given, Tensor) or not given.ndim:
            continue
        if len(given) != batch:
            raise ArgumentError(
                f"input {name!r} is of {len(given)} clips {tuple(given.shape)}, the batch of "
                f"{batch}; give a row for each clip, and what is the same for all of them within "
                "Explainable.of(network, layers, forward=...)"
            )
        found[name] = given.detach().repeat(rows // batch, *[1] * (given.ndim - 1))
    return found
