"""How the two commands start: help without torch, and one line for whatever the user can mend."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from lightning_cam.errors import ConfigError, UnknownNameError, UserError

# Hydra's own switches that still make sense here.
_SWITCHES = {"--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--multirun", "-m"}
_SWITCHES |= {"--config-dir", "-cd", "--config-name", "-cn", "--hydra-help", "--version"}


def command(main: Callable[[], Any], script: str | Path) -> None:
    """Run a Hydra main function the way a command should behave.

    `--help` prints the settings with their comments; errors of the user become one line on stderr
    and exit code 2; bugs keep their traceback.

    Args:
        main: decorated with `hydra.main`; its body runs under `one_line_errors`.
        script: the script's file; its name is the configuration's, `configs/` lies beside it.
    """
    script = Path(script)
    configs, name = script.parent / "configs", script.stem
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(help_text(configs, name), end="")
        return
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come here, not to Hydra's printer
    with one_line_errors():
        _check_shape(arguments)
        _check_groups(arguments, configs)
        try:
            main()
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(_explained(error, arguments, configs, name)) from error
        except ValueError as error:
            if not str(error).startswith("Config group override"):  # GROUP=null
                raise
            raise ConfigError(f"{error}; --help lists the choices") from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the user into one line on stderr and exit code 2.

    Used inside Hydra's main as well: an exception that left it would get lines of Hydra's own.
    """
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, YAMLError) as error:
        said = str(error) if isinstance(error, UserError) else _in_words(error)
        sys.stdout.flush()
        sys.stderr.write(f"error: {' '.join(said.split())}\n")
        sys.exit(2)


def quoted(key: str, value: str | Path) -> str:
    """`key=value` as one types it in a shell, quoted for Hydra where its grammar needs it."""
    value = str(value)
    if re.fullmatch(r"[\w./@+~-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = value.replace('"', '\\"').replace("'", "'\\''")
    return f"'{key}=\"{escaped}\"'"


def help_text(configs: Path, name: str) -> str:
    """What `--help` prints: the head of the configuration, its groups, every key with comment."""
    lines = (configs / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = [line[2:] for line in lines[: _first(lines, lambda line: not line.startswith("#"))]]
    chosen = _defaults(lines)
    groups = [folder for folder in sorted(configs.iterdir()) if folder.is_dir()]
    shown = [folder for folder in groups if folder.name in chosen]
    text = [*head, "", "Groups (GROUP=CHOICE; * is the default):"]
    for folder in shown:
        marks = [
            f"{file.stem}{'*' if file.stem in chosen[folder.name] else ''}"
            for file in sorted(folder.glob("*.yaml"))
        ]
        rows = textwrap.wrap("  ".join(marks), 92, break_on_hyphens=False)
        text.append(f"  {folder.name:<11} " + f"\n{'':14}".join(rows))
    text += ["", "Settings (KEY=VALUE, nested ones with dots) and their defaults:", ""]
    text += _body(lines, "  ")
    for folder in shown:
        for choice in chosen[folder.name]:
            file = folder / f"{choice}.yaml"
            if file.exists():
                content = file.read_text(encoding="utf-8").splitlines()
                package = next(
                    (line.split()[-1] for line in content if line.startswith("# @package")),
                    folder.name,
                )
                text += ["", f"  {package}:  # {folder.name}={choice}", *_body(content, "    ")]
    return "\n".join(text) + "\n"


def _first(lines: Sequence[str], test: Callable[[str], bool]) -> int:
    return next((n for n, line in enumerate(lines) if test(line)), len(lines))


def _defaults(lines: Sequence[str]) -> dict[str, list[str]]:
    """Group -> default choices, in the order of the defaults list."""
    found: Any = OmegaConf.to_container(OmegaConf.create("\n".join(lines)))
    chosen: dict[str, list[str]] = {}
    for entry in found["defaults"]:
        if isinstance(entry, dict):
            for group, value in entry.items():
                chosen[group] = [value] if isinstance(value, str) else list(value or [])
    return chosen


def _body(lines: Sequence[str], indent: str) -> list[str]:
    """The settings of a file: no head, no defaults list, no Hydra internals."""
    kept, skipping = [], False
    for line in lines[_first(lines, lambda line: not line.startswith("#")) :]:
        if line and not line.startswith((" ", "#", "-")):
            skipping = line.startswith(("defaults:", "hydra:"))
        if (
            not skipping
            and line.strip() not in ("", "{}")
            and "_target_:" not in line
            and "_partial_:" not in line
        ):
            kept.append(f"{indent}{line}")
    return kept


def _check_shape(arguments: Sequence[str]) -> None:
    """Every argument is KEY=VALUE, or a switch that Hydra knows."""
    follows_switch = False
    for argument in arguments:
        if argument.startswith("-"):
            key, _, value = argument.lstrip("-").partition("=")
            if argument.split("=")[0] not in _SWITCHES:
                raise ConfigError(
                    f"unknown switch {argument!r}; settings are written KEY=VALUE, for example "
                    f"{key}={value or 'VALUE'}"
                )
            follows_switch = True
            continue
        if "=" not in argument and not follows_switch and not argument.startswith("~"):
            guess = "ckpt" if argument.endswith(".ckpt") else "KEY"
            raise ConfigError(f"{argument!r} is not KEY=VALUE; did you mean {guess}={argument}?")
        follows_switch = False


def _check_groups(arguments: Sequence[str], configs: Path) -> None:
    """No object in place of a group's choice: Hydra would mix it with the default choice."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if "." not in key and (configs / key).is_dir() and re.match(r"\{\s*_target_\b", value):
            direct = f"task.model={value} or " if key == "model" else ""
            raise ConfigError(
                f"{argument}: {key} is the name of a file; use {direct}{key}=NAME with a file "
                f"configs/{key}/NAME.yaml"
            )


def _explained(error: Exception, arguments: Sequence[str], configs: Path, name: str) -> str:
    """What went wrong in composing the configuration, and the remedy, in one line."""
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return f"cannot read {error.override!r}; quote the value: {quoted(key, value)}"
    if isinstance(error, MissingConfigException):
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        if error.options:
            return str(UnknownNameError(group, choice, sorted(error.options)))
    found = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", str(error))
    if found:
        key = found[1] or found[2]
        return str(UnknownNameError("setting", key, _known_keys(arguments, configs, name)))
    return _in_words(error)


def _in_words(error: Exception) -> str:
    """A message of Hydra or OmegaConf, which may be several lines."""
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or str(error).split()[-1]
        return f"{key} is missing; add {key}=VALUE"
    return f"{error} {error.__cause__ or ''}"


def _known_keys(arguments: Sequence[str], configs: Path, name: str) -> list[str]:
    """All dotted keys of the configuration with the groups that were asked for, and the groups."""
    groups = {folder.name for folder in configs.iterdir() if folder.is_dir()}
    asked = [a for a in arguments if a.split("=")[0] in groups]
    parser = OverridesParser.create()
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        try:
            cfg = compose(name, [o.input_line for o in parser.parse_overrides(asked)])  # type: ignore[misc]
        except (HydraException, OmegaConfBaseException):
            cfg = compose(name)
    return list(dict.fromkeys([*_dotted(OmegaConf.to_container(cfg), ""), *sorted(groups)]))


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")
