"""What is said to the person at the keyboard: errors of one line that name thing and remedy."""

from __future__ import annotations

import codecs
import difflib
import os
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
READABLE = "lightning_cam_readable"  # how text is encoded that may hold odd file names
_JOINERS = "\u200c\u200d"  # of letters, in Persian and in Indian languages
_SCRIPTS = ("train.py", "explain.py")  # at the top of a clone
_INSTALLED = "lightning-cam-"  # followed by the command


class UserError(Exception):
    """Something the user can put right; the commands print its one line and exit with code 2."""


class ArgumentError(UserError, ValueError):
    """What was given to a function of the Python API is of a wrong kind."""


class NetworkError(UserError, RuntimeError):
    """A network cannot be run on the clips that it was given."""


class ConfigError(UserError):
    """A setting is unknown, missing or contradictory."""


class DataError(UserError):
    """A data set is absent or not laid out as it should be."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, trusted or rebuilt."""


class PickledCodeError(CheckpointError):
    """A checkpoint holds objects, which only code of its own could make again."""


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


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What an encoding cannot say: bytes of a file name that are not UTF-8 as `\\xe9`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    try:
        said = text.encode("ascii", "surrogateescape").decode("ascii", "backslashreplace")
    except UnicodeEncodeError:
        said = text.encode("ascii", "backslashreplace").decode()
    return said, error.end


codecs.register_error(READABLE, _in_ascii)


def readable(text: str) -> str:
    """Text that can be shown and written: bytes of a file name that are not UTF-8 as `\\xe9`."""
    return text.encode("utf-8", READABLE).decode()


def why(error: BaseException) -> str:
    """What was raised, in one line: an error of the user in its words, others with their type."""
    said = " ".join(str(error).split())
    if isinstance(error, UserError):  # whole: the remedy stands at its end
        return said
    said = said[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def printable(text: str) -> str:
    """Text in one line whose control characters are written out, such as `\\x1b`.

    Names of classes and clips come from files and folders of others: none of them moves the cursor,
    sets the title, or writes over what stands above.
    """
    return "".join(
        c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode()
        for c in readable(text)
    )


def say(*lines: str) -> None:
    """Print these lines: the one way to print text, some of which may come from files."""
    print(*map(printable, lines), sep="\n", flush=True)


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


def settable(value: str) -> str:
    """A value as Hydra's grammar has it: in quotes where it is more than a plain word."""
    if re.fullmatch(r"[\w./@+-]+", value, re.ASCII):
        return value
    return '"{}"'.format(value.replace('"', '\\"'))


def quoted(key: str, value: str | Path) -> str:
    """`key=value` as one types it in a shell, quoted for Hydra where its grammar needs it."""
    value, said = str(value), settable(str(value))
    word = f"{key}={said}"
    if said == value:
        return word
    if not word.isprintable():  # bytes that are not UTF-8, or all others in an ASCII locale
        return shell_word(word)
    return "'{}'".format(word.replace("'", "'\\''"))


def shell_word(word: str) -> str:
    """A word as one types it in bash or zsh, whatever characters and bytes it has."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (
        chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}" for b in os.fsencode(word)
    )
    return f"$'{''.join(plain)}'"


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
