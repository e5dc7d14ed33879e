"""Clip transforms: one crop, one flip and one colour change per clip, never per frame.

Frames come as uint8 tensors (T, C, H, W) and leave as uint8 (C, T, H, W), with the colours that
`finish` gives them: loader processes ship a byte per value, and the arithmetic is done for a batch
on its device. Masks (T, H, W) follow the same geometry. Clips have as many channels C as there are
numbers in `mean`. All randomness is drawn from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lightning_cam.data import memory
from lightning_cam.errors import ConfigError


def are_colours(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether pixels can be normalised by these: finite numbers, deviations above 0."""
    return all(map(math.isfinite, (*mean, *std))) and min(std) > 0


@dataclass(frozen=True)
class ColourJitter:
    """Random change of colours, the same for all frames of a clip.

    Attributes:
        contrast: the normalised clip is scaled by U(1 - contrast, 1 + contrast).
        offset: U(-offset, offset) is added to each channel of the normalised clip.
        permute: probability of shuffling the colour channels, of three.
        grey: probability of dropping colour, of three channels.
    """

    contrast: float = 0.0
    offset: float = 0.0
    permute: float = 0.0
    grey: float = 0.0

    def __post_init__(self) -> None:
        _check_probabilities(permute=self.permute, grey=self.grey)

    def __call__(
        self, colour: Tensor, generator: torch.Generator
    ) -> tuple[list[int], Tensor, bool]:
        """Draw one change.

        Args:
            colour: (2, C) of the unchanged clip, see `finish`.
            generator: of the randomness.

        Returns:
            the order that the channels take, and then the colour (2, C) and grey of `finish`.
        """
        channels = colour.shape[1]
        # Always as many numbers: settings do not shift draws.
        u = torch.rand(channels + 3, generator=generator)
        shuffled = torch.randperm(channels, generator=generator)
        order, grey = torch.arange(channels), bool(u[-2] < self.grey)
        if grey:  # the mean of the normalised channels, as a sum
            gain, shift = colour
            colour = torch.stack([gain / channels, shift.mean().expand(channels)])
        elif u[-1] < self.permute:
            order = shuffled
        colour = colour[:, order] * (1 + self.contrast * (2 * u[0].item() - 1))
        colour[1] += self.offset * (2 * u[1:-2] - 1)
        return order.tolist(), colour, grey


class View(NamedTuple):
    """What a transform made of a clip: its pixels, and for `finish` its colours."""

    video: Tensor  # (C, T, H, W) uint8, contiguous
    colour: Tensor  # (2, C) float32
    grey: bool
    mask: Tensor | None  # (T, H, W) bool
    flipped: bool


