"""What is known about one explained clip, ready to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_cam.viz.overlay import check_frames, check_heatmap, no_evidence


@dataclass(frozen=True)
class ClipPicture:
    """One clip and what methods say about it; everything on the CPU, no batch axis.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        heatmaps: caption -> (T, H, W) raw heatmap. The caption names method, layer and pooling;
            what stands before its first comma serves as the short name.
        target: name of the output column that the heatmaps explain.
        label: true class, None where nobody knows.
        probabilities: (class, probability) pairs, in any order; empty for a regressor.
        attention: (T,) attention weights.
        valid: (T,) bool, False for padded frames.
        times: (T,) seconds of the frames in their video.
        title: the clip's name.
        signed: captions of heatmaps whose negative values count too.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or shape.
    """

    frames: np.ndarray
    heatmaps: Mapping[str, np.ndarray]
    target: str
    label: str | None = None
    probabilities: Sequence[tuple[str, float]] = ()
    attention: np.ndarray | None = None
    valid: np.ndarray | None = None
    times: np.ndarray | None = None
    title: str = ""
    signed: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_frames(self.frames)
        for caption, heatmap in self.heatmaps.items():
            check_heatmap(heatmap, self.frames, f"heatmaps[{caption!r}]")
        for name in ("attention", "valid", "times"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != (len(self.frames),):
                raise ValueError(
                    f"{name}: expected the shape (T,) = ({len(self.frames)},), "
                    f"got {np.shape(value)}"
                )

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
    def short_names(self) -> dict[str, str]:
        """Caption -> what stands before its first comma, where that tells the maps apart."""
        short = {caption: caption.split(",")[0].strip() for caption in self.heatmaps}
        names = list(short.values())
        return {c: s if names.count(s) == 1 else c for c, s in short.items()}

    def heat(self, caption: str) -> np.ndarray:
        """(T, H, W) the heatmap as drawn: padded frames count as zero."""
        return np.where(self.kept[:, None, None], self.heatmaps[caption], 0)

    def is_signed(self, caption: str) -> bool:
        """Whether negative values of this heatmap count too."""
        return caption in self.signed

    def silence(self, caption: str) -> str:
        """Why this heatmap says nothing ("" where it does), padded frames left aside."""
        if not self.kept.any():
            return "every frame is padding"
        return no_evidence(self.heatmaps[caption][self.kept], signed=self.is_signed(caption))

    def energy(self, caption: str) -> np.ndarray | None:
        """(T,) each frame's share of the heat of the clip; None where the map says nothing."""
        if self.silence(caption):
            return None
        heat = self.heat(caption).astype(np.float64)
        heat = np.abs(heat) if self.is_signed(caption) else np.maximum(heat, 0)
        frames = heat.sum((1, 2))
        return frames / frames.sum()

    def strips(self) -> dict[str, np.ndarray | None]:
        """What is drawn for each frame: name -> (T,) shares of the clip, attention first."""
        rows: dict[str, np.ndarray | None] = {}
        if self.attention is not None:
            attention = np.asarray(self.attention, np.float64)
            rows["attention weight"] = attention if np.isfinite(attention).all() else None
        names = self.short_names
        return rows | {f"energy: {names[c]}": self.energy(c) for c in self.heatmaps}

    def moment(self, t: int) -> str:
        """How frame `t` is called in pictures."""
        time = "" if self.times is None else f" · {float(self.times[t]):.2f} s"
        return f"frame {t}{time}" + ("" if self.kept[t] else " · padded")
