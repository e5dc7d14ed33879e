"""Clips made of clips of several classes: where, or when, the evidence of one is, is then known.

The ground truth of any data set whose clips have labels, without annotation. Joined clips show half
of one clip and then half of another, and the truth of a class is its half; mosaics show four clips
at a time in two rows, and the truth is a quadrant (the grid pointing game of Böhle et al.,
"Convolutional Dynamic Alignment Networks for Interpretable Classifications", CVPR 2021).

Samples are put together as networks see them, after resizing, cropping and normalising.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.data.core.clips import SampleDict, Seed, finished
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.errors import ConfigError, DataError


@dataclass(frozen=True)
class ComposedClip:
    """A row of a `ComposedDataset`.

    Attributes:
        clip_id: names it.
        label: class of the explained part.
        parts: indices of the clips it is made of, each of another class, in their order in it.
        place: which part is explained.
    """

    clip_id: str
    label: int
    parts: tuple[int, ...]
    place: int


class Arrangement(ABC):
    """How clips are put together.

    Attributes:
        parts: how many clips it takes.
        places: groups of clips that are reported apart -> places of the explained part in them.
    """

    parts: ClassVar[int]
    places: ClassVar[Mapping[str, Sequence[int]]]

    @abstractmethod
    def __call__(self, samples: Sequence[Mapping[str, Any]], place: int) -> SampleDict:
        """What changes of the explained part's sample: "video", its steps, "mask", "action"."""


class Joined(Arrangement):
    """The middle half of one clip, then that of another, at the rate of the clips.

    Reported by which half is explained: to a network that is read out at the last step the join is
    an event, and its first half is further away.
    """

    parts = 2
    places: ClassVar = {"first half": [0], "second half": [1]}

    def __call__(self, samples: Sequence[Mapping[str, Any]], place: int) -> SampleDict:
        length = samples[place]["video"].shape[1]
        if length < 2:
            raise ConfigError(
                "compose=joined needs clips of two frames and more; set data.num_frames=16"
            )
        halves = (length // 2, length - length // 2)
        steps = [_middle(sample, half) for sample, half in zip(samples, halves, strict=True)]
        pairs = list(zip(samples, steps, strict=True))
        video = torch.cat([sample["video"][:, at] for sample, at in pairs], 1)
        first, second = (sample["time_s"][at] for sample, at in pairs)
        gap = torch.cat([first.diff(), second.diff()])
        after = first[-1] + (gap.mean() if len(gap) else 1)
        counts = [len(at) for at in steps]
        shown = torch.arange(length)
        begin = sum(counts[:place])
        action = (shown >= begin) & (shown < begin + counts[place])
        return {
            "video": _filled_up(video, length, 1),
            "valid": shown < sum(counts),
            "frame_idx": _filled_up(
                torch.cat([sample["frame_idx"][at] for sample, at in pairs]), length
            ),
            "time_s": _filled_up(torch.cat([first, second - second[0] + after]), length),
            "mask": action[:, None, None].expand(-1, *video.shape[2:]).clone(),
            "action": action,
        }


@dataclass(frozen=True)
class Mosaic(Arrangement):
    """Four clips at a time, in two rows, as long as the shortest.

    Attributes:
        full: each as large as it was, so that the mosaic has twice the height and width, which
            only networks that pool globally take; else at half its size.
    """

    full: bool = False
    parts = 4
    places: ClassVar = {"": range(4)}

    def __call__(self, samples: Sequence[Mapping[str, Any]], place: int) -> SampleDict:
        length, height, width = samples[place]["video"].shape[1:]
        count = min(len(_middle(sample, length)) for sample in samples)
        steps = [_middle(sample, count) for sample in samples]
        if self.full:
            height, width = 2 * height, 2 * width
        video = torch.empty(len(samples[place]["video"]), count, height, width)
        mask = torch.zeros(length, height, width, dtype=torch.bool)
        for n, (sample, at) in enumerate(zip(samples, steps, strict=True)):
            rows, columns = _half(height, n // 2), _half(width, n % 2)
            quadrant = video[..., rows, columns]
            size = quadrant.shape[2], quadrant.shape[3]
            quadrant.copy_(F.adaptive_avg_pool2d(sample["video"][:, at], size))
            mask[:count, rows, columns] = n == place
        own, at = samples[place], steps[place]
        return {
            "video": _filled_up(video, length, 1),
            "valid": torch.arange(length) < count,
            "frame_idx": _filled_up(own["frame_idx"][at], length),
            "time_s": _filled_up(own["time_s"][at], length),
            "mask": mask,
        }


ARRANGEMENTS: Mapping[str, Arrangement] = {
    "joined": Joined(),
    "mosaic": Mosaic(),
    "mosaic_full": Mosaic(full=True),
}


class ComposedDataset(SampleDataset[ComposedClip]):
    """Clips made of clips of another data set; "mask" is where the explained part is.

    Args:
        clips: the rows.
        source: data set of the parts, without augmentation.
        how: they are put together.
    """

    def __init__(
        self, clips: Sequence[ComposedClip], source: SampleDataset[Any], how: Arrangement
    ) -> None:
        super().__init__(clips)
        self.source, self.how = source, how

    def _sample(self, index: int, seed: Seed | None) -> SampleDict:
        clip = self.clips[index]
        samples = [_whole(self.source[part]) for part in clip.parts]
        for sample in samples:
            if sample["error"]:
                raise DataError(sample["error"])
        own = samples[clip.place]
        kept: SampleDict = {key: own[key] for key in ("black", "spectrum") if key in own}
        return {
            **kept,
            **self.how(samples, clip.place),
            "label": torch.tensor(clip.label),
            "clip_id": clip.clip_id,
            "path": " + ".join(sample["path"] for sample in samples),
            "error": "",
        }

    def _missing(self, index: int, error: str) -> SampleDict:
        clip = self.clips[index]
        blank = finished(self.source._missing(clip.parts[clip.place], error))
        return {**blank, "clip_id": clip.clip_id}


def _whole(sample: SampleDict) -> SampleDict:
    """A sample with what else it may have left out, see `interfaces.Sample`: its steps are real."""
    steps = torch.arange(sample["video"].shape[1])
    known = {"valid": steps >= 0, "frame_idx": steps, "time_s": steps.float()}
    return {"path": "", "error": "", **known, **sample}


def _middle(sample: Mapping[str, Any], most: int) -> Tensor:
    """Indices of a clip's middle steps, at most so many; padding is none."""
    steps = sample["valid"].nonzero()[:, 0]
    count = min(len(steps), most)
    start = (len(steps) - count) // 2
    return steps[start : start + count]


def _half(side: int, which: int) -> slice:
    """The first or the second half of an image's side in pixels."""
    return slice(side // 2, side) if which else slice(side // 2)


def _filled_up(steps: Tensor, length: int, dim: int = 0) -> Tensor:
    """Steps with the last one repeated up to a length, as padded clips have it."""
    at = torch.arange(length).clamp(max=steps.shape[dim] - 1)
    return steps.index_select(dim, at)
