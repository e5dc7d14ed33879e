"""Reading sequences of an infrared and a visible camera, alone or fused on the visible grid."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from lightning_cam.data.core.arrays import FloatArray
from lightning_cam.data.core.clips import Clip, ClipReader, SampleDict
from lightning_cam.data.core.text_files import text_of
from lightning_cam.data.multispectral.names import camera_of, partner, spectrum_of
from lightning_cam.data.video import frame_folders as images
from lightning_cam.data.video.info import Each, Pixels, VideoInfo
from lightning_cam.data.video.reading import VideoFrames, open_folder, read_frames
from lightning_cam.data.video.sampling import Indices
from lightning_cam.data.video.streams import VideoStream, open_stream
from lightning_cam.errors import DataError

REGISTRATION = "registration.json"


@dataclass(frozen=True)
class SpectralReader(ClipReader):
    """Reads a folder of images below IR or TV as infrared, visible or fused clip.

    Infrared images are read as one channel, and repeated where the clip has three. A fused clip
    has the channels red, green, blue, infrared, the steps and the grid of the visible sequence.

    Attributes:
        spectrum: "ir", "tv" or "irtv".
        fused: of "irtv": whether clips hold both spectra, or are of one each.
        ir_range: what is black and what is white in infrared images of sixteen bits.
        registration: path of a JSON file, see `load_registration`; None for the one beside the
            spectra's folders, or beside the folder that holds these.
    """

    spectrum: str = "tv"
    fused: bool = False
    ir_range: tuple[float, float] | None = None
    registration: str | None = None

    def read(
        self,
        path: str | Path,
        select: Callable[[VideoInfo], ArrayLike],
        each: Each | None = None,
    ) -> VideoFrames:
        """Frames of a sequence (n, h, w, C).

        Raises:
            VideoReadError: it cannot be read.
            DataError: there is no sequence of the other spectrum to be fused with.
        """
        if self.fused:
            return self._fuse(Path(path), select, each)
        if self.shows(Path(path)) != "ir":
            return super().read(path, select, each)
        frames, indices, info = self._infrared(path, select, each)
        return VideoFrames(frames.repeat(self.transform.channels, -1), indices, info)

    def open(self, path: str | Path) -> VideoStream:
        if self.fused:
            return self._open_pair(Path(path))
        if self.shows(Path(path)) != "ir":
            return super().open(path)
        video = open_stream(path, rate=self.rate, image=self._grey)
        channels = self.transform.channels

        def frames(wanted: Indices) -> Iterator[Pixels]:
            return (image[..., :1].repeat(channels, -1) for image in video.frames(wanted))

        return replace(video, frames=frames)

    def _open_pair(self, path: Path) -> VideoStream:
        tv, warm, join = self._pair(path)
        video = super().open(tv)

        def frames(wanted: Indices) -> Iterator[Pixels]:
            moments = same_moments(wanted, video.info.num_frames, warm.info.num_frames)
            return map(join, video.frames(wanted), warm.stream(moments))

        return replace(video, frames=frames)

    def shows(self, path: Path) -> str:
        """The spectrum of a clip: by the folders on its path or, where they do not tell, the one
        that is set."""
        if self.fused or self.spectrum == "ir":
            return self.spectrum
        return spectrum_of(path) or self.spectrum

    def sample_of(self, clip: Clip, *args: Any) -> SampleDict:
        return {**super().sample_of(clip, *args), "spectrum": self.shows(clip.path)}

    def missing(self, clip: Clip, error: str) -> SampleDict:
        return {**super().missing(clip, error), "spectrum": self.shows(clip.path)}

    def _infrared(
        self,
        path: str | Path,
        select: Callable[[VideoInfo], ArrayLike],
        each: Each | None,
    ) -> VideoFrames:
        read = read_frames(
            path, select, reader=self.reader, rate=self.rate, image=self._grey, each=each
        )
        return read._replace(frames=read.frames[..., :1])  # of a video file, three equal channels

    def _grey(self, folder: Path, name: str) -> Pixels:
        return images.grey(folder, name, self.ir_range)

    def _fuse(
        self,
        path: Path,
        select: Callable[[VideoInfo], ArrayLike],
        each: Each | None,
    ) -> VideoFrames:
        """Both spectra, image by image, so that neither sequence is in memory as it is."""
        tv, warm, join = self._pair(path)
        heat: Iterator[Pixels] = iter(())

        def choose(video: VideoInfo) -> ArrayLike:
            nonlocal heat
            wanted = select(video)
            in_order = np.unique(wanted)  # as they are decoded
            heat = warm.stream(same_moments(in_order, video.num_frames, warm.info.num_frames))
            return wanted

        def fuse(colours: Pixels) -> Pixels:
            both = np.stack([join(image, next(heat)) for image in colours])
            return both if each is None else each(both)

        return super().read(tv, choose, fuse)

    def _pair(self, path: Path) -> tuple[Path, images.Folder, Callable[[Pixels, Pixels], Pixels]]:
        """The visible sequence, the infrared one, and what joins their images as (h, w, 4)."""
        other = partner(path)
        tv, ir = (path, other) if spectrum_of(path) == "tv" else (other, path)
        registered = self._matrix(tv)

        def join(image: Pixels, heat: Pixels) -> Pixels:
            height, width = image.shape[:2]
            matrix = registered
            if matrix is None:
                matrix = match_heights(heat.shape[:2], (height, width))
            grid = cv2.warpPerspective(
                heat[..., 0], matrix, (width, height), flags=cv2.INTER_LINEAR
            )
            return np.dstack([image, grid])

        return tv, open_folder(ir, rate=self.rate, image=self._grey), join

    def sources(self, path: Path) -> Sequence[Path]:
        if not self.fused:
            return super().sources(path)
        other = partner(path)
        registration = self._registration(path if spectrum_of(path) == "tv" else other)
        return [path, other, *([] if registration is None else [registration])]

    def _registration(self, tv: Path) -> Path | None:
        """The file that says where in one spectrum the other one is, if there is one."""
        if self.registration is not None:
            return Path(self.registration)
        top = Path(*tv.parts[: _place_of_tv(tv)])
        found = (folder / REGISTRATION for folder in (top, top.parent))
        return next(filter(Path.is_file, found), None)

    def _matrix(self, tv: Path) -> FloatArray | None:
        """The registration of a sequence's camera, None where there is none at all."""
        at = _place_of_tv(tv)
        file = self._registration(tv)
        if file is None:
            return None
        matrices = load_registration(str(file))
        camera = camera_of("/".join(tv.parts[at + 1 :]))  # not of the folders above the data
        for name in (camera, None):
            if name in matrices:
                return matrices[name]
        raise DataError(
            f"{str(file)!r} has no matrix for camera {camera} of {str(tv)!r}: add one, or one for "
            'all cameras under "*"'
        )


