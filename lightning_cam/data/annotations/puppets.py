"""Puppet masks of J-HMDB: the pixels of who acts, in 21 classes of HMDB51.

Folders `<class>/<video>/puppet_mask.mat` (Jhuang et al., ICCV 2013), each with an array `part_mask`
(h, w, n) that is 0 outside of the person. They belong to J-HMDB's own videos, which were cut out of
those of HMDB51 and are shorter. All frames are judged; all of a video is the action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_cam.data.core.array_files import MOST_BYTES
from lightning_cam.data.core.ground_truth import ClipTruth, VideoTruth
from lightning_cam.data.video.info import VideoInfo
from lightning_cam.data.video.sampling import Indices
from lightning_cam.errors import DataError

_NUMBERS = ("uint", "int", "logical", "double", "single")
_FILE, _ARRAY = "puppet_mask.mat", "part_mask"


@dataclass(frozen=True)
class PuppetTruth(VideoTruth):
    """The masks of one video, read when they are asked for.

    Attributes:
        path: of its `puppet_mask.mat`.
    """

    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        return "mask", "judged"

    def misfit(self, info: VideoInfo) -> str:
        frames = self._shape()[2]
        if abs(frames - info.num_frames) <= 1:
            return ""
        return f"has {frames} frames, its video {info.num_frames}"

    def of_frames(self, indices: Indices, info: VideoInfo, size: tuple[int, int]) -> ClipTruth:
        from scipy.io import loadmat  # half a second

        shape = self._shape()
        try:
            mask = np.asarray(loadmat(self.path, variable_names=[_ARRAY])[_ARRAY]) > 0
        except Exception as error:  # damaged files raise of many kinds
            raise self._unreadable(error) from error
        judged = indices < shape[2]
        shown = mask[..., np.where(judged, indices, 0)].transpose(2, 0, 1)
        return ClipTruth({"mask": shown & judged[:, None, None]}, None, judged)

    def _shape(self) -> tuple[int, int, int]:
        """Height, width and frames, as the file says before it is unfolded.

        Raises:
            DataError: it holds no such array, or too large a one.
        """
        from scipy.io import whosmat

        try:
            found = {name: (shape, kind) for name, shape, kind in whosmat(self.path)}
            if _ARRAY not in found:
                raise ValueError(f"it lacks {_ARRAY}")
            shape, kind = found[_ARRAY]
            if len(shape) == 2:  # one frame: MATLAB drops the last side
                shape = (*shape, 1)
            if len(shape) != 3 or not kind.startswith(_NUMBERS):
                raise ValueError(f"{_ARRAY} is {kind} {shape}, no masks (height, width, frames)")
            if math.prod(shape) > MOST_BYTES:
                raise ValueError(f"{_ARRAY} has {math.prod(shape)} pixels, more than {MOST_BYTES}")
        except Exception as error:
            raise self._unreadable(error) from error
        return shape

    def _unreadable(self, error: Exception) -> DataError:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return DataError(
            f"cannot read ground truth {str(self.path)!r} ({said}): replace or remove it"
        )


def find(path: Path, names: Sequence[str]) -> dict[str, PuppetTruth] | None:
    """The masks of these videos; None if there is no `puppet_mask.mat` below the path."""
    if not path.is_dir():
        return None
    files = {file.parent.name: file for file in path.glob(f"*/*/{_FILE}") if file.is_file()}
    if not files:
        return None
    return {name: PuppetTruth(files[name]) for name in names if name in files}
