"""Which clip is meant: a text that is another for another clip, and for a file that has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.composed import ComposedDataset
from lightning_cam.data.core.dataset import SampleDataset


def key_of_row(title: str, index: int, dataset: SampleDataset[Any]) -> str:
    """Which clip of a data set this is; of a drive, many files, the place in the list says it."""
    row = dataset.clips[index]
    if isinstance(dataset, ComposedDataset):
        keys = (key_of_row(title, part, dataset.source) for part in row.parts)
        return f"{title}; {row.place} of {'; '.join(keys)}"
    return key_of_file(title, row, row.path) if isinstance(row, Clip) else f"{title}; row {index}"


def key_of_file(title: str, where: object, file: Path) -> str:
    """Which clip this is: its title, where it comes from, and the state of its file."""
    try:
        state = file.stat()
    except OSError:
        return f"{title}; {where!r}"
    return f"{title}; {where!r}; {state.st_size} bytes, changed at {state.st_mtime_ns}"
