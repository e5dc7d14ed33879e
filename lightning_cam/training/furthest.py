"""How far a checkpoint is, by what it says itself.

The times of files say little: clocks of machines differ, `cp -r` and object stores make new ones.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_cam.archive import check_archive
from lightning_cam.training.saving import LAST


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        steps: optimiser steps.
        epochs: whole epochs.
    """

    steps: int
    epochs: int


UNKNOWN = Progress(-1, -1)  # of a file that cannot be read, which whoever loads it says


class Length(NamedTuple):
    """How long a training is to be; None means no limit."""

    epochs: int | None = None
    steps: int | None = None

    @classmethod
    def of(cls, trainer: dict[str, Any]) -> Length:
        """As the settings of the trainer say, where -1 means no limit."""
        found = (trainer.get(key) for key in ("max_epochs", "max_steps"))
        return cls(*(n if isinstance(n, int) and n >= 0 else None for n in found))

    def reached(self, done: Progress) -> bool:
        """Whether there is nothing left to train."""
        return any(is_done >= limit for _, limit, is_done in self._limits(done))

    def exceeded(self, done: Progress) -> str:
        """The setting that is below what has been trained, "" if none is."""
        return next(
            (f"{k}={limit}" for k, limit, is_done in self._limits(done) if is_done > limit), ""
        )

    def longer(self, done: Progress) -> str:
        """The settings with which what has reached its end goes on, twice as far."""
        return " ".join(
            f"{k}={2 * max(is_done, 1)}"
            for k, limit, is_done in self._limits(done)
            if is_done >= limit
        )

    def _limits(self, done: Progress) -> list[tuple[str, int, int]]:
        """(setting, its value, how much of it is done) of each that is set."""
        limits = (
            ("trainer.max_epochs", self.epochs, done.epochs),
            ("trainer.max_steps", self.steps, done.steps),
        )
        return [(key, limit, is_done) for key, limit, is_done in limits if limit is not None]


def progress_of(file: Path) -> Progress:
    """How far a checkpoint is, without reading its tensors; `UNKNOWN` where it does not say."""
    try:
        check_archive(file)  # it may be anybody's
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on pickle protocols
            found = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        done = Progress(found["global_step"], found["epoch"])
        if "loops" in found:  # "epoch" is the one that was going on
            current = found["loops"]["fit_loop"]["epoch_progress"]["current"]
            done = done._replace(epochs=current["processed"])
    except Exception:  # torch answers broken files with whatever its parser stumbles over
        return UNKNOWN
    return done if all(isinstance(n, int) for n in done) else UNKNOWN


def furthest_first(folder: Path) -> list[tuple[Progress, Path]]:
    """The checkpoints below a folder; of those that are equally far `last.ckpt` comes first."""
    found = [(progress_of(file), file) for file in folder.rglob("*.ckpt")]
    return sorted(found, key=lambda f: (f[0], f[1].name == LAST, str(f[1])), reverse=True)
