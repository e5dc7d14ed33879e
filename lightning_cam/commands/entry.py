"""How the commands start: help without torch, and one line for whatever the user can mend."""

from __future__ import annotations

import logging
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from lightning_cam.commands.faults import fault
from lightning_cam.commands.help import help_text
from lightning_cam.commands.search import choices, composed, groups
from lightning_cam.commands.single_run import single_run, without_internals
from lightning_cam.commands.sweeps import check_launcher, of_a_job
from lightning_cam.errors import (
    READABLE,
    ConfigError,
    UnknownNameError,
    UserError,
    printable,
    quoted,
    settable,
    shell_word,
)
from lightning_cam.stops import exit_code

# Hydra's own switches that still make sense here.
_SWITCHES = {"--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--multirun", "-m"}
# Texts that Hydra takes in quotes alone: paths of Lightning's checkpoints, what has a tilde, and
# names of clips such as 11_000056, which it takes for a number.
_LIGHTNING = r"[^\s'\"\[\]{}$\\,:]*=[^\s'\"\[\]{}$\\,]*\.ckpt"
_TEXT = rf"(?:{_LIGHTNING}|[\w./@+%-]*~[\w./@+%~-]*|\d+(?:_\d+)+)"
_ELSEWHERE = ("ckpt_path", "checkpoint_path", "trainer.ckpt_path", "fit.ckpt_path")
_SWITCHES |= {"--config-dir", "-cd", "--config-name", "-cn", "--hydra-help", "--version"}


def command(main: Callable[..., Any], name: str) -> None:
    """Run a Hydra main function the way a command should behave.

    `--help` prints the settings with their comments; errors of the user become one line on stderr
    and exit code 2; bugs keep their traceback. What lies in the working folder can be imported, so
    that `_target_: my_module.MyNet` works however the command was started.

    Args:
        main: decorated with `hydra.main`; its body runs under `one_line_errors`.
        name: of the command and its configuration.
    """
    _open_streams()
    logging.raiseExceptions = False  # W&B's log on a full disk would be a traceback a line
    sys.argv[1:] = [as_meant(argument, name) for argument in sys.argv[1:]]
    arguments = sys.argv[1:]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come here, not to Hydra's printer
    with one_line_errors():
        if (here := _here()) not in sys.path:
            sys.path.append(here)  # last: it hides nothing
        try:
            if {"--help", "-h"} & set(arguments):
                sys.stdout.write(help_text(name, arguments))
                return
            _check_shape(arguments)
            _check_groups(arguments)
            check_launcher(arguments)
            if (cfg := single_run(name, arguments)) is None:
                main()
            else:
                with without_internals(cfg) as settings:
                    main(settings)
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(_explained(error, arguments, name)) from error
        except ValueError as error:
            if not str(error).startswith("Config group override"):  # GROUP=null
                raise
            raise ConfigError(f"{error}; --help lists the choices") from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the user and faults of the machine into one line on stderr and exit code 2.

    Ctrl-C is 130, SIGTERM 143. Where nobody reads the output any more, as behind `| head`, it is
    141, as of other programs. Used inside Hydra's main as well: an exception that left it would get
    lines of Hydra's own.
    """
    try:
        yield
        lost = _lost_output()
    except KeyboardInterrupt as stop:
        _leave(exit_code(stop), "stopped")
    except Exception as error:
        lost = _lost_output()
        if isinstance(error, BrokenPipeError) and _unread():
            lost = error
        if lost is None or isinstance(error, UserError) or not isinstance(error, OSError):
            if not (said := _said(error)):
                raise
            _leave(2, f"error: {printable(' '.join(said.split()))}")
    if isinstance(lost, BrokenPipeError):
        _leave(141)
    elif lost is not None:
        _leave(2, f"error: cannot write the output: {lost.strerror}; send it elsewhere")


def _said(error: Exception) -> str:
    """What an error says to the user; "" for a mistake of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return _in_words(error)
    return of_a_job(error) or fault(error)


