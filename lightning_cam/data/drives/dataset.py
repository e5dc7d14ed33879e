"""The dataset of every set for depth and motion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_cam.data.core.clips import SampleDict, Seed
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.drives.drive import Drive, DriveClip, parts_of
from lightning_cam.data.drives.reader import SnippetReader
from lightning_cam.data.video.info import Pixels
from lightning_cam.errors import VideoReadError


class SnippetDataset(SampleDataset[DriveClip]):
    """Clips of drives.

    In evaluation an image that cannot be read is black and not valid, and "error" says why: only
    the targets whose snippets hold it are lost. In training the next clip takes the place.

    Args:
        clips: the rows.
        reader: how images become clips.
        train: augment; else samples have "poses", "depth" and, where any drive has masks,
            "mask/<part>".
        seed: of all randomness.
        cache: keep decoded images in memory, as large as they are on disk.
    """

    def __init__(
        self,
        clips: Sequence[DriveClip],
        reader: SnippetReader,
        *,
        train: bool = False,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        super().__init__(clips, train=train, seed=seed)
        self.reader = reader
        self.cache = cache
        self.masks = () if train else parts_of(self.clips)
        self._frames: dict[Path, Pixels] = {}

    def _frame(self, drive: Drive, position: int) -> Pixels:
        path = drive.images[position]
        frame = self._frames.get(path)
        if frame is None:
            frame = self.reader.frame(drive, position)
            if self.cache:
                self._frames[path] = frame
        return frame

    def _sample(self, index: int, seed: Seed | None) -> SampleDict:
        clip = self.clips[index]
        read: dict[int, Pixels] = {}
        errors: dict[int, VideoReadError] = {}
        for n in range(clip.count):
            try:
                read[n] = self._frame(clip.drive, clip.start + n)
            except VideoReadError as error:
                errors[n] = error
        if errors and (self.train or not read):
            raise next(iter(errors.values()))
        black = np.zeros_like(next(iter(read.values())))  # in place of single lost images
        frames = [read.get(n, black) for n in range(clip.count)]
        frames += frames[-1:] * (clip.steps - clip.count)
        sample = self.reader.sample(clip, frames, truth=not self.train, seed=seed)
        if errors:
            sample["valid"][list(errors)] = False
            sample["error"] = str(next(iter(errors.values())))
        return sample if self.train else {**self.reader.no_truth(self.masks), **sample}

    def _missing(self, index: int, error: str) -> SampleDict:
        missing = self.reader.missing(self.clips[index], error)
        return {**missing, **self.reader.no_truth(self.masks)}
