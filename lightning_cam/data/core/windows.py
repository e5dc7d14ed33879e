"""A video cut into windows, each of them a clip: read once, from its beginning to its end.

A window has as many steps as a clip, `stride` seconds after the one before; the last is moved back
to be whole. A video shorter than a window is one padded clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from lightning_cam.data.core.clips import Between, Clip, ClipReader, SampleDict
from lightning_cam.data.video.info import Pixels, VideoInfo
from lightning_cam.data.video.sampling import Indices
from lightning_cam.data.video.streams import VideoStream
from lightning_cam.errors import ConfigError, VideoReadError

_LATEST = 1e9  # second of a video

Windows = int | Literal["all", "centre"]
OnFrame = Callable[[int, Pixels], None]  # number, (H, W, C)


@dataclass(frozen=True)
class Window:
    """One window of a video.

    Attributes:
        first: its first step, of those of the stretch that is explained.
        steps: how many it has that are not padding.
        sample: as a data set gives it, raw: `finished` is for a batch of them.
    """

    first: int
    steps: int
    sample: SampleDict


def window_starts(
    steps: int, length: int, windows: Windows = "all", stride: int | None = None
) -> list[int]:
    """Where windows begin, ascending.

    Args:
        steps: n, how many there are.
        length: T, of a window.
        windows: "all" that a stride apart cover everything, "centre" for the middle one, or how
            many, spread evenly from beginning to end.
        stride: in steps, from one to the next; None: half a window.
    """
    last = max(steps - length, 0)
    if windows == "centre" or windows == 1:
        return [last // 2]
    if windows == "all":
        starts = range(0, last + 1, stride or max(length // 2, 1))
        return [*starts, *([last] if starts[-1] < last else [])]
    return np.unique(np.linspace(0, last, windows).round().astype(int)).tolist()


def check_windows(windows: object, stride: object, between: tuple[object, object]) -> None:
    """Whether these say which windows of a video there are, see `WindowedVideo`.

    Raises:
        ConfigError: they do not, or contradict each other.
    """
    count = type(windows) is int and windows >= 1
    if not (count or windows in ("all", "centre")):
        raise ConfigError(f"windows={windows} must be all, centre, or how many: windows=20")
    start, end = between
    for key, value in (("stride", stride), ("start", start), ("end", end)):
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < _LATEST:  # type: ignore[operator]
            example = "" if key == "stride" else f", such as {key}=83.5 for 1:23.5"
            raise ConfigError(f"{key}={value} must be a number of seconds from 0 on{example}")
    if stride == 0:
        raise ConfigError("stride=0 must be above 0: seconds from one window to the next")
    if isinstance(end, int | float) and end <= (start or 0):  # type: ignore[operator]
        raise ConfigError(f"end={end} must be after start={start or 0}")
    if stride is not None and windows != "all":
        raise ConfigError(f"stride={stride} and windows={windows} both say which windows; keep one")


@dataclass
class WindowedVideo:
    """The windows of a video, and what became of the reading.

    Args:
        reader: says what a step and a clip are.
        path: of the video.
        windows: which, see `window_starts`.
        stride: seconds from one window to the next; None: half a window.
        between: the stretch that is explained, in seconds.

    Attributes:
        stream: the video.
        steps: (n,) frames that are steps, of the stretch.
        starts: where windows begin, among the steps.
        read: how many steps were read, of those that any window needs.
        broken: why reading ended early; "" if it did not.

    Raises:
        VideoReadError: it cannot be read, or has nothing of the stretch.
        ConfigError: see `check_windows`.
    """

    reader: ClipReader
    path: Path
    windows: Windows = "all"
    stride: float | None = None
    between: Between = (None, None)
    stream: VideoStream = field(init=False)
    steps: Indices = field(init=False)
    starts: list[int] = field(init=False)
    read: int = field(default=0, init=False)
    broken: str = field(default="", init=False)

    def __post_init__(self) -> None:
        check_windows(self.windows, self.stride, self.between)
        self.stream = self.reader.open(self.path)
        self.steps = self.reader.steps_between(self.info, self.between)
        self.starts = window_starts(len(self.steps), self.length, self.windows, self._stride())

    @property
    def info(self) -> VideoInfo:
        return self.stream.info

    @property
    def length(self) -> int:
        """T, the steps of a window."""
        return self.reader.num_frames

    @property
    def times(self) -> np.ndarray:
        """(n,) seconds of the steps."""
        return self.info.times[self.steps]

    @property
    def step_seconds(self) -> float:
        """From one step to the next, on average; of a single one, as the reader asks for it."""
        if len(self.steps) < 2:
            return 1 / (self.reader.fps or self.info.fps or 1)
        return float(self.times[-1] - self.times[0]) / (len(self.steps) - 1)

    @property
    def frames(self) -> Indices:
        """All frames of the stretch, those between its steps as well."""
        start, end = self.between
        first = 0 if start is None else int(self.steps[0])
        return np.arange(first, self.info.num_frames if end is None else int(self.steps[-1]) + 1)

    def _stride(self) -> int | None:
        """Steps from one window to the next.

        Raises:
            ConfigError: windows would not touch.
        """
        if self.stride is None:
            return None
        seconds = self.step_seconds
        if self.stride > 1.01 * self.length * seconds:
            raise ConfigError(
                f"stride={self.stride} leaves gaps between windows of "
                f"{self.length * seconds:.2g} s; choose a smaller one, or leave it out"
            )
        return max(math.floor(self.stride / seconds + 0.5), 1)

    def __iter__(self) -> Iterator[Window]:
        return self.go_through()

    def go_through(self, on_frame: OnFrame | None = None) -> Iterator[Window]:
        """Read the video, and give each window as soon as its last step is there.

        Where the file is damaged it ends: the last window is then moved back to what was read, and
        `broken` says why.

        Args:
            on_frame: gets every frame of the stretch, also those that are no steps.

        Raises:
            VideoReadError: not a single step can be read.
        """
        kept: dict[int, Tensor] = {}
        starts, last = list(self.starts), -1
        try:
            for position, image in self._steps_read(on_frame):
                # A step is transformed once, however many windows have it.
                kept[position] = self.reader.transform.plain(self.reader.shrunk(image))
                self.read = position + 1
                while next(iter(kept)) <= position - self.length:
                    del kept[next(iter(kept))]
                while starts and self._end(starts[0]) == self.read:
                    last = starts.pop(0)
                    yield self._window(last, kept)
        except VideoReadError as error:
            if not kept:
                raise
            self.broken = error.reason
        first = max(self.read - self.length, 0)
        if starts and first > last and all(k in kept for k in range(first, self.read)):
            yield self._window(first, kept)

    def _end(self, start: int) -> int:
        """Behind the last step of a window."""
        return min(start + self.length, len(self.steps))

    def _steps_read(self, on_frame: OnFrame | None) -> Iterator[tuple[int, Pixels]]:
        """The steps that any window needs, by their places, as the file is gone through."""
        needed = np.unique(np.concatenate([np.arange(s, self._end(s)) for s in self.starts]))
        wanted = np.unique(self.steps[needed]) if on_frame is None else self.frames
        left = iter(needed.tolist())
        position = next(left, None)
        for number, image in zip(wanted.tolist(), self.stream.frames(wanted), strict=False):
            if on_frame is not None:
                on_frame(number, image)
            while position is not None and self.steps[position] == number:
                yield position, image
                position = next(left, None)

    def _window(self, first: int, kept: dict[int, Tensor]) -> Window:
        count = min(self.length, self.read - first)
        places, valid = self.reader.positions(count, None)
        view = self.reader.transform.of_plain([kept[first + int(place)] for place in places])
        path, indices = Path(self.path), self.steps[first + places]
        sample = self.reader.sample_of(Clip(path, path.stem), view, indices, self.info, valid)
        return Window(first, count, sample)
