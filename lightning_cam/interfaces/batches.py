"""What a sample and a batch hold.

A data set gives samples, a loader stacks them: tensors get a first axis B, everything else becomes
a list of B. Networks and methods need "video" alone; each other key is used where it is there.

Ground truth of a part of a scene has a key of its own, "mask/<part>", shaped as "mask".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypedDict

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor


class _Video(TypedDict):
    video: Annotated[Tensor, "C T H W", "float32"]  # normalised


class Sample(_Video, total=False):
    """One clip, whatever it is for."""

    valid: Annotated[Tensor, "T", "bool"]  # False where the clip is padded
    frame_idx: Annotated[Tensor, "T", "int64"]  # numbers of the frames in their file or folder
    time_s: Annotated[Tensor, "T", "float32"]  # seconds
    duration_s: Annotated[Tensor, "", "float32"]  # of the whole video
    black: Annotated[Tensor, "C", "float32"]  # black as it is in "video"
    clip_id: str  # names the clip
    path: str  # where it comes from
    error: str  # why it cannot be read; "" if it can


class ClipSample(Sample, total=False):
    """One clip with a label. In evaluation it may have ground truth."""

    # -1 where it is unknown; of several labels a clip (K,): 1 where true, 0 where not, -1 unknown
    label: Annotated[Tensor, "", "int64"]
    mask: Annotated[Tensor, "T H W", "bool"]  # where the evidence is
    action: Annotated[Tensor, "T", "bool"]  # when
    judged: Annotated[Tensor, "T", "bool"]  # frames where both are known; without it all
    spectrum: str  # "ir", "tv" or "irtv"


class DriveSample(Sample, total=False):
    """One clip of a moving camera. Poses and depth come in evaluation alone."""

    intrinsics: Annotated[Tensor, "3 3", "float32"]  # of H x W pixels
    target: Annotated[Tensor, "T", "bool"]  # the targets that no other clip counts
    sequence: str  # names the drive
    poses: Annotated[Tensor, "T 4 4", "float32"]  # camera to world, from the first; NaN: unknown
    depth: Annotated[ndarray, "T h w", "float32"]  # metres, 0: unknown; (0, 0, 0) without any


class _Videos(TypedDict):
    video: Annotated[Tensor, "B C T H W", "float32"]


class Batch(_Videos, total=False):
    """B samples of either kind."""

    valid: Annotated[Tensor, "B T", "bool"]
    frame_idx: Annotated[Tensor, "B T", "int64"]
    time_s: Annotated[Tensor, "B T", "float32"]
    duration_s: Annotated[Tensor, "B", "float32"]
    black: Annotated[Tensor, "B C", "float32"]
    clip_id: Sequence[str]
    path: Sequence[str]
    error: Sequence[str]
    label: Annotated[Tensor, "B", "int64"]
    mask: Annotated[Tensor, "B T H W", "bool"]
    action: Annotated[Tensor, "B T", "bool"]
    judged: Annotated[Tensor, "B T", "bool"]
    spectrum: Sequence[str]
    intrinsics: Annotated[Tensor, "B 3 3", "float32"]
    target: Annotated[Tensor, "B T", "bool"]
    sequence: Sequence[str]
    poses: Annotated[Tensor, "B T 4 4", "float32"]
    depth: Sequence[ndarray]
