"""The datasets of video sets, and of every labelled one.

A training sample depends on (seed, epoch, index) and nothing else: the sampler yields the pair
(epoch, index), so the epoch reaches persistent workers too, and a resumed run sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from torch.utils.data import Dataset

from lightning_cam.data.core.clips import Clip, ClipReader, SampleDict, Seed, Steps, finished
from lightning_cam.data.core.disk_cache import DiskCache
from lightning_cam.data.core.ground_truth import open_truth
from lightning_cam.data.core.rows import Packed, truths_of, without_truths
from lightning_cam.errors import DataError, VideoReadError

SampleKey = int | tuple[int, int]  # index, or (epoch, index)
RowT = TypeVar("RowT")


class SampleDataset(Dataset[SampleDict], Generic[RowT]):
    """Rows of clips, some of which cannot be read.

    Keys are an index, or (epoch, index) as `EpochSampler` yields them. What cannot be read does not
    raise: in training the next readable index takes its place, in evaluation what `_missing` gives;
    "error" says why in both cases.

    `dataset[key]` is a sample as networks take it. A `DataLoader` asks for the keys of a batch at
    once and gets raw samples, four times smaller; `finished` does to their batch what it does to
    each sample here.

    Args:
        clips: the rows.
        train: whether this is the training part.
        seed: of all randomness.
    """

    def __init__(self, clips: Sequence[RowT], *, train: bool = False, seed: int = 0) -> None:
        self.clips = clips if isinstance(clips, Packed) else list(clips)
        self.train = train
        self.seed = seed
        self._errors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: SampleKey) -> SampleDict:
        return finished(self._raw(key))

    def __getitems__(self, keys: Sequence[SampleKey]) -> list[SampleDict]:
        return [self._raw(key) for key in keys]

    def _raw(self, key: SampleKey) -> SampleDict:
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
                    return {**sample, "error": first_error or sample["error"]}
            first_error = first_error or self._errors[number]
        if self.train:
            raise DataError(f"none of the {len(self)} training videos can be read: {first_error}")
        return self._missing(index, first_error)

    @abstractmethod
    def _sample(self, index: int, seed: Seed | None) -> SampleDict:
        """The raw sample of a row, augmented by `seed`.

        Raises:
            VideoReadError: it cannot be read.
            DataError: its ground truth cannot be used.
        """

    @abstractmethod
    def _missing(self, index: int, error: str) -> SampleDict:
        """What stands for an unreadable row in evaluation."""


class ClipDataset(SampleDataset[Clip]):
    """Labelled clips of video files.

    For an unreadable one there is, in evaluation, a clip of zeros with label -1.

    Args:
        clips: the rows.
        reader: how files become clips.
        train: random window, crop, flip and colours; False for the centred evaluation transform.
        mirror: label of each class's mirrored clips, None where they have none.
        seed: of all randomness.
        cache: keep each video's resized steps, so that epochs after the first decode nothing: True
            in memory, C x steps x height x width bytes per clip and loader process; or on a disk.

    Evaluation samples have "mask", "mask/<part>", "action" and "judged", as far as the ground truth
    of any clip has them.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        reader: ClipReader,
        *,
        train: bool = False,
        mirror: Sequence[int | None] = (),
        seed: int = 0,
        cache: bool | DiskCache = False,
    ) -> None:
        if train:  # which nobody judges: loader processes need not hold it
            clips = without_truths(clips)
        super().__init__(clips, train=train, seed=seed)
        self.reader = reader
        self.mirror = mirror
        self.cache = cache
        self.truths = () if train else _truth_names(self.clips)
        self._steps: dict[int, Steps] = {}

    def _missing(self, index: int, error: str) -> SampleDict:
        sample = self.reader.missing(self.clips[index], error)
        return {**sample, **self.reader.no_truth(self.truths)}

    def _sample(self, index: int, seed: Seed | None) -> SampleDict:
        clip = self.clips[index]
        if isinstance(self.cache, DiskCache):
            steps, valid = self.cache.window(self.reader, clip.path, seed)
        elif self.cache:
            if index not in self._steps:
                self._steps[index] = self.reader.steps(clip.path)
            kept = self._steps[index]
            positions, valid = self.reader.positions(len(kept.indices), seed)
            steps = kept.at(positions)
        else:
            steps, valid = self.reader.window(clip.path, seed)
        truth = None
        if self.truths and clip.truth:
            truth = open_truth(clip.truth)
            if why := truth.misfit(steps.info):
                if isinstance(clip.truth, Path):
                    raise DataError(f"ground truth {str(clip.truth)!r} {why}: replace or remove it")
                raise DataError(
                    f"ground truth of {clip.clip_id!r} {why}: it belongs to another copy of the "
                    "video; get that one"
                )
        image = clip.mirrored(self.mirror) if self.train and self.mirror else None
        sample = self.reader.sample(clip, steps, valid, truth, seed, image)
        return {**self.reader.no_truth(self.truths), **sample}


def _truth_names(clips: Sequence[Clip]) -> tuple[str, ...]:
    """What the samples of these clips call their ground truth; () without any."""
    truths = truths_of(clips)
    for where in truths:
        try:
            return open_truth(where).names
        except DataError:  # said when this clip is read
            continue
    return ("mask", "action") if truths else ()
