"""One clip of `explain.py`: read, explained, drawn, written and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_cam.attribution import Attribution, Explainable, Explanation
from lightning_cam.attribution.checks import check_clip
from lightning_cam.errors import ArgumentError, ConfigError, VideoReadError
from lightning_cam.explaining.clip_drawing import clip_extras, clip_frames, clip_views, draw_clip
from lightning_cam.explaining.clip_explanations import (
    Spectra,
    explain_clip,
    explain_spectra,
    network_outputs,
    true_label,
)
from lightning_cam.explaining.clip_files import ClipFiles, write_clip
from lightning_cam.explaining.clip_sources import ClipSource
from lightning_cam.explaining.measured_files import RunMeasurements, page_measures
from lightning_cam.explaining.score_tables import page_scores, relevance_rows, score_rows
from lightning_cam.interfaces import Batch, HasReader, ShowsFiles, Task, is_offered
from lightning_cam.viz import ReportEntry


@dataclass(frozen=True)
class ClipRequest:
    """What is done with every clip.

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
class Collected:
    """The results of the clips so far.

    Attributes:
        measurements: of the maps.
        entries: of the page, one a clip.
        rows: of scores.csv.
        curves: of relevance.csv.
        unreadable: clip -> why it cannot be read.
        same: clip -> why it has no contrast.
    """

    measurements: RunMeasurements
    entries: list[ReportEntry] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, str]:
        """Clip -> why it is not on the page."""
        return self.unreadable | self.same


def process_clip(request: ClipRequest, source: ClipSource, collected: Collected) -> None:
    """Read a clip and explain it, or note why not."""
    title = source.title
    try:
        batch = source.read()
        if batch["error"][0]:
            collected.unreadable[title] = batch["error"][0]
            return
        frames = _frames(request.data, batch)
    except VideoReadError as error:
        collected.unreadable[title] = str(error)
        return
    model = request.task.explainable(batch)
    clip = batch["video"].to(request.task.device)
    try:
        check_clip(model, clip)
    except ArgumentError as error:
        collected.unreadable[title] = str(error)
        return
    target = request.target
    if request.against is not None:
        target = _contrasted(model, clip, batch, target)
        if target == request.against:
            collected.same[title] = f"{model.name(target)} cannot be set against itself"
            return
    try:
        explanations = explain_clip(model, request.methods, clip, target, against=request.against)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    spectra = explain_spectra(model, clip, request.data, next(iter(explanations.values())).target)
    views, extras = clip_views(request.data, batch["video"]), clip_extras(request.task, batch)
    figure = draw_clip(
        model, explanations, frames, batch, title, spectra=spectra, views=views, extras=extras
    )
    files = write_clip(request.folder, figure, explanations, batch, request.fps, spectra=spectra)
    numbers, curves = _measure(model, explanations, clip, batch, spectra, files, collected)
    paths = (files.video, files.sheet, files.arrays)
    collected.entries.append(
        ReportEntry.of(figure, *paths, fps=request.fps, scores=numbers, curves=curves)
    )


def _measure(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    clip: torch.Tensor,
    batch: Batch,
    spectra: Spectra,
    files: ClipFiles,
    collected: Collected,
) -> tuple[dict[str, str], Path | None]:
    """Add a clip's rows to the tables: its numbers for the page, and the image of its curves."""
    plot = files.sheet.with_name(f"{files.sheet.stem}.curves.png")
    measured = collected.measurements.clip(model, explanations, clip, batch, plot)
    scored = list(score_rows(model, measured.explanations, batch, spectra, measured.found))
    collected.rows += scored
    collected.curves += relevance_rows(model, explanations, batch, spectra)
    own = [row for row in scored if row["method"] in explanations]
    shown = page_measures(scored, collected.measurements.measures, measured.found)
    return page_scores(own) | shown, measured.figure


def _contrasted(
    model: Explainable, clip: torch.Tensor, batch: Mapping[str, Any], target: int | None
) -> int:
    """The class to set against another: the one asked for, else the true, else the predicted."""
    label = true_label(batch)
    if target is not None or label >= 0:
        return label if target is None else target
    return int(model.resolve(None, network_outputs(model, clip))[0])


def _frames(data: object, batch: Batch) -> np.ndarray:
    """Frames (T, H, W, 3) of a clip: from its file, larger than the network's, where possible."""
    reader = data.reader if is_offered(data, HasReader) else None
    if is_offered(reader, ShowsFiles):
        return reader.display(batch["path"][0], batch["frame_idx"][0].tolist())
    return clip_frames(data, batch["video"])
