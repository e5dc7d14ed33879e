"""One clip of `explain.py`: read, explained, drawn, written and measured."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightning_cam.attribution import Attribution
from lightning_cam.attribution.checks import check_clip
from lightning_cam.data.core.windows import WindowedVideo
from lightning_cam.errors import ArgumentError, VideoReadError, WriteError, say, why
from lightning_cam.explaining.clip_drawing import clip_extras, clip_frames, clip_views, draw_clip
from lightning_cam.explaining.clip_explanations import (
    check_once,
    explain_clip,
    explain_spectra,
    true_label,
)
from lightning_cam.explaining.clip_files import (
    clip_files,
    windows_folder,
    write_clip,
    write_page_images,
)
from lightning_cam.explaining.clip_results import ClipResult
from lightning_cam.explaining.clip_sources import ClipSource
from lightning_cam.explaining.kept_windows import KeptWindows
from lightning_cam.explaining.measured_files import ClipNumbers, RunMeasurements, page_measures
from lightning_cam.explaining.question import Asked, Question
from lightning_cam.explaining.score_tables import page_scores, relevance_rows, score_rows
from lightning_cam.explaining.video_explanation import VideoExplanation
from lightning_cam.explaining.video_files import (
    doubtful_windows,
    step_rows,
    track_rows,
    window_rows,
)
from lightning_cam.explaining.whole_video import explain_and_write, windows_text
from lightning_cam.interfaces import Batch, HasReader, HasSpectra, ShowsFiles, Task, is_offered
from lightning_cam.viz import ReportEntry, drawn_video


@dataclass(frozen=True)
class ClipRequest:
    """What is done with every clip.

    Attributes:
        task: the network, on its device.
        data: its data module.
        measurements: what is measured.
        methods: name -> method.
        question: which column of each; of a composed clip it is the class of its explained part.
        folder: where files are written.
        fps: of the videos.
    """

    task: Task
    data: object
    measurements: RunMeasurements
    methods: Mapping[str, Attribution]
    question: Question
    folder: Path
    fps: float


@dataclass(frozen=True)
class Skip:
    """Why a clip is not on the page.

    Attributes:
        kind: "unreadable", "same" (its class cannot be set against itself), or "failed".
        reason: in one line.
    """

    kind: str
    reason: str


def process_clip(request: ClipRequest, source: ClipSource) -> ClipResult | Skip:
    """Read a clip, explain it, draw it and measure it; whatever it raises is a reason to skip it.

    Raises:
        WriteError: a file cannot be written, which the next clip would meet as well.
    """
    try:
        return _process(request, source)
    except WriteError:
        raise
    except VideoReadError as error:
        return Skip("unreadable", why(error))
    except Exception as error:
        return Skip("failed", why(error))


def _process(request: ClipRequest, source: ClipSource) -> ClipResult | Skip:
    if source.part is not None:
        video, said = source.part.opened(request.data)
        if said:
            say(f"{source.title}: {said}")
        if video is not None:
            return _process_video(request, source, video)
    batch = source.read()
    if batch["error"][0]:
        return Skip("unreadable", batch["error"][0])
    frames = _frames(request.data, batch, source)
    model = request.task.explainable(batch)
    clip = batch["video"].to(request.task.device)
    try:
        check_clip(model, clip)
    except ArgumentError as error:
        return Skip("unreadable", why(error))
    asked = Asked(model, true_label(batch))
    if not source.composed:
        asked = request.question.about(model, batch, clip, source.title)
    if request.question.contrast is not None and asked.against is None:
        return Skip("same", f"{request.question.contrast} cannot be set against itself")
    model = asked.model
    missing: dict[str, str] = {}

    def on_error(name: str, error: Exception) -> None:
        missing[name] = why(error)

    if found := check_once(model, request.methods, clip):
        say(*found.notes, found.summary)
    explanations = explain_clip(
        model, request.methods, clip, asked.target, on_error, against=asked.against
    )
    if not explanations:
        return Skip("failed", "; ".join(f"{name}: {said}" for name, said in missing.items()))
    first = next(iter(explanations.values()))
    spectra = explain_spectra(model, clip, request.data, first.target, on_error)
    views, extras = clip_views(request.data, batch["video"]), clip_extras(request.task, batch)
    figure = draw_clip(
        model, explanations, frames, batch, source.title, spectra=spectra, views=views,
        extras=extras,
    )  # fmt: skip
    moving = drawn_video(figure)
    files = write_clip(
        request.folder,
        figure,
        explanations,
        batch,
        request.fps,
        spectra=spectra,
        video=moving,
    )
    images = write_page_images(request.folder, figure, moving.middle, moving.shape)
    measured = request.measurements.clip(model, explanations, clip, batch, files.curves)
    scored = list(score_rows(model, measured.explanations, batch, spectra, measured.found))
    own = [row for row in scored if row["method"] in explanations]
    shown = {"clip": source.place} if source.place else {}
    shown |= page_scores(own, spectra)
    table = page_measures(scored, request.measurements.measures, measured.found)
    paths = (files.video, files.sheet, files.arrays)
    return ClipResult(
        ReportEntry.of(
            figure,
            *paths,
            fps=request.fps,
            scores=shown,
            curves=measured.figure,
            images=images,
            tables=[table] if table else [],
        ),
        scored,
        list(relevance_rows(model, explanations, batch, spectra)),
        measured.kept,
        missing,
    )


def _process_video(request: ClipRequest, source: ClipSource, video: WindowedVideo) -> ClipResult:
    """Explain and write a whole video, or go on where that was stopped."""
    files, model = clip_files(request.folder, source.title), request.task.explainable()
    target, against = request.question.of_video(model, source.title)
    kept = KeptWindows(windows_folder(request.folder, source.title), source.key)
    if kept.begun:
        say(f"{source.title}: goes on where it was stopped; only its frames are read again")
    try:
        e, written = explain_and_write(
            video, request.task.explainable, request.methods, target, against,
            device=request.task.device, files=files, title=source.title,
            size=None if source.part is None else source.part.size,
            on_check=lambda found: say(*found.notes, found.summary), kept=kept,
        )  # fmt: skip
    except Exception:  # a stop is none
        kept.remove()
        raise
    kept.remove()
    with closing(e):
        scored = list(window_rows(e, source.title))
        entry = ReportEntry.of(
            written.figure, files.video, files.sheet, files.arrays, fps=written.bins_per_second,
            scores=_facts(request, e),
            images=write_page_images(request.folder, written.figure, *written.still),
        )  # fmt: skip
        entry = replace(
            entry,
            track=[(s.name, s.start_s, s.end_s, s.probability) for s in e.track],
            offset=float(e.times[0]),
            original=written.original,
            shortfall=e.shortfall,
        )
        relevance, track = list(step_rows(e, source.title)), track_rows(e, source.title)
    nothing = ClipNumbers([], {}, {}, False, bool(e.classes))
    return ClipResult(entry, scored, relevance, nothing, e.missing, track)


def _facts(request: ClipRequest, e: VideoExplanation) -> dict[str, str]:
    """What the page says of a whole video beside its classes."""
    facts = {"windows": windows_text(e.video)}
    doubtful = doubtful_windows(e)
    if doubtful:
        facts["doubtful"] = "\n".join(f"{caption}: {said}" for caption, said in doubtful.items())
    if is_offered(request.data, HasSpectra) and len(request.data.spectra) > 1:
        facts["spectra"] = "are shared out over single clips: windows=centre"
    return facts


def _frames(data: object, batch: Batch, source: ClipSource) -> np.ndarray:
    """Frames (T, H, W, 3) of a clip: from its file, larger than the network's, where possible."""
    reader = data.reader if is_offered(data, HasReader) else None
    if is_offered(reader, ShowsFiles) and not source.composed:
        return reader.display(batch["path"][0], batch["frame_idx"][0].tolist())
    return clip_frames(data, batch["video"])
