"""What is known of a whole video that was explained window by window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.attribution import Explanation
from lightning_cam.data.core.windows import WindowedVideo
from lightning_cam.explaining.video_maps import Array, Blend, StepMaps
from lightning_cam.viz.moments import extent_text, short_seconds, stretch_text
from lightning_cam.viz.overlay import clip_scale

_SAMPLED = 256  # steps of a grainy map by which its colours are scaled
_HOT = 0.95  # of the steps are below the end of the colour scale: else a moment takes all colours


@dataclass(frozen=True)
class Stretch:
    """Neighbouring steps of which one class is the likeliest.

    Attributes:
        name: the class.
        start_s, end_s: in seconds of the video.
        probability: the mean of its steps'.
    """

    name: str
    start_s: float
    end_s: float
    probability: float

    def __str__(self) -> str:
        return stretch_text(self.name, self.start_s, self.end_s, self.probability)


@dataclass(frozen=True)
class ExplainedWindow:
    """One window.

    Attributes:
        first: its first step.
        steps: how many it has.
        target: the explained column.
        outputs: (K,) of the network.
        probabilities: (K,); outputs where columns are no classes.
        doubts: caption of a map -> why that of this window is not to be trusted; none without.
        peaks: caption of a map -> its step with the most heat; none without heat.
        numbers: method -> what it found out beside its map.
    """

    first: int
    steps: int
    target: int
    outputs: Array
    probabilities: Array
    doubts: Mapping[str, str] = field(default_factory=dict)
    peaks: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass
class VideoMap:
    """One kind of map over the whole video: that of a method, of a contrast one of three.

    Attributes:
        method: name of the method.
        maps: (n, h, w) of the steps, coarse.
        grainy: whether single voxels stand out, see `Attribution.grainy`.
        heat: (n,) mean amount of each step; negative values count as images show them.
        tops: (n,) the largest amount of each step.
        signed: whether there are negative values.
    """

    method: str
    maps: StepMaps
    grainy: bool
    heat: Array
    tops: Array
    signed: bool = False

    def keep(self, first: int, block: Array) -> None:
        """Take the means of steps that are final."""
        at, amounts = slice(first, first + len(block)), np.abs(block)
        self.heat[at], self.tops[at] = amounts.mean((1, 2)), amounts.max((1, 2))
        self.maps.append(first, block)

    @property
    def energy(self) -> Array:
        """(n,) the heat of each step, as a share of the video's; zeros where there is none."""
        total = float(self.heat.sum(dtype=np.float64))
        return self.heat / total if total > 0 else np.zeros_like(self.heat)

    @property
    def high(self) -> float:
        """The largest amount of all."""
        return float(self.tops.max())

    @property
    def scale(self) -> float:
        """The heat at the end of the colour scale, which a twentieth of the heated steps exceeds.

        Of a grainy map it is that of `clip_scale`.
        """
        if not self.grainy:
            heated = self.tops[self.tops > 0]
            return float(np.quantile(heated, _HOT)) if len(heated) else 0.0
        some = np.unique(np.linspace(0, len(self.heat) - 1, _SAMPLED).astype(int))
        heat = np.concatenate([self.maps.read(k, k + 1) for k in some.tolist()])
        return clip_scale(heat, signed=self.signed, grainy=True) if heat.any() else self.high


