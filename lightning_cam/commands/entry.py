"""How the commands start: help without torch, and one line for whatever the user can mend."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from lightning_cam.commands.help import help_text
from lightning_cam.commands.search import choices, composed, groups
from lightning_cam.errors import (
    READABLE,
    ConfigError,
    UnknownNameError,
    UserError,
    printable,
    quoted,
)

# Hydra's own switches that still make sense here.
_SWITCHES = {"--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--multirun", "-m"}
_SWITCHES |= {"--config-dir", "-cd", "--config-name", "-cn", "--hydra-help", "--version"}


def command(main: Callable[[], Any], name: str) -> None:
    """Run a Hydra main function the way a command should behave.

    `--help` prints the settings with their comments; errors of the user become one line on stderr
    and exit code 2; bugs keep their traceback. What lies in the working folder can be imported, so
    that `_target_: my_module.MyNet` works however the command was started.

    Args:
        main: decorated with `hydra.main`; its body runs under `one_line_errors`.
        name: of the command and its configuration.
    """
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no UTF-8, and still be said
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come here, not to Hydra's printer
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last: it hides nothing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may hold what it cannot say
            stream.reconfigure(errors=READABLE)
    with one_line_errors():
        try:
            if {"--help", "-h"} & set(arguments):
                sys.stdout.write(help_text(name, arguments))
                return
            _check_shape(arguments)
            _check_groups(arguments)
            main()
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(_explained(error, arguments, name)) from error
        except ValueError as error:
            if not str(error).startswith("Config group override"):  # GROUP=null
                raise
            raise ConfigError(f"{error}; --help lists the choices") from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the user into one line on stderr and exit code 2, and Ctrl-C into 130.

    Used inside Hydra's main as well: an exception that left it would get lines of Hydra's own.
    """
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, YAMLError) as error:
        said = str(error) if isinstance(error, UserError) else _in_words(error)
        sys.stdout.flush()
        sys.stderr.write(f"error: {printable(' '.join(said.split()))}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stdout.flush()
        sys.stderr.write("stopped\n")
        sys.exit(130)


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


def _check_groups(arguments: Sequence[str]) -> None:
    """No part of files, and no object, which Hydra would mix with the default, as a choice."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if value.startswith("_") and key in groups():
            raise UnknownNameError(key, value, choices(key))
        if value == "null" and key in groups() and "none" in choices(key):
            raise ConfigError(f"{argument} must be a string or a list; none at all is {key}=none")
        if re.match(r"\{\s*_target_\b", value) and key in groups():
            direct = f"task.model={value} or " if key == "model" else ""
            raise ConfigError(
                f"{argument}: {key} is the name of a file; use {direct}{key}=NAME with a file "
                f"configs/{key}/NAME.yaml"
            )


def _explained(error: Exception, arguments: Sequence[str], name: str) -> str:
    """What went wrong in composing the configuration, and the remedy, in one line."""
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return f"cannot read {error.override!r}; quote the value: {quoted(key, value)}"
    if isinstance(error, MissingConfigException):
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        if known := choices(group):
            return str(UnknownNameError(group, choice, sorted(known)))
    if required := re.match(r"You must specify '(\w+)'", str(error)):
        group = required[1]
        return f"{group} is missing; add {group}=NAME, one of {', '.join(sorted(choices(group)))}"
    found = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", str(error))
    if found:
        key = found[1] or found[2]
        if key == "data" and name == "explain":
            return (
                "the checkpoint remembers its data: leave out data=...; data.root=FOLDER says "
                "where they are now"
            )
        if isinstance(error.__cause__, OmegaConfBaseException):  # of a mapping, the key in it
            key = error.__cause__.full_key or key
        keys = _known_keys(arguments, name)
        group, choice, *setting = [*key.split("."), "", ""][:3]
        if setting[0] and f"{group}.{choice}" not in keys and choice in _alone(group):
            typed = [a.partition("=")[2] for a in arguments if a.startswith(f"{group}=")]
            asked = ",".join([*(word.strip("[]") for word in typed[-1:]), choice])
            return (
                f"{key} is a setting of {group}.{choice}, which is not chosen; choose it: "
                f"{group}={f'[{asked}]' if typed else asked}"
            )
        parent = key.rpartition(".")[0]
        more = f"; if its class takes it, type +{key}=VALUE" if f"{parent}._target_" in keys else ""
        return f"{UnknownNameError('setting', key, keys)}{more}"
    return _in_words(error)


def _alone(group: str) -> list[str]:
    """Choices of a group whose settings stand below `GROUP.CHOICE`; several can be chosen."""
    return [*choices(group)] if group in ("explain", "measure") else []


def _in_words(error: Exception) -> str:
    """A message of Hydra or OmegaConf, which may be several lines."""
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or str(error).split()[-1]
        return f"{key} is missing; add {key}=VALUE"
    return f"{error} {error.__cause__ or ''}"


def _known_keys(arguments: Sequence[str], name: str) -> list[str]:
    """All dotted keys of the configuration with the groups that were asked for, and the groups."""
    asked = [a for a in arguments if a.split("=")[0] in groups()]
    parser = OverridesParser.create()
    try:
        cfg = composed(name, [o.input_line for o in parser.parse_overrides(asked)])  # type: ignore[misc]
    except (HydraException, OmegaConfBaseException):
        cfg = composed(name)
    return list(dict.fromkeys([*_dotted(OmegaConf.to_container(cfg), ""), *groups()]))


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")
