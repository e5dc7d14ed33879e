"""Ground truth from boxes, which were drawn in some of a video's frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.arrays import FloatArray
from lightning_cam.data.core.ground_truth import ClipTruth, VideoTruth
from lightning_cam.data.video.info import VideoInfo
from lightning_cam.data.video.sampling import Indices


@dataclass(frozen=True, eq=False)
class BoxTruth(VideoTruth):
    """The boxes of one video.

    Attributes:
        frame: `(n,)` number of the annotated frame of each box, from 0.
        box: `(n, 4)` its left, top, right and bottom in pixels.
        size: height and width of the images they were drawn in; without a width, that of images of
            this height with the video's proportions.
        judged: `(f,)` bool, of all annotated frames: whether it is known what is in them.
        acting: `(f,)` bool, when somebody acts; None where nobody says.
        rate: annotated frames per second; None: they are those of the video.
        parts: names of parts that are judged apart.
        part: `(n,)` place of each box's part in `parts`; None without parts.
    """

    frame: NDArray[np.int32]
    box: FloatArray
    size: tuple[float, float | None]
    judged: NDArray[np.bool_]
    acting: NDArray[np.bool_] | None = None
    rate: float | None = None
    parts: tuple[str, ...] = ()
    part: NDArray[np.int32] | None = None

    def __repr__(self) -> str:
        """Short, and another for other boxes: what names a clip in journals holds it."""
        arrays = (self.frame, self.box, self.judged, self.acting, self.part)
        held = b"".join(b"-" if array is None else array.tobytes() for array in arrays)
        return f"BoxTruth({len(self.box)} boxes, {hashlib.sha256(held).hexdigest()[:12]})"

    @property
    def names(self) -> tuple[str, ...]:
        when = () if self.acting is None else ("action",)
        return ("mask", *(f"mask/{name}" for name in self.parts), *when, "judged")

    def misfit(self, info: VideoInfo) -> str:
        frames = info.num_frames
        if self.rate is not None:
            frames = round(float(info.times[-1]) * self.rate) + 1
        if abs(frames - len(self.judged)) <= 1:
            return ""
        at = "" if self.rate is None else f" at {self.rate:g} a second"
        return f"has {len(self.judged)} frames{at}, its video {frames}"

    def of_frames(self, indices: Indices, info: VideoInfo, size: tuple[int, int]) -> ClipTruth:
        places = indices
        if self.rate is not None:
            places = np.floor(info.times[indices] * self.rate + 0.5).astype(np.int64)
        inside = places < len(self.judged)
        places = np.where(inside, places, 0)
        judged = inside & self.judged[places]
        masks = {"mask": self._painted(places, judged, info, size, None)}
        for n, name in enumerate(self.parts):
            masks[f"mask/{name}"] = self._painted(places, judged, info, size, n)
        acting = None if self.acting is None else judged & self.acting[places]
        return ClipTruth(masks, acting, judged)

    def _painted(
        self,
        places: Indices,
        judged: NDArray[np.bool_],
        info: VideoInfo,
        size: tuple[int, int],
        part: int | None,
    ) -> NDArray[np.bool_]:
        """The boxes of annotated frames, `(T, h, w)`: pixels whose centre is inside of one."""
        height, width = self.size
        if width is None:
            width = height * info.width / info.height
        rows = (np.arange(size[0]) + 0.5) * height / size[0]
        columns = (np.arange(size[1]) + 0.5) * width / size[1]
        mask = np.zeros((len(places), *size), np.bool_)
        meant = np.ones(len(self.frame), np.bool_) if part is None else self.part == part
        for t in np.flatnonzero(judged):
            for left, top, right, bottom in self.box[meant & (self.frame == places[t])]:
                down = (rows >= top) & (rows < bottom)
                mask[t] |= down[:, None] & (columns >= left) & (columns < right)
        return mask
