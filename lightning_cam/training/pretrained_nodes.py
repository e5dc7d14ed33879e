"""Networks of Hugging Face with published weights, in settings.

    {"_target_": "transformers.VideoMAEForVideoClassification.from_pretrained",
     "pretrained_model_name_or_path": "owner/name or a folder", ...}

Only the user's own configuration may ask for them: files are opened, or downloaded. A checkpoint
remembers the network as it then is, by its class and its settings, and has the weights itself; so
where it is rebuilt nothing is opened, and it is trusted like any other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lightning_cam.errors import ConfigError
from lightning_cam.training.build import LOADS, TARGET, build, is_config, locate, names_a_download

# What says where settings come from; classes have names of their own here.
_ORIGIN = frozenset({"_name_or_path", "architectures", "dtype", "id2label", "label2id",
                     "model_type", "transformers_version"})  # fmt: skip


def with_weights(node: Any, where: str = "") -> tuple[Any, Any]:
    """A node whose networks with published weights are loaded, and what is remembered of it.

    Args:
        node: dicts, lists, strings, numbers, booleans and None.
        where: path of this node, for messages.

    Returns:
        The node with the networks, in train mode, for `build`; and with their classes and settings.

    Raises:
        ConfigError: weights cannot be loaded, or there is no class and settings of the network.
    """
    if isinstance(node, Mapping):
        name = node.get(TARGET)
        if isinstance(name, str) and name.endswith(LOADS):
            network = _loaded(name, {k: v for k, v in node.items() if k != TARGET}, where)
            return network, _settings(network, name, where)
        parts = {k: with_weights(v, f"{where}.{k}" if where else k) for k, v in node.items()}
        return {k: v for k, (v, _) in parts.items()}, {k: v for k, (_, v) in parts.items()}
    if isinstance(node, list | tuple):
        items = [with_weights(value, f"{where}[{i}]") for i, value in enumerate(node)]
        return [built for built, _ in items], [kept for _, kept in items]
    return node, node


def _loaded(name: str, settings: Mapping[str, Any], where: str) -> nn.Module:
    load = getattr(locate(name.removesuffix(LOADS), where=where), LOADS.lstrip("."), None)
    if load is None:
        raise ConfigError(f"{where}: {name.removesuffix(LOADS)} has no from_pretrained")
    try:
        network = load(**build(settings, where=where))
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as e:
        said = " ".join(str(e).split())[:300]
        if "ignore_mismatched_sizes" in str(e):
            said = "its head has other classes; add ignore_mismatched_sizes: true for a new head"
        given = settings.get("pretrained_model_name_or_path")
        origin = f"the folder {given}" if Path(str(given)).is_dir() else f"{given}, no folder here"
        raise ConfigError(f"{where}: {name} cannot load {origin}: {said}") from e
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{where}: {name} returns {type(network).__name__}, not a network")
    return network.train()  # it comes in eval mode, which Lightning would leave


def _settings(network: nn.Module, name: str, where: str) -> dict[str, Any]:
    """The node that makes such a network without its weights."""
    config: Any = getattr(network, "config", None)  # Hugging Face's, and no interface of ours
    if not is_config(type(config)):
        raise ConfigError(
            f"{where}: explain.py could not rebuild what {name} returns, which has no settings of "
            "transformers; derive a class whose __init__ loads the weights, and name that"
        )
    settings = {**_without_origin(config.to_diff_dict()), "num_labels": config.num_labels}
    if names_a_download(settings):
        raise ConfigError(
            f"{where}: settings of what {name} returns name what would be downloaded and run, such "
            "as 'owner/kernel'; a checkpoint may not"
        )
    return {
        TARGET: _name_of(type(network)),
        "config": {TARGET: _name_of(type(config)), **settings},
    }


def _without_origin(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_origin(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if key not in _ORIGIN
    }


def _name_of(cls: type) -> str:
    """Its dotted name: short, `transformers.NAME`, where its package has it under that."""
    package = cls.__module__.partition(".")[0]
    short = getattr(sys.modules[package], cls.__name__, None) is cls
    return f"{package if short else cls.__module__}.{cls.__name__}"
