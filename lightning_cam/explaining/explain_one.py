"""What `explain.py` asks of each clip, and what has come out so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_cam.attribution import Attribution, Explainable, Explanation
from lightning_cam.errors import ConfigError, VideoReadError
from lightning_cam.explaining.clip_choice import Source
from lightning_cam.explaining.clip_files import ClipFiles, write_clip
from lightning_cam.explaining.explained_clip import (
    Spectra,
    clip_extras,
    clip_frames,
    clip_views,
    draw_clip,
    explain_clip,
    explain_spectra,
    true_label,
)
from lightning_cam.explaining.measured_tables import Measurements, shown_measures
from lightning_cam.explaining.selection import outputs
from lightning_cam.explaining.tables import relevance_rows, score_rows, shown_scores
from lightning_cam.interfaces import Batch, HasReader, ShowsFiles, Task
from lightning_cam.viz import ReportEntry


@dataclass(frozen=True)
class Asked:
    """What is asked of every clip.

    Attributes:
        task: the network, on its device.
        data: its data module.
        methods: name -> method.
        target: the column, None for each clip's own.
        against: the class to set it against, None for none.
        folder: where files are written.
        fps: of the videos.
    """

    task: Task
    data: object
    methods: Mapping[str, Attribution]
    target: int | None
    against: int | None
    folder: Path
    fps: float


@dataclass
class Found:
    """What has come out so far.

    Attributes:
        measurements: of the maps.
        entries: of the page, one a clip.
        rows: of scores.csv.
        curves: of relevance.csv.
        unreadable: clip -> why it cannot be read.
        same: clip -> why it has no contrast.
    """

    measurements: Measurements
    entries: list[ReportEntry] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, str]:
        """Clip -> why it is not on the page."""
        return self.unreadable | self.same


def explain_source(asked: Asked, source: Source, found: Found) -> None:
    """Read a clip and explain it, or note why not."""
    title = source.title
    try:
        batch = source.read()
        if batch["error"][0]:
            found.unreadable[title] = batch["error"][0]
            return
        frames = _frames(asked.data, batch)
    except VideoReadError as error:
        found.unreadable[title] = str(error)
        return
    model = asked.task.explainable(batch)
    clip = batch["video"].to(asked.task.device)
    target = asked.target
    if asked.against is not None:
        target = _contrasted(model, clip, batch, target)
        if target == asked.against:
            found.same[title] = f"{model.name(target)} cannot be set against itself"
            return
    try:
        explanations = explain_clip(model, asked.methods, clip, target, against=asked.against)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    spectra = explain_spectra(model, clip, asked.data, next(iter(explanations.values())).target)
    views, extras = clip_views(asked.data, batch["video"]), clip_extras(asked.task, batch)
    figure = draw_clip(
        model, explanations, frames, batch, title, spectra=spectra, views=views, extras=extras
    )
    files = write_clip(asked.folder, figure, explanations, batch, asked.fps, spectra=spectra)
    numbers, curves = _measure(model, explanations, clip, batch, spectra, files, found)
    paths = (files.video, files.sheet, files.arrays)
    found.entries.append(
        ReportEntry.of(figure, *paths, fps=asked.fps, scores=numbers, curves=curves)
    )


def _measure(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    clip: torch.Tensor,
    batch: Batch,
    spectra: Spectra,
    files: ClipFiles,
    found: Found,
) -> tuple[dict[str, str], Path | None]:
    """Add a clip's rows to the tables: its numbers for the page, and the image of its curves."""
    plot = files.sheet.with_name(f"{files.sheet.stem}.curves.png")
    measured = found.measurements.clip(model, explanations, clip, batch, plot)
    scored = list(score_rows(model, measured.explanations, batch, spectra, measured.found))
    found.rows += scored
    found.curves += relevance_rows(model, explanations, batch, spectra)
    own = [row for row in scored if row["method"] in explanations]
    shown = shown_measures(scored, found.measurements.measures, measured.found)
    return shown_scores(own) | shown, measured.figure


def _contrasted(
    model: Explainable, clip: torch.Tensor, batch: Mapping[str, Any], target: int | None
) -> int:
    """The class to set against another: the one asked for, else the true, else the predicted."""
    label = true_label(batch)
    if target is not None or label >= 0:
        return label if target is None else target
    return int(model.resolve(None, outputs(model, clip))[0])


def _frames(data: object, batch: Batch) -> np.ndarray:
    """Frames (T, H, W, 3) of a clip: from its file, larger than the network's, where possible."""
    reader = data.reader if isinstance(data, HasReader) else None
    if isinstance(reader, ShowsFiles):
        return reader.display(batch["path"][0], batch["frame_idx"][0].tolist())
    return clip_frames(data, batch["video"])
