"""The data module of every labelled video set: a subclass says which clips there are."""

from __future__ import annotations

import gc
import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from lightning_cam.data.annotations.formats import annotated
from lightning_cam.data.core import transforms
from lightning_cam.data.core.base import PARTS, ClipDataModule, check_whole, require_some
from lightning_cam.data.core.clips import Clip, ClipReader, SampleDict, finished
from lightning_cam.data.core.dataset import ClipDataset
from lightning_cam.data.core.disk_cache import DiskCache
from lightning_cam.data.core.index import Index
from lightning_cam.data.core.listing import Listing, Problems, alike_classes, without_leaks
from lightning_cam.data.core.rows import count_classes, one_label, packed
from lightning_cam.data.core.transforms import ClipTransform, ColourJitter
from lightning_cam.errors import ConfigError, DataError, UnknownNameError, UserError

__all__ = ["SMALL", "VideoDataModule", "check_whole"]

# What the small networks of this package like: the settings of the synthetic data.
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


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's collector of garbage, which goes through all rows again and again as they
    become more: half of the time, for nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class VideoDataModule(ClipDataModule):
    """Clips of labelled videos for training, validation and testing.

    A data set is a subclass with one method, `list_clips`, and takes these settings as keywords.

    A class of large data sets looks at the disk through a `SeenFolders`, and names the settings on
    which `list_clips` depends besides `root` and `classes`: `class Mine(VideoDataModule,
    listed_by=("split",))`. Its listing is then kept in an `Index`. Its subclasses have to say so
    themselves: they may list by more.

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
        reader: "auto", "pyav" or "decord", see `lightning_cam.data.video.reading.read_clip`.
        rate: frames per second of videos that are folders of images.
        cache: keep the resized steps of all videos: True in memory (C x steps x height x width
            bytes per clip, in each loader process), "disk" on a local disk, see `DiskCache`.
        cache_folder: where on a disk; None: a folder of the user's own in $TMPDIR.
        cache_gb: gigabytes that this folder may have.
        annotations: published annotations, file or folder, see `data.annotations.formats`: the
            ground truth of clips in evaluation, in place of the data set's own.
        balanced: in an epoch of training every class comes equally often: clips of small classes
            several times, some of large ones not at all, each epoch others.
    """

    listed_by: ClassVar[Sequence[str] | None] = None

    def __init_subclass__(cls, *, listed_by: Sequence[str] | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.listed_by = listed_by

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
        cache: bool | str = False,
        cache_folder: str | None = None,
        cache_gb: float = 50,
        reader: str = "auto",
        rate: float | None = None,
        balanced: bool = False,
        annotations: str | None = None,
    ) -> None:
        super().__init__(
            root,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            mean=mean,
            std=std,
            cache=cache,
        )
        check_whole(1, num_frames=num_frames, resize=resize, crop=crop)
        for name, value in (("fps", fps), ("rate", rate)):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"data.{name}={value} must be above 0, and finite")
        self.given_classes = None if classes is None else list(classes)
        if not isinstance(balanced, bool):
            raise ConfigError(f"data.balanced={balanced} must be true or false")
        if not isinstance(annotations, (str, type(None))):
            raise ConfigError(f"data.annotations={annotations} must be a path or null")
        if not isinstance(cache, bool) and cache != "disk":
            raise ConfigError(f"data.cache={cache} must be true, false or disk")
        if not isinstance(cache_folder, (str, type(None))):
            raise ConfigError(f"data.cache_folder={cache_folder} must be a path or null")
        if type(cache_gb) not in (int, float) or not 0 < cache_gb < math.inf:
            raise ConfigError(f"data.cache_gb={cache_gb} must be a number above 0")
        self.cache_folder, self.cache_gb = cache_folder, cache_gb
        self.balanced = balanced
        self.annotations = annotations
        self.hflip_pairs = hflip_pairs or []
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
        """What the data set holds.

        Raises:
            DataError: nothing at all, not even problems.
        """
        if self.listed_by is None:
            listed = self._listed()
        else:
            settings = {name: getattr(self, name) for name in self.listed_by}
            index = Index(self.root, {**settings, "classes": self.given_classes}, type(self))
            listed = index.once(self._listed)
        for note in listed.notes:
            warnings.warn(note, stacklevel=3)
        return self._annotated(listed)

    def _listed(self) -> Listing:
        """The listing, made anew. Errors as of `listing`."""
        with _uncollected():
            listed = without_leaks(self.list_clips())
        require_some(self.root, listed)
        problems = [*listed.problems, *alike_classes(listed.classes)]
        return replace(listed, problems=Problems.of(problems))

    def prepare_data(self) -> None:
        """List the clips in the one process of a machine that Lightning asks first: the index that
        it makes is there for the others. What is wrong is for `setup` to say, in all of them.
        """
        with suppress(UserError, OSError):
            _ = self.listing

    def _annotated(self, listed: Listing) -> Listing:
        """The listing with published annotations as ground truth, where the settings name any."""
        if self.annotations is None:
            return listed
        parts = [listed.part(name) for name in PARTS]
        rows = iter(annotated([*chain.from_iterable(parts)], Path(self.annotations)))
        train, val, test = (packed([next(rows) for _ in part]) for part in parts)
        return replace(listed, train=train, val=val, test=test)

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their labels."""
        return self.given_classes or self.listing.classes

    @property
    def class_counts(self) -> list[int]:
        """Training clips of each class, in the order of the labels."""
        return count_classes(self.listing.part("train"), len(self.classes)).tolist()

    def _balanced_labels(self) -> Sequence[int] | None:
        if not self.balanced:
            return None
        labels = one_label(self.listing.part("train"))
        if labels is None:
            raise ConfigError(
                "data.balanced=true needs clips of one label each, and these may have several; set "
                "data.balanced=false"
            )
        return labels.tolist()

    def mirror(self) -> list[int | None]:
        """For each class the class that its mirrored clips show, None where they show none."""
        return transforms.mirror_labels(self.classes, self.hflip_pairs)

    def _dataset(self, part: str, *, train: bool = False) -> ClipDataset:
        return ClipDataset(
            self.listing.part(part),
            self.reader,
            train=train,
            mirror=self.mirror() if train else (),
            seed=self.seed,
            cache=self._kept,
        )

    @cached_property
    def _kept(self) -> bool | DiskCache:
        """Whether, or where, decoded steps are kept."""
        if self.cache == "disk":
            return DiskCache(self.cache_folder, self.cache_gb)
        return bool(self.cache)

    def evaluation(self, part: str) -> ClipDataset:
        """The clips of a part, "train" too, without augmentation.

        Raises:
            UnknownNameError: there is no such part.
        """
        if part not in PARTS:
            raise UnknownNameError("split", part, PARTS)
        return ClipDataset(self.listing.part(part), self.reader)

    def setup(self, stage: str | None = None) -> None:
        """List the clips, so that what is wrong with the data is said before anything starts.

        Raises:
            DataError: for "fit" (or None), there are fewer than two classes, or no clips for
                training or validation.
        """
        problems = self.listing.problems
        if stage in (None, "fit"):
            if len(self.classes) < 2:
                raise DataError(
                    f"{self.root!r} has one class only ({', '.join(self.classes)}): at least two "
                    "classes are needed to train"
                )
            self._require("train")
            self._require("val")
        self._warn_once(problems, *filter(None, map(self._absent, PARTS)))

    def _require(self, part: str) -> None:
        if self.listing.part(part):
            return
        reason = "it holds too few videos; add some"
        if problems := self.listing.problems:
            reason = f"it has {len(problems)} problems, the first is {problems[0]}"
        raise DataError(f"no clips for {PARTS[part]} in {self.root!r}: {reason}")

    def _absent(self, part: str) -> str:
        """Which classes have no clips in a part, in words; "" if all have some."""
        counts = count_classes(self.listing.part(part), len(self.classes))
        absent = [name for name, count in zip(self.classes, counts, strict=True) if not count]
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        return f"no {part} clips of: {', '.join(absent[:5])}{more}" if absent else ""

    def read(self, path: str | Path) -> SampleDict:
        """One video (a file or a folder of images) through the evaluation transform.

        Needs no data set.

        Returns:
            A sample (not a batch) with label -1.

        Raises:
            VideoReadError: it cannot be read.
        """
        path = Path(path)
        steps, valid = self.reader.window(path)
        return finished(self.reader.sample(Clip(path, path.stem), steps, valid))
