"""Geometry and colours of snippets: pixels and intrinsics change together.

One scale, crop, flip and colour change per clip, never per frame: what differs between its frames
must be the motion of the camera alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lightning_cam.data.core.arrays import FloatArray
from lightning_cam.data.core.transforms import (
    ColourJitter,
    are_colours,
    normalisation,
    resize_mask,
)
from lightning_cam.data.drives import cameras
from lightning_cam.data.video.info import Pixels
from lightning_cam.errors import ConfigError


class SnippetView(NamedTuple):
    """What a transform made of a clip."""

    video: Tensor  # (3, T, H, W) uint8
    colour: Tensor  # (2, 3) float32, see `transforms.finish`
    intrinsics: FloatArray  # (3, 3) of H x W pixels
    masks: Tensor | None  # (M, H, W) bool


@dataclass(frozen=True)
class SnippetTransform:
    """Resize whole images to one size; in training magnify, crop and flip them.

    Attributes:
        height: H in pixels.
        width: W in pixels; both sides are scaled by factors of their own, as `intrinsics` say.
        mean: of R, G and B, for values in [0, 1].
        std: of R, G and B.
        hflip: probability of a horizontal flip in training.
        zoom: images are magnified by U(1, zoom) and cropped anywhere in training.
        jitter: colour change in training.
    """

    height: int
    width: int
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)
    hflip: float = 0.5
    zoom: float = 1.0
    jitter: ColourJitter | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == 3 or not are_colours(self.mean, self.std):
            raise ConfigError(
                f"mean={list(self.mean)} and std={list(self.std)} need three numbers each, std > 0"
            )
        if not 0 <= self.hflip <= 1:
            raise ConfigError(f"hflip={self.hflip} must be a probability, a number from 0 to 1")
        if not 1 <= self.zoom <= 2:
            raise ConfigError(f"zoom={self.zoom} must be a factor from 1 (no zoom) to 2")

    def __call__(
        self,
        frames: Sequence[Pixels],
        intrinsics: ArrayLike,
        masks: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> SnippetView:
        """Transform the frames of a clip.

        Args:
            frames: T of (h, w, 3) uint8 RGB, of one size.
            intrinsics: (3, 3) of these frames.
            masks: (M, h', w') bool of the same field of view.
            generator: of the augmentation; None for the evaluation transform.
        """
        # Drawn even where unused, so that one setting does not change what another one draws.
        z, u, v, w = torch.rand(4, generator=generator).tolist() if generator else (0, 0, 0, 1)
        zoom = 1 + (self.zoom - 1) * z
        height, width = round(self.height * zoom), round(self.width * zoom)
        top, left = int(u * (height - self.height + 1)), int(v * (width - self.width + 1))
        rows, columns = slice(top, top + self.height), slice(left, left + self.width)
        flipped = w < self.hflip
        h, w = frames[0].shape[:2]
        k = cameras.cropped_intrinsics(
            cameras.resized_intrinsics(intrinsics, width / w, height / h), left, top
        )
        if flipped:
            k = cameras.mirrored_intrinsics(k, self.width)
        colour = normalisation(self.mean, self.std)
        if generator is not None and self.jitter is not None:
            _, colour, _ = self.jitter(colour, generator)
        video = np.empty((3, len(frames), self.height, self.width), np.uint8)
        last: Pixels | None = None
        for step, frame in enumerate(frames):
            if frame is last:  # padding
                video[:, step] = video[:, step - 1]
                continue
            last = frame
            image = shrink(frame, height, width)[rows, columns]
            image = image[:, ::-1] if flipped else image
            cv2.split(np.ascontiguousarray(image), list(video[:, step]))
        if masks is not None:
            masks = resize_mask(masks, [height, width])[:, rows, columns]
            masks = masks.flip(-1) if flipped else masks
        return SnippetView(torch.from_numpy(video), colour, k, masks)


def shrink(frame: Pixels, height: int, width: int) -> Pixels:
    """An image (h, w, 3) of another size; averages where it gets smaller."""
    if frame.shape[:2] == (height, width):
        return frame
    smaller = height <= frame.shape[0] and width <= frame.shape[1]
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=way), np.uint8)
