"""The segments of a run in W&B: each start of a run writes one, `wandb/offline-run-DATE-ID/`.

W&B's service writes in blocks. Where it is killed, the newest rows are lost, and the file may end
within a record. So whatever is handed to W&B is noted beside it first, in a journal that the system
has at once. When the run goes on, a segment that was not ended, or has what came after the
checkpoint, gives way to the new one, into which its journal is handed again up to the checkpoint.
What is with the server already stays as it is, and is not sent twice.
"""

from __future__ import annotations

import json
import shutil
import struct
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from lightning_cam.errors import WriteError
from lightning_cam.files import open_to_append
from lightning_cam.training.better import keep_best

JOURNAL = "handed.jsonl"  # beside W&B's own files, which ignores it
PATIENCE = 10.0  # seconds within which the service has written what it has
# Of a log as LevelDB writes it: blocks, and records of checksum, length and kind.
_BLOCK, _HEAD = 2**15, struct.Struct("<IHB")
_LAST_KINDS = (1, 4)  # a whole record, the last part of one

Call = dict[
    str, Any
]  # "kind", "step" of the trainer, "data": what one call of the logger was given


class Journal:
    """What is handed to W&B in one segment.

    Args:
        file: to append to.
        begin: W&B's number of the segment's first row.

    Attributes:
        whole: whether all could be written so far.
    """

    def __init__(self, file: Path, begin: int) -> None:
        self.whole = True
        self._file: FileIO | None = None
        self._path = file
        try:
            self._file = open_to_append(file)
        except WriteError as error:
            self._lost(error)
        self.note(begin=begin)

    def note(self, **line: Any) -> None:
        """One more line; where none can be written, this is said once."""
        if self._file is not None:
            try:
                self._file.write(json.dumps(line).encode() + b"\n")
            except OSError as error:
                self._file = None
                self._lost(error)

    def _lost(self, error: OSError) -> None:
        self.whole = False
        warnings.warn(
            f"{self._path} cannot be written ({error.strerror or error}): if this run is killed, "
            "W&B may lack its newest rows",
            stacklevel=4,
        )


@dataclass
class Segment:
    """What the journal of an earlier segment says.

    Attributes:
        folder: of the segment.
        begin: W&B's number of its first row.
        end: the number after its last row; None where it was not ended.
        calls: how many there are.
        saved: optimiser steps -> position of the last checkpoint of so many.
        early: whether the checkpoint, from which the run goes on, was written in a later segment.
        beyond: whether it has what the checkpoint does not.
    """

    folder: Path
    begin: int = 0
    end: int | None = None
    calls: int = 0
    saved: dict[int, int] = field(default_factory=dict)
    early: bool = False
    beyond: bool = False

    @property
    def kept(self) -> bool:
        """Whether it stays: the server has some of it, or it is whole and right."""
        sent = self.folder.name.startswith("run-") or any(self.folder.glob("*.synced"))
        return sent or (self.end is not None and not self.beyond)

    def seen(self, done: int) -> Iterator[tuple[Call, bool]]:
        """Its calls, and whether each is of what a checkpoint of so many steps has seen.

        An epoch's numbers belong to its last step and come when its checkpoint is written. What is
        explained belongs to the step behind it, and comes before.
        """
        written = self.saved.get(done, -1)
        for n, call in enumerate(calls_of(self.folder)):
            below = call["step"] is not None and call["step"] < done
            yield call, self.early or below or n < written


@dataclass
class Earlier:
    """The segments that a run has when it goes on.

    Attributes:
        begin: W&B's number of the next row.
        known: (step, key) of what is with W&B and would be handed over again.
        best: the best value of each metric that validation measures, of the segments that stay.
        replaced: segments that give way to the new one.
        done: optimiser steps of the checkpoint.
    """

    begin: int
    known: set[tuple[int, str]]
    best: dict[str, float]
    replaced: list[Segment]
    done: int

    def again(self) -> Iterator[Call]:
        """What is to be handed over again, in order."""
        for segment in self.replaced:
            yield from (call for call, seen in segment.seen(self.done) if seen)

    def remove(self) -> None:
        """Remove the segments that have given way."""
        for segment in self.replaced:
            with suppress(OSError):
                shutil.rmtree(segment.folder)


def earlier_segments(home: Path, done: int) -> Earlier:
    """What a run that goes on has in W&B, or on the way there.

    Args:
        home: the run's `wandb/`.
        done: optimiser steps of the checkpoint from which it goes on; 0 at the beginning.
    """
    files = home.glob(f"*run-*/{JOURNAL}")
    ordered = sorted(files, key=lambda file: file.parent.name.removeprefix("offline-"))
    segments = [_read(file.parent) for file in ordered]
    written = [n for n, segment in enumerate(segments) if done in segment.saved]
    for n, segment in enumerate(segments):
        segment.early = bool(written) and n < written[-1]
        segment.beyond = not all(seen for _, seen in segment.seen(done))
    kept = [segment for segment in segments if segment.kept]
    known: set[tuple[int, str]] = set()
    best: dict[str, float] = {}
    for call in (call for segment in kept for call in calls_of(segment.folder)):
        if call["step"] is not None and call["step"] >= done - 1:
            known |= {(call["step"], key) for key in call["data"]}
        if call["kind"] == "metrics":
            keep_best(best, call["data"])
    ends = [s.begin + s.calls if s.end is None else s.end for s in kept]
    replaced = [segment for segment in segments if not segment.kept]
    return Earlier(max(ends, default=0), known, best, replaced, done)


def calls_of(folder: Path) -> Iterator[Call]:
    """What was handed over in a segment, in order."""
    return (line for line in _lines(folder / JOURNAL) if "kind" in line)


def _read(folder: Path) -> Segment:
    segment = Segment(folder)
    for line in _lines(folder / JOURNAL):
        if "kind" in line:
            segment.calls += 1
        elif "saved" in line:
            segment.saved[line["saved"]] = segment.calls
        else:
            segment.begin = line.get("begin", segment.begin)
            segment.end = line.get("end", segment.end)
    return segment


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Whole lines: of a process that was killed the last may be half."""
    with suppress(OSError), file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(json.JSONDecodeError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found


def becomes_whole(file: Path) -> bool:
    """Whether a file of W&B's service ends with a record that is whole, as soon as it can.

    The service writes the last block after it has said that all is done; on a full disk it does
    not, and says nothing.
    """
    until = time.monotonic() + PATIENCE
    while not (whole := _is_whole(file)) and time.monotonic() < until:
        time.sleep(0.05)
    return whole


def _is_whole(file: Path) -> bool:
    end, place, kind = file.stat().st_size, _HEAD.size, 0  # a header of as many bytes
    with file.open("rb") as log:
        while place < end:
            if (left := _BLOCK - place % _BLOCK) < _HEAD.size:
                place += left
                continue
            log.seek(place)
            head = log.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return False
            _, length, kind = _HEAD.unpack(head)
            place += _HEAD.size + length
    return place == end and kind in _LAST_KINDS
