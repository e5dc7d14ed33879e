"""The folder of a command: `out=DIR`; else where the same command was stopped; else a new one.

Processes of one command find the same, whichever is first, and none waits for another: a new folder
appears with its settings in it, and a command of several processes leaves its mark, an empty file,
in the folder before anything is finished there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_cam.errors import ConfigError
from lightning_cam.explaining.journal import other_work, same_work
from lightning_cam.files import claimed, whole_folder
from lightning_cam.training.runs import writable

_MARK = ".command-"  # begins the name of a mark


def work_folder(
    out: str | None,
    stem: Path,
    settings: str,
    facts: Mapping[str, Any],
    names: Sequence[str],
    goes_on: Callable[[Path], bool] = lambda folder: True,
    by: str = "",
) -> Path:
    """A folder to write explanations into, with its settings: `out`, else STEM_1, STEM_2, ...

    Args:
        out: is asked for.
        stem: of the others, of which one with the same settings is taken up again.
        settings: name of the file of settings.
        facts: the settings.
        names: of the files that will be written.
        goes_on: whether a folder with these settings is taken up again.
        by: name of a command of several processes, which goes on in its own folder in any case.

    Raises:
        ConfigError: `out` holds other work, or files of these names.
        WriteError: it cannot be written.
    """
    if out is not None:
        folder = writable(Path(out))
        overwrites_nothing(folder, settings, names)
        same_work(folder, settings, facts, "explanations")
        return folder
    n = 0
    while True:
        n += 1
        folder = writable(stem.with_name(f"{stem.name}_{n}"))
        if not folder.exists():
            with suppress(FileExistsError):  # another process was faster
                with whole_folder(folder, "out=DIR") as begun:
                    same_work(begun, settings, facts, "explanations")
                    _mark(begun, by)
                return folder
        with suppress(ConfigError):  # cannot be read
            # In this order: what lacks nothing may have been finished by this command just now.
            if other_work(folder / settings, facts) == "" and (
                goes_on(folder) or _is_marked(folder, by)
            ):
                _mark(folder, by)
                return folder


def _mark(folder: Path, by: str) -> None:
    """Note that a command of several processes works in a folder."""
    if by:
        claimed(folder / f"{_MARK}{by}")


def _is_marked(folder: Path, by: str) -> bool:
    # To list a folder asks its server; whether one file is there may be remembered.
    return bool(by) and folder / f"{_MARK}{by}" in folder.iterdir()


def overwrites_nothing(folder: Path, settings: str, names: Sequence[str]) -> None:
    """Raise a ConfigError where files would be lost, such as videos among which to write.

    Args:
        folder: to write into.
        settings: name of the file that says that it is the program's own.
        names: of the files that will be written.
    """
    if (folder / settings).exists():
        return
    for path in (folder / name for name in names):
        # Another process of this command may have begun meanwhile.
        if os.path.lexists(path) and not (folder / settings).exists():
            raise ConfigError(
                f"{path} is there already and not of an earlier explanation; choose out=DIR"
            )


def remove_unused(folder: Path, settings: str) -> None:
    """Remove a folder that has nothing but settings and marks; else they say whose the rest is.

    Raises:
        OSError: it cannot be removed.
    """
    there = list(folder.iterdir())
    if all(path.name == settings or path.name.startswith(_MARK) for path in there):
        for path in there:
            path.unlink()
        folder.rmdir()
