"""What is known about one explained clip, ready to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lightning_cam.viz.overlay import (
    COLORMAP,
    OPACITY,
    check_frames,
    check_heatmap,
    clip_scale,
    no_evidence,
)

OUTCOMES = ("correct", "confused", "wrong")  # what a network can make of a clip, see `outcome`


def outcome(ranked: Sequence[tuple[str, float]], label: str | None) -> str:
    """What a network made of a clip, one of `OUTCOMES`.

    Args:
        ranked: (class, probability) pairs, highest first.
        label: the true class.

    Returns:
        "correct": the likeliest class is the true one; "confused": the second likeliest is;
        "wrong": neither is; "" where the true class or the probabilities are unknown.
    """
    if label is None or not ranked:
        return ""
    names = [name for name, _ in ranked[:2]]
    return OUTCOMES[names.index(label)] if label in names else "wrong"


def frame_shares(
    heatmap: np.ndarray, kept: np.ndarray, *, signed: bool = False
) -> np.ndarray | None:
    """Each frame's share of the heat of a clip.

    Args:
        heatmap: (T, H, W) raw.
        kept: (T,) bool, the frames that are not padding; others get 0.
        signed: negative heat counts by its amount, else as none.

    Returns:
        (T,) of sum 1; None for a map that says nothing.
    """
    if not kept.any() or no_evidence(heatmap[kept], signed=signed):
        return None
    heat = np.where(kept[:, None, None], heatmap, 0).astype(np.float64)
    frames = (np.abs(heat) if signed else np.maximum(heat, 0)).sum((1, 2))
    return frames / frames.sum()


@dataclass(frozen=True)
class Stack:
    """What each of several parts (spectra) has of a clip.

    Args:
        parts: the S names, drawn from the bottom up.
        shares: (S, T) shares of the clip, of sum 1, or 0 throughout.
        totals: (S,) each part's share of the whole clip, which need not be the sum of the above.
        drops: (S + 1,) by how much the score drops without each part, and without any; said in
            place of `totals`, for drops tell how much there is to share.
        doubt: why the shares are not to be trusted; they are drawn faint.
    """

    parts: Sequence[str]
    shares: np.ndarray
    totals: np.ndarray
    drops: np.ndarray | None = None
    doubt: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw or to say."""
        return self.drops is None and not bool(self.shares.any() or self.totals.any())


@dataclass(frozen=True)
class PanelScale:
    """What the colours of a panel stand for.

    Args:
        colors: (N, 3) uint8 RGB, from the low to the high end, `low` and `high` what stands there.
        note: said behind the scale where it fits.
    """

    colors: np.ndarray
    low: str
    high: str
    note: str = ""


def column_text(target: str, value: float | None) -> str:
    """What is explained: the name of a column, and its value where that is not a probability."""
    return target if value is None else f"{target} = {value:.3g}"


