"""Lists and other text that comes with data sets, and what is in their folders."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lightning_cam.data.core.listing import Problem


def text_of(path: Path) -> str:
    """The text of a file, without a mark of the order of bytes; what is no text is U+FFFD in it.

    NUL is no text either: no name of a file holds it.

    Raises:
        OSError: it cannot be read; or is a folder, or a pipe or device, which may have no end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return path.read_text(encoding="utf-8-sig", errors="replace").replace("\0", "\ufffd")


def closed(folder: Path, root: str | Path, error: OSError) -> Problem:
    """The problem of a folder that cannot be looked into."""
    what = os.path.relpath(folder, root)
    return Problem("unreadable", what, f"{error.strerror}; see that the folder can be read")
