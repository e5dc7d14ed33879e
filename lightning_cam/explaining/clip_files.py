"""The files of one explained clip: video, sheet, arrays."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.attribution import Explanation
from lightning_cam.explaining.clip_arrays import clip_arrays
from lightning_cam.explaining.clip_explanations import Spectra
from lightning_cam.files import fitted, make_folder, whole_file
from lightning_cam.viz import (
    ClipFigure,
    DrawnVideo,
    PageImages,
    draw_sheet,
    drawn_video,
    save_png,
    write_video,
)
from lightning_cam.viz.contact_sheet import sheet_parts
from lightning_cam.viz.drawing import Canvas, save_jpeg
from lightning_cam.viz.vector import save_svg

_PAGE_COLUMNS = 8  # frames of a row, so that its text is as large as the page's
_LONGEST = 112  # bytes: endings and those of a part file fit into the 143 of encrypted folders


@dataclass(frozen=True)
class ClipFiles:
    """The files of one explained clip."""

    video: Path
    sheet: Path
    arrays: Path

    @property
    def curves(self) -> Path:
        """Where the curves of measures are drawn, if there are any."""
        return self.sheet.with_name(f"{self.sheet.stem}.curves.png")

    @property
    def original(self) -> Path:
        """Where a whole video of the source's own size is, if it was asked for."""
        return self.video.with_name(f"{self.video.stem}.original.mp4")


def write_clip(
    folder: Path,
    figure: ClipFigure,
    explanations: Mapping[str, Explanation],
    batch: Mapping[str, Any],
    fps: float,
    columns: int = 16,
    spectra: Spectra | None = None,
    video: DrawnVideo | None = None,
) -> ClipFiles:
    """Write `<clip>.mp4`, `<clip>.png` (a sheet of at most `columns` frames) and `<clip>.npz`.

    The npz is a format, see `clip_arrays`. `video` is what was drawn of it, where that is done.
    """
    make_folder(folder)
    arrays = clip_arrays(explanations, figure.frames, batch, spectra)
    files = clip_files(folder, figure.title)
    with whole_file(files.arrays) as file:
        np.savez_compressed(file, **arrays)
    save_png(files.sheet, draw_sheet(figure, columns))
    write_video(files.video, (video or drawn_video(figure)).frames, fps=fps)
    return files


def write_page_images(
    folder: Path, figure: ClipFigure, frame: np.ndarray, shape: float
) -> PageImages:
    """Write `<clip>.svg` and `<clip>.jpg`, for the page.

    Args:
        folder: of the page.
        figure: the clip.
        frame: of its video, (H, W, 3) uint8 RGB.
        shape: see `PageImages`.
    """
    rows, poster = _page_files(folder, figure.title)
    save_svg(
        rows, Canvas.stacked(sheet_parts(figure, _PAGE_COLUMNS)[1:2]), small=True
    )  # frames and maps
    save_jpeg(poster, frame)
    return PageImages(rows, poster, shape)


def _page_files(folder: Path, title: str) -> tuple[Path, Path]:
    rows, poster = (folder / f"{file_name(title)}{end}" for end in (".svg", ".jpg"))
    return rows, poster


def remove_clip(folder: Path, title: str) -> None:
    """Remove what there is of a clip's files, the image of its curves included."""
    shutil.rmtree(windows_folder(folder, title), ignore_errors=True)
    for path in files_of(folder, title):
        with suppress(OSError):
            path.unlink()


def files_of(folder: Path, title: str) -> list[Path]:
    """All files that a clip may have, those that are not always there included."""
    files = clip_files(folder, title)
    return [*vars(files).values(), files.curves, files.original, *_page_files(folder, title)]


def windows_folder(folder: Path, title: str) -> Path:
    """Where the windows of a whole video are kept until it is done, see `kept_windows`."""
    return folder / f"{file_name(title)}.windows"


def clip_files(folder: Path, title: str) -> ClipFiles:
    """Where the files of a clip go."""
    return ClipFiles(*(folder / f"{file_name(title)}{end}" for end in (".mp4", ".png", ".npz")))


def file_name(title: str) -> str:
    """A title as a file name: letters, digits, dot, dash and underscore; a long one is cut."""
    return fitted(re.sub(r"[^\w.-]+", "_", title).strip("._") or "clip", _LONGEST)
