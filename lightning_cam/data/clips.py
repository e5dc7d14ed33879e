"""Video files to batches: the reader and dataset of every labelled video set.

A training sample depends on (seed, epoch, index) and nothing else: the sampler yields the pair
(epoch, index), so the epoch reaches persistent workers too, and a resumed run sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_cam.data.sampling import Indices, Mask, temporal_window
from lightning_cam.data.transforms import ClipTransform, to_frames
from lightning_cam.data.truth import Truth
from lightning_cam.data.video import VideoInfo, check_reader, read_clip, read_frames
from lightning_cam.errors import DataError, VideoReadError

Sample = dict[str, Any]
Seed = tuple[int, int, int]  # (seed, epoch, index)


@dataclass(frozen=True)
class Clip:
    """One row of an index: a video file, its label, and the group that must not be split."""

    path: Path
    clip_id: str
    label: int = -1
    group: int = 0
    truth: Path | None = None


class Steps(NamedTuple):
    """Decoded steps of a video, resized."""

    frames: Tensor  # (n, 3, h, w) uint8
    indices: Indices  # (n,) source frames
    info: VideoInfo


@dataclass(frozen=True)
class ClipReader:
    """Reads a file as a clip: which steps, and how they are transformed.

    Attributes:
        num_frames: steps of a clip, T.
        fps: steps per second; None for every frame.
        transform: spatial and colour transform.
        reader: of the frames, see `read_clip`.
        rate: frames per second of videos that are folders of pictures.
    """

    num_frames: int
    fps: float | None
    transform: ClipTransform
    reader: str = "auto"
    rate: float | None = None

    def __post_init__(self) -> None:
        check_reader(self.reader)

    def steps(self, path: Path) -> Steps:
        """All steps of a video at the wanted rate: what is worth keeping in memory."""
        return self._read(path, self._steps)

    def window(self, path: Path, seed: Seed | None = None) -> tuple[Steps, Mask]:
        """The steps of one clip, decoding no others, and which of them are not padding."""

        def choose(video: VideoInfo) -> tuple[Indices, Mask]:
            steps = self._steps(video)
            positions, valid = self.positions(len(steps), seed)
            return steps[positions], valid

        steps = self._read(path, lambda video: choose(video)[0])
        return steps, choose(steps.info)[1]

    def _steps(self, video: VideoInfo) -> Indices:
        return np.arange(video.num_frames) if self.fps is None else video.steps(self.fps)

    def positions(self, num_steps: int, seed: Seed | None = None) -> tuple[Indices, Mask]:
        """Positions and validity of a clip's steps: centred, or drawn from `seed` in training."""
        rng = None if seed is None else np.random.default_rng(seed)
        return temporal_window(num_steps, self.num_frames, rng=rng)

    def sample(
        self,
        clip: Clip,
        steps: Steps,
        valid: Mask,
        truth: Truth | None = None,
        seed: Seed | None = None,
        image: int | None = None,
    ) -> Sample:
        """Transform the steps of a clip into a sample dict.

        Args:
            clip: its row.
            steps: T of them.
            valid: (T,), False where padded.
            truth: adds "mask", "mask/<part>" for each of its parts, and "action".
            seed: of the augmentation; None for the evaluation transform.
            image: the label of the mirrored clip; None forbids flipping.
        """
        masks = {} if truth is None else _masks(truth, steps.indices)
        stack = torch.cat(list(masks.values())) if masks else None  # (M*T, h, w)
        generator = None
        if seed is not None:
            # Another stream than the window's: one more word of entropy.
            state = np.random.SeedSequence((*seed, 1)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0]))
        view = self.transform(steps.frames, stack, generator, flippable=image is not None)
        seconds = steps.info.times[steps.indices]
        sample = {
            "video": view.clip,  # (3, T, H, W)
            "label": torch.tensor(image if view.flipped else clip.label),
            "valid": torch.from_numpy(valid),  # (T,)
            "frame_idx": torch.from_numpy(steps.indices),  # (T,)
            "time_s": torch.from_numpy(seconds).float(),  # (T,)
            "clip_id": clip.clip_id,
            "path": str(clip.path),
            "error": "",
        }
        if truth is not None and view.mask is not None:
            sample |= zip(masks, view.mask.chunk(len(masks)), strict=True)  # (T, H, W) each
            sample["action"] = torch.from_numpy(
                (seconds >= truth.onset) & (seconds < truth.offset) & valid
            )
        return sample

    def display(
        self, path: str | Path, indices: Sequence[int], side: int = 256
    ) -> NDArray[np.uint8]:
        """Frames of a clip for people: the network's crop, but not its few pixels.

        Args:
            path: the video file.
            indices: source frames, "frame_idx" of a sample.
            side: about how many pixels the crop's side gets, if the network's has fewer.

        Returns:
            (T, H, W, 3) uint8 RGB, H = W a multiple of the transform's crop.
        """
        scale = max(1, side // self.transform.crop)
        larger = replace(
            self.transform, resize=scale * self.transform.resize, crop=scale * self.transform.crop
        )
        pixels = torch.from_numpy(read_clip(path, indices, reader=self.reader)).permute(0, 3, 1, 2)
        clip = larger(larger.shrink(pixels)).clip
        return to_frames(clip[None], larger.mean, larger.std)[0]

    def missing(self, clip: Clip, error: str) -> Sample:
        """What stands for an unreadable file in evaluation: a black clip with label -1."""
        steps, size = self.num_frames, self.transform.crop
        return {
            "video": torch.zeros(3, steps, size, size),
            "label": torch.tensor(-1),
            # Not all padding: a softmax or mean over no steps would be NaN.
            "valid": torch.ones(steps, dtype=torch.bool),
            "frame_idx": torch.zeros(steps, dtype=torch.int64),
            "time_s": torch.zeros(steps),
            "clip_id": clip.clip_id,
            "path": str(clip.path),
            "error": error,
        }

    def no_truth(self, masks: Sequence[str]) -> Sample:
        """Empty ground truth, for single clips of a set that has it."""
        steps, size = self.num_frames, self.transform.crop
        empty = torch.zeros(steps, size, size, dtype=torch.bool)
        return {**dict.fromkeys(masks, empty), "action": torch.zeros(steps, dtype=torch.bool)}

    def _read(self, path: Path, select: Callable[[VideoInfo], Indices]) -> Steps:
        frames, indices, info = read_frames(path, select, reader=self.reader, rate=self.rate)
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        return Steps(self.transform.shrink(pixels), indices, info)


def _masks(truth: Truth, indices: Indices) -> dict[str, Tensor]:
    """Name in a sample -> (T, h, w) bool."""
    named = {"mask": truth.mask} | {f"mask/{name}": part for name, part in truth.parts.items()}
    return {name: torch.from_numpy(mask[indices]) for name, mask in named.items()}


class ClipDataset(Dataset[Sample]):
    """Labelled clips of video files.

    Keys are an index, or (epoch, index) as `EpochSampler` yields them. A video or ground truth that
    cannot be read does not raise: in training the next readable index takes its place, in
    evaluation a black clip with label -1; "error" says why in both cases.

    Args:
        clips: the rows.
        reader: how files become clips.
        train: random window, crop, flip and colours; False for the centred evaluation transform.
        mirror: label of each class's mirrored clips, None where they have none.
        seed: of all randomness.
        cache: keep each video's resized steps in memory, so that epochs after the first decode
            nothing. Takes 3 x steps x height x width bytes per clip and loader process.

    Evaluation samples have "mask", "mask/<part>" and "action" where any clip has ground truth.
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
    ) -> None:
        self.clips = list(clips)
        self.reader = reader
        self.train = train
        self.mirror = mirror
        self.seed = seed
        self.cache = cache
        self.masks = () if train else _mask_names(self.clips)
        self._steps: dict[int, Steps] = {}
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
                    sample = self._sample(number, seed)
                except (VideoReadError, DataError) as error:
                    self._errors[number] = str(error)
                else:
                    return {**sample, "error": first_error}
            first_error = first_error or self._errors[number]
        if self.train:
            raise DataError(f"none of the {len(self)} training videos can be read: {first_error}")
        sample = self.reader.missing(self.clips[index], first_error)
        return {**sample, **self.reader.no_truth(self.masks)} if self.masks else sample

    def _sample(self, index: int, seed: Seed | None) -> Sample:
        clip = self.clips[index]
        if self.cache:
            if index not in self._steps:
                self._steps[index] = self.reader.steps(clip.path)
            frames, indices, info = self._steps[index]
            positions, valid = self.reader.positions(len(indices), seed)
            steps = Steps(frames[positions], indices[positions], info)
        else:
            steps, valid = self.reader.window(clip.path, seed)
        truth = None
        if self.masks and clip.truth:
            truth = Truth.read(clip.truth)
            if len(truth.mask) < steps.info.num_frames:
                raise DataError(
                    f"ground truth {str(clip.truth)!r} has {len(truth.mask)} frames, its video "
                    f"{steps.info.num_frames}: replace or remove it"
                )
        image = self.mirror[clip.label] if self.train and self.mirror else None
        sample = self.reader.sample(clip, steps, valid, truth, seed, image)
        return {**self.reader.no_truth(self.masks), **sample} if self.masks else sample


def _mask_names(clips: Sequence[Clip]) -> tuple[str, ...]:
    """What the samples of these clips call their masks; () without any ground truth."""
    truths = [clip.truth for clip in clips if clip.truth]
    for path in truths:
        try:
            return "mask", *(f"mask/{name}" for name in Truth.read(path).parts)
        except DataError:  # said when this clip is read
            continue
    return ("mask",) if truths else ()