@dataclass(frozen=True)
class VideoExplanation:
    """A whole video, explained window by window; `explain_video` makes it.

    Attributes:
        video: which windows of which video.
        steps: (n,) numbers of the frames that were seen.
        times: (n,) their seconds.
        explained: (n,) whether a window holds them.
        windows: in order.
        maps: caption -> map, as of a figure of one clip.
        names: of the K columns.
        classes: columns that are classes, of the head that the track is about.
        first: method -> explanation of the first window: what made the maps, and their captions.
        attention: (n,) mean attention weight of each step within its windows; None without.
        missing: method -> why it has no map.
    """

    video: WindowedVideo
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    explained: NDArray[np.bool_]
    windows: Sequence[ExplainedWindow]
    maps: Mapping[str, VideoMap]
    names: Sequence[str]
    classes: Sequence[int]
    first: Mapping[str, Explanation]
    attention: Array | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path(self.video.path)

    @property
    def extent(self) -> str:
        """Which seconds were explained, in words."""
        seen = self.times[self.explained]
        return extent_text(float(seen[0]), float(seen[-1]), self.video.info.duration)

    def doubtful(self, caption: str) -> tuple[int, str]:
        """Of how many windows a map is not to be trusted, and why that of the first is not."""
        said = [w.doubts[caption] for w in self.windows if caption in w.doubts]
        return len(said), next(iter(said), "")

    def window_at(self) -> NDArray[np.int64]:
        """(n,) which window has each step nearest to its middle; -1 where there is none."""
        found, near = np.full(len(self.times), -1), np.full(len(self.times), np.inf)
        for n, window in enumerate(self.windows):
            at = np.arange(window.first, window.first + window.steps)
            apart = np.abs(at - (window.first + (self.video.length - 1) / 2))
            closer = apart < near[at]
            found[at[closer]], near[at[closer]] = n, apart[closer]
        return found

    @property
    def shortfall(self) -> str:
        """What of the video is missing, in words; "" if nothing."""
        lost = [self.video.stream.missing] if self.video.stream.missing else []
        if self.video.broken:
            until, duration = float(self.times[-1]), self.video.info.duration
            lost.insert(
                0,
                f"only {short_seconds(until)} s of {short_seconds(duration)} s could be read: "
                f"{self.video.broken}",
            )
        return "; ".join(lost)

    @property
    def track(self) -> list[Stretch]:
        """The likeliest class over time; empty where columns are no classes."""
        if not self.classes:
            return []
        best = np.full(len(self.times), -1)
        chance = np.zeros(len(self.times))
        for first, block in self.blended():
            at = slice(first, first + len(block))
            own = block[:, list(self.classes)]
            best[at], chance[at] = own.argmax(1), own.max(1)
        cuts = np.flatnonzero(np.diff(best)) + 1
        found = []
        for run in np.split(np.arange(len(best)), cuts):
            if best[run[0]] >= 0:
                name = self.names[self.classes[best[run[0]]]]
                start, end = float(self.times[run[0]]), self.until(int(run[-1]))
                found.append(Stretch(name, start, end, float(chance[run].mean())))
        return found

    def until(self, step: int) -> float:
        """When the next step is shown; of the last one, the video ends or is cut off."""
        if step + 1 < len(self.times):
            return float(self.times[step + 1])
        rate = self.video.reader.fps or self.video.info.fps
        later = self.times[step] + (1 / rate if rate > 0 else 0)
        return float(min(later, self.video.info.duration))

    def probability(self, columns: Sequence[int]) -> Array:
        """(n, len(columns)) of each step, NaN where no window is; values of columns that are no
        classes."""
        found = np.full((len(self.times), len(columns)), np.nan, np.float32)
        for first, block in self.blended():
            found[first : first + len(block)] = block[:, list(columns)]
        return found

    def top(self, count: int) -> list[int]:
        """The columns that are likeliest for most of the time; next, those of most probability."""
        likeliest, sums = np.zeros(len(self.names)), np.zeros(len(self.names))
        own = list(self.classes)
        for _, block in self.blended():
            sums += block.sum(0)
            likeliest[own] += np.bincount(block[:, own].argmax(1), minlength=len(own))
        return sorted(own, key=lambda k: (-likeliest[k], -sums[k]))[:count]

    def blended(self) -> Iterator[tuple[int, Array]]:
        """Means of the windows' probabilities, a first step and (m, K) at a time."""
        blend = Blend(self.video.length)
        for window in self.windows:
            every = np.broadcast_to(window.probabilities, (window.steps, len(self.names)))
            if (done := blend.add(window.first, every)) is not None:
                yield done
        if (done := blend.finish()) is not None:
            yield done

    def close(self) -> None:
        """Let go of the files in which maps are kept."""
        for each in self.maps.values():
            each.maps.close()

    def __repr__(self) -> str:
        track = "; ".join(map(str, self.track[:8]))
        return f"VideoExplanation({self.path.name}, {self.extent}: {track or 'no classes'})"
