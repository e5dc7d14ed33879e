"""Clip transforms: one crop, one flip and one colour change per clip, never per frame.

Frames come as uint8 tensors (T, 3, H, W); clips leave as normalised float32 (3, T, H, W). Masks
(T, H, W) follow the same geometry. All randomness is drawn from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lightning_cam.errors import ConfigError


@dataclass(frozen=True)
class ColourJitter:
    """Random change of colours, the same for all frames of a clip.

    Attributes:
        contrast: the normalised clip is scaled by U(1 - contrast, 1 + contrast).
        offset: U(-offset, offset) is added to each channel of the normalised clip.
        permute: probability of shuffling the colour channels.
        grey: probability of dropping colour.
    """

    contrast: float = 0.0
    offset: float = 0.0
    permute: float = 0.0
    grey: float = 0.0

    def __post_init__(self) -> None:
        _check_probabilities(permute=self.permute, grey=self.grey)

    def __call__(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """Jitter a normalised clip (3, T, H, W); the input may be changed in place."""
        u = torch.rand(6, generator=generator)  # always six numbers: settings do not shift draws
        order = torch.randperm(3, generator=generator)
        if u[4] < self.grey:
            clip = clip.mean(dim=0, keepdim=True).expand(3, -1, -1, -1).contiguous()
        elif u[5] < self.permute:
            clip = clip[order]
        gain = 1 + self.contrast * (2 * u[0].item() - 1)
        shift = self.offset * (2 * u[1:4] - 1)
        return clip.mul_(gain).add_(shift.view(3, 1, 1, 1))


class View(NamedTuple):
    """What a transform made of a clip."""

    clip: Tensor  # (3, T, H, W) float32, normalised
    mask: Tensor | None  # (T, H, W) bool
    flipped: bool


@dataclass(frozen=True)
class ClipTransform:
    """Resize, crop, flip, normalise and jitter one clip.

    Attributes:
        resize: length of the short side in pixels before cropping.
        crop: side of the square crop; anywhere in training, in the centre otherwise.
        mean: per channel, for values in [0, 1].
        std: per channel.
        hflip: probability of a horizontal flip in training, where the call allows it.
        jitter: colour change in training.

    Example:
        >>> transform = ClipTransform(resize=72, crop=64)
        >>> frames = torch.zeros(16, 3, 96, 128, dtype=torch.uint8)
        >>> transform(transform.shrink(frames)).clip.shape
        torch.Size([3, 16, 64, 64])
    """

    resize: int = 256
    crop: int = 224
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    hflip: float = 0.5
    jitter: ColourJitter | None = None

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize:
            raise ConfigError(
                f"crop={self.crop} must lie between 1 and resize={self.resize} (the short side)"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean={self.mean} and std={self.std} need three numbers, std > 0")
        _check_probabilities(hflip=self.hflip)

    def shrink(self, frames: Tensor) -> Tensor:
        """Resize frames (T, 3, h, w) so that their short side is `resize`; works on uint8."""
        size = _short_side(frames.shape[-2], frames.shape[-1], self.resize)
        if size == frames.shape[-2:]:
            return frames
        return F.resize(frames, size, antialias=True).contiguous()

    def __call__(
        self,
        frames: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        flippable: bool = True,
    ) -> View:
        """Transform frames that `shrink` has resized.

        Args:
            frames: uint8 (T, 3, H, W), the short side of which is `resize`.
            mask: bool (T, h, w) at the size of the video file.
            generator: of the augmentation; None for the evaluation transform.
            flippable: whether the mirrored clip would still have a label (`mirror_labels`); the
                caller gives a flipped clip that label.
        """
        height, width = frames.shape[-2:]
        if mask is not None:
            mask = resize_mask(mask, [height, width])
        # Drawn even where unused, so that one setting does not change what another one draws.
        u, v, w = torch.rand(3, generator=generator).tolist() if generator else (0.5, 0.5, 1.0)
        top = math.floor(u * (height - self.crop + (generator is not None)))
        left = math.floor(v * (width - self.crop + (generator is not None)))
        box = (..., slice(top, top + self.crop), slice(left, left + self.crop))
        frames, mask = frames[box], None if mask is None else mask[box]
        if flipped := flippable and w < self.hflip:
            frames = F.horizontal_flip(frames)
            mask = None if mask is None else F.horizontal_flip(mask)
        clip = normalise(frames, self.mean, self.std)
        if generator is not None and self.jitter is not None:
            clip = self.jitter(clip, generator)
        return View(clip, mask, flipped)


def _check_probabilities(**settings: Any) -> None:
    """Raise a ConfigError for a setting that is not a number from 0 to 1."""
    for name, value in settings.items():
        if not (isinstance(value, (int, float)) and 0 <= value <= 1):
            raise ConfigError(f"{name}={value!r} must be a probability, a number from 0 to 1")


def _short_side(height: int, width: int, size: int) -> list[int]:
    if height <= width:
        return [size, max(size, round(size * width / height))]
    return [max(size, round(size * height / width)), size]


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a bool mask (T, h, w): true where at least half of the area was."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    return F.resize(mask.float(), list(size), antialias=True) >= 0.5


def mirror_labels(
    classes: Sequence[str], pairs: Sequence[Sequence[str]] | None
) -> list[int | None]:
    """For each class the class that its mirrored clips show; None where they show no class.

    Args:
        classes: the class names in order.
        pairs: classes that change places, such as `("move_left", "move_right")`; all others stay
            what they are. None forbids flipping altogether.

    Example:
        >>> mirror_labels(["down", "left", "right"], [("left", "right")])
        [0, 2, 1]
    """
    if pairs is None:
        return [None] * len(classes)
    partner = {a: b for pair in pairs for a, b in (tuple(pair), tuple(pair)[::-1])}
    images = [partner.get(name, name) for name in classes]
    return [classes.index(image) if image in classes else None for image in images]


def normalise(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (T, 3, H, W) to float32 (3, T, H, W): ((x / 255) - mean) / std per channel."""
    scale = torch.tensor([1 / (255 * s) for s in std]).view(3, 1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(3, 1, 1, 1)
    clip = frames.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    return clip.mul_(scale).add_(shift)


def to_frames(clip: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """The inverse of `normalise` for a batch: (B, 3, T, H, W) to uint8 RGB (B, T, H, W, 3)."""
    m, s = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1, 1) for v in (mean, std))
    pixels = (clip.detach().float().cpu() * s + m).mul(255).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().numpy()
