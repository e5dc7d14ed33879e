"""Ground truth of a clip for judging heatmaps: where the actor is and when the action happens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.array_files import load_arrays
from lightning_cam.data.core.arrays import Array
from lightning_cam.data.video.info import VideoInfo
from lightning_cam.data.video.sampling import Indices
from lightning_cam.errors import DataError
from lightning_cam.files import whole_file

_PART = "mask/"  # begins the names of the parts' arrays, as those of a sample


@dataclass(frozen=True)
class ClipTruth:
    """Ground truth of the T frames of a clip.

    Attributes:
        masks: "mask", and "mask/<part>" for each part -> (T, h, w) bool, of any size.
        action: (T,) bool, when somebody acts; None where nobody says.
        judged: (T,) bool, the frames in which both are known; None: all.
    """

    masks: Mapping[str, NDArray[np.bool_]]
    action: NDArray[np.bool_] | None
    judged: NDArray[np.bool_] | None = None


class VideoTruth(ABC):
    """Ground truth of one video, of which a clip takes some frames."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What samples get from it: "mask", "mask/<part>", "action", "judged"."""

    @abstractmethod
    def misfit(self, info: VideoInfo) -> str:
        """Why it is not that of a video, in words; "" if it may be.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def of_frames(self, indices: Indices, info: VideoInfo, size: tuple[int, int]) -> ClipTruth:
        """Ground truth of some frames.

        Args:
            indices: (T,) numbers of the frames in the video.
            info: on the video.
            size: height and width of the resized frames, at which boxes are painted.

        Raises:
            DataError: it cannot be read.
        """


def open_truth(where: Path | VideoTruth) -> VideoTruth:
    """Ground truth that lies in a file, or is there already.

    Raises:
        DataError: see `Truth.read`.
    """
    return Truth.read(where) if isinstance(where, Path) else where


@dataclass(frozen=True)
class Truth(VideoTruth):
    """Ground truth of one video.

    Attributes:
        mask: (n, H, W) bool, the pixels of what acts or is acted upon, in every source frame.
        onset: start of the action in seconds.
        offset: its end.
        state: (n, S) what else the renderer knows of each frame.
        parts: name -> (n, H, W) bool, parts of the mask that are judged apart, such as "hand".
    """

    mask: NDArray[np.bool_]
    onset: float
    offset: float
    state: NDArray[Any]
    parts: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return "mask", *(f"{_PART}{name}" for name in self.parts), "action"

    def misfit(self, info: VideoInfo) -> str:
        if len(self.mask) >= info.num_frames:
            return ""
        return f"has {len(self.mask)} frames, its video {info.num_frames}"

    def of_frames(self, indices: Indices, info: VideoInfo, size: tuple[int, int]) -> ClipTruth:
        seconds = info.times[indices]
        masks = {"mask": self.mask} | {f"{_PART}{name}": part for name, part in self.parts.items()}
        return ClipTruth(
            {name: mask[indices] for name, mask in masks.items()},
            (seconds >= self.onset) & (seconds < self.offset),
        )

    def write(self, path: Path) -> None:
        """Write a compressed `.npz` with a bit-packed mask."""
        masks = {"mask": self.mask} | {f"{_PART}{name}": part for name, part in self.parts.items()}
        arrays: dict[str, Any] = {name: np.packbits(mask, -1) for name, mask in masks.items()}
        with whole_file(path) as file:
            np.savez_compressed(
                file,
                width=self.mask.shape[-1],
                onset=self.onset,
                offset=self.offset,
                state=self.state.astype(np.float32),
                **arrays,
            )

    @classmethod
    def read(cls, path: Path) -> Truth:
        """Read what `write` wrote.

        Raises:
            DataError: the file is absent, damaged or too large, see `load_arrays`.
        """
        try:
            arrays = load_arrays(path)
            width = int(arrays["width"])
            masks = {
                name: _unpacked(packed, width)
                for name, packed in arrays.items()
                if name == "mask" or name.startswith(_PART)
            }
            return cls(
                mask=masks.pop("mask"),
                onset=float(arrays["onset"]),
                offset=float(arrays["offset"]),
                state=arrays["state"],
                parts={name.removeprefix(_PART): mask for name, mask in masks.items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            lacks = "it lacks " if isinstance(error, KeyError) else ""
            raise DataError(
                f"cannot read ground truth {str(path)!r} ({lacks}{error}): replace or remove it"
            ) from error


def _unpacked(packed: Array, width: int) -> NDArray[np.bool_]:
    """A mask (n, H, ceil(W / 8)) of bits as (n, H, W); NumPy would fill up any width."""
    if packed.dtype != np.uint8 or packed.ndim != 3 or packed.shape[-1] != -(-width // 8):
        raise ValueError(f"masks of {width} columns are not {packed.dtype} {packed.shape}")
    return np.unpackbits(packed, axis=-1, count=width).view(np.bool_)


def truth_path(folder: Path, class_name: str, clip_id: str) -> Path:
    """Where the ground truth of a clip lies: `<folder>/<class>/<clip>.npz`."""
    return folder / class_name / f"{clip_id}.npz"
