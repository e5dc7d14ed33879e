"""One explained clip as a figure: its frames, its heatmaps, and what stands around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cam.attribution import Contrast, Explainable, Explanation, SpectrumRelevance
from lightning_cam.attribution.drawn_maps import drawn_maps
from lightning_cam.attribution.shown import frames_of
from lightning_cam.explaining.clip_explanations import (
    Spectra,
    clip_array,
    clip_extent,
    probabilities,
    true_label,
    true_labels,
)
from lightning_cam.interfaces import Batch, HasViews, ShowsFrames, ShowsMore, is_offered
from lightning_cam.viz import ClipFigure, Stack
from lightning_cam.viz.drawing import resize


def clip_frames(data: object, clip: Tensor) -> np.ndarray:
    """The frames `(T, H, W, 3)` uint8 of one clip `(1, C, T, H, W)`, as the data module has them.

    Where it cannot tell, see `frames_of`.
    """
    if is_offered(data, ShowsFrames):
        return np.asarray(data.to_frames(clip)[0])
    return frames_of(clip[0])[0]


def clip_views(data: object, clip: Tensor) -> dict[str, np.ndarray]:
    """One fused clip `(1, C, T, H, W)` as each spectrum sees it; empty without several spectra."""
    if not is_offered(data, HasViews):
        return {}
    return {name: frames[0] for name, frames in data.views(clip).items()}


def clip_extras(task: object, batch: Batch) -> Any:
    """What a task has to show of one clip beside its frames: `panels`, their `scales`, `lines`.

    None where it has nothing; see `tasks.sfm.images.Extras`.
    """
    return task.extras(batch) if is_offered(task, ShowsMore) else None


def draw_clip(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    frames: np.ndarray,
    batch: Mapping[str, Any],
    title: str,
    *,
    spectra: Spectra | None = None,
    views: Mapping[str, np.ndarray] | None = None,
    extras: Any = None,
) -> ClipFigure:
    """What is known about one clip, ready to be drawn.

    Args:
        model: names the columns.
        explanations: of this clip alone (B = 1), at least one; all plain, or all contrasts of the
            same two classes.
        frames: `(T, H, W, 3)` uint8 RGB, of any size: heatmaps are resized to it.
        batch: the clip's batch (B = 1): "label", "valid", "time_s" where it has them.
        title: the clip's name.
        spectra: what `explain_spectra` found.
        views: what `clip_views` found. `frames` are drawn for the first, the visible one.
        extras: what `clip_extras` found.
    """
    first = next(iter(explanations.values()))
    contrast = first if isinstance(first, Contrast) else None
    column = int(first.target[0])
    of_class = model.kind(column) is not None  # else labels are numbers, not names
    label = true_label(batch) if of_class else -1
    several = true_labels(batch) if of_class and label < 0 else []
    attention = next(iter(first.attention.values()), None)
    maps = drawn_maps(explanations, frames.shape[:3])
    return ClipFigure(
        frames=frames,
        **vars(maps),
        target=model.question_about(model.name(column)),
        value=None if of_class else float(first.outputs[0, column]),
        label=model.name(label) if label >= 0 else None,
        labels=[model.name(k) for k in several],
        probabilities=probabilities(model, first.outputs),
        attention=None if attention is None else attention[0].cpu().numpy(),
        valid=clip_array(batch, "valid"),
        times=clip_array(batch, "time_s"),
        title=title,
        against=None if contrast is None else model.name(int(contrast.against.target[0])),
        views=_alike(views or {}, frames),
        panels={} if extras is None else extras.panels,
        scales={} if extras is None else extras.scales,
        lines={} if extras is None else extras.lines,
        extent=clip_extent(batch),
        stacks=_stacks(spectra or {}, "" if contrast is None else "for A "),
    )


def _stacks(spectra: Spectra, role: str) -> dict[str, Stack]:
    """What each spectrum has of the clip, a diagram for each measure."""
    return {
        f"spectra {role}by {measure}": Stack(
            [name.upper() for name in found.spectra],
            found.share[0].cpu().numpy(),
            found.total[0].cpu().numpy(),
            _drops(found),
            found.doubts[0],
        )
        for measure, found in spectra.items()
    }


def _drops(found: SpectrumRelevance) -> np.ndarray | None:
    """What hiding each spectrum and hiding all of them costs, `(S + 1,)`."""
    if found.drop is None or found.drop_all is None:
        return None
    return torch.cat([found.drop[0], found.drop_all[:1]]).cpu().numpy()


def _alike(views: Mapping[str, np.ndarray], frames: np.ndarray) -> dict[str, np.ndarray]:
    """Views named for people and as large as the frames, which take the place of the first."""
    if len(views) < 2:
        return {}
    first, *others = views
    shown = {first.upper(): frames}
    for name in others:
        shown[name.upper()] = np.stack([resize(view, *frames.shape[1:3]) for view in views[name]])
    return shown
