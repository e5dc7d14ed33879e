"""What a network is given beside the clip, and which of the tensors it returns are the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_cam.attribution.columns import Head, columns_named
from lightning_cam.attribution.outputs import inside, joined, kind_of, unwrapped
from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import Batch

Outputs = str | int | Mapping[str, Sequence[str]]


def inputs_of(asked: Mapping[str, Any], batch: Mapping[str, Any] | Batch) -> dict[str, Any]:
    """What a network's forward takes beside the clip, by name.

    Args:
        asked: argument -> a key of batches, or what is the same for all clips, such as a number.
        batch: "lengths" of clips are counted from "valid" where it has none.

    Raises:
        ConfigError: the batch has no such key.
    """
    known: dict[str, Any] = dict(batch)
    if "lengths" not in known and "valid" in known:
        known["lengths"] = known["valid"].sum(1)
    for name, key in asked.items():
        if isinstance(key, str) and key not in known:
            raise ConfigError(
                f"task.inputs: batches have no {key!r} for the input {name!r}; take one of "
                f"{', '.join(known)}"
            )
    return {name: known[key] if isinstance(key, str) else key for name, key in asked.items()}


def heads_of(outputs: Outputs | None, classes: Sequence[str]) -> dict[str, Head]:
    """The heads that settings name; none where these are a key, or nothing.

    Raises:
        ConfigError: the first of their columns are not the classes.
    """
    if not isinstance(outputs, Mapping):
        return {}
    names = [name for own in outputs.values() for name in own]
    if names[: len(classes)] != list(classes):
        raise ConfigError(
            f"task.outputs names the columns {', '.join(names)}, which have to begin with the "
            f"classes in their order, {', '.join(classes)}; name these in the first heads"
        )
    return columns_named(outputs, "softmax")[1]


def class_columns(
    returned: Any, outputs: Outputs | None, heads: Mapping[str, Head], classes: int, network: str
) -> Tensor:
    """The columns `(B, K)` of the classes.

    Args:
        returned: by the network.
        outputs: the key of a tensor in it, or the names of its heads.
        heads: those.
        classes: K.
        network: its name, for the error.

    Raises:
        UserError: there is no such tensor, or several and none is named.
    """
    if heads:
        return joined(heads, returned, network)[:, :classes]
    if isinstance(returned, Tensor):
        return returned
    if outputs is None:
        found = unwrapped(returned)
        if not isinstance(found, Tensor):
            raise ConfigError(
                f"{network} returns a {kind_of(found)}{inside(found)}, expected logits (B, "
                f"{classes}); name their tensor: task.outputs=KEY"
            )
        return found
    if isinstance(returned, Mapping):
        found = returned.get(outputs)
    else:
        parts = returned if isinstance(returned, tuple | list) else ()
        found = (
            parts[outputs]
            if isinstance(outputs, int) and -len(parts) <= outputs < len(parts)
            else None
        )
    if not isinstance(found, Tensor):
        raise ConfigError(
            f"task.outputs={outputs} is no tensor of what {network} returns, "
            f"{kind_of(returned)}{inside(returned)}; name the one of the classes"
        )
    return found