@dataclass(frozen=True)
class ClipFigure:
    """One clip and what methods say about it; everything on the CPU, no batch axis.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        heatmaps: caption -> (T, H, W) raw heatmap.
        target: name of the output column that the heatmaps explain, class A of a contrast.
        label: true class, None where nobody knows, or a clip may have several.
        labels: the true classes of such a clip.
        probabilities: (class, probability) pairs, in any order; empty for a regressor.
        attention: (T,) attention weights.
        valid: (T,) bool, False for padded frames.
        times: (T,) seconds of the frames in their video.
        title: the clip's name.
        signed: captions of heatmaps whose negative values count.
        contrasts: captions of three heatmaps each, drawn side by side on one scale: for `target`,
            for `against`, and their difference.
        alike: captions of heatmaps that have one colour scale.
        against: name of the class B of the contrasts.
        views: name -> (T, H, W, 3) uint8 RGB, the frames as each spectrum sees them; drawn side by
            side in place of `frames`, with the same heat on all.
        stacks: name -> shares of the spectra over time.
        panels: name -> (T, h, w, 3) uint8 RGB, what else there is to see of each frame (a depth
            map, an error), drawn below the overlays without heat, at the size of the frames.
        scales: name of a panel -> what its colours stand for.
        lines: title with unit -> name -> (T,) values, drawn as a plot over time; NaN is a gap.
            The first series of every plot look alike, the second ones, ...
        grainy: captions of heatmaps whose colours end where 2% of the heat lies beyond.
        doubts: caption -> why this heatmap is not to be trusted; drawn at a quarter of its opacity.
        value: of the column `target`, where it is not a probability.
        parts: caption -> what it is made of: the method, and the choices it made. Short names are
            made from them; a caption without is its own short name.
        colormap: of heatmaps that are not signed, one of `COLORMAPS`.
        opacity: of the hot half of a heatmap, 0 to 1.
        frames_note: what is to be said of the frames' colours.
        extent: which seconds of its video were explained, in words.
        whole: whether the frames are taken from a whole video, each for as long as the next is
            away, so that moments are called by their seconds alone.
        shares: of a whole video, caption -> (T,) what each frame's time has of the heat.
        ends: of a whole video, caption -> the heat at the end of its colour scale, and the highest.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or shape, or a name belongs to nothing.
    """

    frames: np.ndarray
    heatmaps: Mapping[str, np.ndarray]
    target: str
    label: str | None = None
    labels: Sequence[str] = ()
    probabilities: Sequence[tuple[str, float]] = ()
    attention: np.ndarray | None = None
    valid: np.ndarray | None = None
    times: np.ndarray | None = None
    title: str = ""
    signed: Sequence[str] = ()
    contrasts: Sequence[tuple[str, str, str]] = ()
    alike: Sequence[Sequence[str]] = ()
    against: str | None = None
    views: Mapping[str, np.ndarray] = field(default_factory=dict)
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    panels: Mapping[str, np.ndarray] = field(default_factory=dict)
    scales: Mapping[str, PanelScale] = field(default_factory=dict)
    lines: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    grainy: Sequence[str] = ()
    doubts: Mapping[str, str] = field(default_factory=dict)
    value: float | None = None
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    colormap: str = COLORMAP
    opacity: float = OPACITY
    frames_note: str = ""
    extent: str = ""
    whole: bool = False
    shares: Mapping[str, np.ndarray] = field(default_factory=dict)
    ends: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_frames(self.frames)
        for caption, heatmap in self.heatmaps.items():
            check_heatmap(heatmap, self.frames, f"heatmaps[{caption!r}]")
        for name, view in self.views.items():
            check_frames(view)
            if view.shape != self.frames.shape:
                raise ValueError(
                    f"views[{name!r}]: expected the frames' shape {self.frames.shape}, "
                    f"got {view.shape}"
                )
        self._check_stacks()
        self._check_panels()
        for what, names, known in (
            ("scales", self.scales, self.panels),
            ("doubts", self.doubts, self.heatmaps),
            ("parts", self.parts, self.heatmaps),
            ("shares", self.shares, self.heatmaps),
            ("ends", self.ends, self.heatmaps),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(f"{what}: there is no {name!r} in {list(known)}")
        self._check_series()

    def _check_stacks(self) -> None:
        for name, stack in self.stacks.items():
            parts, drops = len(stack.parts), stack.drops
            expected = (parts, len(self.frames)), (parts,), (parts + 1,)
            got = (
                np.shape(stack.shares),
                np.shape(stack.totals),
                expected[2] if drops is None else np.shape(drops),
            )
            if got != expected:
                raise ValueError(
                    f"stacks[{name!r}]: expected shares, totals and drops of shapes {expected}, "
                    f"got {got}"
                )

    def _check_panels(self) -> None:
        for name, panel in self.panels.items():
            check_frames(panel)
            if len(panel) != len(self.frames):
                raise ValueError(
                    f"panels[{name!r}]: expected {len(self.frames)} frames, got {len(panel)}"
                )
            if name in self.heatmaps:
                raise ValueError(f"panels: {name!r} is the caption of a heatmap as well")

    def _check_series(self) -> None:
        series = {name: getattr(self, name) for name in ("attention", "valid", "times")}
        for title, plot in self.lines.items():
            series |= {f"lines[{title!r}][{name!r}]": values for name, values in plot.items()}
        for name, value in series.items():
            if value is not None and np.shape(value) != (len(self.frames),):
                raise ValueError(
                    f"{name}: expected the shape (T,) = ({len(self.frames)},), "
                    f"got {np.shape(value)}"
                )

    @property
    def captions(self) -> list[str]:
        """Of everything that is drawn of a frame, the frame itself first."""
        original = "original" + (f", {self.frames_note}" if self.frames_note else "")
        return [original, *self.heatmaps, *self.panels]

    @property
    def kept(self) -> np.ndarray:
        """(T,) bool: the frames that are not padding."""
        if self.valid is None:
            return np.ones(len(self.frames), bool)
        return np.asarray(self.valid, bool)

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The probabilities, highest first."""
        return sorted(self.probabilities, key=lambda pair: -pair[1])

    @property
    def outcome(self) -> str:
        """What the network made of the clip, see `outcome`."""
        return outcome(self.ranked, self.label)

    @property
    def short_names(self) -> dict[str, str]:
        """Caption -> its method, and of the choices what tells the maps of this method apart."""
        parts = {caption: self.parts.get(caption, (caption,)) for caption in self.heatmaps}
        short = {}
        for caption, (name, *rest) in parts.items():
            alike = [other for other in parts.values() if other[0] == name]
            apart = [part for part in rest if not all(part in other for other in alike)]
            short[caption] = ", ".join([name, *apart])
        names = list(short.values())
        return {c: s if names.count(s) == 1 else c for c, s in short.items()}

    def role(self, caption: str) -> str:
        """ "A", "B" or "A - B" for the heatmaps of a contrast, "" for others."""
        for three in self.contrasts:
            if caption in three:
                return ("A", "B", "A - B")[three.index(caption)]
        return ""

    def heading(self, caption: str) -> str:
        """What stands above the caption: which class a heatmap of a contrast is for."""
        role = self.role(caption)
        names = {"A": self.target, "B": self.against or "", "A - B": "red for A, blue for B"}
        return f"{role}: {names[role]}" if role else ""

    def heat(self, caption: str) -> np.ndarray:
        """(T, H, W) the heatmap as drawn: padded frames count as zero."""
        return np.where(self.kept[:, None, None], self.heatmaps[caption], 0)

    def is_signed(self, caption: str) -> bool:
        """Whether negative values of this heatmap count as well."""
        return caption in self.signed

    def no_evidence_reason(self, caption: str) -> str:
        """Why this heatmap says nothing ("" where it does), padded frames left aside."""
        if not self.kept.any():
            return "every frame is padding"
        if caption in self.ends:
            return "" if self.ends[caption][0] > 0 else "map is nowhere positive"
        return no_evidence(self.heatmaps[caption][self.kept], signed=self.is_signed(caption))

    def energy(self, caption: str) -> np.ndarray | None:
        """(T,) each frame's share of the heat of the clip; None where the map says nothing."""
        if caption in self.shares:
            return self.shares[caption] if self.shares[caption].any() else None
        signed = self.is_signed(caption)
        return frame_shares(self.heatmaps[caption], self.kept, signed=signed)

    def scale(self, caption: str) -> float:
        """The heat at the end of the colour scale, see `clip_scale`, of all maps that share it."""
        alike = self.sharing(caption)
        if caption in self.ends:
            return max(self.ends[c][0] for c in alike)
        return max(
            (clip_scale(self.heat(c), signed=self.is_signed(c), grainy=c in self.grainy)
             for c in alike if not self.no_evidence_reason(c)), default=0.0,
        )  # fmt: skip

    def sharing(self, caption: str) -> set[str]:
        """The captions of all heatmaps on the colour scale of this one, itself among them."""
        found, before = {caption}, 0
        while len(found) > before:
            before = len(found)
            for group in (*self.contrasts, *self.alike):
                if found & {*group}:
                    found |= {*group}
        return found

    def strips(self) -> dict[str, np.ndarray | None]:
        """What is drawn for each frame: name -> (T,) shares of the clip, attention first."""
        rows: dict[str, np.ndarray | None] = {}
        if self.attention is not None:
            attention = np.asarray(self.attention, np.float64)
            rows["attention weight"] = attention if np.isfinite(attention).all() else None
        names = self.short_names
        return rows | {f"energy: {names[c]}": self.energy(c) for c in self.heatmaps}

    def strip_kinds(self) -> dict[str, str]:
        """Name of a strip -> "attention", "energy", "doubtful", or a contrast's role."""
        names = self.short_names
        kinds = {
            f"energy: {names[c]}": "doubtful" if c in self.doubts else self.role(c) or "energy"
            for c in self.heatmaps
        }
        return {name: kinds.get(name, "attention") for name in self.strips()}

    @property
    def unit(self) -> str:
        """What shares of the heat are shares of."""
        return "video" if self.whole else "clip"

    def series(self, title: str) -> dict[str, np.ndarray]:
        """The series of a plot, (T,) float64 each, with NaN where nothing is drawn."""
        shown = {}
        for name, values in self.lines[title].items():
            values = np.asarray(values, np.float64)
            shown[name] = np.where(self.kept & np.isfinite(values), values, np.nan)
        return shown

    def moment(self, t: int) -> str:
        """How frame `t` is called in images."""
        if self.whole and self.times is not None:
            return f"{float(self.times[t]):.1f} s" + ("" if self.kept[t] else " · not explained")
        time = "" if self.times is None else f" · {float(self.times[t]):.2f} s"
        return f"frame {t}{time}" + ("" if self.kept[t] else " · padded")
