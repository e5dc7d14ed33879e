"""Video files to batches: the dataset, the sampler and the loader of every video set.

A training sample depends on (seed, epoch, index) and nothing else: the sampler yields the pair
(epoch, index), so the epoch reaches persistent workers too, and a resumed run sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_cam.data.sampling import Indices, Mask, temporal_window
from lightning_cam.data.transforms import ClipTransform
from lightning_cam.data.truth import Truth
from lightning_cam.data.video import VideoInfo, read_frames
from lightning_cam.errors import DataError, VideoReadError

Sample = dict[str, Any]


@dataclass(frozen=True)
class Clip:
    """One row of an index: a video file, its label, and the group that must not be split."""

    path: Path
    clip_id: str
    label: int
    group: int
    truth: Path | None = None


@dataclass(frozen=True)
class ClipReader:
    """Reads one file as a clip: which steps, and how they are transformed.

    Attributes:
        num_frames: steps of a clip, T.
        fps: steps per second.
        transform: spatial and colour transform.
    """

    num_frames: int
    fps: float
    transform: ClipTransform

    def steps(self, path: Path) -> _Steps:
        """All steps of a video at the wanted rate, resized: what is worth keeping in memory."""
        return self._read(path, lambda video: video.steps(self.fps))

    def window(self, path: Path, seed: Sequence[int] | None) -> tuple[_Steps, Mask]:
        """The steps of one clip, reading no others, and which of them are not padding."""

        def choose(video: VideoInfo) -> tuple[Indices, Mask]:
            steps = video.steps(self.fps)
            positions, valid = self.choose(len(steps), seed)
            return steps[positions], valid

        steps = self._read(path, lambda video: choose(video)[0])
        return steps, choose(steps.info)[1]

    def choose(self, num_steps: int, seed: Sequence[int] | None) -> tuple[Indices, Mask]:
        """Positions and validity of a clip's steps: centred, or drawn by `seed` in training."""
        rng = None if seed is None else np.random.default_rng(seed)
        return temporal_window(num_steps, self.num_frames, rng=rng)

    def _read(self, path: Path, select: Any) -> _Steps:
        frames, indices, info = read_frames(path, select)
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        return _Steps(self.transform.shrink(pixels), indices, info)


class _Steps(NamedTuple):
    frames: Tensor  # (n, 3, h, w) uint8, the short side resized
    indices: Indices  # (n,) source frames
    info: VideoInfo


class ClipDataset(Dataset[Sample]):
    """Labelled clips of video files.

    Keys are an index, or (epoch, index) as `EpochSampler` yields them. A file that cannot be read
    does not raise: in training the next readable index takes its place, in evaluation the sample
    is a black clip with label -1; `error` says why in both cases.

    Args:
        clips: the rows.
        reader: how files become clips.
        train: random window, crop, flip and colours; False for the centred evaluation transform.
        mirror: label of each class's mirrored clips, None where they have none.
        seed: of all randomness.
        cache: keep each video's resized steps in memory, so that epochs after the first decode
            nothing. Costs 3 x steps x height x width bytes per clip and loader process.
        truth: add "mask" and "action" to every sample.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        reader: ClipReader,
        *,
        train: bool = False,
        mirror: Sequence[int | None] = (),
        seed: int = 0,
        cache: bool = False,
        truth: bool = False,
    ) -> None:
        self.clips = list(clips)
        self.reader = reader
        self.train = train
        self.mirror = mirror
        self.seed = seed
        self.cache = cache
        self.truth = truth
        self._steps: dict[int, _Steps] = {}
        self._errors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        seed = (self.seed, epoch, index) if self.train else None
        first_error = ""
        for shift in range(len(self) if self.train else 1):
            number = (index + shift) % len(self)
            if number not in self._errors:
                try:
                    return self._sample(number, seed, first_error)
                except VideoReadError as error:
                    self._errors[number] = str(error)
            first_error = first_error or self._errors[number]
        if self.train:
            raise DataError(f"none of the {len(self)} training videos can be read: {first_error}")
        return self._missing(index, first_error)

    def _sample(self, index: int, seed: tuple[int, int, int] | None, error: str) -> Sample:
        clip = self.clips[index]
        if self.cache:
            if index not in self._steps:
                self._steps[index] = self.reader.steps(clip.path)
            frames, indices, info = self._steps[index]
            positions, valid = self.reader.choose(len(indices), seed)
            steps = _Steps(frames[positions], indices[positions], info)
        else:
            steps, valid = self.reader.window(clip.path, seed)
        truth = Truth.read(clip.truth) if self.truth and clip.truth else None
        generator = None
        if seed is not None:
            # An independent stream: the window's draw comes from the same key without the 1.
            state = np.random.SeedSequence((*seed, 1)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0]))
        image = self.mirror[clip.label] if self.train and self.mirror else None
        return make_sample(
            self.reader, clip, steps, valid, truth if self.truth else None,
            generator=generator, image=image, error=error, with_truth=self.truth,
        )  # fmt: skip
