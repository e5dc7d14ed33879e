"""Sequences of images by one moving camera, and how they are cut into clips.

With snippets of n frames and m = n // 2, every frame with m neighbours on both sides is a *target*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.video import frame_folders as images
from lightning_cam.data.video.info import MOST_PIXELS
from lightning_cam.errors import VideoReadError

Depth = Callable[[int], NDArray[np.float32]]  # position -> (h, w) metres, 0 = unknown


@dataclass(frozen=True, eq=False)
class Drive:
    """One sequence of images by one camera, n of them in one folder.

    Attributes:
        name: of the sequence.
        images: in order.
        numbers: of the images, from their names; a gap in them is a gap in time.
        intrinsics: (3, 3) of the images as they are on disk.
        poses: (n, 4, 4) camera to world in metres; None if unknown.
        times: (n,) seconds; None if unknown.
        depth: from a position in `images` to (h, w) float32 metres, 0 where unknown. Picklable.
        masks: name of a part -> folder of PNGs (0 or 255) named like the images.
        size: (height, width) of the images that the intrinsics are of; None: of those there are.
    """

    name: str
    images: tuple[Path, ...]
    numbers: tuple[int, ...]
    intrinsics: NDArray[np.float64]
    poses: NDArray[np.float64] | None = None
    times: NDArray[np.float64] | None = None
    depth: Depth | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    @property
    def folder(self) -> Path:
        """Where the images are."""
        return self.images[0].parent

    def part(self, start: int, stop: int) -> Drive:
        """The images from position `start` up to `stop`, as a sequence of the same name."""
        cut = slice(start, stop)
        return replace(
            self,
            images=self.images[cut],
            numbers=self.numbers[cut],
            poses=None if self.poses is None else self.poses[cut],
            times=None if self.times is None else self.times[cut],
            depth=None if self.depth is None else partial(_depth_at, self.depth, start),
        )

    def hold_out(self, share: float, least: int) -> tuple[Drive, Drive]:
        """The beginning and the end of the sequence, without a common image.

        Args:
            share: of the images that the end takes.
            least: how many it takes at least.
        """
        count = len(self.images)
        cut = max(count - max(round(share * count), least), 0)
        return self.part(0, cut), self.part(cut, count)

    def runs(self, max_gap: int) -> list[tuple[int, int]]:
        """Stretches (start, stop) of neighbours whose numbers differ by at most `max_gap`."""
        steps = enumerate(pairwise(self.numbers), 1)
        cuts = [at for at, (one, other) in steps if other - one > max_gap]
        return list(pairwise([0, *cuts, len(self.numbers)]))


def _depth_at(depth: Depth, start: int, position: int) -> NDArray[np.float32]:
    return depth(start + position)


@dataclass(frozen=True)
class DepthFolder:
    """Depth in PNGs of sixteen bits, metres times 256, named like the images.

    Raises (when called):
        VideoReadError: one is absent or damaged.
    """

    folder: Path
    names: tuple[str, ...]

    def __call__(self, position: int) -> NDArray[np.float32]:
        image = images.whole(self.folder, self.names[position])
        return (image[..., 0] / 256).astype(np.float32)


@dataclass(frozen=True, eq=False)
class DriveClip:
    """A clip: neighbouring frames of a drive.

    Attributes:
        drive: where they are.
        start: position of the first one.
        count: how many there are.
        steps: T, frames of the clip; above `count` the last one repeats.
        targets: (first, stop) within the clip: those targets that no earlier clip of the drive has,
            so that each target counts in one clip.
    """

    drive: Drive
    start: int
    count: int
    steps: int
    targets: tuple[int, int]
    label: int = -1

    @property
    def path(self) -> Path:
        """The folder of images."""
        return self.drive.folder

    @property
    def clip_id(self) -> str:
        """The name of the sequence and of the first image."""
        return f"{self.drive.name}_{self.drive.images[self.start].stem}"

    @property
    def positions(self) -> NDArray[np.int64]:
        """(T,) positions in the drive."""
        return self.start + np.minimum(np.arange(self.steps), self.count - 1)


def snippets(drive: Drive, size: int, max_gap: int = 1) -> Iterator[DriveClip]:
    """All clips of `size` frames, one for each target."""
    middle = size // 2
    for start, stop in drive.runs(max_gap):
        for first in range(start, stop - size + 1):
            yield DriveClip(drive, first, size, size, (middle, middle + 1))


def long_clips(drive: Drive, size: int, steps: int, max_gap: int = 1) -> Iterator[DriveClip]:
    """Clips of `steps` frames that hold every target.

    Clips overlap by as much as their borders need, the last one by more where that is necessary to
    fill it. A clip is padded only where a run of images is shorter.

    Args:
        drive: the sequence.
        size: n, frames of a snippet, odd.
        steps: T, frames of a clip, at least n.
        max_gap: see `Drive.runs`; clips cross no larger gap.
    """
    middle = size // 2
    for start, stop in drive.runs(max_gap):
        if stop - start < size:
            continue
        count = min(steps, stop - start)
        seen = start + middle  # the first target that is in no clip yet
        while seen < stop - middle:
            first = min(seen - middle, stop - count)
            yield DriveClip(drive, first, count, steps, (seen - first, count - middle))
            seen = first + count - middle


def drive_of(
    name: str, folder: Path, numbered: Sequence[tuple[int, str]], intrinsics: NDArray[np.float64]
) -> Drive:
    """A drive of the numbered images of a folder, of which nothing else is known.

    Raises:
        VideoReadError: there is no image.
    """
    if not numbered:
        raise VideoReadError(folder, "it is a folder without numbered images (000000.png, ...)")
    numbers, names = zip(*numbered, strict=True)
    return Drive(name, tuple(folder / file for file in names), numbers, intrinsics)


def image_size(drive: Drive) -> tuple[int, int] | None:
    """(height, width) by the head of the first image that has one; None if none has."""
    for path in drive.images:
        width, height = images.claimed_size(path)
        if 0 < width * height <= MOST_PIXELS:  # of others whoever reads them says what is wrong
            return height, width
    return None


def parts_of(clips: Sequence[DriveClip]) -> tuple[str, ...]:
    """Names of the masks that any of the clips has."""
    drives = {id(clip.drive): clip.drive for clip in clips}.values()
    return tuple(sorted({name for drive in drives for name in drive.masks}))
