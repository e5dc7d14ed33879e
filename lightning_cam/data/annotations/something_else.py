"""Boxes of Something-Else: the hands and the objects of Something-Something version 2.

Files `bounding_box_smthsmth_part1.json` to `part4.json` (Materzynska et al., CVPR 2020), each a
mapping of a video's id to a list of frames: {"name": "id/0001.jpg", "labels": [{"box2d": {"x1",
"y1", "x2", "y2"}, "standard_category": "hand" or the number of an object}]}. Images are 240 pixels
high, their numbers count from 1 at 12 frames per second: steps of a clip find theirs by time. A
frame without any box was not judged, and nobody says when the action is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.data.annotations.boxes import BoxTruth
from lightning_cam.errors import DataError

_RATE, _HEIGHT = 12.0, 240.0
_PARTS = ("hand", "object")
_MOST = 10**5  # frames of a video


def find(path: Path, names: Sequence[str]) -> dict[str, BoxTruth] | None:
    """The boxes of these videos, from one file or all of a folder; None if there is no such file.

    Raises:
        DataError: one cannot be read, or is not as described above.
    """
    parts = path.glob("bounding_box_smthsmth*.json") if path.is_dir() else [path]
    files = sorted(file for file in parts if file.is_file())
    if not files or any(file.suffix.lower() != ".json" for file in files):
        return None
    wanted, found = set(names), {}
    for file in files:
        try:
            for name, frames in _videos(file.read_text(encoding="utf-8")):
                if name in wanted:
                    found[name] = _video(name, frames)
        except (ValueError, OSError, RecursionError) as error:
            said = " ".join(str(error).split())[:200]
            raise DataError(
                f"cannot read annotations {str(file)!r} ({said}); get the file again, or leave out "
                "data.annotations="
            ) from error
    return found


def _videos(text: str) -> Iterator[tuple[str, Any]]:
    """The entries of a mapping in JSON one by one: all at once take ten times their text."""
    decode, at = json.JSONDecoder().raw_decode, _behind(text, 0, "{")
    while _next(text, at) != "}":
        name, at = decode(text, _blank(text, at))
        if not isinstance(name, str):
            raise ValueError(f"{name!r} is no id of a video")
        value, at = decode(text, _blank(text, _behind(text, at, ":")))
        yield name, value
        if _next(text, at) != "}":
            at = _behind(text, at, ",")


def _blank(text: str, at: int) -> int:
    """Where the next character is that is not a blank."""
    while text[at : at + 1].isspace():
        at += 1
    return at


def _next(text: str, at: int) -> str:
    at = _blank(text, at)
    return text[at : at + 1]


def _behind(text: str, at: int, sign: str) -> int:
    at = _blank(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign!r} is missing at character {at}")
    return at + 1


def _video(name: str, frames: Any) -> BoxTruth:
    """The boxes of one video.

    Raises:
        ValueError: they make no sense.
    """
    places, corners, parts, count = [], [], [], 0
    try:
        for frame in frames:
            place = int(frame["name"].rpartition("/")[2].partition(".")[0]) - 1
            if not 0 <= place < _MOST:
                raise ValueError(f"frame {frame['name']!r}")
            count = max(count, place + 1)
            for label in frame["labels"]:
                places.append(place)
                corners.append([float(label["box2d"][key]) for key in ("x1", "y1", "x2", "y2")])
                parts.append(int(label["standard_category"] != _PARTS[0]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {type(error).__name__} {error}") from error
    if not all(math.isfinite(number) for box in corners for number in box):
        raise ValueError(f"{name}: a box is not finite")
    judged = np.zeros(count, np.bool_)
    judged[places] = True
    return BoxTruth(
        np.array(places, np.int32), np.array(corners).reshape(-1, 4), (_HEIGHT, None), judged,
        rate=_RATE, parts=_PARTS, part=np.array(parts, np.int32),
    )  # fmt: skip
