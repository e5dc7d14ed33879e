"""Images that a training draws after its epochs, which never stop it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning import Trainer


def draws_images(trainer: Trainer) -> bool:
    """Whether this process draws an epoch's images: the first of all, in no trial run or pass."""
    trial: bool | int = trainer.fast_dev_run  # type: ignore[attr-defined]
    return trainer.is_global_zero and not trial and not trainer.sanity_checking


@contextmanager
def never_fatal(what: str) -> Iterator[None]:
    """Turn whatever goes wrong in drawing, writing and logging an image into a warning.

    Args:
        what: its name, for the warning.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{error}".split()) or type(error).__name__
        warnings.warn(f"no image of the {what}: {reason}", stacklevel=3)
