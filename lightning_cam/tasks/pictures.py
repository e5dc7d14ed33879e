"""Pictures of a training never stop it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_a_picture(what: str) -> Iterator[None]:
    """Turn whatever goes wrong in drawing, writing and logging a picture into a warning.

    Args:
        what: its name, for the warning.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{error}".split()) or type(error).__name__
        warnings.warn(f"no picture of the {what}: {reason}", stacklevel=3)
