"""What a sample and a batch hold.

A data set gives samples, a loader stacks them: tensors get a first axis B, everything else becomes
a list of B. Networks and methods need "video" alone; each other key is used where it is there.

Ground truth of a part of the body has a key of its own, "mask/<part>", shaped as "mask".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class _Video(TypedDict):
    video: Tensor  # (C, T, H, W) float32, normalised


class Sample(_Video, total=False):
    """One clip, whatever it is for."""

    valid: Tensor  # (T,) bool, False where the clip is padded
    frame_idx: Tensor  # (T,) int64, the numbers of the frames in their file or folder
    time_s: Tensor  # (T,) float32, seconds
    black: Tensor  # (C,) float32, black as it is in "video"
    clip_id: str  # names the clip
    path: str  # where it comes from
    error: str  # why it cannot be read; "" if it can


class ClipSample(Sample, total=False):
    """One clip with a label. In evaluation it may have ground truth."""

    label: Tensor  # () int64, -1 where it is unknown
    mask: Tensor  # (T, H, W) bool, where the evidence is
    action: Tensor  # (T,) bool, when
    spectrum: str  # "ir", "tv" or "irtv"


class DriveSample(Sample, total=False):
    """One clip of a moving camera. Poses and depth come in evaluation alone."""

    intrinsics: Tensor  # (3, 3) float32, of H x W pixels
    target: Tensor  # (T,) bool, the targets that no other clip counts
    sequence: str  # names the drive
    poses: Tensor  # (T, 4, 4) float32, camera to world, relative to the first; NaN where unknown
    depth: NDArray[np.float32]  # (T, h, w) metres, 0 where unknown; (0, 0, 0) without any


class _Videos(TypedDict):
    video: Tensor  # (B, C, T, H, W)


class Batch(_Videos, total=False):
    """B samples of either kind."""

    valid: Tensor  # (B, T)
    frame_idx: Tensor  # (B, T)
    time_s: Tensor  # (B, T)
    black: Tensor  # (B, C)
    clip_id: Sequence[str]
    path: Sequence[str]
    error: Sequence[str]
    label: Tensor  # (B,)
    mask: Tensor  # (B, T, H, W)
    action: Tensor  # (B, T)
    spectrum: Sequence[str]
    intrinsics: Tensor  # (B, 3, 3)
    target: Tensor  # (B, T)
    sequence: Sequence[str]
    poses: Tensor  # (B, T, 4, 4)
    depth: Sequence[Any]  # B arrays (T, h, w)
