"""A whole video drawn: kept while it is read, put under its maps when their scale is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from lightning_cam.attribution.drawn_maps import drawn_maps
from lightning_cam.data.core.windows import WindowedVideo
from lightning_cam.data.video.info import Pixels
from lightning_cam.explaining.clip_files import ClipFiles
from lightning_cam.explaining.video_explanation import VideoExplanation
from lightning_cam.explaining.video_maps import Array, StepMaps
from lightning_cam.progress import progress
from lightning_cam.viz import ClipFigure
from lightning_cam.viz.clip_video import VideoPage, panel_size
from lightning_cam.viz.drawing import resize
from lightning_cam.viz.layout import overlaid
from lightning_cam.viz.video_file import FrameStore, video_writer

BINS = 240  # of the timeline, at most
_PICTURE = 128  # side in pixels of the pictures that the sheet shows
_PANEL = 256
_CLASSES = 6  # whose probabilities are drawn over time
_DIMMED = 0.55  # of the light outside of what the network sees
_AHEAD = 64  # steps whose maps are read at once
OWN_CLASS = "the likeliest class of each window"


class Recording:
    """What drawing needs of the frames of a video: kept on the disk, and a few pictures.

    Args:
        video: that is read.
        store: where frames are kept.
        original: whether frames are kept at their own size.
    """

    def __init__(self, video: WindowedVideo, store: FrameStore, original: bool = False) -> None:
        self.video, self.original = video, original
        self.store = store
        self.numbers: list[int] = []  # of the frames that are kept
        self.pictures: dict[int, Pixels] = {}
        self.edges = bin_edges(video)
        middles = (self.edges[:-1] + self.edges[1:]) / 2
        before = np.searchsorted(video.times, middles, "right") - 1
        self.bins = before.clip(min=0)  # the step that stands for each bin
        self._wanted = set(video.steps[self.bins].tolist())

    def __call__(self, number: int, image: Pixels) -> None:
        """Keep a frame."""
        shown = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, -1)
        seen = self.seen(shown)
        side = panel_size(_PANEL, _PANEL)
        self.store.add(np.ascontiguousarray(shown) if self.original else resize(seen, *side))
        self.numbers.append(number)
        if number in self._wanted:
            self.pictures[number] = resize(seen, _PICTURE, _PICTURE)

    def seen(self, image: Pixels) -> Pixels:
        """What the network sees of an image."""
        top, left, height, width = self.box(*image.shape[:2])
        return np.ascontiguousarray(image[top : top + height, left : left + width])

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The same as top, left, height and width."""
        top, left, side = self.video.reader.transform.seen(height, width)
        return round(top), round(left), max(round(side), 1), max(round(side), 1)


def bin_edges(video: WindowedVideo) -> NDArray[np.float64]:
    """(N + 1,) seconds between which the bins of the timeline lie, all as long."""
    times, count = video.times, min(len(video.steps), BINS)
    rate = video.reader.fps or video.info.fps
    end = float(times[-1]) + (1 / rate if rate > 0 else 1.0)
    return np.linspace(float(times[0]), end, count + 1)


def video_figure(
    e: VideoExplanation, recording: Recording, title: str, target: str | None, against: str | None
) -> ClipFigure:
    """A whole video as a clip of bins: what header, sheet, timeline and page are drawn from.

    Args:
        e: of the video.
        recording: made while it was read.
        title: its name.
        target: name of the column that was asked for; None: each window's own.
        against: of a contrast the second class.
    """
    bins = recording.bins[recording.bins < len(e.times)]
    drawn = drawn_maps(e.first, (1, 2, 2))
    place = np.searchsorted(recording.edges[1:-1], e.times, "right").clip(max=len(bins) - 1)

    def gathered(values: Array) -> Array:
        return np.bincount(place, values, len(bins)).astype(np.float32)

    pictures = [recording.pictures[number] for number in e.steps[bins].tolist()]
    captions = list(e.maps)
    return ClipFigure(
        frames=np.stack(pictures),
        heatmaps={c: _at(e.maps[c].maps, bins) for c in captions},
        target=target or OWN_CLASS,
        attention=None if e.attention is None else gathered(e.attention / e.attention.sum()),
        valid=e.explained[bins],
        times=e.times[bins],
        title=title,
        signed=[c for c in captions if e.maps[c].signed],
        contrasts=[three for three in drawn.contrasts if three[0] in e.maps],
        against=against,
        lines=_lines(e, bins, target),
        grainy=[c for c in captions if e.maps[c].grainy],
        doubts=_doubts(e),
        parts={c: drawn.parts[c] for c in captions},
        extent=e.extent,
        whole=True,
        shares={c: gathered(e.maps[c].energy) for c in captions},
        ends={c: (e.maps[c].scale, e.maps[c].high) for c in captions},
    )


def _at(maps: StepMaps, bins: NDArray[np.int64]) -> Array:
    """Maps of some steps at the size of the pictures."""
    found = [maps.read(k, k + 1)[0] for k in bins.tolist()]
    return np.stack([resize(heat, _PICTURE, _PICTURE) for heat in found])


