"""Where a training writes its explanations: a folder of the run, which no other run writes to."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

import lightning.pytorch as pl

from lightning_cam.errors import WriteError
from lightning_cam.files import is_address, make_folder

NAME = "explain"


def own_folder(trainer: pl.Trainer, before: str | None) -> Path:
    """The folder `explain` of the run, on all ranks; `explain_2`, ... where another run has it.

    That of the run is its first logger's, where Lightning's `ModelCheckpoint` writes as well, else
    the trainer's `default_root_dir`.

    Args:
        trainer: of the run.
        before: the name of the folder that a checkpoint remembers, with which this run goes on.
    """
    folder: Path | None = None
    if trainer.is_global_zero:
        home = _home(trainer)
        going_on = before is not None and (home / before).is_dir()
        try:
            folder = home / str(before) if going_on else _new(home)
        except WriteError:  # as each clip will tell that is written there
            folder = home / NAME
    found = trainer.strategy.broadcast(folder)
    assert found is not None
    return found


def own_name(given: object) -> str | None:
    """The name of such a folder that a checkpoint remembers; None for anything else."""
    sound = isinstance(given, str) and re.fullmatch(rf"{NAME}(_[0-9]{{1,9}})?", given)
    return str(given) if sound else None


def _home(trainer: pl.Trainer) -> Path:
    root = Path(trainer.default_root_dir)
    if not trainer.loggers:
        return root
    first = trainer.loggers[0]
    place, version = first.save_dir, first.version
    if place is not None and not is_address(str(place)):
        root = Path(place)
    version = version if isinstance(version, str) else f"version_{version}"
    return root / str(first.name or "") / version


def _new(home: Path) -> Path:
    for n in count(1):
        folder = home / (NAME if n == 1 else f"{NAME}_{n}")
        try:
            make_folder(folder, new=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError  # there is always another number
