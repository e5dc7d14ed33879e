"""What long work has finished so far, on the disk: one line of JSON a result.

    <folder>/study.json          what makes it this work; another one does not go on here
    <folder>/rows.rank0.jsonl    a line each, in the order they were finished

A line is written and synced before the next is begun, so that a kill costs one result. Every
process has a file of its own and reads all of them.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_cam.errors import ConfigError, DataError
from lightning_cam.files import cannot_write, make_folder, open_to_append, write_text
from lightning_cam.locks import absent, taken
from lightning_cam.training.runs import leaves

_FREE = "about."  # begins what may differ between a work and its continuation
_FREE_ENDS = (".batch",)  # of a method: changes no number


class Journal:
    """The rows of one process, to be appended to.

    Args:
        folder: of the work; there.
        rank: of the process.

    Raises:
        ConfigError: another process writes to the same file.
        WriteError: the file cannot be written.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.path = folder / f"rows.rank{rank}.jsonl"
        self._file = open_to_append(self.path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process
        except OSError as error:
            if not absent(error):
                self._file.close()
                if not taken(error):
                    raise cannot_write(self.path, error) from error
                raise ConfigError(
                    f"another process is writing {self.path}; wait for it, or choose out=DIR"
                ) from error
        self._mend()

    def _mend(self) -> None:
        """Drop a last line that a kill or a full disk has cut off."""
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            self._file.truncate(whole)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; when this returns, it is on the disk.

        Raises:
            WriteError: it is not, and the rows before are as they were.
            DataError: see `check`.
        """
        self.check()
        line = memoryview(json.dumps(row, allow_nan=False).encode() + b"\n")
        before = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(before)
            raise cannot_write(self.path, error) from error

    def check(self) -> None:
        """See that the work is where it was.

        Raises:
            DataError: somebody has removed it meanwhile.
        """
        if not os.fstat(self._file.fileno()).st_nlink:
            raise DataError(
                f"{self.path.parent} was removed while it was written; the same command begins anew"
            )

    def close(self) -> None:
        self._file.close()


def journal_files(folder: Path) -> list[Path]:
    """The journals of all processes."""
    return sorted(path for path in folder.glob("rows.rank*.jsonl") if path.is_file())


def journal_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of all processes; lines that are broken or are being written are left out."""
    for path in journal_files(folder):
        yield from _rows(path.read_bytes())


def _rows(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


class OthersRows:
    """The rows of other processes, which may be writing them.

    Args:
        journal: of this process, whose rows are left out.
    """

    def __init__(self, journal: Journal) -> None:
        self._own = journal.path
        self._read: dict[Path, int] = {}  # bytes of each, in whole lines

    def new(self) -> Iterator[dict[str, Any]]:
        """Those that have come since the last time."""
        for path in journal_files(self._own.parent):
            before = self._read.get(path, 0)
            if path == self._own:
                continue
            with suppress(FileNotFoundError), path.open("rb") as file:  # of one that has failed
                file.seek(before)
                text = file.read()
                whole = text.rfind(b"\n") + 1
                self._read[path] = before + whole
                yield from _rows(text[:whole])


def same_work(folder: Path, name: str, facts: Mapping[str, Any], what: str) -> None:
    """Note what makes a work this one; or see that it is the one that is there.

    Args:
        folder: made if need be.
        name: of the file of facts: "study.json".
        facts: plain; what is below "about" may differ, and batch sizes.
        what: the work in words, as in "holds a study".

    Raises:
        ConfigError: another work lies there.
        WriteError: the folder cannot be written.
    """
    path = folder / name
    difference = other_work(path, facts)
    if difference is None:
        make_folder(folder, "out=DIR")
        if journal_files(folder) and not path.exists():  # nobody was faster
            raise ConfigError(f"{folder} has rows but no {name}; choose out=DIR")
        write_text(path, json.dumps(facts, indent=2) + "\n", sync=True)
    elif difference:
        raise ConfigError(
            f"{folder} holds {what} with {difference}; go on with the same settings, choose "
            "out=DIR for another place, or remove the folder"
        )


def other_work(path: Path, facts: Mapping[str, Any]) -> str | None:
    """How the facts in a file differ, as "fps=8, not 12": "" if not at all, None without a file.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may have no end
            raise ValueError("it is not a file")
        there = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RecursionError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({error}); choose out=DIR") from error
    facts = json.loads(json.dumps(facts))
    old, new = (dict(_flat(leaves(tree))) for tree in (there, facts))
    for key in [*new, *(key for key in old if key not in new)]:
        free = key.startswith(_FREE) or key.endswith(_FREE_ENDS)
        if not free and old.get(key) != new.get(key):
            return f"{key}={_short(old.get(key))}, not {_short(new.get(key))}"
    return ""


def _flat(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Lists of mappings, such as the checkpoints, key by key as well."""
    for key, value in pairs:
        if isinstance(value, Sequence) and any(isinstance(item, dict) for item in value):
            for n, item in enumerate(value):
                yield from ((f"{key}[{n}].{name}", part) for name, part in leaves(item))
        else:
            yield key, value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"
