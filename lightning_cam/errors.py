"""Errors meant for the person at the keyboard: one line that names the thing and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Something the user can put right; the commands print its one line and exit with code 2."""


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
