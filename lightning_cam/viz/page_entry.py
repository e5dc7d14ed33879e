"""What the page keeps of one explained clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightning_cam.viz.clip_figure import ClipPicture, Stack, outcome


@dataclass(frozen=True)
class ReportEntry:
    """One clip of the report.

    Args:
        picture: what is known about the clip; its frames and heatmaps are not kept.
        video, sheet, data: the clip's mp4, png and npz, inside the report's folder.
        fps: frames per second of the video.
        scores: more numbers about this clip, name -> text.
        curves: a picture of measured curves, inside the report's folder.
        broad: whether the video is too wide for a place beside the facts.
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
    faint: Mapping[str, str] = field(default_factory=dict)  # caption -> why it is not to be trusted
    value: float | None = None
    broad: bool = False

    @classmethod
    def of(
        cls,
        picture: ClipPicture,
        video: str | Path,
        sheet: str | Path,
        data: str | Path,
        fps: float = 8,
        scores: Mapping[str, str] | None = None,
        curves: str | Path | None = None,
    ) -> ReportEntry:
        """Keep of a picture what the page needs: numbers and names, no pixels."""
        return cls(
            title=picture.title,
            target=picture.target,
            label=picture.label,
            ranked=picture.ranked,
            strips=picture.strips(),
            moments=[picture.moment(t) for t in range(len(picture.frames))],
            kept=picture.kept,
            methods={caption: picture.silence(caption) for caption in picture.heatmaps},
            video=Path(video),
            sheet=Path(sheet),
            data=Path(data),
            fps=fps,
            scores=scores or {},
            against=picture.against,
            kinds=picture.strip_kinds(),
            curves=None if curves is None else Path(curves),
            stacks=picture.stacks,
            lines={title: picture.series(title) for title in picture.lines},
            faint=picture.faint,
            value=picture.value,
            broad=bool(picture.panels),
        )

    @property
    def outcome(self) -> str:
        """What the network made of the clip, see `viz.outcome`."""
        return outcome(self.ranked, self.label)

    @property
    def right(self) -> bool | None:
        """Whether the likeliest class is the true one; None where that cannot be said."""
        return self.outcome == "correct" if self.outcome else None
