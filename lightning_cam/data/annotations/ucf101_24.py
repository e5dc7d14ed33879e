"""Boxes of UCF101-24: who acts, in every frame of an action, in 24 classes of UCF101.

The file `pyannot.pkl` of the corrected annotations (Singh et al., ICCV 2017; repository
gurkirt/corrected-UCF101-Annots): "Class/v_Class_g01_c01" -> {"numf": frames of the video,
"annotations": [{"sf": first frame, "ef": frame after the last, "boxes": (ef - sf, 4) x, y, width,
height in images of 320 x 240}]}. Frames count from 0. Actions were looked for in the whole video:
outside of all intervals it is known that nobody acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.data.annotations.boxes import BoxTruth
from lightning_cam.data.annotations.plain_pickle import PickledArray, load_plain_pickle
from lightning_cam.errors import DataError

_SIZE = (240.0, 320.0)  # height and width of the images
_MOST = 10**6  # frames of a video


def find(path: Path, names: Sequence[str]) -> dict[str, BoxTruth] | None:
    """The boxes of these videos; None if the path is no pickle.

    Raises:
        DataError: it cannot be read, or is not as described above.
    """
    if path.suffix.lower() not in (".pkl", ".pickle") or path.is_dir():
        return None
    try:
        content = load_plain_pickle(path)
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping of videos")
        wanted = set(names)
        found = {}
        for key, node in content.items():
            name = str(key).rpartition("/")[2]
            if name in wanted:
                found[name] = _video(name, node)
    except ValueError as error:
        raise DataError(
            f"cannot read annotations {str(path)!r} ({error}); get pyannot.pkl again, or leave out "
            "data.annotations="
        ) from error
    return found


def _video(name: str, node: Any) -> BoxTruth:
    """The boxes of one video.

    Raises:
        ValueError: it makes no sense.
    """
    count, tubes = _part(node, "numf", name), _part(node, "annotations", name)
    if type(count) is not int or not 0 < count < _MOST or not isinstance(tubes, list):
        raise ValueError(f"{name}: numf={count!r}")
    judged, acting = np.ones(count, np.bool_), np.zeros(count, np.bool_)
    frames, corners = [np.empty(0, np.int32)], [np.empty((0, 4))]
    for tube in tubes:
        first, end = _part(tube, "sf", name), _part(tube, "ef", name)
        boxes = _part(tube, "boxes", name)
        if not isinstance(boxes, PickledArray) or boxes.numbers.shape[1:] != (4,):
            raise ValueError(f"{name}: boxes are no array (n, 4)")
        drawn = boxes.numbers.astype(np.float64)
        if type(first) is not int or type(end) is not int or first < 0 or end - first > count:
            raise ValueError(f"{name}: frames {first!r} to {end!r} of {count}")
        there = np.arange(first, min(end, first + len(drawn), count), dtype=np.int32)
        drawn = drawn[: len(there)]
        acting[first:end] = True
        without = np.setdiff1d(np.arange(first, min(end, count)), there[drawn[:, 2:].min(1) > 0])
        judged[without] = False  # an action is there, and nobody says where
        frames.append(there)
        corners.append(np.concatenate([drawn[:, :2], drawn[:, :2] + drawn[:, 2:]], 1))
    return BoxTruth(np.concatenate(frames), np.concatenate(corners), _SIZE, judged, acting)


def _part(node: Any, key: str, name: str) -> Any:
    if not isinstance(node, Mapping) or key not in node:
        raise ValueError(f"{name} lacks {key}")
    return node[key]
