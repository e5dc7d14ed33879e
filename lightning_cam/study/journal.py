"""What a study has measured so far, on the disk: one line of JSON a cell and clip.

    <folder>/study.json          what makes it this study; another one does not go on here
    <folder>/rows.rank0.jsonl    one line each, in the order they were finished

A line is written, flushed and synced before the next is begun, so that a kill costs one cell. Every
process of a study has a file of its own and reads all of them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lightning_cam.errors import ConfigError
from lightning_cam.files import write_text
from lightning_cam.training.runs import leaves

StudyRow = dict[str, Any]
CellKey = tuple[str, str, str, int, str]  # network, trained on, input, clip, cell

# What may differ between a study and its continuation: batch sizes change no number.
_FREE = ("about.",)
_FREE_ENDS = (".batch",)


def cell_key(row: Mapping[str, Any]) -> CellKey:
    """Which cell of which clip a row is of; the cell is "" where a clip could not be read."""
    return row["network"], row["trained"], row["input"], row["index"], row["cell"]


class Journal:
    """The rows of one process, to be appended to.

    Args:
        folder: of the study; there.
        rank: of the process.

    Raises:
        ConfigError: another process writes to the same file.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.path = folder / f"rows.rank{rank}.jsonl"
        self._file: BinaryIO = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                self._file.close()
                raise ConfigError(
                    f"another process is writing {self.path}; wait for it, or choose out=DIR"
                ) from error
        self._mend()

    def _mend(self) -> None:
        """Drop a last line that a kill has cut off."""
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            self._file.truncate(whole)

    def add(self, row: StudyRow) -> None:
        """Append a row; when this returns, it is on the disk."""
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_journal(folder: Path) -> dict[CellKey, StudyRow]:
    """The rows of all processes, the last of each cell and clip; broken lines are left out."""
    rows: dict[CellKey, StudyRow] = {}
    for path in sorted(folder.glob("rows.rank*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
                key = cell_key(row)
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill, or being written
            if key not in rows or rows[key].get("error"):  # of a repetition, what has worked
                rows[key] = row
    return rows


def same_study(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note what makes a study this one; or see that it is the one that is there.

    Args:
        folder: made if need be.
        facts: plain; what is below "about" may differ.

    Raises:
        ConfigError: another study lies there.
    """
    path = folder / "study.json"
    facts = json.loads(json.dumps(facts))
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("rows.rank*.jsonl")) and not path.exists():  # nobody was faster
            raise ConfigError(f"{folder} has rows but no study.json; choose out=DIR") from None
        write_text(path, json.dumps(facts, indent=2) + "\n", sync=True)
        return
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({error}); choose out=DIR") from error
    old, new = (dict(_flat(leaves(tree))) for tree in (there, facts))
    for key in [*new, *(key for key in old if key not in new)]:
        if (
            not key.startswith(_FREE)
            and not key.endswith(_FREE_ENDS)
            and old.get(key) != new.get(key)
        ):
            raise ConfigError(
                f"{folder} holds a study with {key}={_short(old.get(key))}, not "
                f"{_short(new.get(key))}; go on with the same settings, choose out=DIR for another "
                "study, or remove the folder"
            )


def _flat(pairs: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    """Lists of mappings, such as the checkpoints, key by key as well."""
    for key, value in pairs:
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for n, item in enumerate(value):
                yield from ((f"{key}[{n}].{name}", part) for name, part in leaves(item))
        else:
            yield key, value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"
