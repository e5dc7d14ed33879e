"""A whole video, explained window by window while it is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from lightning_cam.attribution import Attribution, Checkup, Contrast, Explainable, Explanation
from lightning_cam.attribution.columns import Columns
from lightning_cam.attribution.drawn_maps import doubts_of, drawn_maps, maps_of
from lightning_cam.data.core.clips import finished
from lightning_cam.data.core.loading import collate
from lightning_cam.data.core.windows import OnFrame, Window, WindowedVideo
from lightning_cam.errors import why
from lightning_cam.explaining.clip_explanations import check_once, explain_clip
from lightning_cam.explaining.kept_windows import FoundWindows, KeptWindows
from lightning_cam.explaining.video_explanation import (
    ExplainedWindow,
    VideoExplanation,
    VideoMap,
)
from lightning_cam.explaining.video_maps import Array, Blend, Coarse, StepMaps
from lightning_cam.interfaces import Batch
from lightning_cam.progress import progress

_MOST, _VOXELS = 8, 2**20  # windows explained at once, and the voxels they have together

Bind = Callable[[Batch], Explainable]
OnCheck = Callable[[Checkup], None]


def explain_windows(
    video: WindowedVideo,
    bind: Bind,
    methods: Mapping[str, Attribution],
    target: int | str | None = None,
    against: int | str | None = None,
    *,
    device: torch.device | str = "cpu",
    on_frame: OnFrame | None = None,
    folder: Path | None = None,
    batch: int | None = None,
    on_check: OnCheck | None = None,
    kept: KeptWindows | None = None,
) -> VideoExplanation:
    """Go through a video once and explain each of its windows; memory does not grow with it.

    A method that fails on a window has no map of the video, and `missing` says why.

    Args:
        video: which windows.
        bind: how to look into the network, of a batch.
        methods: name -> method.
        target: the column; None: of each window the highest.
        against: a second class, see `explain_clip`; it needs a target.
        device: of the network.
        on_frame: gets every frame of the stretch.
        folder: on whose disk maps are kept; None: that of temporary files.
        batch: windows explained at once; None: few enough for their voxels.
        on_check: is told what was found where the network is looked at for the first time.
        kept: what a process before has found is taken from here, and what is found is added.

    Raises:
        VideoReadError: not a single step can be read.
        UserError: no method has a map; WriteError: the disk is full.
    """
    work = _Work(video, dict(methods), target, against, folder)
    try:
        with progress(f"explaining {Path(video.path).name}", len(video.starts)) as advance:
            for windows in _batches(video.go_through(on_frame), batch):
                # The first are explained anyway: captions and settings come of explanations.
                found = kept.read(windows) if kept is not None and work.windows else None
                if found is None:
                    raw = collate([window.sample for window in windows])
                    one = finished(move_data_to_device(raw, torch.device(device)))
                    model, clip = bind(one), one["video"]
                    first = not work.windows
                    if first and (seen := check_once(model, methods, clip)) and on_check:
                        on_check(seen)
                    found = work.explain(model, clip, windows)
                    if kept is not None:
                        kept.add(found)
                work.take(found)
                advance(len(windows))
        return work.finish()
    except BaseException:
        work.close()
        raise


def _batches(windows: Iterator[Window], size: int | None) -> Iterator[list[Window]]:
    """Windows together, as many as have a moderate number of voxels."""
    for window in windows:
        count = size or min(_MOST, max(_VOXELS // window.sample["video"][0].numel(), 1))
        yield [window, *islice(windows, count - 1)]


class _Work:
    """What has been found of the windows so far."""

    def __init__(
        self,
        video: WindowedVideo,
        methods: dict[str, Attribution],
        target: int | str | None,
        against: int | str | None,
        folder: Path | None,
    ) -> None:
        self.video, self.methods = video, methods
        self.target, self.against, self.folder = target, against, folder
        self.windows: list[ExplainedWindow] = []
        self.missing: dict[str, str] = {}
        self.errors: dict[str, Exception] = {}
        self.first: dict[str, Explanation] = {}
        self.maps: dict[str, list[_Kind]] = {}  # method -> its map, of a contrast its three
        self._titles: dict[str, list[str]] = {}  # the same's captions
        self.attention: _Curve | None = None
        self.names: list[str] = []
        self.classes: list[int] = []

    def explain(self, model: Explainable, clip: Tensor, windows: Sequence[Window]) -> FoundWindows:
        """Explain windows that are read; `take` adds what was found to the rest."""
        missing = dict(self.missing)

        def on_error(name: str, error: Exception) -> None:
            missing[name], self.errors[name] = why(error), error

        left = {name: m for name, m in self.methods.items() if name not in missing}
        found = explain_clip(model, left, clip, self.target, on_error, against=self.against)
        if not found:
            raise next(reversed(self.errors.values()))
        if not self.first:
            self._begin(model, found)
        maps = {
            name: [
                (kind.coarse(heat), signed)
                for kind, (_, heat, signed) in zip(self.maps[name], maps_of("", e), strict=True)
            ]
            for name, e in found.items()
        }
        one = next(iter(found.values()))
        weights = next(iter(one.attention.values()), None)
        chances = model.probabilities(one.outputs).float().cpu().numpy()
        outputs, targets = one.outputs.float().cpu().numpy(), one.target.tolist()
        doubts, peaks = self._doubts(found, windows), self._peaks(maps, windows)
        explained = []
        for row, window in enumerate(windows):
            numbers = {
                name: {what: float(value[row]) for what, value in e.numbers.items()}
                for name, e in found.items()
            }
            explained.append(
                ExplainedWindow(
                    window.first, window.steps, targets[row], outputs[row], chances[row],
                    doubts[row], peaks[row], numbers,
                )
            )  # fmt: skip
        attention = None if weights is None else weights.float().cpu().numpy()
        return FoundWindows(explained, maps, attention, missing)

    def _doubts(
        self, found: Mapping[str, Explanation], windows: Sequence[Window]
    ) -> list[dict[str, str]]:
        """Of each window: caption -> why that map is not to be trusted."""
        doubts: list[dict[str, str]] = [{} for _ in windows]
        for name, e in found.items():
            for title, said in zip(self._titles[name], doubts_of(e), strict=True):
                for row, doubt in enumerate(said):
                    if doubt:
                        doubts[row][title] = doubt
        return doubts

    def _peaks(
        self, maps: Mapping[str, list[tuple[Array, bool]]], windows: Sequence[Window]
    ) -> list[dict[str, int]]:
        """Of each window: caption -> the step of most heat."""
        peaks: list[dict[str, int]] = [{} for _ in windows]
        for name, each in maps.items():
            for title, (coarse, _) in zip(self._titles[name], each, strict=True):
                for row, (own, window) in enumerate(zip(coarse, windows, strict=True)):
                    heat = own[: window.steps].clip(min=0).sum((1, 2))
                    if heat.max() > 0:
                        peaks[row][title] = window.first + int(heat.argmax())
        return peaks

    def take(self, found: FoundWindows) -> None:
        """Blend what was found of the next windows."""
        for name in found.missing:
            for kind in self.maps.pop(name, []):
                kind.map.maps.close()
        self.missing |= found.missing
        for name, kinds in self.maps.items():
            for kind, (coarse, signed) in zip(kinds, found.maps[name], strict=True):
                kind.map.signed |= signed
                for window, own in zip(found.windows, coarse, strict=True):
                    kind.add(window.first, own[: window.steps])
        if found.attention is not None:
            self.attention = self.attention or _Curve(self.video)
            for window, weights in zip(found.windows, found.attention, strict=True):
                self.attention.add(window.first, weights[: window.steps])
        self.windows += found.windows

    def _begin(self, model: Explainable, found: Mapping[str, Explanation]) -> None:
        """Names and grids, by the first window."""
        self.first = dict(found)
        one = next(iter(found.values()))
        heads = tuple(model.heads_of(one.outputs))
        columns = Columns(model.outputs, heads)
        self.names = [columns.name(k) for k in range(one.outputs.shape[1])]
        start = 0
        for head in heads:  # the track is about the first head of classes
            if head.probability is not None:
                self.classes = list(range(start, start + head.size))
                break
            start += head.size
        titles = iter(drawn_maps(self.first, one.heatmap.shape[1:]).heatmaps)
        for name, e in found.items():
            own = maps_of("", e)
            self._titles[name] = [next(titles) for _ in own]
            native = None if isinstance(e, Contrast) and e.against.native != e.native else e.native
            self.maps[name] = [
                _Kind(self.video, name, Coarse(heat[0], native), e.method.grainy, self.folder)
                for _, heat, _ in own
            ]

    def finish(self) -> VideoExplanation:
        """All that was found, when no window comes any more."""
        count = self.video.read
        for kinds in self.maps.values():
            for kind in kinds:
                kind.finish(count)
        explained = np.zeros(count, bool)
        for window in self.windows:
            explained[window.first : window.first + window.steps] = True
        return VideoExplanation(
            video=self.video,
            steps=self.video.steps[:count],
            times=self.video.times[:count],
            explained=explained,
            windows=self.windows,
            maps={
                title: kind.map
                for name, kinds in self.maps.items()
                for title, kind in zip(self._titles[name], kinds, strict=True)
            },
            names=self.names,
            classes=self.classes,
            first={name: e for name, e in self.first.items() if name in self.maps},
            attention=None if self.attention is None else self.attention.finish(count),
            missing=self.missing,
        )

    def close(self) -> None:
        for kinds in self.maps.values():
            for kind in kinds:
                kind.map.maps.close()


class _Kind:
    """One kind of map while it is blended."""

    def __init__(
        self, video: WindowedVideo, name: str, coarse: Coarse, grainy: bool, folder: Path | None
    ) -> None:
        self.coarse, self.blend = coarse, Blend(video.length)
        heat, tops = np.zeros((2, len(video.steps)), np.float32)
        self.map = VideoMap(name, StepMaps(coarse.grid, folder), grainy, heat, tops)

    def add(self, first: int, maps: Array) -> None:
        if (done := self.blend.add(first, maps)) is not None:
            self.map.keep(*done)

    def finish(self, count: int) -> None:
        if (done := self.blend.finish()) is not None:
            self.map.keep(*done)
        self.map.heat, self.map.tops = self.map.heat[:count], self.map.tops[:count]


class _Curve:
    """A number of each step while it is blended."""

    def __init__(self, video: WindowedVideo) -> None:
        self.blend = Blend(video.length)
        self.values: Array = np.zeros(len(video.steps), np.float32)

    def add(self, first: int, values: Array) -> None:
        self._keep(self.blend.add(first, values))

    def finish(self, count: int) -> Array:
        self._keep(self.blend.finish())
        return self.values[:count]

    def _keep(self, done: tuple[int, Array] | None) -> None:
        if done is not None:
            self.values[done[0] : done[0] + len(done[1])] = done[1]
