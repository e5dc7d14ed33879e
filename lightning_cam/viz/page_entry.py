"""What the page keeps of one explained clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightning_cam.viz.clip_figure import ClipFigure, Stack, outcome


class PageImages(NamedTuple):
    """Images of a clip that are made for the page, inside its folder.

    Attributes:
        rows: an SVG of frames and maps, without what the page itself says.
        poster: a frame of the video.
        shape: width over height of what the page shows of the video: what is above its bars, which
            the page draws itself.
    """

    rows: Path
    poster: Path
    shape: float


@dataclass(frozen=True)
class ReportEntry:
    """One clip of the report.

    Args:
        figure: what is known about the clip; its frames and heatmaps are not kept.
        video, sheet: the clip's mp4 and png, inside the report's folder.
        data: its npz, if it has one there.
        images: what the page shows in place of the sheet, and before the video plays.
        fps: frames per second of the video.
        scores: more numbers about this clip, name -> text.
        tables: of more numbers, each as rows of texts, headings first.
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
    data: Path | None
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
    tables: Sequence[Sequence[Sequence[str]]] = ()
    images: PageImages | None = None
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
        data: str | Path | None,
        fps: float = 8,
        scores: Mapping[str, str] | None = None,
        curves: str | Path | None = None,
        tables: Sequence[Sequence[Sequence[str]]] = (),
        images: PageImages | None = None,
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
            data=None if data is None else Path(data),
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
            tables=tables,
            images=images,
            extent=figure.extent,
            whole=figure.whole,
        )

    @property
    def files(self) -> list[Path]:
        """What there is to download."""
        files = (self.video, self.original, self.sheet, self.data)
        return [path for path in files if path is not None]

    @property
    def outcome(self) -> str:
        """What the network made of the clip, see `viz.outcome`."""
        return outcome(self.ranked, self.label)

    @property
    def right(self) -> bool | None:
        """Whether the likeliest class is the true one; None where that cannot be said."""
        return self.outcome == "correct" if self.outcome else None
