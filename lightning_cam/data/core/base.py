"""What the data modules of all video sets have in common: their loaders, and plain settings."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from lightning_cam.data.core import transforms
from lightning_cam.data.core.clips import finished
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.core.listing import Divided, Problem
from lightning_cam.data.core.loading import ClipLoader, Collate, EpochSampler
from lightning_cam.errors import ConfigError, DataError, command_line
from lightning_cam.interfaces import Batch
from lightning_cam.stops import left_to_parent

PARTS = {"train": "training", "val": "validation", "test": "testing"}


def require_some(root: str, listing: Divided[Any]) -> None:
    """Refuse a folder that holds nothing to train on and nothing to complain about.

    Raises:
        DataError: it does.
    """
    if not any(map(listing.part, PARTS)) and not listing.problems:
        what = (
            f"no clips in {root!r}: it holds too few"
            if Path(root).is_dir()
            else f"no folder {root!r}"
        )
        raise DataError(f"{what}; set data.root=FOLDER to where the data are")


class ClipDataModule(LightningDataModule):
    """Clips of videos for training, validation and testing.

    The loaders give raw batches, "video" in uint8, which the trainer has `on_after_batch_transfer`
    finish on the device. Whoever loops over a loader without a trainer calls it as well:

        >>> for batch in data.val_dataloader():
        ...     batch = data.on_after_batch_transfer(batch)

    Args:
        root: folder of the data set.
        batch_size: per process.
        num_workers: loader processes; 0 reads in the training process.
        seed: of order and augmentation, >= 0.
        mean: of each channel, in [0, 1]; as many numbers as clips have channels.
        std: of each channel.
        cache: whether, or where, decoded images are kept.
    """

    def __init__(
        self,
        root: str,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        cache: bool | str,
    ) -> None:
        super().__init__()
        check_whole(1, batch_size=batch_size)
        check_whole(0, num_workers=num_workers, seed=seed)
        self.root = root
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.mean, self.std = list(mean), list(std)
        self.cache = cache
        self._warned = False

    @property
    @abstractmethod
    def listing(self) -> Divided[Any]:
        """What the data set holds; a subclass keeps it (`cached_property`).

        Raises:
            DataError: nothing at all, not even problems.
        """

    @property
    def problems(self) -> Sequence[Problem]:
        """What is wrong with the data set; none where nothing was listed yet."""
        return self.listing.problems if "listing" in self.__dict__ else ()

    @abstractmethod
    def _dataset(self, part: str, *, train: bool = False) -> SampleDataset[Any]:
        """The clips of a part, augmented for training or not."""

    @cached_property
    def train_set(self) -> SampleDataset[Any]:
        """Training clips, augmented."""
        return self._dataset("train", train=True)

    @cached_property
    def val_set(self) -> SampleDataset[Any]:
        """Validation clips."""
        return self._dataset("val")

    @cached_property
    def test_set(self) -> SampleDataset[Any]:
        """Test clips."""
        return self._dataset("test")

    @abstractmethod
    def _require(self, part: str) -> None:
        """Raise a DataError for a part without any clip."""

    def _balanced_labels(self) -> Sequence[int] | None:
        """The class of every training clip, where an epoch shall have all equally often."""
        return None

    @property
    def channels(self) -> int:
        """Channels of a clip, C: what `in_channels: null` of a network becomes."""
        return len(self.mean)

    def to_frames(self, clip: Tensor) -> NDArray[np.uint8]:
        """Images of a normalised batch: (B, C, T, H, W) to uint8 RGB (B, T, H, W, 3)."""
        return transforms.denormalised_frames(clip, self.mean, self.std)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
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

    def _loader(self, dataset: SampleDataset[Any]) -> ClipLoader:
        sampler = EpochSampler(
            dataset,
            train=dataset.train,
            seed=self.seed,
            num_replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
            labels=self._balanced_labels() if dataset.train else None,
        )
        workers = self.num_workers
        return ClipLoader(
            dataset,
            self.trainer,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=Collate(),
            pin_memory=torch.cuda.is_available(),
            timeout=120 if workers else 0,  # a decoder that hangs must not hang the run
            persistent_workers=workers > 0,
            worker_init_fn=left_to_parent,
            generator=torch.Generator(),  # or making an iterator would draw from the global one
        )

    def _warn_once(self, problems: Sequence[Problem], *notes: str) -> None:
        """Say what is wrong with the data, and these notes, the first time this is called."""
        if self._warned:
            return
        self._warned = True
        if problems:
            warnings.warn(
                f"{len(problems)} problems with the data in {self.root!r}, the first is "
                f"{problems[0]}; {command_line('check', 'data=NAME')} names them all",
                stacklevel=2,  # `setup`, whose caller is Lightning
            )
        if notes:
            warnings.warn("; ".join(notes), stacklevel=2)


def check_whole(low: int, **settings: Any) -> None:
    """Raise a ConfigError for a setting that is not a whole number from `low` on."""
    for name, value in settings.items():
        if not isinstance(value, int) or value < low:
            raise ConfigError(f"data.{name}={value!r} must be a whole number, {low} or more")