def _lines(
    e: VideoExplanation, bins: NDArray[np.int64], target: str | None
) -> dict[str, dict[str, Array]]:
    """The likeliest classes over time, or the values of the column that was explained."""
    if not e.classes:
        column = e.windows[0].target
        return {"value": {e.names[column]: e.probability([column])[bins, 0]}}
    top = e.top(_CLASSES)
    asked = [k for k in e.classes if e.names[k] == target and k not in top]
    top = [*asked, *top][:_CLASSES]
    values = e.probability(top)[bins].round(3)
    return {"probability": {e.names[k]: values[:, n] for n, k in enumerate(top)}}


def _doubts(e: VideoExplanation) -> dict[str, str]:
    """Caption -> why most of its windows are not to be trusted."""
    found = {}
    for caption in e.maps:
        count, reason = e.doubtful(caption)
        if 2 * count > len(e.windows):
            found[caption] = f"{reason} ({count} of {len(e.windows)} windows)"
    return found


def write_whole_video(
    paths: ClipFiles, e: VideoExplanation, recording: Recording, figure: ClipFigure
) -> tuple[Pixels, float]:
    """Write the video with its maps, at its own length and rate, and where asked at its own size.

    Args:
        paths: of its files; the one of the video's own size has the first map alone.
        e: of the video.
        recording: made while it was read; it is used up.
        figure: of `video_figure`.

    Returns:
        Its middle frame, and the width over height of what is above the plots.
    """
    info, numbers = e.video.info, np.array(recording.numbers)
    seconds = info.times[numbers]
    even = bool(np.allclose(np.diff(seconds), 1 / info.fps, rtol=0, atol=1.5e-3))
    heats = {c: _between(e.maps[c].maps, _places(e.times, seconds)) for c in figure.heatmaps}
    page = VideoPage(figure, panel_size(_PANEL, _PANEL))
    place = np.searchsorted(recording.edges[1:-1], seconds, "right").clip(
        max=len(figure.frames) - 1
    )
    said, still = _said(e, seconds), np.zeros(0, np.uint8)
    files = [paths.video, *([paths.original] if recording.original else [])]
    fps = info.fps if info.fps > 0 else 1.0
    with ExitStack() as stack, progress("drawing", len(numbers)) as advance:
        writes = [stack.enter_context(video_writer(file, fps)) for file in files]
        for k, image in enumerate(recording.store.frames()):
            maps = {c: next(heat) for c, heat in heats.items()}
            seen = recording.seen(image) if recording.original else image
            shown = resize(seen, *panel_size(_PANEL, _PANEL))
            panels = [shown, *(_drawn(figure, c, shown, heat) for c, heat in maps.items())]
            second = None if even else float(seconds[k] - seconds[0])
            drawn = page.at(int(place[k]), panels, f"{seconds[k]:.2f} s{said[k]}")
            still = drawn if k == len(numbers) // 2 else still
            writes[0](drawn, second)
            if recording.original:
                writes[1](_on_original(figure, recording, image, maps), second)
            advance(1)
    return still, page.shape


def _said(e: VideoExplanation, seconds: NDArray[np.float64]) -> list[str]:
    """What the network says at each frame, to stand behind its time."""
    said = [""] * len(seconds)
    for stretch in e.track:
        first, end = np.searchsorted(seconds, (stretch.start_s - 1e-6, stretch.end_s - 1e-6))
        for k in range(first, end):
            said[k] = f" · {stretch.name}"
    return said


def _places(times: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where frames lie between the steps, as a step and a part of the way to the next."""
    return np.interp(seconds, times, np.arange(len(times)))


def _between(maps: StepMaps, places: NDArray[np.float64]) -> Iterator[Array]:
    """The maps of frames between those of the steps, in order, a few of which are in memory."""
    start, kept = 0, maps.read(0, _AHEAD)
    for place in places.tolist():
        low = int(place)
        if not start <= low < start + len(kept) - 1:
            start, kept = low, maps.read(low, low + _AHEAD)
        share = place - low
        yield (1 - share) * kept[low - start] + share * kept[low - start + 1]


def _drawn(figure: ClipFigure, caption: str, image: Pixels, heat: Array) -> Pixels:
    """An image with the heat of a caption at its own size."""
    if figure.no_evidence_reason(caption):
        return image
    heat = resize(heat.astype(np.float32), *image.shape[:2])
    return overlaid(figure, caption, image[None], heat[None])[0]


def _on_original(
    figure: ClipFigure, recording: Recording, image: Pixels, maps: dict[str, Array]
) -> Pixels:
    """A whole frame with the first map; what the network does not see is darker."""
    caption, heat = next(iter(maps.items()))
    top, left, height, width = recording.box(*image.shape[:2])
    whole = (image * _DIMMED).astype(np.uint8)
    seen = _drawn(figure, caption, recording.seen(image), heat)
    whole[top : top + height, left : left + width] = seen
    return whole
