"""Where settings are looked for: `configs/` of the user first, then the package's.

A user's folder holds files of groups, `configs/GROUP/NAME.yaml`, and one of the same name wins
over the package's. Nothing else is taken from it: the folder may belong to another project, whose
`configs/train.yaml` is not ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from lightning_cam.errors import ConfigError, clone

PACKAGE = Path(__file__).parent / "configs"
CONFIGS = "pkg://lightning_cam.commands.configs"  # the same for Hydra


def user_folders() -> list[Path]:
    """`configs` of the working folder, and the one beside `train.py` or `explain.py`."""
    found = dict.fromkeys((top / "configs").resolve() for top in (Path.cwd(), clone()) if top)
    return [folder for folder in found if folder.is_dir() and folder != PACKAGE.resolve()]


def groups() -> list[str]:
    """Names of all groups, sorted, but for those of Hydra itself (`hydra/launcher`)."""
    folders = [folder for top in (*user_folders(), PACKAGE) for folder in top.iterdir()]
    own = {f.name for f in folders if f.is_dir() and not f.name.startswith(("_", "."))}
    return sorted(own - {"hydra"})


def choices(group: str) -> dict[str, Path]:
    """Name -> file of what `group=NAME` can choose, the user's first.

    Files whose names begin with `_` are parts of others and no choices.
    """
    found: dict[str, Path] = {}
    for top in (*user_folders(), PACKAGE):
        for file in sorted((top / group).glob("*.yaml")):
            if not file.name.startswith("_"):
                found.setdefault(file.stem, file)
    return found


def find(group: str, name: str) -> Path | None:
    """The file that `group=name` means, parts of others included."""
    files = (top / group / f"{name}.yaml" for top in (*user_folders(), PACKAGE))
    return next((file for file in files if file.is_file()), None)


def composed(name: str, overrides: Sequence[str] = (), internals: bool = False) -> DictConfig:
    """The configuration of a command, as `python -m lightning_cam NAME OVERRIDES` would see it.

    Args:
        name: `"train"`, `"explain"` or `"check"`.
        overrides: as typed, `["data=ucf11", "seed=1"]`.
        internals: with Hydra's own settings, among them which choices were made.

    Raises:
        HydraException, OmegaConfBaseException, ConfigError: it cannot be composed.
    """
    with initialize_config_module(CONFIGS.removeprefix("pkg://"), version_base="1.3"):
        return compose(name, list(overrides), return_hydra_config=internals)


class UserGroups(FileConfigSource):
    """A folder of the user: what lies in its folders, and never a file at its top."""

    @staticmethod
    def scheme() -> str:
        return "user"

    def is_config(self, config_path: str) -> bool:
        return "/" in config_path and super().is_config(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        try:
            found = super().load_config(config_path)
            _check_shape(OmegaConf.to_container(found.config))
        except (OSError, ValueError, YAMLError) as error:
            file = Path(self.path) / f"{config_path}.yaml"
            raise ConfigError(f"{file} holds no settings KEY: VALUE ({error})") from error
        return found


def _check_shape(content: Any) -> None:
    """What Hydra would object to without saying in which file.

    Raises:
        ValueError: the file is a list, or its `defaults` are not a list.
    """
    if not isinstance(content, dict):
        raise ValueError("a list")
    defaults = content.get("defaults", [])
    if not isinstance(defaults, list) or not all(map(_is_default, defaults)):
        raise ValueError("defaults must be a list of FILE and GROUP: CHOICE")


def _is_default(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return isinstance(entry, str)
    return len(entry) == 1 and all(isinstance(v, str | list | None) for v in entry.values())


class SearchUserFolders(SearchPathPlugin):
    """Puts the user's folders before the package's, and leaves other programs of Hydra alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        ours = next((e.provider for e in search_path.get_path() if e.path == CONFIGS), None)
        for folder in user_folders() if ours else ():
            search_path.prepend("user", f"{UserGroups.scheme()}://{folder}", ours)


for _plugin in (UserGroups, SearchUserFolders):
    Plugins.instance().register(_plugin)
