"""UCF11 (YouTube Action), and the synthetic actions in the same layout."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from lightning_cam.data import transforms
from lightning_cam.data.clips import Clip, ClipDataset, ClipReader, Sample
from lightning_cam.data.index import Split, read_index, split_groups
from lightning_cam.data.loading import ClipLoader, EpochSampler, collate
from lightning_cam.data.synthetic.actions import CLASSES, FLIP_PAIRS, render
from lightning_cam.data.transforms import ClipTransform, ColourJitter
from lightning_cam.errors import ConfigError


class UCF11(LightningDataModule):
    """UCF11, or any data in its layout.

    Unless groups are given, 25 groups are split as 2-7 for testing and 8-9 for validation, which
    leaves 1,202 clips that are not for testing and 398 that are (seed paper: 1,200 / 400).

    Args:
        root: folder of the class folders, or of an unpacked archive. Ground truth is used in
            validation and testing where a `ground_truth` folder lies beside the class folders'.
        num_frames: steps of a clip, T.
        fps: steps per second.
        resize: short side in pixels before cropping.
        crop: side of the crop.
        batch_size: per process.
        num_workers: loader processes; 0 reads in the training process.
        seed: of order and augmentation, >= 0.
        classes: expected class names in the order of their labels; None to find them. A model
            rebuilt from a checkpoint passes its own, and then needs no data to `read` a video.
        train_groups: group numbers, the same for every class; None for the default.
        val_groups: as above.
        test_groups: as above.
        hflip: probability of mirroring a training clip.
        hflip_pairs: classes that change places when mirrored, [[left, right], ...].
        contrast: see `ColourJitter`.
        offset: as above.
        permute: as above.
        grey: as above.
        mean: of each channel, in [0, 1].
        std: of each channel.
        reader: "auto", "pyav" or "decord", see `lightning_cam.data.video.read_clip`.
        cache: keep the resized steps of all videos in memory (3 x steps x height x width bytes
            per clip, in each loader process).
    """

    default_val: tuple[int, ...] = (8, 9)
    default_test: tuple[int, ...] = (2, 3, 4, 5, 6, 7)

    def __init__(
        self,
        root: str = "data/UCF11_updated_mpg",
        num_frames: int = 16,
        fps: float = 7.5,
        resize: int = 256,
        crop: int = 224,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
        classes: list[str] | None = None,
        train_groups: list[int] | None = None,
        val_groups: list[int] | None = None,
        test_groups: list[int] | None = None,
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
    ) -> None:
        super().__init__()
        _check_whole(1, num_frames=num_frames, resize=resize, crop=crop, batch_size=batch_size)
        _check_whole(0, num_workers=num_workers, seed=seed)
        if not fps > 0:
            raise ConfigError(f"data.fps={fps} must be above 0")
        self.root = root
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.given_classes = None if classes is None else list(classes)
        self.groups = {
            "train_groups": train_groups,
            "val_groups": val_groups,
            "test_groups": test_groups,
        }
        self.hflip_pairs = hflip_pairs or []
        self.mean, self.std = list(mean), list(std)
        self.cache = cache
        jitter = ColourJitter(contrast, offset, permute, grey)
        transform = ClipTransform(resize, crop, self.mean, self.std, hflip, jitter)
        self.reader = ClipReader(num_frames, fps, transform, reader)

    @cached_property
    def index(self) -> list[Clip]:
        """All clips of the data set."""
        return read_index(self.root, self.given_classes)

    @cached_property
    def classes(self) -> list[str]:
        """Class names in the order of their labels."""
        if self.given_classes is not None:
            return self.given_classes
        return sorted({clip.path.parents[1].name for clip in self.index})

    @cached_property
    def split(self) -> Split:
        """The groups of each part."""
        groups = [clip.group for clip in self.index]
        return split_groups(groups, val=self.default_val, test=self.default_test, **self.groups)

    @cached_property
    def train_set(self) -> ClipDataset:
        """Training clips, augmented."""
        mirror = transforms.mirror_labels(self.classes, self.hflip_pairs)
        return self._dataset("train", train=True, mirror=mirror)

    @cached_property
    def val_set(self) -> ClipDataset:
        """Validation clips."""
        return self._dataset("val")

    @cached_property
    def test_set(self) -> ClipDataset:
        """Test clips."""
        return self._dataset("test")

    def _dataset(self, part: str, **options: Any) -> ClipDataset:
        groups = getattr(self.split, part)
        clips = [clip for clip in self.index if clip.group in groups]
        absent = sorted(set(range(len(self.classes))) - {clip.label for clip in clips})
        if absent:
            names = [self.classes[label] for label in absent]
            warnings.warn(f"no {part} clips of {names}: no such group in them", stacklevel=3)
        return ClipDataset(clips, self.reader, seed=self.seed, cache=self.cache, **options)

    def setup(self, stage: str | None = None) -> None:
        """Read the index, so that what is wrong with the data is said before anything starts."""
        _ = self.classes, self.split

    def read(self, path: str | Path) -> Sample:
        """One video file through the evaluation transform; needs no data set.

        Returns:
            A sample (not a batch) with label -1.

        Raises:
            VideoReadError: the file cannot be read.
        """
        path = Path(path)
        steps, valid = self.reader.window(path)
        return self.reader.sample(Clip(path, path.stem), steps, valid)

    def to_frames(self, clip: Tensor) -> NDArray[np.uint8]:
        """Pictures of a normalised batch: (B, 3, T, H, W) to uint8 RGB (B, T, H, W, 3)."""
        return transforms.to_frames(clip, self.mean, self.std)

    def train_dataloader(self) -> ClipLoader:
        return self._loader(self.train_set)

    def val_dataloader(self) -> ClipLoader:
        return self._loader(self.val_set)

    def test_dataloader(self) -> ClipLoader:
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


def _check_whole(low: int, **settings: Any) -> None:
    """Raise a ConfigError for a setting that is not a whole number from `low` on."""
    for name, value in settings.items():
        if not isinstance(value, int) or value < low:
            raise ConfigError(f"data.{name}={value!r} must be a whole number, {low} or more")


class SyntheticActions(UCF11):
    """Eleven synthetic actions that differ by motion alone, rendered on first use.

    Groups 1-20 are for training, 21-23 for validation, 24-25 for testing (880 / 132 / 88 clips).
    Mirroring swaps left with right and clockwise with counter-clockwise.

    Args:
        root: folder to render into.
        groups: groups per class.
        clips: clips per group.
        size: side of the rendered frames in pixels.
        render_seed: seed of the rendering; `seed` is that of order and augmentation.
        actions: some of the class names; None for all.
        **options: arguments of `UCF11`; the defaults suit the small networks of this package.
    """

    default_val = (21, 22, 23)
    default_test = (24, 25)

    def __init__(
        self,
        root: str = "data/synthetic_actions",
        *,
        groups: int = 25,
        clips: int = 4,
        size: int = 96,
        render_seed: int = 0,
        actions: list[str] | None = None,
        **options: Any,
    ) -> None:
        defaults = {
            "resize": 64,
            "crop": 64,
            "batch_size": 12,
            "num_workers": 0,
            "classes": sorted(actions or CLASSES),
            "hflip_pairs": [list(pair) for pair in FLIP_PAIRS],
            "permute": 0.5,
            "grey": 0.15,
            "mean": [0.45] * 3,
            "std": [0.225] * 3,
            "cache": True,
        }
        _check_whole(1, groups=groups, clips=clips, size=size)
        _check_whole(0, render_seed=render_seed)
        super().__init__(root, **{**defaults, **options})
        self.rendering: dict[str, Any] = {
            "groups": groups,
            "clips": clips,
            "size": size,
            "seed": render_seed,
            "classes": actions,
        }

    def prepare_data(self) -> None:
        """Render the data unless it is there."""
        render(self.root, **self.rendering)
