"""Boxes of EPIC-KITCHENS-55: the object that an action is about.

Files `EPIC_train_action_labels.csv` and `EPIC_train_object_labels.csv` (Damen et al., ECCV 2018) in
one folder. A video of the data set shows one action and is called by its `uid`, or by
`<video_id>_<uid>`, from `start_frame` to `stop_frame` at 60 frames per second. Its boxes are those
of its noun: rows "[(top, left, height, width), ...]" in images of 1920 x 1080, about two a second,
each of which counts for the 3 frames before and after as well. Other frames were not judged.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from lightning_cam.data.annotations.boxes import BoxTruth
from lightning_cam.errors import DataError

ACTIONS, OBJECTS = "EPIC_train_action_labels.csv", "EPIC_train_object_labels.csv"
_RATE, _SIZE = 60.0, (1080.0, 1920.0)
_REACH = 3  # frames before and after a box
_MOST = 10**6  # frames of an action
_BOX = re.compile(r"\(\s*(\d+),\s*(\d+),\s*(\d+),\s*(\d+)\s*\)")
_LIST = re.compile(r"\[(b(,b)*,?)?\]")
_T = TypeVar("_T")


class _Action(NamedTuple):
    """What is shown, and in which frames of which recording."""

    uid: str
    recording: str
    noun: int
    first: int
    last: int


class _Boxes(NamedTuple):
    """What was drawn in a frame of a recording: left, top, right and bottom of each box."""

    recording: str
    noun: int
    frame: int
    corners: list[tuple[int, int, int, int]]


def find(path: Path, names: Sequence[str]) -> dict[str, BoxTruth] | None:
    """The boxes of these videos; None if the files are not in the folder.

    Raises:
        DataError: one cannot be read, or is not as described above.
    """
    if not all((path / file).is_file() for file in (ACTIONS, OBJECTS)):
        return None
    wanted = set(names)
    actions = {
        name: action
        for action in _rows(path / ACTIONS, _action)
        for name in wanted & {action.uid, f"{action.recording}_{action.uid}"}
    }
    boxes: dict[tuple[str, int], list[_Boxes]] = defaultdict(list)
    asked = {(action.recording, action.noun) for action in actions.values()}
    for drawn in _rows(path / OBJECTS, _boxes):
        if (drawn.recording, drawn.noun) in asked:
            boxes[drawn.recording, drawn.noun].append(drawn)
    return {
        name: _truth(action, boxes[action.recording, action.noun])
        for name, action in actions.items()
    }


def _rows(path: Path, read: Callable[[Mapping[str, str]], _T]) -> Iterator[_T]:
    """The rows of a table.

    Raises:
        DataError: one makes no sense.
    """
    line = 1
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                line += 1
                yield read(row)
    except (AttributeError, KeyError, OSError, TypeError, ValueError, csv.Error) as error:
        said = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise DataError(
            f"cannot read annotations {str(path)!r} (line {line}: {said}); get the file again, or "
            "leave out data.annotations="
        ) from error


def _action(row: Mapping[str, str]) -> _Action:
    action = _Action(
        row["uid"], row["video_id"], int(row["noun_class"]),
        int(row["start_frame"]), int(row["stop_frame"]),
    )  # fmt: skip
    if not 0 <= action.last - action.first < _MOST:
        raise ValueError(f"frames {action.first} to {action.last}")
    return action


def _boxes(row: Mapping[str, str]) -> _Boxes:
    text = row["bounding_boxes"]
    if not _LIST.fullmatch(_BOX.sub("b", text).replace(" ", "")):
        raise ValueError(f"boxes {text!r}")
    sides = (map(int, found) for found in _BOX.findall(text))
    corners = [(left, top, left + width, top + height) for top, left, height, width in sides]
    return _Boxes(row["video_id"], int(row["noun_class"]), int(row["frame"]), corners)


def _truth(action: _Action, drawn: Sequence[_Boxes]) -> BoxTruth:
    """The boxes within an action; where those of two frames reach the same one, the nearest."""
    count = action.last - action.first + 1
    nearest: dict[int, tuple[int, list[tuple[int, int, int, int]]]] = {}
    for boxes in drawn:
        for away in range(-_REACH, _REACH + 1):
            place = boxes.frame - action.first + away
            if boxes.corners and 0 <= place < count:
                nearest[place] = min(
                    nearest.get(place, (_REACH + 1, [])), (abs(away), boxes.corners)
                )
    frames = [place for place, (_, corners) in nearest.items() for _ in corners]
    corners = [box for _, of_frame in nearest.values() for box in of_frame]
    judged = np.zeros(count, np.bool_)
    judged[frames] = True
    return BoxTruth(
        np.array(frames, np.int32), np.array(corners, np.float64).reshape(-1, 4), _SIZE, judged,
        rate=_RATE,
    )  # fmt: skip
