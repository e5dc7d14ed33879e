"""One explained clip: what is explained of it, and what is drawn.

The training callback and `explain.py` show the same things, so both come here; the files are
written by `clip_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cam.attribution import (
    Attribution,
    Contrast,
    Explainable,
    Explanation,
    SpectrumRelevance,
    explain,
    explain_contrast,
    spectrum_relevance,
)
from lightning_cam.attribution.spectrum_relevance import SPECTRUM_MEASURES
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.interfaces import Batch, HasSpectra, HasViews, ShowsFrames, ShowsMore
from lightning_cam.viz import ClipFigure, Stack, frame_shares
from lightning_cam.viz.drawing import resize

OnError = Callable[[str, Exception], None]
Spectra = Mapping[str, SpectrumRelevance]  # measure -> what it found

_INCOMPLETE = 0.5  # share of their sum that integrated gradients may miss


def explain_clip(
    model: Explainable,
    methods: Mapping[str, Attribution],
    clip: Tensor,
    target: int | str | None = None,
    on_error: OnError | None = None,
    *,
    against: int | str | None = None,
) -> dict[str, Explanation]:
    """Explain one clip `(1, C, T, H, W)` with several methods: method name -> explanation.

    Args:
        model: bound to this clip's batch (`task.explainable(batch)`).
        methods: name -> method.
        clip: in model space.
        target: as in `explain`.
        on_error: gets the name of a method that failed and its exception, and the method is left
            out; without it the exception is raised.
        against: a second class: each explanation is a `Contrast`, which `draw_clip` draws as two
            overlays on one colour scale and their difference. It needs a `target`.
    """
    if against is not None and target is None:
        raise ValueError(f"against={against!r} needs a target to be compared with")
    explanations: dict[str, Explanation] = {}
    for name, method in methods.items():
        try:
            if against is None or target is None:
                explanations[name] = explain(model, method, clip, target)
            else:
                explanations[name] = explain_contrast(model, method, clip, target, against)
        except Exception as error:
            if on_error is None:
                raise
            on_error(name, error)
    return explanations


def explain_spectra(
    model: Explainable,
    clip: Tensor,
    data: object,
    target: Tensor,
    on_error: OnError | None = None,
) -> dict[str, SpectrumRelevance]:
    """Which spectrum of one fused clip `(1, C, T, H, W)` mattered, by each measure.

    Args:
        model: bound to this clip's batch.
        clip: in model space.
        data: a data module; its `spectra` say which channels belong together. Where it has none or
            a single one, nothing is computed.
        target: `(1,)`, the explained column: `target` of an `Explanation`.
        on_error: as in `explain_clip`.
    """
    spectra = data.spectra if isinstance(data, HasSpectra) else {}
    found: dict[str, SpectrumRelevance] = {}
    for measure in SPECTRUM_MEASURES if len(spectra) > 1 else ():
        try:
            found[measure] = spectrum_relevance(model, clip, spectra, target, measure)
        except Exception as error:
            if on_error is None:
                raise
            on_error(f"spectrum by {measure}", error)
    return found


def clip_frames(data: object, clip: Tensor) -> np.ndarray:
    """The frames `(T, H, W, 3)` uint8 of one clip `(1, C, T, H, W)`, as the data module has them.

    Where it cannot tell, they are stretched over the clip's own range.
    """
    if isinstance(data, ShowsFrames):
        return np.asarray(data.to_frames(clip)[0])
    return to_frames(clip[0])


def clip_views(data: object, clip: Tensor) -> dict[str, np.ndarray]:
    """One fused clip `(1, C, T, H, W)` as each spectrum sees it; empty without several spectra."""
    if not isinstance(data, HasViews):
        return {}
    return {name: frames[0] for name, frames in data.views(clip).items()}


def clip_extras(task: object, batch: Batch) -> Any:
    """What a task has to show of one clip beside its frames: `panels`, their `scales`, `lines`.

    None where it has nothing; see `tasks.sfm.images.Extras`.
    """
    return task.extras(batch) if isinstance(task, ShowsMore) else None


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
    label = true_label(batch)
    column = int(first.target[0])
    attention = next(iter(first.attention.values()), None)
    captions = [e.caption for e in explanations.values()]
    heatmaps: dict[str, np.ndarray] = {}
    parts: dict[str, Sequence[str]] = {}
    signed, contrasts, grainy, doubts = [], [], [], {}
    for name, e in explanations.items():
        # two settings of one method may read the same
        alone = captions.count(e.caption) == 1
        maps = _maps(e.method.title if alone else f"{name}: {e.method.title}", e)
        keys = [e.caption_under(method) for method, *_ in maps]
        for key, (method, heat, negative) in zip(keys, maps, strict=True):
            parts[key] = (method, *e.notes.values())
            heatmaps[key] = resize_heatmap(heat, frames.shape[:3])[0].cpu().numpy()
            signed += [key] * negative
            grainy += [key] * e.method.grainy
            if doubt := _doubt(e):
                doubts[key] = doubt
        if isinstance(e, Contrast):
            a, b, both = keys
            contrasts.append((a, b, both))
    return ClipFigure(
        frames=frames,
        heatmaps=heatmaps,
        target=model.question_about(model.name(column)),
        value=None if model.softmax else float(first.outputs[0, column]),
        label=model.name(label) if label >= 0 else None,
        probabilities=probabilities(model, first.outputs),
        attention=None if attention is None else attention[0].cpu().numpy(),
        valid=_array(batch, "valid"),
        times=_array(batch, "time_s"),
        title=title,
        signed=signed,
        contrasts=contrasts,
        against=model.name(int(first.against.target[0])) if isinstance(first, Contrast) else None,
        views=_alike(views or {}, frames),
        panels={} if extras is None else extras.panels,
        scales={} if extras is None else extras.scales,
        lines={} if extras is None else extras.lines,
        grainy=grainy,
        doubts=doubts,
        parts=parts,
        stacks={
            f"spectra {'for A ' * isinstance(first, Contrast)}by {measure}": Stack(
                [name.upper() for name in found.spectra],
                found.share[0].cpu().numpy(),
                found.total[0].cpu().numpy(),
                _drops(found),
            )
            for measure, found in (spectra or {}).items()
        },
    )


def true_label(batch: Mapping[str, Any]) -> int:
    """The true class of one clip (B = 1), -1 where it has none or nobody knows."""
    return int(batch["label"][0]) if "label" in batch else -1


def _doubt(e: Explanation) -> str:
    """Why a map is not to be trusted; "" where nothing speaks against it."""
    if "low_gradient" in e.numbers and bool(e.numbers["low_gradient"][0]):
        pull = float(e.numbers["pull"][0])
        return f"low gradient: the layer moves the column by {pull:.1g} of what the clip does"
    if "incomplete" in e.numbers and (missed := float(e.numbers["incomplete"][0])) > _INCOMPLETE:
        return f"the map misses {missed:.0%} of what it should add up to"
    return ""


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


def probabilities(model: Explainable, outputs: Tensor) -> list[tuple[str, float]]:
    """(class, probability) of one clip's outputs `(1, K)`; empty where columns are no classes."""
    if not model.softmax:
        return []
    values = outputs[0].softmax(0).tolist()
    return [(model.name(column), value) for column, value in enumerate(values)]


