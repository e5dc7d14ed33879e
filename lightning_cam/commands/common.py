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
    """Plain, resolved containers, without NaN; `+key=` cannot smuggle in what nobody reads."""
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(config, dict):
        raise ConfigError("the configuration is not a mapping")
    for key in config:
        if key not in keys:
            raise UnknownNameError("setting", key, keys)
        _check_numbers(config[key], str(key))
    return config  # type: ignore[return-value]


def _check_numbers(node: Any, key: str) -> None:
    """NaN compares with nothing, so that no bound would refuse it."""
    if isinstance(node, dict):
        for name, value in node.items():
            _check_numbers(value, f"{key}.{name}")
    elif isinstance(node, list):
        for value in node:
            _check_numbers(value, key)
    elif isinstance(node, float) and math.isnan(node):
        raise ConfigError(f"{key}=nan is not a number; choose one, or leave {key} out")


def was_typed(key: str) -> bool:
    """Whether a setting, or one below it, comes from the command line and not from a file."""
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else sys.argv[1:]
    return any(re.match(rf"\+*{re.escape(key)}[.=]", word) for word in typed)


def short(path: Path) -> Path:
    """The path as seen from here, where it lies below."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