def _open_streams() -> None:
    """Streams that take any text; one that is closed takes it to nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by >&-; the next file would get its number
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
        elif mode == "w" and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=READABLE)  # names of files may hold what it cannot say


def _lost_output() -> OSError | None:
    """Why a stream takes no text any more, after which it takes it to nowhere; None if all do."""
    lost = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            lost = lost or error
            with suppress(OSError):  # a stream without a number
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return lost


def _unread() -> bool:
    """Whether nobody reads the output any more; a long text is lost without waiting for a flush."""
    pipes = select.poll()
    for stream in (sys.stdout, sys.stderr):
        pipes.register(stream, 0)
    return any(state & select.POLLERR for _, state in pipes.poll(0))


def _leave(code: int, line: str = "") -> NoReturn:
    _lost_output()
    if line:
        with suppress(OSError):
            sys.stderr.write(f"{line}\n")
    _lost_output()
    sys.exit(code)


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        raise ConfigError(
            f"the working folder is not there any more ({error.strerror}); cd to another one"
        ) from error


def as_meant(argument: str, name: str) -> str:
    """An argument as Hydra reads what is meant by it.

    Lightning's own checkpoints are called `epoch=0-step=3.ckpt`, which would need quotes within
    quotes, and so would `~/data`, which not every shell turns into a path, and clips whose names
    are numbers with an underscore. `explain.py model=my_package.MyModule` names a class; files of
    that group are for training.
    """
    key, _, value = argument.partition("=")
    if re.fullmatch(_TEXT, value):
        return f'{key}="{value}"'
    if value[:1] in ("[", "{"):  # several of them
        return f"{key}=" + re.sub(rf"(?<=[\[,:\s]){_TEXT}(?=[\]}},\s])", r'"\g<0>"', value)
    if name == "explain" and key == "model" and value[:1] not in ("{", "["):
        return f"model.name={value}"
    return argument


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
            raise ConfigError(
                f"{argument} must be a string or a list; for none at all type {key}=none"
            )
        if re.match(r"\{\s*_target_\b", value) and key in groups():
            direct = f"task.model={value} or " if key == "model" else ""
            raise ConfigError(
                f"{argument}: {key} is the name of a file; use {direct}{key}=NAME with a file "
                f"configs/{key}/NAME.yaml"
            )


def _readable(argument: str) -> str:
    """How to type what Hydra cannot read."""
    key, _, value = argument.partition("=")
    if value[:1] == "{" and value[-1:] == "}":
        example = shell_word("=".join((key, '{name: "VALUE"}')))
        return (
            "within {} names are words without quotes, and a value stands in quotes where it is "
            f"more than a word: {example}"
        )
    if value[:1] == "[" and value[-1:] == "]":
        each = (part.strip().strip("'\"") for part in value[1:-1].split(","))
        words = ",".join(map(settable, each))
        return f"quote what is in it, type {shell_word(f'{key}=[{words}]')}"
    return f"quote the value, type {quoted(key, value)}"


def _explained(error: Exception, arguments: Sequence[str], name: str) -> str:
    """What went wrong in composing the configuration, and the remedy, in one line."""
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}; {_readable(error.override)}"
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
            key = max(key, error.__cause__.full_key or "", key=len)
        if key in _ELSEWHERE:
            given = next((a.partition("=")[2] for a in arguments if a.startswith(f"{key}=")), "")
            return _meant_elsewhere(name, given.strip("'\""))
        keys = _known_keys(arguments, name)
        group, choice, *setting = [*key.split("."), "", ""][:3]
        if setting[0] and f"{group}.{choice}" not in keys and choice in _alone(group):
            typed = [a.partition("=")[2] for a in arguments if a.startswith(f"{group}=")]
            asked = ",".join([*(word.strip("[]") for word in typed[-1:]), choice])
            return (
                f"{key} is a setting of {group}.{choice}, which is not chosen; add "
                f"{group}={f'[{asked}]' if typed else asked}"
            )
        parent = key.rpartition(".")[0]
        more = f"; if its class takes it, type +{key}=VALUE" if f"{parent}._target_" in keys else ""
        return f"{UnknownNameError('setting', key, keys)}{more}"
    return _in_words(error)


def _meant_elsewhere(name: str, path: str) -> str:
    """What to type in place of another program's word for a checkpoint."""
    path = path or "FILE"
    if name == "explain":
        ckpt = quoted("ckpt", path)
        return f"the checkpoint to explain is called ckpt here: type {ckpt}"
    begin, go_on = quoted("model.weights", path), quoted("resume", path)
    return (
        f"to begin with the weights of a checkpoint (fine-tuning) type {begin}; to go on with a "
        f"training that was stopped type {go_on}"
    )


def _alone(group: str) -> list[str]:
    """Choices of a group whose settings stand below `GROUP.CHOICE`; several can be chosen."""
    return [*choices(group)] if group in ("explain", "measure") else []


def _in_words(error: Exception) -> str:
    """A message of Hydra or OmegaConf, which may be several lines."""
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or str(error).split()[-1]
        return f"{key} is missing; add {key}=VALUE"
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*?)'", str(error)):
        key, values = several[1], several[2]
        return (
            f"{key}={values} is several values; type {shell_word(f'{key}=[{values}]')} for a list, "
            f"or {quoted(key, values)} for a text"
        )
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