def relevance(explanation: Explanation, batch: Mapping[str, Any]) -> np.ndarray:
    """Each frame's share of the heat of one clip (B = 1), the curve below the images.

    Returns:
        `(T,)` of sum 1, with 0 for padding; NaN for a map that says nothing. Of a map with
        negative values their amount counts too.
    """
    heat = explanation.evidence[0].cpu().numpy()
    valid = _array(batch, "valid")
    kept = np.ones(len(heat), bool) if valid is None else valid.astype(bool)
    shares = frame_shares(heat, kept, signed=bool((heat < 0).any()))
    return np.full(len(heat), np.nan) if shares is None else shares


def to_frames(clip: Tensor) -> np.ndarray:
    """`(T, H, W, 3)` uint8 of one clip `(C, T, H, W)` whose normalisation nobody knows.

    Stretched over the clip's own range; one channel becomes grey, more than three show the first.
    """
    clip = clip.detach().float().cpu()[:3]
    low, high = clip.min(), clip.max()
    clip = (clip - low) / (high - low).clamp(min=1e-12)
    if len(clip) < 3:
        clip = clip[:1].expand(3, -1, -1, -1)
    return (clip * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def _array(batch: Mapping[str, Any], key: str) -> np.ndarray | None:
    return batch[key][0].cpu().numpy() if key in batch else None