def _place_of_tv(path: Path) -> int:
    return max(n for n, name in enumerate(path.parts) if name.lower() == "tv")


@lru_cache(maxsize=8)
def load_registration(path: str) -> Mapping[int | None, FloatArray]:
    """Matrices (3, 3) that map infrared to visible pixels, x right and y down, by camera.

    The file maps a camera, by its number or as in the folders' names, to a matrix of 3 x 3
    (homography) or 2 x 3 (affine), {"c1": [[1.2, 0, 21], [0, 1.2, 0]], ...}. Centres of pixels have
    whole coordinates. "*" is for all other cameras, and has the key None here.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(text_of(Path(path)))
        matrices = {_camera(name): _homography(rows) for name, rows in content.items()}
    except OSError as error:
        raise DataError(f"cannot read {path!r}: {error.strerror}") from error
    except (
        AttributeError, RecursionError, TypeError, ValueError, np.linalg.LinAlgError
    ) as error:  # fmt: skip
        raise DataError(
            f"{path!r} does not map each camera to a matrix of 3 x 3 or 2 x 3 numbers ({error})"
        ) from error
    return matrices


def _camera(name: str) -> int | None:
    if name == "*":
        return None
    number = int(name) if name.isdecimal() else camera_of(name)
    if number is None:
        raise ValueError(f"{name!r} is not a camera")
    return number


def _homography(rows: Any) -> FloatArray:
    matrix = np.array(rows, dtype=np.float64)
    if matrix.shape == (2, 3):
        matrix = np.vstack([matrix, (0.0, 0.0, 1.0)])
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ValueError(f"{rows!r} is none")
    np.linalg.inv(matrix)  # or it maps a plane to a line
    return matrix


def match_heights(ir: tuple[int, ...], tv: tuple[int, ...]) -> FloatArray:
    """The map of images of two sizes (height, width) that have the same height and middle."""
    factor = tv[0] / ir[0]
    x, y = ((b - 1) / 2 - factor * (a - 1) / 2 for a, b in ((ir[1], tv[1]), (ir[0], tv[0])))
    return np.array([[factor, 0, x], [0, factor, y], [0, 0, 1]])


def same_moments(indices: ArrayLike, count: int, other: int) -> Indices:
    """Frames of a sequence of `other` frames at the times of those of one of `count` frames.

    Equal numbers where both have as many, else by the share of the time that has gone by.
    """
    at = np.asarray(indices, dtype=np.int64)
    if count == other or count == 1:
        return np.minimum(at, other - 1)
    return np.floor(at * ((other - 1) / (count - 1)) + 0.5).astype(np.int64)


def infrared_range(folders: list[Path], images_each: int = 3) -> tuple[int, int] | None:
    """The 1st and 99th percentile of infrared images of sixteen bits; None if they have eight.

    Args:
        folders: of sequences.
        images_each: that are looked at in each, evenly spread; the same ones every time.
    """
    levels: list[Pixels] = []
    for folder in folders:
        names = images.names(folder)
        for n in np.linspace(0, len(names) - 1, min(images_each, len(names))).round():
            image = images.whole(folder, names[int(n)])
            if image.dtype == np.uint8:
                return None
            levels.append(image[::4, ::4, 0].ravel())
    if not levels:
        return None
    low, high = np.percentile(np.concatenate(levels), (1, 99))
    return int(low), int(np.ceil(high))
