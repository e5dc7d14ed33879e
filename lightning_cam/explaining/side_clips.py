"""One clip as several networks see it, or asked several questions: one figure, and how maps agree.

Maps of clips that networks read at other sizes, or at other times, are brought to the first one's
frames: the nearest frame in time, resized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_cam.attribution import Contrast, Explanation
from lightning_cam.attribution.drawn_maps import DrawnMaps, drawn_maps
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.data.core.array_files import load_arrays
from lightning_cam.explaining.clip_arrays import load
from lightning_cam.explaining.clip_results import ClipResult
from lightning_cam.explaining.question import Question
from lightning_cam.metrics.ranks import spearman
from lightning_cam.viz import ClipFigure
from lightning_cam.viz.drawing import resize

TOP = 0.1  # of the voxels: the hottest, whose overlap is measured; chance has as much in common
_OTHER_VIEW = 16  # mean grey levels by which frames differ that show something else


@dataclass(frozen=True)
class Case:
    """One network, asked one question.

    Attributes:
        name: what tells it apart on the page.
        folder: of its explanations, inside the page's.
        ckpt: the checkpoint.
        question: which column of each clip.
        network: what the network is called.
    """

    name: str
    folder: str
    ckpt: Path
    question: Question
    network: str


class Agreement(NamedTuple):
    """How far two maps of a clip agree.

    Attributes:
        method: by which both were made.
        a, b: names of the cases.
        correlation: Spearman's, of all voxels; NaN where a map says nothing.
        overlap: share of the hottest `TOP` of one that is among those of the other.
        elsewhere: the correlation of the first with the second's map of another clip; NaN for the
            first clip.
    """

    method: str
    a: str
    b: str
    correlation: float
    overlap: float
    elsewhere: float


@dataclass(frozen=True)
class SideClip:
    """A clip and its maps by (case, method), on the frames of the first case.

    Attributes:
        title: of the clip.
        frames: `(T, H, W, 3)` uint8.
        valid: `(T,)` bool, frames that are not padding.
        times: `(T,)` seconds; None: nobody knows.
        results: case -> what `explain.py` found, of those that could be explained.
        maps: (case, method) -> explanation.
        notes: what keeps maps from being compared as they are.
    """

    title: str
    frames: np.ndarray
    valid: np.ndarray
    times: np.ndarray | None
    results: Mapping[Case, ClipResult]
    maps: Mapping[tuple[Case, str], Explanation]
    notes: Sequence[str]

    def figure(self, scale: str) -> ClipFigure:
        """What is known about the clip, ready to be drawn; `scale` as in settings."""
        called = {f"{case.name} {name}": self._called(case, name) for case, name in self.maps}
        named = {f"{case.name} {name}": e for (case, name), e in self.maps.items()}
        drawn = drawn_maps(named, self.frames.shape[:3], called=called)
        first = next(iter(self.results.values())).entry
        asked = {result.entry.target for result in self.results.values()}
        return ClipFigure(
            frames=self.frames,
            **vars(drawn),
            target=first.target if len(asked) == 1 else "",
            label=first.label,
            labels=first.labels,
            valid=self.valid,
            times=self.times,
            title=self.title,
            extent=first.extent,
            against=first.against,
            alike=self._alike(drawn, scale),
        )

    def _called(self, case: Case, name: str) -> tuple[str, ...]:
        e = self.maps[case, name]
        return f"{case.name}: {e.method.title}", *e.notes.values()

    def _alike(self, drawn: DrawnMaps, scale: str) -> list[list[str]]:
        """The captions on one colour scale: those of a method, or all."""
        if scale == "own":
            return []
        groups: dict[str, list[str]] = {}
        captions = iter(drawn.heatmaps)
        for (_, name), e in self.maps.items():
            for _ in range(3 if isinstance(e, Contrast) else 1):
                groups.setdefault(name if scale == "method" else "", []).append(next(captions))
        return list(groups.values())

    def agreements(self, before: SideClip | None) -> Iterator[Agreement]:
        """How far maps agree, method by method: of two networks, or of two questions to one.

        Args:
            before: another clip, for what maps have in common whatever the clip.
        """
        for method in dict.fromkeys(method for _, method in self.maps):
            cases = [case for case, name in self.maps if name == method]
            for a, b in combinations(cases, 2):
                if a.network != b.network and str(a.question) != str(b.question):
                    continue
                ours, theirs = self._heat(a, method), self._heat(b, method)
                other = None if before is None else before.maps.get((b, method))
                elsewhere = float("nan") if other is None else self._with(a, method, other)
                same = _correlation(ours, theirs), _overlap(ours, theirs)
                yield Agreement(method, a.name, b.name, *same, elsewhere)

    def _with(self, case: Case, method: str, other: Explanation) -> float:
        """The correlation of a map with one of another clip; NaN where they are not of one size."""
        if other.evidence.shape != self.maps[case, method].evidence.shape:
            return float("nan")
        return _correlation(
            self._heat(case, method), other.evidence[0, torch.from_numpy(self.valid)]
        )

    def _heat(self, case: Case, method: str) -> Tensor:
        return self.maps[case, method].evidence[0, torch.from_numpy(self.valid)]


def side_clip(title: str, results: Mapping[Case, ClipResult]) -> SideClip:
    """A clip of which one case at least has maps, from their files.

    Raises:
        UserError: a file cannot be read.
    """
    frames = valid = times = None
    maps: dict[tuple[Case, str], Explanation] = {}
    notes: list[str] = []
    for case, result in results.items():
        path = result.entry.data
        assert path is not None  # `explain.py` writes one of each clip
        arrays = load_arrays(path)
        own, seconds = arrays["frames"], arrays.get("time_s")
        kept = arrays["valid"].astype(bool) if "valid" in arrays else np.ones(len(own), bool)
        if frames is None or valid is None:
            frames, valid, times = own, kept, seconds
        at = _nearest(times, seconds, len(frames), kept)
        if at is None:
            notes.append(f"{case.name} sees {int(kept.sum())} frames, and nobody knows when")
            continue
        if _other_view(frames, own[at]):
            notes.append(f"{case.name} sees another part of the frames: maps are not comparable")
        for name, e in load(path).items():
            maps[case, name] = _placed(e, at, frames.shape[:3])
    assert frames is not None and valid is not None  # there is one case at least
    return SideClip(title, frames, valid, times, results, maps, notes)


def _nearest(
    times: np.ndarray | None, own: np.ndarray | None, count: int, kept: np.ndarray
) -> np.ndarray | None:
    """Which frame of a network's clip is nearest to each of the first one's; None: unknown."""
    if times is None or own is None or not kept.any():
        return np.arange(count) if len(kept) == count else None
    apart = np.abs(own[None, :] - times[:, None]).astype(float)  # (T, T of its own)
    apart[:, ~kept] = np.inf
    return apart.argmin(1)


def _other_view(frames: np.ndarray, own: np.ndarray) -> bool:
    size = frames.shape[1:3]
    same = np.stack([resize(frame, *size) for frame in own])
    return float(np.abs(same.astype(float) - frames).mean()) > _OTHER_VIEW


def _placed(e: Explanation, at: np.ndarray, size: Sequence[int]) -> Explanation:
    """An explanation whose map has the frames `at` of its own, at the size `(T, H, W)`."""
    heat = resize_heatmap(e.heatmap[:, torch.from_numpy(at)], size)
    if isinstance(e, Contrast):
        return replace(e, heatmap=heat, against=_placed(e.against, at, size))
    return replace(e, heatmap=heat)


def _correlation(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("nan")
    return float(spearman(a.reshape(1, -1), b.reshape(1, -1)))


def _overlap(a: Tensor, b: Tensor) -> float:
    """The share of the hottest voxels of both; NaN where a map is even or not finite."""
    sets = []
    for heat in (a, b):
        flat = heat.reshape(-1)
        if not bool(flat.isfinite().all()) or bool((flat == flat[0]).all()):
            return float("nan")
        sets.append(set(flat.topk(max(1, round(TOP * len(flat)))).indices.tolist()))
    return len(sets[0] & sets[1]) / len(sets[0])
