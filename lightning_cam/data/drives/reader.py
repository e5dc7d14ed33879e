"""Frames of a drive to samples: the reader of every set for depth and motion.

Samples are *raw*, as those of `lightning_cam.data.core.clips`: `clips.finished` does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_cam.data.core.clips import Clip, SampleDict, Seed
from lightning_cam.data.core.transforms import normalisation
from lightning_cam.data.drives import cameras
from lightning_cam.data.drives.drive import Drive, DriveClip
from lightning_cam.data.drives.transforms import SnippetTransform, shrink
from lightning_cam.data.video import frame_folders as images
from lightning_cam.data.video.info import Pixels
from lightning_cam.data.video.reading import read_frames
from lightning_cam.errors import DataError, VideoReadError

_FOR_PEOPLE = (128, 256)  # pixels of height that images get at least, and at most


@dataclass(frozen=True)
class SnippetReader:
    """Reads stretches of drives as clips.

    Attributes:
        num_frames: T of the clips for evaluation.
        transform: of pixels and intrinsics.
        rate: images per second where no times are known.
    """

    num_frames: int
    transform: SnippetTransform
    rate: float | None = None

    def frame(self, drive: Drive, position: int) -> Pixels:
        """One image as it is on disk, (h, w, 3) RGB.

        Raises:
            VideoReadError: it cannot be read, or is of another size than the intrinsics.
        """
        path = drive.images[position]
        image = np.ascontiguousarray(images.colour(path.parent, path.name)[..., ::-1])
        if drive.size is not None and image.shape[:2] != drive.size:
            (h, w), (height, width) = image.shape[:2], drive.size
            raise VideoReadError(
                path.parent,
                f"its image {path.name} is {w}x{h}, the intrinsics are of {width}x{height}; "
                "bring all images of a sequence to one size",
            )
        return image

    def sample(
        self,
        clip: DriveClip,
        frames: Sequence[Pixels],
        *,
        truth: bool = False,
        seed: Seed | None = None,
    ) -> SampleDict:
        """Transform the frames of a clip into a raw sample.

        Args:
            clip: its row.
            frames: T of (h, w, 3), the last of them repeated where it is padded.
            truth: add what is known of poses, depth and masks.
            seed: of the augmentation; None for the evaluation transform.

        Raises:
            VideoReadError: a file of the ground truth cannot be read.
            DataError: they are not of one size.
        """
        drive, positions = clip.drive, clip.positions
        generator = None
        if seed is not None:
            state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0]))
        names = tuple(drive.masks) if truth else ()
        masks = [_mask(drive, name, clip.start + n) for name in names for n in range(clip.count)]
        stack = torch.from_numpy(_stacked(masks, drive)) if masks else None
        view = self.transform(frames, drive.intrinsics, stack, generator)
        steps = torch.arange(clip.steps)
        first, stop = clip.targets
        sample = {
            "video": view.video,  # (3, T, H, W)
            "colour": view.colour,  # (2, 3)
            "grey": False,
            "black": view.colour[1].clone(),  # (3,)
            "valid": steps < clip.count,  # (T,)
            "target": (steps >= first) & (steps < stop),  # (T,)
            "intrinsics": torch.from_numpy(view.intrinsics).float(),  # (3, 3)
            "frame_idx": torch.tensor([drive.numbers[at] for at in positions]),  # (T,)
            "time_s": torch.from_numpy(self.times(drive)[positions]).float(),  # (T,)
            "sequence": drive.name,
            "clip_id": clip.clip_id,
            "path": str(clip.path),
            "error": "",
        }
        if not truth:
            return sample
        sample["poses"] = _poses(drive, positions)
        sample["depth"] = _depth(drive, positions)
        if view.masks is not None:
            of = view.masks.unflatten(0, (len(names), clip.count))
            of = of[:, positions - clip.start]  # padded as the frames are
            sample |= {f"mask/{name}": mask for name, mask in zip(names, of, strict=True)}
        return sample

    def times(self, drive: Drive) -> NDArray[np.float64]:
        """Seconds of the images of a drive (n,); without a clock, their numbers."""
        if drive.times is not None:
            return drive.times
        return np.array(drive.numbers, np.float64) / (self.rate or 1.0)

    def display(self, path: str | Path, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Frames of a clip for people: a whole number of times the network's height and width.

        Args:
            path: folder of images, or a video file; "path" of a sample.
            indices: numbers of the images or frames, "frame_idx" of a sample.

        Returns:
            (T, k H, k W, 3) uint8 RGB, larger than the network's images where the files are.
        """
        path = Path(path)
        if path.is_dir():
            names = dict(images.numbered(path))
            lost = [number for number in indices if number not in names]
            if lost:
                raise VideoReadError(path, f"there is no image of number {lost[0]} any more")
            unlike = {number: images.colour(path, names[number]) for number in set(indices)}
            frames = [unlike[number][..., ::-1] for number in indices]
        else:
            frames = list(read_frames(path, lambda _: indices, rate=self.rate).frames)
        least, most = _FOR_PEOPLE
        height, width = self.transform.height, self.transform.width
        k = max(min(frames[0].shape[0], most) // height, -(-least // height))
        return np.stack([
            shrink(np.ascontiguousarray(frame), k * height, k * width) for frame in frames
        ])  # fmt: skip

    def missing(self, clip: Clip | DriveClip, error: str) -> SampleDict:
        """What stands for an unreadable clip in evaluation: zeros, none of them valid, raw."""
        steps, height, width = self.num_frames, self.transform.height, self.transform.width
        # Any camera that can be inverted.
        camera = cameras.pinhole(width, width, (width - 1) / 2, (height - 1) / 2)
        return {
            "video": torch.zeros(3, steps, height, width, dtype=torch.uint8),
            "colour": torch.zeros(2, 3),  # zeros stay what they are
            "grey": False,
            "black": normalisation(self.transform.mean, self.transform.std)[1].clone(),
            "valid": torch.zeros(steps, dtype=torch.bool),
            "target": torch.zeros(steps, dtype=torch.bool),
            "intrinsics": torch.from_numpy(camera).float(),
            "frame_idx": torch.zeros(steps, dtype=torch.int64),
            "time_s": torch.zeros(steps),
            "sequence": clip.drive.name if isinstance(clip, DriveClip) else "",
            "clip_id": clip.clip_id,
            "path": str(clip.path),
            "error": error,
            **self.no_truth(),
        }

    def no_truth(self, masks: Sequence[str] = ()) -> dict[str, Any]:
        """Unknown poses and depth, and empty masks of these names."""
        steps, size = self.num_frames, (self.transform.height, self.transform.width)
        empty = torch.zeros(steps, *size, dtype=torch.bool)
        return {
            "poses": torch.full((steps, 4, 4), torch.nan),
            "depth": np.zeros((0, 0, 0), np.float32),
            **{f"mask/{name}": empty for name in masks},
        }


def _poses(drive: Drive, positions: NDArray[np.int64]) -> torch.Tensor:
    if drive.poses is None:
        return torch.full((len(positions), 4, 4), torch.nan)
    return torch.from_numpy(cameras.relative_to_first(drive.poses[positions])).float()


def _depth(drive: Drive, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """(T, h, w) metres; (0, 0, 0) where there is none."""
    if drive.depth is None:
        return np.zeros((0, 0, 0), np.float32)
    known = {at: drive.depth(at) for at in dict.fromkeys(positions.tolist())}
    return _stacked([known[at] for at in positions.tolist()], drive)


def _mask(drive: Drive, name: str, position: int) -> NDArray[np.bool_]:
    file = f"{drive.images[position].stem}.png"
    return images.whole(drive.masks[name], file)[..., 0] > 127


def _stacked(maps: Sequence[NDArray[Any]], drive: Drive) -> NDArray[Any]:
    shapes = sorted({of.shape for of in maps})
    if len(shapes) > 1:
        raise DataError(
            f"ground truth of {drive.name} is of several sizes, {shapes[0]} and {shapes[1]}: bring "
            "it to one size"
        )
    return np.stack(maps)
