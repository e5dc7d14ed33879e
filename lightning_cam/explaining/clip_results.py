"""What is kept of one explained clip for tables and page, and the line of JSON it is on the disk.

Everything in it is exact, so that a page of clips explained in two runs is the page of one run.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_cam.explaining.measured_files import ClipNumbers
from lightning_cam.metrics import Curve
from lightning_cam.viz import PageImages, ReportEntry, Stack

_FILES = ("video", "sheet", "data", "curves", "original")  # fields of an entry, inside the folder
_ARRAY, _NUMBER = "array:", "number:"  # the only key of a mapping that stands for one
_KINDS = "fiub"  # of arrays: floats, integers, booleans


@dataclass(frozen=True)
class ClipResult:
    """One explained clip.

    Attributes:
        entry: of the page.
        scores: rows of scores.csv.
        relevance: rows of relevance.csv.
        numbers: of the measurements.
        missing: method (or measure of the spectra) -> why it has no map.
        track: rows of track.csv, of a whole video.
    """

    entry: ReportEntry
    scores: Sequence[Mapping[str, Any]]
    relevance: Sequence[Mapping[str, Any]]
    numbers: ClipNumbers
    missing: Mapping[str, str] = field(default_factory=dict)
    track: Sequence[Mapping[str, Any]] = ()


def result_row(key: str, result: ClipResult) -> dict[str, Any]:
    """A result as plain values for a journal; `key` says of which clip."""
    entry = {f.name: getattr(result.entry, f.name) for f in fields(ReportEntry)}
    entry |= {name: None if entry[name] is None else entry[name].name for name in _FILES}
    entry["stacks"] = {name: vars(stack) for name, stack in result.entry.stacks.items()}
    if (images := result.entry.images) is not None:
        entry["images"] = [images.rows.name, images.poster.name, images.shape]
    curves = {
        method: {
            name: {part: getattr(curve, part) for part in ("fraction", "score", "tied")}
            | {"clip_first": curve.clip_first}
            for name, curve in of_method.items()
        }
        for method, of_method in result.numbers.curves.items()
    }
    row: dict[str, Any] = _plain(
        {
            "key": key,
            "entry": entry,
            "scores": result.scores,
            "relevance": result.relevance,
            "numbers": {**vars(result.numbers), "curves": curves},
            "missing": result.missing,
            "track": result.track,
        }
    )
    return row


def result_of_row(row: Mapping[str, Any], folder: Path) -> ClipResult | None:
    """The result that a row of a journal in `folder` holds; None if its files are not there."""
    try:
        found = _restored(row)
        entry, numbers = found["entry"], found["numbers"]
        for name in _FILES:
            if entry[name] is not None:
                entry[name] = folder / Path(entry[name]).name
                if not entry[name].is_file():
                    return None
        if entry["images"] is not None:
            *names, shape = entry["images"]
            rows, poster = (folder / Path(name).name for name in names)
            if not (rows.is_file() and poster.is_file()):
                return None
            entry["images"] = PageImages(rows, poster, float(shape))
        entry["stacks"] = {name: Stack(**parts) for name, parts in entry["stacks"].items()}
        numbers["curves"] = {
            method: {name: _curve(parts) for name, parts in of_method.items()}
            for method, of_method in numbers["curves"].items()
        }
        return ClipResult(
            ReportEntry(**entry),
            found["scores"],
            found["relevance"],
            ClipNumbers(**numbers),
            found["missing"],
            found.get("track", ()),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # of another version, or not ours


def _curve(parts: Mapping[str, Any]) -> Curve:
    fraction, score, tied = (torch.from_numpy(parts[n]) for n in ("fraction", "score", "tied"))
    return Curve(fraction, score, tied, bool(parts["clip_first"]))


def _plain(value: Any) -> Any:
    """Strings, numbers, lists and mappings; arrays, and what JSON has no number for, marked."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {_ARRAY: [value.dtype.str, list(value.shape), data]}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        return {_NUMBER: repr(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(part) for part in value]
    if not isinstance(value, dict):
        return value
    if _NUMBER in value and len(value) == 1:
        return float(value[_NUMBER])
    if _ARRAY in value and len(value) == 1:
        kind, shape, data = value[_ARRAY]
        if np.dtype(kind).kind not in _KINDS:
            raise ValueError(f"no array of numbers: {kind}")
        return np.frombuffer(base64.b64decode(data), np.dtype(kind)).reshape(shape).copy()
    return {name: _restored(part) for name, part in value.items()}
