"""Errors meant for the person at the keyboard: one line that names the thing and the remedy."""

from __future__ import annotations

import difflib
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

COMMANDS = {
    "train": "train a video network and watch where it looks",
    "explain": "show where a trained network looks",
    "check": "check a data set before training on it",
}
_SCRIPTS = ("train.py", "explain.py")  # at the top of a clone
_INSTALLED = "lightning-cam-"  # followed by the command


class UserError(Exception):
    """Something the user can put right; the commands print its one line and exit with code 2."""


class ArgumentError(UserError, ValueError):
    """What was given to a function of the Python API is of a wrong kind."""


class ConfigError(UserError):
    """A setting is unknown, missing or contradictory."""


class DataError(UserError):
    """A data set is absent or not laid out as it should be."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, trusted or rebuilt."""


class WriteError(UserError, OSError):
    """A file cannot be written: no space, no permission."""


class VideoReadError(UserError):
    """A video file cannot be read.

    Args:
        path: the file.
        reason: what is wrong with it, in a few words.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"cannot read video {str(path)!r}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # Exceptions cross process borders (loader workers); the default pickles only the message.
        return type(self), (self.path, self.reason)


class UnknownNameError(UserError, ValueError):
    """A name that is not there; the message offers the nearest ones.

    Args:
        kind: what was looked for, for example `"layer"`.
        name: the name given.
        known: the names there are.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = list(known)
        near = difflib.get_close_matches(str(name), names, n=4, cutoff=0.3)
        if near:
            hint = f"nearest: {', '.join(near)}"
        else:
            hint = f"have: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
        super().__init__(f"no {kind} {str(name)!r}; {hint}")


def clone() -> Path | None:
    """The folder of `train.py` or `explain.py` where one of them is running, else None."""
    script = Path(sys.argv[0])
    modules = Path(__file__).parent / "commands"  # of the same names, as python -m runs them
    inside = script.parent.resolve() == modules.resolve()
    return script.parent if script.name in _SCRIPTS and not inside else None


def command_line(command: str, *settings: str) -> str:
    """A command of this package as one would type it now, the way the running one was started.

    Args:
        command: one of `COMMANDS`.
        settings: words to follow, as `quoted` makes them.

    Returns:
        `python explain.py ...`, `lightning-cam-explain ...` or
        `python -m lightning_cam explain ...`.
    """
    started = Path(sys.argv[0])
    if clone() is not None and f"{command}.py" in _SCRIPTS:
        words = f"{_python()} {shlex.quote(str(started.with_name(f'{command}.py')))}"
    elif started.name.startswith(_INSTALLED):
        words = _program(started.with_name(f"{_INSTALLED}{command}"))
    else:
        words = f"{_python()} -m lightning_cam {command}"
    return " ".join([words, *settings])


def quoted(key: str, value: str | Path) -> str:
    """`key=value` as one types it in a shell, quoted for Hydra where its grammar needs it."""
    value = str(value)
    if re.fullmatch(r"[\w./@+~-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = value.replace('"', '\\"').replace("'", "'\\''")
    return f"'{key}=\"{escaped}\"'"


def _python() -> str:
    running = Path(sys.executable or "python")
    short = running.with_name("python")  # rather than python3.11
    return _program(short if short.exists() and short.samefile(running) else running)


def _program(path: Path) -> str:
    """Its name if that is enough to start it, else its path, seen from here where it is below."""
    found, path, here = shutil.which(path.name), path.absolute(), Path.cwd()
    if found and Path(found).absolute() == path:
        return path.name
    if path.parent == here:
        return f"./{shlex.quote(path.name)}"
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