@dataclass(frozen=True)
class ClipTransform:
    """Resize, crop and flip one clip, and choose its colours.

    Attributes:
        resize: length of the short side in pixels before cropping.
        crop: side of the square crop; anywhere in training, in the centre otherwise.
        mean: per channel, for values in [0, 1]; as many numbers as clips have channels.
        std: per channel.
        hflip: probability of a horizontal flip in training, where the call allows it.
        jitter: colour change in training.
        shift: pixels by which crops are off the centre at most in training; None for any.

    Example:
        >>> transform = ClipTransform(resize=72, crop=64)
        >>> frames = torch.zeros(16, 3, 96, 128, dtype=torch.uint8)
        >>> view = transform(frames)
        >>> finish(view.video, view.colour, view.grey).shape
        torch.Size([3, 16, 64, 64])
    """

    resize: int = 256
    crop: int = 224
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    hflip: float = 0.5
    jitter: ColourJitter | None = None
    shift: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize:
            raise ConfigError(
                f"crop={self.crop} must lie between 1 and resize={self.resize} (the short side)"
            )
        if not 0 < len(self.mean) == len(self.std) or not are_colours(self.mean, self.std):
            raise ConfigError(
                f"mean={self.mean} and std={self.std} need one number per channel, std > 0"
            )
        if self.jitter and max(self.jitter.permute, self.jitter.grey) > 0 and self.channels != 3:
            raise ConfigError(
                f"permute={self.jitter.permute} and grey={self.jitter.grey} are for clips of three "
                f"channels, these have {self.channels} (the numbers in mean): set both to 0"
            )
        _check_probabilities(hflip=self.hflip)

    @property
    def channels(self) -> int:
        """C, how many channels the clips have."""
        return len(self.mean)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that `shrink` gives images."""
        h, w = _short_side(height, width, self.resize)
        return h, w

    def shrink(self, frames: Tensor) -> Tensor:
        """Resize frames (T, C, h, w) so that their short side is `resize`; works on uint8."""
        size = _short_side(frames.shape[-2], frames.shape[-1], self.resize)
        if tuple(size) == frames.shape[-2:]:
            return frames
        return F.resize(frames, size, antialias=True)

    def seen(self, height: int, width: int) -> tuple[float, float, float]:
        """What evaluation sees of an image of this size: top, left and side, in its pixels."""
        h, w = _short_side(height, width, self.resize)
        top, left = self._start(0.5, h, False), self._start(0.5, w, False)
        down, across = height / h, width / w
        return top * down, left * across, self.crop * min(down, across)

    def __call__(
        self,
        frames: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        flippable: bool = True,
    ) -> View:
        """Transform the frames of a clip.

        Args:
            frames: uint8 (T, C, h, w), as read or as `shrink` has resized them.
            mask: bool (T, h', w') at the size of the video file.
            generator: of the augmentation; None for the evaluation transform.
            flippable: whether the mirrored clip would still have a label (`mirror_labels`); the
                caller gives a flipped clip that label.
        """
        height, width = _short_side(frames.shape[-2], frames.shape[-1], self.resize)
        if mask is not None:
            mask = resize_mask(mask, [height, width])
        # Drawn even where unused, so that one setting does not change what another one draws.
        u, v, w = torch.rand(3, generator=generator).tolist() if generator else (0.5, 0.5, 1.0)
        top = self._start(u, height, generator is not None)
        left = self._start(v, width, generator is not None)
        box = (..., slice(top, top + self.crop), slice(left, left + self.crop))
        flipped = flippable and w < self.hflip
        if mask is not None:
            mask = mask[box].flip(-1) if flipped else mask[box]
        order = list(range(self.channels))
        colour, grey = normalisation(self.mean, self.std), False
        if generator is not None and self.jitter is not None:
            order, colour, grey = self.jitter(colour, generator)
        video = memory.empty((self.channels, len(frames), self.crop, self.crop), np.uint8)
        pixels = video.numpy()
        planes = [pixels[place] for place in np.argsort(order)]  # of each channel, (T, H, W)
        # One by one: the memory of a resized frame is used again, that of all comes from the system
        # anew for every clip, which takes longer than resizing.
        for step, frame in enumerate(frames):
            image = self.shrink(frame[None])[0][box]
            _split(image, [plane[step] for plane in planes], flipped)
        return View(video, colour, grey, mask, flipped)

    def plain(self, frame: Tensor) -> Tensor:
        """What evaluation sees of one frame (C, h, w), as read or as `shrink` has resized it.

        Returns:
            (C, H, W) uint8; `of_plain` makes a clip of several.
        """
        image = self.shrink(frame[None])[0]
        top, left = (self._start(0.5, side, False) for side in image.shape[-2:])
        pixels = np.empty((self.channels, self.crop, self.crop), np.uint8)
        _split(image[:, top : top + self.crop, left : left + self.crop], [*pixels])
        return torch.from_numpy(pixels)

    def of_plain(self, frames: Sequence[Tensor]) -> View:
        """The evaluation transform of a clip, whose frames `plain` has transformed one by one."""
        return View(
            torch.stack([*frames], 1), normalisation(self.mean, self.std), False, None, False
        )

    def _start(self, share: float, length: int, random: bool) -> int:
        """Where the crop begins on a side: this share of the way from the first to the last."""
        span = length - self.crop
        reach = span if self.shift is None else min(span, 2 * self.shift)
        return (span - reach) // 2 + math.floor(share * (reach + random))


def _check_probabilities(**settings: Any) -> None:
    """Raise a ConfigError for a setting that is not a number from 0 to 1."""
    for name, value in settings.items():
        if not (isinstance(value, (int, float)) and 0 <= value <= 1):
            raise ConfigError(f"{name}={value!r} must be a probability, a number from 0 to 1")


def _split(image: Tensor, planes: list[NDArray[np.uint8]], flipped: bool = False) -> None:
    """Write the channels of an image (C, H, W) into planes (H, W), left for right if `flipped`.

    Of images whose channels lie side by side in memory, as decoded ones do, it is four times faster
    than a copy with strides. Those of a crop are copied first: to split rows with gaps between them
    takes as long in some processes and twenty times as long in others.
    """
    pixels = image.movedim(0, -1).numpy()
    cv2.split(cv2.flip(pixels, 1) if flipped else np.ascontiguousarray(pixels), planes)


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


def normalisation(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The colour (2, C) by which `finish` computes (x / 255 - mean) / std of each channel."""
    gain = [1 / (255 * s) for s in std]
    shift = [-m / s for m, s in zip(mean, std, strict=True)]
    return torch.tensor([gain, shift])


