"""Where a training writes its files: folders of the run, which no other run writes to."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from weakref import WeakKeyDictionary

import lightning.pytorch as pl

from lightning_cam.errors import WriteError
from lightning_cam.files import is_address, make_folder

_found: WeakKeyDictionary[pl.Trainer, dict[str, Path]] = WeakKeyDictionary()


class RunFolder(pl.Callback):
    """Says which folder is that of the run, so that none is looked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def own_folder(trainer: pl.Trainer, name: str, before: str | None = None) -> Path:
    """The folder NAME of the run; NAME_2, ... where another run has it. For the first process.

    That of the run is what `RunFolder` says; else that of its first logger, where Lightning's
    `ModelCheckpoint` writes as well; else the trainer's `default_root_dir`.

    Args:
        trainer: of the run.
        name: what is written there: "explain".
        before: the name of the folder that a checkpoint remembers, with which this run goes on.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunFolder):
            return callback.folder / name
    folders = _found.setdefault(trainer, {})
    if name not in folders:
        home = _home(trainer)
        going_on = before is not None and (home / before).is_dir()
        try:
            folders[name] = home / str(before) if going_on else _new(home, name)
        except WriteError:  # as each file will tell that is written there
            return home / name
    return folders[name]


def own_name(given: object, name: str) -> str | None:
    """The name of such a folder that a checkpoint remembers; None for anything else."""
    sound = isinstance(given, str) and re.fullmatch(rf"{name}(_[0-9]{{1,9}})?", given)
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


def _new(home: Path, name: str) -> Path:
    for n in count(1):
        folder = home / (name if n == 1 else f"{name}_{n}")
        try:
            make_folder(folder, new=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError  # there is always another number
