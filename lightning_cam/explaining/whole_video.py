"""A whole video from file to files: for `explain.py` and for Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from lightning_cam.attribution import Attribution, Explainable
from lightning_cam.attribution.fields import Count, fitted
from lightning_cam.attribution.shown import Colours
from lightning_cam.data.core.clips import Between, ClipReader
from lightning_cam.data.core.transforms import ClipTransform
from lightning_cam.data.core.windows import WindowedVideo, Windows
from lightning_cam.errors import ArgumentError
from lightning_cam.explaining.clip_files import ClipFiles
from lightning_cam.explaining.kept_windows import KeptWindows
from lightning_cam.explaining.video_drawing import Recording, video_figure, write_whole_video
from lightning_cam.explaining.video_explanation import VideoExplanation
from lightning_cam.explaining.video_files import write_video_arrays
from lightning_cam.explaining.video_windows import Bind, OnCheck, explain_windows
from lightning_cam.files import make_folder
from lightning_cam.interfaces import Batch, Explains, HasReader, is_offered
from lightning_cam.viz import ClipFigure, draw_sheet, save_png
from lightning_cam.viz.moments import short_seconds
from lightning_cam.viz.video_file import frame_store

Size = Literal["original"] | None


def windows_reader(data: object) -> ClipReader | None:
    """What reads a video of a data module window by window; None where nothing does.

    A reader whose `read` is replaced and not its `open`, or its `sample` and not its `sample_of`,
    would show the network something else than it was trained on.
    """
    reader = data.reader if is_offered(data, HasReader) else None
    if not isinstance(reader, ClipReader):
        return None
    own = type(reader)
    other_images = own.read is not ClipReader.read and own.open is ClipReader.open
    other_clips = own.sample is not ClipReader.sample and own.sample_of is ClipReader.sample_of
    return None if other_images or other_clips else reader


def windows_text(video: WindowedVideo) -> str:
    """How many windows there are, in words."""
    count, step = len(video.starts), video.step_seconds
    said = f"{count} window{'s' * (count != 1)} of {short_seconds((video.length - 1) * step)} s"
    if count < 2:
        return said
    return f"{said}, one every {(video.starts[1] - video.starts[0]) * step:.2g} s"


@dataclass(frozen=True)
class WrittenVideo:
    """What was written of a whole video.

    Attributes:
        figure: its timeline.
        original: the video of the source's own size, where it was asked for.
        bins_per_second: of the timeline.
        still: a frame of the video, and the width over height of what is above its plots.
    """

    figure: ClipFigure
    original: Path | None
    bins_per_second: float
    still: tuple[np.ndarray, float]


def explain_and_write(
    video: WindowedVideo,
    bind: Bind,
    methods: Mapping[str, Attribution],
    target: int | str | None,
    against: int | str | None,
    *,
    device: torch.device | str,
    files: ClipFiles,
    title: str,
    size: Size = None,
    batch: int | None = None,
    on_check: OnCheck | None = None,
    kept: KeptWindows | None = None,
) -> tuple[VideoExplanation, WrittenVideo]:
    """Explain a video, and write its mp4, png and npz; arguments as of `explain_windows`.

    Args:
        files: what to write.
        title: its name.
        size: "original": also the video with the first map at the size of the source.
    """
    folder = files.video.parent
    make_folder(folder)
    with frame_store(folder) as store:
        recording = Recording(video, store, size == "original")
        e = explain_windows(
            video, bind, methods, target, against,
            device=device, on_frame=recording, folder=folder, batch=batch, on_check=on_check,
            kept=kept,
        )  # fmt: skip
        one = target is not None or not e.classes
        column = e.names[e.windows[0].target] if one else None
        other = None if against is None else _named(e, against)
        figure = video_figure(e, recording, title, column, other)
        write_video_arrays(files.arrays, e)
        save_png(files.sheet, draw_sheet(figure))
        still = write_whole_video(files, e, recording, figure)
        span = float(np.diff(recording.edges[[0, 1]])[0])
        original = files.original if recording.original else None
    return e, WrittenVideo(figure, original, 1 / span, still)


def _named(e: VideoExplanation, column: int | str) -> str:
    return column if isinstance(column, str) else e.names[column]


def explain_video(
    model: Explainable | Explains,
    methods: Attribution | Mapping[str, Attribution],
    path: str | Path,
    *,
    num_frames: int = 16,
    fps: float | None = 7.5,
    resize: int = 256,
    crop: int = 224,
    reader: ClipReader | None = None,
    target: int | str | None = None,
    against: int | str | None = None,
    windows: Windows = "all",
    stride: float | None = None,
    start: float | None = None,
    end: float | None = None,
    out: str | Path | None = None,
    size: Size = None,
    batch: int | None = None,
) -> VideoExplanation:
    """Explain a whole video, window by window, in one way through its file.

    Maps and predictions of overlapping windows are blended for each step. Maps are kept in files
    without names, so that memory does not grow with the length of the video.

    Args:
        model: of the network; with the mean and std of its colours, unless a `reader` is given. Or
            a task, which describes its network for each batch.
        methods: one, or name -> method.
        path: any video file, or a folder of numbered images.
        num_frames: steps of a window, T.
        fps: of them per second; None for every frame.
        resize: short side in pixels before cropping.
        crop: side of the square in the centre that the network sees.
        reader: instead of these four: that of a data module (`data.reader`).
        target: the column; None: of each window the highest.
        against: a second class to be set against the target.
        windows: "all", "centre", or how many, spread evenly.
        stride: seconds from one window to the next; None: half a window.
        start: where to begin, in seconds.
        end: where to stop.
        out: an mp4 to write, with a png and an npz of the same name beside it.
        size: "original": with `out`, also an mp4 of the video's own size, ".original.mp4".
        batch: windows explained at once; None: few enough for their voxels.

    Raises:
        VideoReadError: the video cannot be read.
        UserError: an argument is wrong, or no method has a map.

    Example:
        >>> e = lc.explain_video(model, lc.GradCAM(), "film.mp4", resize=128, crop=112)
        >>> print(*e.track, sep="\\n")  # walking 0:03-0:07 .91
        >>> e.maps[next(iter(e.maps))].energy  # (n,) of the steps at e.times
    """
    if not isinstance(model, Explainable) and not is_offered(model, Explains):
        raise ArgumentError(
            f"the model is of type {type(model).__name__}; describe the network: "
            "Explainable.of(network, layers, mean=[...], std=[...])"
        )
    named = methods if isinstance(methods, Mapping) else {_name_of(methods): methods}
    if against is not None and target is None:
        raise ArgumentError(f"against={against!r} needs a target to be compared with")
    files = _files(out, size, Path(path))
    reader = reader or _reader_of(model, num_frames, fps, resize, crop)
    between: Between = (start, end)
    video = WindowedVideo(reader, Path(path), windows, stride, between)
    if isinstance(model, Explainable):
        module, bind = model.module, _binding(model)
    else:
        module, bind = model.explainable(None).module, model.explainable
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    if files is None:
        return explain_windows(video, bind, named, target, against, device=device, batch=batch)
    e, _ = explain_and_write(
        video, bind, named, target, against,
        device=device, files=files, title=Path(path).stem, size=size, batch=batch,
    )  # fmt: skip
    return e


def _files(out: str | Path | None, size: object, source: Path) -> ClipFiles | None:
    """What to write; None: nothing.

    Raises:
        ArgumentError: it makes no sense, or would take the place of the video itself.
    """
    if size not in (None, "original"):
        raise ArgumentError(f"size={size!r} must be 'original' or None")
    if out is None:
        if size is not None:
            raise ArgumentError("size='original' is of a written video; add out='explained.mp4'")
        return None
    if Path(out).suffix.lower() != ".mp4":
        raise ArgumentError(f"out={str(out)!r} must end in .mp4")
    video = Path(out)
    files = ClipFiles(video, video.with_suffix(".png"), video.with_suffix(".npz"))
    if source.resolve() in (each.resolve() for each in (video, files.original)):
        raise ArgumentError(f"out={str(out)!r} is the video itself; choose another name")
    return files


def _name_of(method: object) -> str:
    return type(method).__name__.lower()


def _reader_of(
    model: Explainable | Explains, frames: int, fps: float | None, resize: int, crop: int
) -> ClipReader:
    colours = model.to_frames if isinstance(model, Explainable) else None
    if not isinstance(colours, Colours):
        raise ArgumentError(
            "a video has colours from 0 to 1, and nobody knows how the network takes them; say it, "
            "Explainable.of(network, layers, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, "
            "0.225]), or give the reader of a data module"
        )
    frames, resize, crop = (
        fitted(name, value, Count)
        for name, value in (("num_frames", frames), ("resize", resize), ("crop", crop))
    )
    transform = ClipTransform(resize=resize, crop=crop, mean=colours.mean, std=colours.std)
    return ClipReader(frames, fps, transform)


def _binding(model: Explainable) -> Bind:
    """A model that is bound to a batch by what is padding in it."""

    def bind(batch: Batch) -> Explainable:
        valid = batch["valid"]
        return model if bool(valid.all()) else replace(model, valid=valid)

    return bind
