"""Video files to samples: the reader of every labelled video set.

A reader gives *raw* samples: "video" is uint8, and "colour" and "grey" say what `finished` has yet
to do, for one sample or for a batch of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lightning_cam.data.core.ground_truth import VideoTruth
from lightning_cam.data.core.transforms import ClipTransform, View, finish, normalisation, visible
from lightning_cam.data.video.info import Each, Pixels
from lightning_cam.data.video.reading import VideoFrames, VideoInfo, check_reader, read_frames
from lightning_cam.data.video.sampling import TICK, Indices, Mask, temporal_window
from lightning_cam.data.video.streams import VideoStream, open_stream
from lightning_cam.errors import ConfigError, VideoReadError

SampleDict = dict[str, Any]  # `interfaces.ClipSample`, raw
Raw = TypeVar("Raw", bound=Mapping[str, Any])
Seed = tuple[int, int, int]  # (seed, epoch, index)
Between = tuple[float | None, float | None]  # seconds of a video; None: its beginning, its end


@dataclass(frozen=True)
class Clip:
    """One row of an index: a video file, its label, and the group that must not be split.

    A clip that may have several labels has `labels` in place of `label`: for each class 1 where it
    is true, 0 where it is not, -1 where nobody knows.
    """

    path: Path
    clip_id: str
    label: int = -1
    group: int = 0
    truth: Path | VideoTruth | None = None  # of a file, see `ground_truth.Truth`, or itself
    labels: tuple[int, ...] = ()

    @property
    def classes(self) -> list[int]:
        """The numbers of all classes that are true of it; [-1] where its one label is unknown."""
        if not self.labels:
            return [self.label]
        return [k for k, label in enumerate(self.labels) if label > 0]

    def mirrored(self, mirror: Sequence[int | None]) -> int | tuple[int, ...] | None:
        """Its label or labels when mirrored, None where it must not be.

        Args:
            mirror: of each class, see `transforms.mirror_labels`.
        """
        if not self.labels:
            return mirror[self.label]
        images = [k for k in mirror if k is not None]
        if len(images) < len(self.labels):
            return None
        return tuple(self.labels[k] for k in images)


class Steps(NamedTuple):
    """Decoded steps of a video."""

    frames: Tensor  # (n, C, h, w) uint8
    indices: Indices  # (n,) source frames
    info: VideoInfo

    def at(self, positions: Indices) -> Steps:
        """The steps at these positions."""
        first, count = int(positions[0]), len(positions)
        if (positions == np.arange(first, first + count)).all():  # nothing to copy
            frames = self.frames[first : first + count]
        else:  # as they lie in memory
            frames = self.frames.permute(0, 2, 3, 1)[positions].permute(0, 3, 1, 2)
        return Steps(frames, self.indices[positions], self.info)


@dataclass(frozen=True)
class ClipReader:
    """Reads a file as a clip: which steps, and how they are transformed.

    Attributes:
        num_frames: steps of a clip, T.
        fps: steps per second; None for every frame.
        transform: spatial and colour transform.
        reader: of the frames, see `read_clip`.
        rate: frames per second of videos that are folders of images.
    """

    num_frames: int
    fps: float | None
    transform: ClipTransform
    reader: str = "auto"
    rate: float | None = None

    def __post_init__(self) -> None:
        check_reader(self.reader)

    def read(
        self,
        path: str | Path,
        select: Callable[[VideoInfo], ArrayLike],
        each: Each | None = None,
    ) -> VideoFrames:
        """Frames of a video (n, h, w, C), by the rules of `read_frames`.

        What a subclass replaces whose clips are other than the colours of one file; all reading
        goes through here.
        """
        return read_frames(path, select, reader=self.reader, rate=self.rate, each=each)

    def open(self, path: str | Path) -> VideoStream:
        """A video to go through once, as `read` reads it; what a subclass replaces as well."""
        return open_stream(path, rate=self.rate)

    def steps(self, path: Path, select: Callable[[VideoInfo], Indices] | None = None) -> Steps:
        """All steps of a video at the wanted rate, resized: what is worth keeping.

        Args:
            path: of the video.
            select: `all_steps`, and whatever is to be done when they are known.
        """
        return self._read(path, select or self.all_steps)

    def sources(self, path: Path) -> Sequence[Path]:
        """The files, and folders of images, that the pixels of a video come from."""
        return [path]

    @property
    def decoding(self) -> Mapping[str, Any]:
        """The settings on which `steps` depends."""
        own = {field.name: vars(self)[field.name] for field in fields(self)}
        del own["num_frames"], own["transform"]
        return {**own, "resize": self.transform.resize, "channels": self.transform.channels}

    def window(
        self, path: Path, seed: Seed | None = None, between: Between = (None, None)
    ) -> tuple[Steps, Mask]:
        """The steps of one clip, resized, and which of them are not padding; decodes no others.

        Args:
            path: of the video.
            seed: draws where it lies in training; None: in the middle.
            between: of which seconds.
        """
        valid: Mask = np.empty(0, bool)

        def choose(video: VideoInfo) -> Indices:
            nonlocal valid
            steps = self.steps_between(video, between)
            positions, valid = self.positions(len(steps), seed)
            return steps[positions]

        return self._read(path, choose), valid

    def shrunk(self, image: Pixels) -> Tensor:
        """An image (h, w, C) of a video as a step of a clip, (C, h', w')."""
        step = torch.from_numpy(_shrunk(self.transform, image[None])[0]).permute(2, 0, 1)
        if len(step) != self.transform.channels:
            raise ConfigError(
                f"mean={list(self.transform.mean)} and std need one number per channel, and images "
                f"have {len(step)}"
            )
        return step

    def all_steps(self, video: VideoInfo) -> Indices:
        """The frames of a video that are its steps at the wanted rate."""
        return np.arange(video.num_frames) if self.fps is None else video.steps(self.fps)

    def steps_between(self, video: VideoInfo, between: Between) -> Indices:
        """The steps that are shown between two moments.

        Raises:
            VideoReadError: there is none.
        """
        steps, (start, end) = self.all_steps(video), between
        seconds = video.times[steps]
        after = seconds >= (-np.inf if start is None else start - TICK)
        found = steps[after & (seconds <= (np.inf if end is None else end + TICK))]
        if not len(found):
            raise VideoReadError(
                video.path,
                f"it has no step from {start or 0:g} s to "
                f"{'its end' if end is None else f'{end:g} s'}: it lasts {video.duration:.1f} s; "
                "begin earlier (start=0)",
            )
        return found

    def positions(self, num_steps: int, seed: Seed | None = None) -> tuple[Indices, Mask]:
        """Positions and validity of a clip's steps: centred, or drawn from `seed` in training."""
        rng = None if seed is None else np.random.default_rng(seed)
        return temporal_window(num_steps, self.num_frames, rng=rng)

    def sample(
        self,
        clip: Clip,
        steps: Steps,
        valid: Mask,
        truth: VideoTruth | None = None,
        seed: Seed | None = None,
        image: int | tuple[int, ...] | None = None,
    ) -> SampleDict:
        """Transform the steps of a clip into a raw sample.

        Args:
            clip: its row.
            steps: T of them.
            valid: (T,), False where padded.
            truth: adds its `names`: "mask", "mask/<part>", "action", "judged".
            seed: of the augmentation; None for the evaluation transform.
            image: the label or labels of the mirrored clip; None forbids flipping.
        """
        known, stack = None, None
        if truth is not None:
            height, width = steps.frames.shape[-2:]
            known = truth.of_frames(steps.indices, steps.info, (height, width))
            stack = torch.cat([torch.from_numpy(m) for m in known.masks.values()])  # (M*T, h, w)
        generator = None
        if seed is not None:
            # Another stream than the window's: one more word of entropy.
            state = np.random.SeedSequence((*seed, 1)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0]))
        view = self.transform(steps.frames, stack, generator, flippable=image is not None)
        sample = self.sample_of(clip, view, steps.indices, steps.info, valid)
        if view.flipped:
            sample["label"] = torch.tensor(image)
        if known is not None and view.mask is not None:
            masks = view.mask.chunk(len(known.masks))  # (T, H, W) each
            sample |= zip(known.masks, masks, strict=True)
            for name, frames in (("action", known.action), ("judged", known.judged)):
                if frames is not None:
                    sample[name] = torch.from_numpy(frames & valid)
        return sample

    def sample_of(
        self, clip: Clip, view: View, indices: Indices, info: VideoInfo, valid: Mask
    ) -> SampleDict:
        """The raw sample of a transformed clip; what a subclass adds to that belongs in here.

        Args:
            clip: its row.
            view: what the transform made of its steps.
            indices: (T,) their frames of the source.
            info: of the source.
            valid: (T,), False where padded.
        """
        return {
            "video": view.video,  # (C, T, H, W)
            "colour": view.colour,  # (2, C)
            "grey": view.grey,
            "black": view.colour[1].clone(),  # (C,)
            "label": torch.tensor(clip.labels or clip.label),
            "valid": torch.from_numpy(valid),  # (T,)
            "frame_idx": torch.from_numpy(indices),  # (T,)
            "time_s": torch.from_numpy(info.times[indices]).float(),  # (T,)
            "duration_s": torch.tensor(info.duration),
            "clip_id": clip.clip_id,
            "path": str(clip.path),
            "error": "",
        }

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
        frames = self.read(path, lambda _: indices, partial(_shrunk, larger)).frames
        view = larger(torch.from_numpy(frames).permute(0, 3, 1, 2))
        return visible(view.video).movedim(0, -1).contiguous().numpy()

    def missing(self, clip: Clip, error: str) -> SampleDict:
        """What stands for an unreadable file in evaluation: zeros with label -1, a raw sample."""
        channels, steps, size = self.transform.channels, self.num_frames, self.transform.crop
        return {
            "video": torch.zeros(channels, steps, size, size, dtype=torch.uint8),
            "colour": torch.zeros(2, channels),  # zeros stay what they are
            "grey": False,
            "black": normalisation(self.transform.mean, self.transform.std)[1].clone(),
            "label": torch.tensor([-1] * len(clip.labels) or -1),
            # Not all padding: a softmax or mean over no steps would be NaN.
            "valid": torch.ones(steps, dtype=torch.bool),
            "frame_idx": torch.zeros(steps, dtype=torch.int64),
            "time_s": torch.zeros(steps),
            "duration_s": torch.tensor(0.0),
            "clip_id": clip.clip_id,
            "path": str(clip.path),
            "error": error,
        }

    def no_truth(self, names: Sequence[str]) -> SampleDict:
        """Empty ground truth, for single clips of a set that has it: nothing is judged."""
        frame, size = (self.num_frames,), self.transform.crop
        return {
            name: torch.zeros(
                (*frame, size, size) if name.startswith("mask") else frame, dtype=torch.bool
            )
            for name in names
        }

    def _read(self, path: Path, select: Callable[[VideoInfo], Indices]) -> Steps:
        # A few at a time, as they are decoded: all steps of a minute in HD would take gigabytes.
        frames, indices, info = self.read(path, select, partial(_shrunk, self.transform))
        if frames.shape[-1] != self.transform.channels:
            raise ConfigError(
                f"mean={list(self.transform.mean)} and std need one number per channel, and "
                f"{str(path)!r} has {frames.shape[-1]}"
            )
        return Steps(torch.from_numpy(frames).permute(0, 3, 1, 2), indices, info)


def _shrunk(transform: ClipTransform, images: Pixels) -> Pixels:
    """Images (n, h, w, C), resized as the transform says."""
    frames = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return transform.shrink(frames).permute(0, 2, 3, 1).numpy()


def finished(sample: Raw) -> Raw:
    """A raw sample, or a batch of them, with "video" as networks take it: normalised float32.

    "colour" and "grey" have done their work and are dropped. What lacks them is returned as it is.
    """
    if "colour" not in sample:
        return sample
    done = {key: value for key, value in sample.items() if key not in ("colour", "grey")}
    done["video"] = finish(sample["video"], sample["colour"], sample["grey"])
    return cast(Raw, done)
