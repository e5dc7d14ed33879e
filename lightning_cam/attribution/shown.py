"""What images need of an explanation beside its map: the clip's frames, and names of columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_cam.attribution.columns import Columns
from lightning_cam.errors import ArgumentError

# Makes frames (B, T, H, W, 3) uint8 RGB of a clip (B, C, T, H, W) in model space.
ToFrames = Callable[[Tensor], NDArray[np.uint8]]
STRETCHED = "colours stretched"


@dataclass(frozen=True)
class Colours:
    """Colours from 0 to 1 that were normalised: (colour - mean) / std, by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, mean: Sequence[float] | None, std: Sequence[float] | None) -> Colours | None:
        """None where neither is given.

        Raises:
            ArgumentError: one is given alone, they differ in length, or a std is not above 0.
        """
        if mean is None and std is None:
            return None
        made = cls(tuple(map(float, mean or ())), tuple(map(float, std or ())))
        if len(made.mean) != len(made.std) or not all(each > 0 for each in made.std):
            raise ArgumentError(
                f"a mean of {mean} and a std of {std} do not go together; give a number for each "
                "channel, std above 0: Explainable.of(network, layers, mean=[0.485, 0.456, 0.406], "
                "std=[0.229, 0.224, 0.225])"
            )
        return made

    @property
    def black(self) -> list[float]:
        """Black in model space."""
        return [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]

    def __call__(self, clip: Tensor) -> NDArray[np.uint8]:
        """Frames of a clip; of other than three channels see `frames_of`."""
        if clip.shape[1] != len(self.mean):
            raise ArgumentError(
                f"the clip has {clip.shape[1]} channels, mean and std are of {len(self.mean)}"
            )
        mean, std = (torch.tensor(each, device=clip.device) for each in (self.mean, self.std))
        shape = (-1, 1, 1, 1)
        return np.stack([_pixels(one * std.view(shape) + mean.view(shape)) for one in clip.float()])


@dataclass(frozen=True)
class Shown:
    """The clips that were explained, as images show them.

    Attributes:
        clip: `(B, C, T, H, W)` in model space; not a copy, so that an explanation keeps it alive.
        columns: of the outputs.
        question: about the column, with `{}` for its name.
        valid: which frames are not padding, `(B, T)`; None: all.
        to_frames: see `Explainable.to_frames`.
    """

    clip: Tensor
    columns: Columns
    question: str = "{}"
    valid: Tensor | None = None
    to_frames: ToFrames | None = None

    def frames(self, row: int) -> tuple[NDArray[np.uint8], str]:
        """The frames `(T, H, W, 3)` of a clip, and what is to be said of their colours."""
        clip = self.clip[row : row + 1]
        if self.to_frames is not None:
            return np.asarray(self.to_frames(clip)[0]), ""
        return frames_of(clip[0])


def frames_of(clip: Tensor) -> tuple[NDArray[np.uint8], str]:
    """`(T, H, W, 3)` uint8 of one clip `(C, T, H, W)` whose normalisation nobody knows.

    Colours from 0 to 1 are taken as they are, others stretched over the clip's own range, which the
    second value says. One channel becomes grey, more than three show the first.
    """
    clip = clip.detach().float()[:3]
    low, high = clip.amin(), clip.amax()
    if low >= 0 and high <= 1:
        return _pixels(clip), ""
    return _pixels((clip - low) / (high - low).clamp(min=1e-12)), STRETCHED


def _pixels(clip: Tensor) -> NDArray[np.uint8]:
    """Of colours from 0 to 1, `(C, T, H, W)`."""
    if len(clip) < 3:
        clip = clip[:1].expand(3, -1, -1, -1)
    levels = (clip[:3].clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
