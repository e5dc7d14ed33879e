"""The files of one explained clip: video, sheet, arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from torch import Tensor

from lightning_cam.attribution import Contrast, Explanation
from lightning_cam.explaining.clip_explanations import Spectra, frame_relevance
from lightning_cam.files import fitted, make_folder, whole_file
from lightning_cam.viz import ClipFigure, draw_sheet, draw_video, save_png, write_video

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


def write_clip(
    folder: Path,
    figure: ClipFigure,
    explanations: Mapping[str, Explanation],
    batch: Mapping[str, Any],
    fps: float,
    columns: int = 16,
    spectra: Spectra | None = None,
) -> ClipFiles:
    """Write `<clip>.mp4`, `<clip>.png` (a sheet of at most `columns` frames) and `<clip>.npz`.

    The npz holds `heatmap/<method>` (T, H, W) float32 raw, `relevance/<method>` (T,) the share of
    the heat in each frame, `attention` (T,), `outputs` (K,), `target`, `label`, and where the clip
    comes from: `frame_idx`, `time_s`, `valid`, `path`. Of a contrast these are class A's; class B
    has `heatmap_against/<method>`, `relevance_against/<method>` and `against` (its column); the
    difference shown is the first heatmap less the second. Of a fused clip there are, for each
    spectrum and measure, `spectrum/<measure>/<name>` (T,) and `spectrum_total/<measure>/<name>`,
    and `spectrum_drop/<name>` and `spectrum_drop_all`, see `SpectrumRelevance`. What a method found
    out beside its map (`Explanation.numbers`) is `<name>/<method>`. Signs other than
    letters, digits and `_.-` in a method's name are percent-encoded.
    """
    make_folder(folder)
    first = next(iter(explanations.values()))
    arrays: dict[str, Any] = {}
    for name, e in explanations.items():
        key = quote(name, safe="")
        arrays[f"heatmap/{key}"] = e.heatmap[0].cpu().numpy()
        arrays[f"relevance/{key}"] = frame_relevance(e, batch)
        arrays |= {f"{what}/{key}": value[0].item() for what, value in e.numbers.items()}
        if isinstance(e, Contrast):
            arrays[f"heatmap_against/{key}"] = e.against.heatmap[0].cpu().numpy()
            arrays[f"relevance_against/{key}"] = frame_relevance(e.against, batch)
            arrays["against"] = int(e.against.target[0])
    arrays |= {name: weights[0].cpu().numpy() for name, weights in first.attention.items()}
    for measure, found in (spectra or {}).items():
        for s, name in enumerate(found.spectra):
            arrays[f"spectrum/{measure}/{name}"] = found.share[0, s].cpu().numpy()
            arrays[f"spectrum_total/{measure}/{name}"] = float(found.total[0, s])
            if found.drop is not None:
                arrays[f"spectrum_drop/{name}"] = float(found.drop[0, s])
        if found.drop_all is not None:
            arrays["spectrum_drop_all"] = float(found.drop_all[0])
    arrays |= {"outputs": first.outputs[0].cpu().numpy(), "target": int(first.target[0])}
    for key in ("label", "frame_idx", "time_s", "valid", "path"):
        if key in batch:
            value = batch[key][0]
            arrays[key] = value.cpu().numpy() if isinstance(value, Tensor) else value
    files = _files_of(folder, figure.title)
    with whole_file(files.arrays) as file:
        np.savez_compressed(file, **arrays)
    save_png(files.sheet, draw_sheet(figure, columns))
    write_video(files.video, draw_video(figure), fps=fps)
    return files


def remove_clip(folder: Path, title: str) -> None:
    """Remove what there is of a clip's files, the image of its curves included."""
    for path in files_of(folder, title):
        with suppress(OSError):
            path.unlink()


def files_of(folder: Path, title: str) -> list[Path]:
    """All files that a clip may have, the image of its curves included."""
    files = _files_of(folder, title)
    return [*vars(files).values(), files.curves]


def _files_of(folder: Path, title: str) -> ClipFiles:
    return ClipFiles(*(folder / f"{file_name(title)}{end}" for end in (".mp4", ".png", ".npz")))


def file_name(title: str) -> str:
    """A title as a file name: letters, digits, dot, dash and underscore; a long one is cut."""
    return fitted(re.sub(r"[^\w.-]+", "_", title).strip("._") or "clip", _LONGEST)
