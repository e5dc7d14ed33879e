"""The data module of every labelled video set: a subclass says which clips there are."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from lightning_cam.data import transforms
from lightning_cam.data.clips import Clip, ClipReader, Sample, finished
from lightning_cam.data.dataset import ClipDataset
from lightning_cam.data.listing import Listing, Problem
from lightning_cam.data.loading import ClipLoader, EpochSampler, collate
from lightning_cam.data.transforms import ClipTransform, ColourJitter
from lightning_cam.errors import ConfigError, DataError

PARTS = {"train": "training", "val": "validation", "test": "testing"}

# What the small networks of this package like: the settings of the embedded data.
SMALL: Mapping[str, Any] = {
    "resize": 64,
    "crop": 64,
    "batch_size": 12,
    "num_workers": 0,
    "permute": 0.5,
    "grey": 0.15,
    "mean": (0.45, 0.45, 0.45),
    "std": (0.225, 0.225, 0.225),
    "cache": True,
}


class VideoDataModule(LightningDataModule):
    """Clips of labelled videos for training, validation and testing.

    A data set is a subclass with one method, `list_clips`, and takes these settings as keywords.

    The loaders give raw batches, "video" in uint8, which the trainer has `on_after_batch_transfer`
    finish on the device. Who loops over a loader without a trainer calls it, too:

        >>> for batch in data.val_dataloader():
        ...     batch = data.on_after_batch_transfer(batch)

    Args:
        root: folder of the data set.
        num_frames: steps of a clip, T.
        fps: steps per second; None for every frame.
        resize: short side in pixels before cropping.
        crop: side of the crop.
        batch_size: per process.
        num_workers: loader processes; 0 reads in the training process.
        seed: of order and augmentation, >= 0.
        classes: expected class names in the order of their labels; None to find them. A model
            rebuilt from a checkpoint passes its own, and then needs no data to `read` a video.
        hflip: probability of mirroring a training clip.
        hflip_pairs: classes that change places when mirrored, [[left, right], ...].
        contrast: see `ColourJitter`.
        offset: as above.
        permute: as above.
        grey: as above.
        mean: of each channel, in [0, 1]; as many numbers as clips have channels.
        std: of each channel.
        reader: "auto", "pyav" or "decord", see `lightning_cam.data.video.read_clip`.
        rate: frames per second of videos that are folders of pictures.
        cache: keep the resized steps of all videos in memory (C x steps x height x width bytes
            per clip, in each loader process).
    """

    def __init__(
        self,
        root: str,
        *,
        num_frames: int = 16,
        fps: float | None = 7.5,
        resize: int = 256,
        crop: int = 224,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
        classes: list[str] | None = None,
        hflip: float = 0.5,
        hflip_pairs: list[list[str]] | None = None,
        contrast: float = 0.2,
        offset: float = 0.2,
        permute: float = 0.0,
        grey: float = 0.0,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        cache: bool = False,
        reader: str = "auto",
        rate: float | None = None,
    ) -> None:
        super().__init__()
        check_whole(1, num_frames=num_frames, resize=resize, crop=crop, batch_size=batch_size)
        check_whole(0, num_workers=num_workers, seed=seed)
        for name, value in (("fps", fps), ("rate", rate)):
            if value is not None and not value > 0:
                raise ConfigError(f"data.{name}={value} must be above 0")
        self.root = root
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.given_classes = None if classes is None else list(classes)
        self.hflip_pairs = hflip_pairs or []
        self.mean, self.std = list(mean), list(std)
        self.cache = cache
        self._warned = False
        jitter = ColourJitter(contrast, offset, permute, grey)
        transform = ClipTransform(resize, crop, self.mean, self.std, hflip, jitter)
        self.reader = ClipReader(num_frames, fps, transform, reader, rate)

    @abstractmethod
    def list_clips(self) -> Listing:
        """Read the data set's lists and folders, opening no video.

        Raises:
            DataError: there is no such data set.
        """

    @cached_property
    def listing(self) -> Listing:
        """What the data set holds."""
        return self.list_clips()

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their labels."""
        return self.given_classes or self.listing.classes

    @property
    def channels(self) -> int:
        """Channels of a clip, C: what `in_channels: null` of a network becomes."""
        return len(self.mean)

    @property
    def problems(self) -> Sequence[Problem]:
        """What is wrong with the data set; none where nothing was listed yet."""
        return self.listing.problems if "listing" in self.__dict__ else ()

    def mirror(self) -> list[int | None]:
        """For each class the class that its mirrored clips show, None where they show none."""
        return transforms.mirror_labels(self.classes, self.hflip_pairs)

    @cached_property
    def train_set(self) -> ClipDataset:
        """Training clips, augmented."""
        return self._dataset("train", train=True, mirror=self.mirror())

    @cached_property
    def val_set(self) -> ClipDataset:
        """Validation clips."""
        return self._dataset("val")

    @cached_property
    def test_set(self) -> ClipDataset:
        """Test clips."""
        return self._dataset("test")

    def _dataset(self, part: str, **options: Any) -> ClipDataset:
        clips = getattr(self.listing, part)
        return ClipDataset(clips, self.reader, seed=self.seed, cache=self.cache, **options)

    def setup(self, stage: str | None = None) -> None:
        """List the clips, so that what is wrong with the data is said before anything starts.

        Raises:
            DataError: for "fit" (or None), there are fewer than two classes, or no clips for
                training or validation.
        """
        listing = self.listing
        if stage in (None, "fit"):
            if len(self.classes) < 2:
                raise DataError(
                    f"{self.root!r} has one class only ({', '.join(self.classes)}): at least two "
                    "classes are needed to train"
                )
            self._require("train")
            self._require("val")
        if self._warned:
            return
        self._warned = True
        if problems := listing.problems:
            warnings.warn(
                f"{len(problems)} problems with the data in {self.root!r}, the first is "
                f"{problems[0]}; python -m lightning_cam.data.check names them all",
                stacklevel=1,  # here: the caller is Lightning
            )
        if absent := list(filter(None, map(self._absent, PARTS))):
            warnings.warn("; ".join(absent), stacklevel=1)

    def _require(self, part: str) -> None:
        """Raise a DataError for a part without any clip."""
        if getattr(self.listing, part):
            return
        reason = "it holds too few videos; add some"
        if problems := self.listing.problems:
            reason = f"it has {len(problems)} problems, the first is {problems[0]}"
        raise DataError(f"no clips for {PARTS[part]} in {self.root!r}: {reason}")

    def _absent(self, part: str) -> str:
        """Which classes have no clips in a part, in words; "" if all have some."""
        present = {clip.label for clip in getattr(self.listing, part)}
        absent = [name for label, name in enumerate(self.classes) if label not in present]
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        return f"no {part} clips of: {', '.join(absent[:5])}{more}" if absent else ""

    def read(self, path: str | Path) -> Sample:
        """One video (a file or a folder of pictures) through the evaluation transform.

        Needs no data set.

        Returns:
            A sample (not a batch) with label -1.

        Raises:
            VideoReadError: it cannot be read.
        """
        path = Path(path)
        steps, valid = self.reader.window(path)
        return finished(self.reader.sample(Clip(path, path.stem), steps, valid))

    def to_frames(self, clip: Tensor) -> NDArray[np.uint8]:
        """Pictures of a normalised batch: (B, C, T, H, W) to uint8 RGB (B, T, H, W, 3)."""
        return transforms.to_frames(clip, self.mean, self.std)

    def on_after_batch_transfer(self, batch: Sample, dataloader_idx: int = 0) -> Sample:
        """A loader's batch as networks take it: "video" (B, C, T, H, W) float32, normalised."""
        return finished(batch)

    def train_dataloader(self) -> ClipLoader:
        self._require("train")
        return self._loader(self.train_set)

    def val_dataloader(self) -> ClipLoader:
        self._require("val")
        return self._loader(self.val_set)

    def test_dataloader(self) -> ClipLoader:
        self._require("test")
        return self._loader(self.test_set)

    def _loader(self, dataset: ClipDataset) -> ClipLoader:
        sampler = EpochSampler(
            dataset,
            train=dataset.train,
            seed=self.seed,
            num_replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
        )
        workers = self.num_workers
        return ClipLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            timeout=120 if workers else 0,  # a decoder that hangs must not hang the run
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # or making an iterator would draw from the global one
        )


def check_whole(low: int, **settings: Any) -> None:
    """Raise a ConfigError for a setting that is not a whole number from `low` on."""
    for name, value in settings.items():
        if not isinstance(value, int) or value < low:
            raise ConfigError(f"data.{name}={value!r} must be a whole number, {low} or more")
