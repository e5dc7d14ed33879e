"""The package's files of settings, parsed once for a whole session.

Parsing is a third of what composing settings takes, and tests compose them a thousand times.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import (
    ImportlibResourcesConfigSource,
)
from hydra.plugins.config_source import ConfigResult

PACKAGE = Path(__file__).parents[1] / "lightning_cam" / "commands" / "configs"
PLACES = (str(PACKAGE), "lightning_cam.commands.configs")


def keep() -> None:
    """From now on each is read once in this process and its forks; a user's files always anew."""
    for source in (FileConfigSource, ImportlibResourcesConfigSource):
        source.load_config = _kept(source.load_config)  # type: ignore[method-assign]


def _kept(load: Any) -> Any:
    found: dict[tuple[str, str, str], ConfigResult] = {}

    def load_config(self: Any, config_path: str) -> ConfigResult:
        if self.path not in PLACES:
            return load(self, config_path)
        key = (self.provider, self.path, config_path)
        if key not in found:
            found[key] = load(self, config_path)
        return copy.deepcopy(found[key])  # each composition changes its own

    return load_config