def finish(video: Tensor, colour: Tensor, grey: bool | Sequence[bool]) -> Tensor:
    """Pixels of a clip or of a batch to what networks take, on the device they are on.

    Elementwise, so that a clip is the same bit for bit alone and in any batch.

    Args:
        video: (C, T, H, W) or (B, C, T, H, W) uint8.
        colour: (2, C) or (B, 2, C) float32: each channel times the first, plus the second.
        grey: whether in between every channel becomes the sum of all; one or B of them, not on
            the device, which need not be waited for.

    Returns:
        float32 of the shape of `video`, contiguous.
    """
    if video.dim() == 4:
        return finish(video[None], colour[None], [bool(grey)])[0]
    gain, shift = colour[..., None, None, None].unbind(-5)  # (B, C, 1, 1, 1)
    greys = np.atleast_1d(grey).tolist()
    if video.device.type != "cpu":
        whole = video.to(torch.float32, memory_format=torch.contiguous_format)
        return _coloured(whole, gain, shift, greys)
    batch = memory.empty(video.shape, np.float32)
    for row, is_grey in zip(range(len(batch)), greys, strict=True):
        clip = slice(row, row + 1)  # one by one, which the caches hold
        _coloured(batch[clip].copy_(video[clip]), gain[clip], shift[clip], [is_grey])
    return batch


def _coloured(batch: Tensor, gain: Tensor, shift: Tensor, greys: Sequence[bool]) -> Tensor:
    """Change the colours of a batch in its place."""
    batch.mul_(gain)
    for clip, is_grey in zip(batch, greys, strict=True):
        if is_grey:
            clip.copy_(clip.sum(0, keepdim=True))
    return batch.add_(shift)


def denormalised_frames(
    clip: Tensor, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.uint8]:
    """Undo the normalisation of a batch: (B, C, T, H, W) to `visible` RGB (B, T, H, W, 3)."""
    m, s = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1, 1) for v in (mean, std))
    pixels = (clip.detach().float().cpu() * s).add_(m).mul_(255).round_().clamp_(0, 255)
    planes = visible(pixels.to(torch.uint8)).numpy()
    clips, _, frames, height, width = planes.shape
    found = np.empty((clips, frames * height, width, 3), np.uint8)
    for one, out in zip(planes, found, strict=True):  # cv2 is twice as fast as a permuted copy
        cv2.merge([*one.reshape(3, -1, width)], out)
    return found.reshape(clips, frames, height, width, 3)


def visible(video: Tensor) -> Tensor:
    """What people see of clips (..., C, T, H, W): RGB, with the three channels (..., 3, T, H, W).

    The first three channels are R, G and B, whatever follows (infrared). Where there are fewer, the
    first one is shown in grey.
    """
    if video.shape[-4] >= 3:
        return video.narrow(-4, 0, 3)
    return video.narrow(-4, 0, 1).expand(*video.shape[:-4], 3, *video.shape[-3:])
