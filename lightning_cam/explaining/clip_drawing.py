"""One explained clip as a figure: its frames, its heatmaps, and what stands around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cam.attribution import Contrast, Explainable, Explanation, SpectrumRelevance
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.explaining.clip_explanations import (
    Spectra,
    clip_array,
    probabilities,
    true_label,
    true_labels,
)
from lightning_cam.interfaces import Batch, HasViews, ShowsFrames, ShowsMore, is_offered
from lightning_cam.viz import ClipFigure, Stack
from lightning_cam.viz.drawing import resize


def clip_frames(data: object, clip: Tensor) -> np.ndarray:
    """The frames `(T, H, W, 3)` uint8 of one clip `(1, C, T, H, W)`, as the data module has them.

    Where it cannot tell, they are stretched over the clip's own range.
    """
    if is_offered(data, ShowsFrames):
        return np.asarray(data.to_frames(clip)[0])
    return stretched_frames(clip[0])


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
    label, column = true_label(batch), int(first.target[0])
    several = [] if label >= 0 else true_labels(batch)
    attention = next(iter(first.attention.values()), None)
    maps = _drawn_maps(explanations, frames.shape[:3])
    return ClipFigure(
        frames=frames,
        heatmaps=maps.heatmaps,
        target=model.question_about(model.name(column)),
        value=float(first.outputs[0, column]) if model.kind(column) is None else None,
        label=model.name(label) if label >= 0 else None,
        labels=[model.name(k) for k in several],
        probabilities=probabilities(model, first.outputs),
        attention=None if attention is None else attention[0].cpu().numpy(),
        valid=clip_array(batch, "valid"),
        times=clip_array(batch, "time_s"),
        title=title,
        signed=maps.signed,
        contrasts=maps.contrasts,
        against=None if contrast is None else model.name(int(contrast.against.target[0])),
        views=_alike(views or {}, frames),
        panels={} if extras is None else extras.panels,
        scales={} if extras is None else extras.scales,
        lines={} if extras is None else extras.lines,
        grainy=maps.grainy,
        doubts=maps.doubts,
        parts=maps.parts,
        stacks=_stacks(spectra or {}, "" if contrast is None else "for A "),
    )


@dataclass(frozen=True)
class _DrawnMaps:
    """The heatmaps of a figure, and what is said of them; keys are the captions they are under."""

    heatmaps: dict[str, np.ndarray] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)
    contrasts: list[tuple[str, str, str]] = field(default_factory=list)
    grainy: list[str] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Sequence[str]] = field(default_factory=dict)


def _drawn_maps(explanations: Mapping[str, Explanation], size: Sequence[int]) -> _DrawnMaps:
    """All maps at the size `(T, H, W)` of the frames."""
    drawn = _DrawnMaps()
    captions = [e.caption for e in explanations.values()]
    for name, e in explanations.items():
        # two settings of one method may read the same
        alone = captions.count(e.caption) == 1
        maps = _maps(e.method.title if alone else f"{name}: {e.method.title}", e)
        keys = [e.caption_under(method) for method, *_ in maps]
        for key, (method, heat, negative), doubt in zip(keys, maps, _doubts(e), strict=True):
            drawn.parts[key] = (method, *e.notes.values())
            drawn.heatmaps[key] = resize_heatmap(heat, size)[0].cpu().numpy()
            drawn.signed.extend([key] * negative)
            drawn.grainy.extend([key] * e.method.grainy)
            if doubt:
                drawn.doubts[key] = doubt
        if isinstance(e, Contrast):
            a, b, both = keys
            drawn.contrasts.append((a, b, both))
    return drawn


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


def _doubts(e: Explanation) -> list[str]:
    """Why each drawn map is not to be trusted: of a contrast those for A, B and both."""
    if not isinstance(e, Contrast):
        return [e.doubts[0]]
    a, b = e.doubts[0], e.against.doubts[0]
    return [a, b, a or b]


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


def _maps(title: str, e: Explanation) -> list[tuple[str, Tensor, bool]]:
    """What is drawn of an explanation: method, heatmap, whether negative values count."""
    signed = bool((e.evidence < 0).any())
    if not isinstance(e, Contrast):
        return [(title, e.evidence, signed)]
    a, b, both = (f"{title} for {role}" for role in ("A", "B", "A - B"))
    signed = signed or bool((e.against.evidence < 0).any())  # one colour scale for A and B
    return [(a, e.evidence, signed), (b, e.against.evidence, signed), (both, e.difference, True)]


def stretched_frames(clip: Tensor) -> np.ndarray:
    """`(T, H, W, 3)` uint8 of one clip `(C, T, H, W)` whose normalisation nobody knows.

    Stretched over the clip's own range; one channel becomes grey, more than three show the first.
    """
    clip = clip.detach().float().cpu()[:3]
    low, high = clip.min(), clip.max()
    clip = (clip - low) / (high - low).clamp(min=1e-12)
    if len(clip) < 3:
        clip = clip[:1].expand(3, -1, -1, -1)
    return (clip * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()
