"""The data module of every set for depth and motion: a subclass says which drives there are.

In training a clip is one snippet of n frames, whose middle frame is the target. Elsewhere it is
longer, and every frame with n // 2 neighbours on both sides is a target.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.base import PARTS, ClipDataModule, check_whole, require_some
from lightning_cam.data.core.clips import SampleDict
from lightning_cam.data.core.listing import Divided, Problem
from lightning_cam.data.core.transforms import ColourJitter
from lightning_cam.data.drives import cameras
from lightning_cam.data.drives.dataset import SnippetDataset
from lightning_cam.data.drives.drive import Drive, image_size, long_clips, snippets
from lightning_cam.data.drives.leaks import without_leaks
from lightning_cam.data.drives.reader import SnippetReader
from lightning_cam.data.drives.transforms import SnippetTransform
from lightning_cam.data.drives.video_file import read_middle
from lightning_cam.errors import ConfigError, DataError, UnknownNameError

__all__ = ["Drive", "DriveListing", "SnippetDataModule", "SnippetDataset", "SnippetReader"]

LEFT_OUT = (
    "missing",
    "calib",
    "short",
    "leak",
)  # kinds of problems with which a drive cannot be used


@dataclass(frozen=True)
class DriveListing(Divided[Drive]):
    """A data set before its images are decoded.

    Attributes:
        train, val, test: the drives of each part.
        problems: what was found on the way.
    """

    train: Sequence[Drive]
    val: Sequence[Drive]
    test: Sequence[Drive]
    problems: Sequence[Problem] = ()


class SnippetDataModule(ClipDataModule):
    """Sequences of images by moving cameras, for depth and motion without labels.

    A data set is a subclass with one method, `list_drives`, and takes these settings as keywords.
    Batches have "video" (B, 3, T, H, W), "valid" (B, T), "intrinsics" (B, 3, 3) of H x W pixels,
    "target" (B, T), True for those targets that no other clip of the sequence counts, "frame_idx"
    (B, T) as in the names of the images, "time_s" (B, T), and in validation and testing "poses"
    (B, T, 4, 4) camera to world relative to the first frame, NaN where unknown, "depth", a list of
    (T, h, w) arrays in metres, and "mask/<part>" (B, T, H, W) where there are some.

    Args:
        root: folder of the data set.
        snippet: n, frames of a snippet: a target in the middle and its sources. Odd.
        eval_frames: T, frames of a clip in validation and testing.
        height: H in pixels.
        width: W in pixels. Images are resized to H x W as they are, the intrinsics follow.
        batch_size: clips per process.
        num_workers: loader processes; 0 reads in the training process.
        seed: of order and augmentation, >= 0.
        hflip: probability of mirroring a training clip.
        zoom: training clips are magnified by up to this factor and cropped; 1 for neither.
        contrast: see `ColourJitter`.
        offset: as above.
        mean: of R, G and B, in [0, 1].
        std: of R, G and B.
        max_gap: neighbours in a clip differ in their numbers by this at most.
        intrinsics: [fx, fy, cx, cy] of the images on disk, in place of all calibration files.
        rate: images per second where no file tells their times.
        cache: keep decoded images in memory (3 x height x width bytes each as they are on disk,
            in each loader process).
    """

    def __init__(
        self,
        root: str,
        *,
        snippet: int = 3,
        eval_frames: int = 16,
        height: int = 128,
        width: int = 416,
        batch_size: int = 4,
        num_workers: int = 4,
        seed: int = 0,
        hflip: float = 0.5,
        zoom: float = 1.15,
        contrast: float = 0.2,
        offset: float = 0.2,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        max_gap: int = 1,
        intrinsics: Sequence[float] | None = None,
        rate: float | None = None,
        cache: bool = False,
    ) -> None:
        if not isinstance(cache, bool):
            raise ConfigError(
                f"data.cache={cache} must be true or false: a disk is for clips with labels"
            )
        super().__init__(
            root,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            mean=mean,
            std=std,
            cache=cache,
        )
        check_whole(3, snippet=snippet)
        check_whole(1, height=height, width=width, max_gap=max_gap)
        check_whole(snippet, eval_frames=eval_frames)
        if snippet % 2 == 0:
            raise ConfigError(f"data.snippet={snippet} must be odd: the target is in the middle")
        if rate is not None and not rate > 0:
            raise ConfigError(f"data.rate={rate} must be above 0")
        self.snippet = snippet
        self.max_gap = max_gap
        self.given = None if intrinsics is None else _pinhole(intrinsics)
        jitter = ColourJitter(contrast, offset)
        transform = SnippetTransform(height, width, self.mean, self.std, hflip, zoom, jitter)
        self.reader = SnippetReader(eval_frames, transform, rate)

    @abstractmethod
    def list_drives(self) -> DriveListing:
        """Read the data set's lists and folders, decoding no image.

        Raises:
            DataError: there is no such data set.
        """

    def asked_twice(self) -> Collection[str]:
        """Names of sequences that settings name for several parts, which then share them."""
        return ()

    def camera_of(self, folder: Path) -> NDArray[np.float64]:
        """Intrinsics (3, 3) of the images in a folder, from a calibration file near it.

        Raises:
            DataError: there is none.
        """
        raise DataError(
            f"nothing tells the intrinsics of {str(folder)!r}: set "
            "data.intrinsics=[FX,FY,CX,CY] of its images as they are"
        )

    def named(self, name: str) -> Drive:
        """A drive by the name of its sequence, whether or not it is in any part.

        Raises:
            UnknownNameError: there is none.
        """
        listing = self.listing
        drives = {d.name: d for part in PARTS for d in listing.part(part)}
        if name not in drives:
            raise UnknownNameError("split or sequence", name, [*PARTS, *drives])
        return drives[name]

    @property
    def classes(self) -> list[str]:
        """None: these clips have no labels."""
        return []

    @cached_property
    def listing(self) -> DriveListing:
        """What the data set holds and can be used.

        Raises:
            DataError: nothing at all, not even problems.
        """
        found = self.list_drives()
        require_some(self.root, found)
        problems = list(found.problems)
        parts: dict[str, list[Drive]] = {part: [] for part in PARTS}
        for part, kept in parts.items():
            for drive in found.part(part):
                drive, problem = self.checked(drive)
                if problem is None:
                    kept.append(drive)
                elif problem not in problems:
                    problems.append(problem)
        if list(found.val) == list(found.test):  # one part for both
            parts["val"] = parts["test"]
        parts, leaks = without_leaks(parts, self.asked_twice())
        return DriveListing(**parts, problems=[*problems, *leaks])

    def checked(self, drive: Drive) -> tuple[Drive, Problem | None]:
        """The drive with the size of its images, and why it cannot be used."""
        size = image_size(drive)
        where = str(drive.folder)
        if size is not None:
            (height, width), calibrated = size, drive.size or size
            why = cameras.misfit(drive.intrinsics, height, width)
            if calibrated != size:
                why = f"they are of {calibrated[1]}x{calibrated[0]}, its images {width}x{height}"
            if why:
                remedy = "mend the calibration, or set data.intrinsics=[FX,FY,CX,CY]"
                if self.given is not None:
                    remedy = "mend data.intrinsics"
                why = f"its intrinsics do not fit: {why}; {remedy}"
                return drive, Problem("calib", where, why, drive.name)
            drive = replace(drive, size=size)
        longest = max(stop - start for start, stop in drive.runs(self.max_gap))
        if longest < self.snippet:
            why = f"it has {len(drive.images)} images"
            if longest < len(drive.images):
                why += f", and {longest} without a gap (data.max_gap={self.max_gap})"
            why = f"{why}, a snippet takes {self.snippet}; add some, or leave it out"
            return drive, Problem("short", where, why, drive.name)
        return drive, None

    def evaluation(self, part: str) -> SnippetDataset:
        """A part without augmentation, "train" too, or one sequence, in clips of `eval_frames`.

        Raises:
            UserError: there is none of this name, or it cannot be used.
        """
        if part in PARTS:
            return self._dataset(part)
        drive, problem = self.checked(self.named(part))
        if problem is not None:
            raise DataError(str(problem))
        return self._long_clips([drive])

    def _dataset(self, part: str, *, train: bool = False) -> SnippetDataset:
        drives = self.listing.part(part)
        if not train:
            return self._long_clips(drives)
        clips = [c for drive in drives for c in snippets(drive, self.snippet, self.max_gap)]
        kept = self.cache is True
        return SnippetDataset(clips, self.reader, train=True, seed=self.seed, cache=kept)

    def _long_clips(self, drives: Sequence[Drive]) -> SnippetDataset:
        steps = self.reader.num_frames
        clips = [
            c for drive in drives for c in long_clips(drive, self.snippet, steps, self.max_gap)
        ]
        return SnippetDataset(clips, self.reader, cache=self.cache is True)

    def setup(self, stage: str | None = None) -> None:
        """List the drives, so that what is wrong with the data is said before anything starts.

        Raises:
            DataError: for "fit" (or None), there are no clips for training or validation.
        """
        problems = self.listing.problems
        if stage in (None, "fit"):
            self._require("train")
            self._require("val")
        self._warn_once(problems)

    def _require(self, part: str) -> None:
        if self.listing.part(part):
            return
        reason = "it holds no sequences for it; name some"
        if problems := self.listing.problems:
            # What left a sequence out, rather than what is wrong with one that is used.
            first = next((p for p in problems if p.kind in LEFT_OUT), problems[0])
            reason = f"it has {len(problems)} problems, such as {first}"
            reason = str(first) if len(problems) == 1 else reason
        raise DataError(f"no clips for {PARTS[part]} in {self.root!r}: {reason}")

    def read(self, path: str | Path) -> SampleDict:
        """The middle of a video (a file or a folder of images) as a clip for evaluation.

        Needs no data set, but intrinsics: `data.intrinsics`, or a calibration file near the folder.

        Returns:
            A sample (not a batch).

        Raises:
            VideoReadError: it cannot be read, or is shorter than a snippet.
            DataError: nothing tells the intrinsics.
        """
        path = Path(path)
        camera = self.given if self.given is not None else self.camera_of(path)
        return read_middle(path, self.reader, camera, self.snippet, self.max_gap)


def _pinhole(values: Sequence[float]) -> NDArray[np.float64]:
    given = list(values)
    numbers = [v for v in given if type(v) in (int, float) and np.isfinite(v)]
    if len(given) != 4 or len(numbers) != 4 or min(numbers[:2]) <= 0:
        raise ConfigError(
            f"data.intrinsics={given} must be four numbers, [FX,FY,CX,CY] in pixels of the images"
        )
    return cameras.pinhole(*given)
