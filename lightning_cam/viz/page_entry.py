"""What the page keeps of one explained clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightning_cam.viz.clip_figure import ClipFigure, Stack, outcome


@dataclass(frozen=True)
class ReportEntry:
    """One clip of the report.

    Args:
        figure: what is known about the clip; its frames and heatmaps are not kept.
        video, sheet, data: the clip's mp4, png and npz, inside the report's folder.
        fps: frames per second of the video.
        scores: more numbers about this clip, name -> text.
        curves: an image of measured curves, inside the report's folder.
        labels: the true classes of a clip that may have several.
        broad: whether the video is too wide for a place beside the facts.
        extent: which seconds of its video were explained, in words.
        whole: whether bars and plots are of a whole video.
        track: of a whole video, (class, start, end, probability) of what is likeliest over time.
        offset: the second of the source at which the mp4 begins.
        original: the mp4 of the source's own size.
        shortfall: what of the source is missing, in words.
    """

    title: str
    target: str
    label: str | None
    ranked: Sequence[tuple[str, float]]
    strips: Mapping[str, np.ndarray | None]
    moments: Sequence[str]
    kept: np.ndarray
    methods: Mapping[str, str]  # caption -> why it says nothing, "" where it does
    video: Path
    sheet: Path
    data: Path
    fps: float
    scores: Mapping[str, str] = field(default_factory=dict)
    against: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)  # of the strips
    curves: Path | None = None
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    lines: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(
        default_factory=dict
    )  # caption -> why it is not to be trusted
    value: float | None = None
    broad: bool = False
    labels: Sequence[str] = ()
    extent: str = ""
    whole: bool = False
    track: Sequence[tuple[str, float, float, float]] = ()
    offset: float = 0.0
    original: Path | None = None
    shortfall: str = ""

    @classmethod
    def of(
        cls,
        figure: ClipFigure,
        video: str | Path,
        sheet: str | Path,
        data: str | Path,
        fps: float = 8,
        scores: Mapping[str, str] | None = None,
        curves: str | Path | None = None,
    ) -> ReportEntry:
        """Keep of an image what the page needs: numbers and names, no pixels."""
        return cls(
            title=figure.title,
            target=figure.target,
            label=figure.label,
            ranked=figure.ranked,
            strips=figure.strips(),
            moments=[figure.moment(t) for t in range(len(figure.frames))],
            kept=figure.kept,
            methods={caption: figure.no_evidence_reason(caption) for caption in figure.heatmaps},
            video=Path(video),
            sheet=Path(sheet),
            data=Path(data),
            fps=fps,
            scores=scores or {},
            against=figure.against,
            kinds=figure.strip_kinds(),
            curves=None if curves is None else Path(curves),
            stacks=figure.stacks,
            lines={title: figure.series(title) for title in figure.lines},
            doubts=figure.doubts,
            value=figure.value,
            broad=bool(figure.panels),
            labels=figure.labels,
            extent=figure.extent,
            whole=figure.whole,
        )

    @property
    def outcome(self) -> str:
        """What the network made of the clip, see `viz.outcome`."""
        return outcome(self.ranked, self.label)

    @property
    def right(self) -> bool | None:
        """Whether the likeliest class is the true one; None where that cannot be said."""
        return self.outcome == "correct" if self.outcome else None
