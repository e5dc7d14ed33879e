"""What the commands share: plain settings, short paths."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lightning_cam.errors import ConfigError, UnknownNameError


def plain_settings(cfg: DictConfig, keys: Sequence[str]) -> dict[str, Any]:
    """Plain, resolved containers, without NaN; `+key=` cannot smuggle in what nobody reads.

    Paths that begin with `~/` are below the home folder.
    """
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(config, dict):
        raise ConfigError("the configuration is not a mapping")
    for key in config:
        if key not in keys:
            raise UnknownNameError("setting", key, keys)
    return {str(key): _plain(node, str(key)) for key, node in config.items()}


def _plain(node: Any, key: str) -> Any:
    """A setting without NaN, which compares with nothing, so that no bound would refuse it."""
    if isinstance(node, dict):
        return {name: _plain(value, f"{key}.{name}") for name, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, key) for value in node]
    if isinstance(node, float) and math.isnan(node):
        raise ConfigError(f"{key}=nan is not a number; choose one, or leave {key} out")
    if isinstance(node, str) and node.startswith("~/"):
        return str(Path(node).expanduser())
    return node


def was_typed(key: str) -> bool:
    """Whether a setting, or one below it, comes from the command line and not from a file."""
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else sys.argv[1:]
    return any(re.match(rf"\+*{re.escape(key)}[.=]", word) for word in typed)


def short(path: Path) -> Path:
    """The path as seen from here, where it lies below."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
