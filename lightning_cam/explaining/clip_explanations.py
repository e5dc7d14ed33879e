"""The explanations of one clip, and the numbers that are read off them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from lightning_cam.attribution import (
    Attribution,
    Checkup,
    Contrast,
    Explainable,
    Explanation,
    LayerAttribution,
    SpectrumRelevance,
    check,
    explain,
    explain_contrast,
    spectrum_relevance,
)
from lightning_cam.attribution.columns import Columns
from lightning_cam.attribution.gradcam import GradientCAM
from lightning_cam.attribution.outputs import outputs_of
from lightning_cam.attribution.spectrum_relevance import SPECTRUM_MEASURES
from lightning_cam.errors import ConfigError, why
from lightning_cam.interfaces import HasSpectra, is_offered
from lightning_cam.viz import frame_shares
from lightning_cam.viz.clip_figure import column_text
from lightning_cam.viz.layout import percent
from lightning_cam.viz.moments import extent_text

OnError = Callable[[str, Exception], None]
Spectra = Mapping[str, SpectrumRelevance]  # measure -> what it found

_checked: WeakSet[nn.Module] = WeakSet()  # networks, once each


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

    The first clip of a network is also used to check it, see `check_once`.

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
    check_once(model, methods, clip)
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


def check_once(
    model: Explainable, methods: Mapping[str, Attribution], clip: Tensor
) -> Checkup | None:
    """Check a network at the target layers of methods, unless that was done before.

    What would be wrong in their maps without a word is warned about.

    Args:
        model: what to look into.
        methods: name -> method.
        clip: `(B, C, T, H, W)`; two or more for the order of the batch.

    Returns:
        What was found; None: it was checked before, or could not be.

    Raises:
        ConfigError: the task's settings do not fit the network, by which training fails as well.
    """
    if model.module in _checked:
        return None
    _checked.add(model.module)
    try:
        asked = [m for m in methods.values() if isinstance(m, LayerAttribution)]
        named = [layer for method in asked for layer in method.target_layers]
        layers = dict.fromkeys(model.layer(name)[0] for name in named)
        gradients = any(isinstance(method, GradientCAM) for method in asked)
        found = check(model, clip, list(layers), gradients=gradients)
    except ConfigError:
        raise
    except Exception as error:
        warnings.warn(f"the network could not be checked: {why(error)}", stacklevel=3)
        return None
    for finding in found.silent:
        warnings.warn(finding, stacklevel=3)
    return found


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
    spectra = data.spectra if is_offered(data, HasSpectra) else {}
    found: dict[str, SpectrumRelevance] = {}
    for measure in SPECTRUM_MEASURES if len(spectra) > 1 else ():
        try:
            found[measure] = spectrum_relevance(model, clip, spectra, target, measure)
        except Exception as error:
            if on_error is None:
                raise
            on_error(f"spectrum by {measure}", error)
    return found


def network_outputs(model: Explainable, clip: Tensor) -> Tensor:
    """The network's outputs `(B, K)` for clips, without anything else."""
    with torch.no_grad():
        return outputs_of(model, clip).float()


def probabilities(model: Explainable, outputs: Tensor) -> list[tuple[str, float]]:
    """(class, probability) of one clip's outputs `(1, K)`; columns without classes have none."""
    return [(model.name(column), p) for column, p in class_probabilities(model, outputs).items()]


def class_probabilities(model: Explainable, outputs: Tensor) -> dict[int, float]:
    """The probability of each column of one clip's outputs `(1, K)` that is a class."""
    return Columns(model.outputs, tuple(model.heads_of(outputs))).classes(outputs)


def true_label(batch: Mapping[str, Any]) -> int:
    """The true class of one clip (B = 1), -1 where it has none or several, or nobody knows."""
    label = _labels(batch)
    return int(label[0]) if label is not None and label.ndim == 1 else -1


def true_labels(batch: Mapping[str, Any]) -> list[int]:
    """All true classes of one clip (B = 1), of data with one or several a clip."""
    label = _labels(batch)
    if label is None or label.ndim == 1:
        return [found] if (found := true_label(batch)) >= 0 else []
    return (label[0] > 0).nonzero()[:, 0].tolist()


def true_column(model: Explainable, batch: Mapping[str, Any]) -> int | None:
    """The column of a clip's (B = 1) true class, of several the first; None where nobody knows.

    Raises:
        UnknownNameError: the network has no such column.
    """
    labels, given = true_labels(batch), _labels(batch)
    if not labels or given is None:
        return None
    kind = model.kind(model.column(labels[0]))
    # yes or no of a single column: its label is no column
    answer = kind == "sigmoid" and given.ndim == 1 and len(model.outputs) < 2
    return None if kind is None or answer else labels[0]


def _labels(batch: Mapping[str, Any]) -> Tensor | None:
    """The labels of a batch, `(B,)` or `(B, K)`; None where it has none, or numbers to regress."""
    label = batch.get("label")
    if not isinstance(label, Tensor) or label.ndim not in (1, 2):
        return None
    return None if label.ndim == 1 and label.is_floating_point() else label


def told(model: Explainable, explanation: Explanation, batch: Mapping[str, Any]) -> str:
    """What is explained of one clip (B = 1), and what the network says, for captions.

    Such as "true class blink, predicted oscillate 55%", of numbers "pose/tx = 0.12".
    """
    column = int(explanation.target[0])
    name = model.question_about(model.name(column))
    if model.kind(column) is None:
        return column_text(name, float(explanation.outputs[0, column]))
    shares, best, answer = _answer(model, explanation.outputs, column)
    true = [model.name(k) for k in true_labels(batch)]
    if column in true_labels(batch):
        said = [f"true class {name}", answer]
    elif column == best:
        said = [f"predicted class {name} {percent(shares[best])}"]
    else:
        said = [f"class {name}", answer]
    if true and column not in true_labels(batch):
        said.insert(1, f"true class {', '.join(true)}")
    if isinstance(explanation, Contrast):
        said[0] += f" against {model.name(int(explanation.against.target[0]))}"
    return ", ".join(said)


def answered(model: Explainable, explanation: Explanation) -> str:
    """How sure the network is of the explained class of one clip (B = 1), and what it says instead.

    Such as "blink 12%, predicted oscillate 55%", of numbers "pose/tx = 0.12".
    """
    column = int(explanation.target[0])
    name = model.question_about(model.name(column))
    if model.kind(column) is None:
        return column_text(name, float(explanation.outputs[0, column]))
    shares, best, answer = _answer(model, explanation.outputs, column)
    said = f"{name} {percent(shares[column])}"
    return said if best == column else f"{said}, {answer}"


def _answer(model: Explainable, outputs: Tensor, column: int) -> tuple[dict[int, float], int, str]:
    """Of the classes among which a column is: probabilities, the likeliest, that in words."""
    first = 0
    for head in model.heads_of(outputs):
        if column < first + head.size:
            break
        first += head.size
    known = class_probabilities(model, outputs)
    shares = {k: p for k, p in known.items() if first <= k < first + head.size}
    best = max(shares, key=shares.__getitem__)
    return shares, best, f"predicted {model.name(best)} {percent(shares[best])}"


def frame_relevance(explanation: Explanation, batch: Mapping[str, Any]) -> np.ndarray:
    """Each frame's share of the heat of one clip (B = 1), the curve below the images.

    Returns:
        `(T,)` of sum 1, with 0 for padding; NaN for a map that says nothing. Of a map with
        negative values their amount counts as well.
    """
    heat = explanation.evidence[0].cpu().numpy()
    valid = clip_array(batch, "valid")
    kept = np.ones(len(heat), bool) if valid is None else valid.astype(bool)
    shares = frame_shares(heat, kept, signed=bool((heat < 0).any()))
    return np.full(len(heat), np.nan) if shares is None else shares


def row_of(batch: Mapping[str, Any], n: int) -> dict[str, Any]:
    """One clip of a batch, as a batch of one."""
    return {key: value[n : n + 1] for key, value in batch.items()}


def clip_array(batch: Mapping[str, Any], key: str) -> np.ndarray | None:
    """What a batch of one clip has under `key`, without the batch dimension; None without it."""
    return batch[key][0].cpu().numpy() if key in batch else None


def clip_extent(batch: Mapping[str, Any]) -> str:
    """Which seconds of its video one clip (B = 1) is, in words; "" where that is not known."""
    if "duration_s" not in batch or not float(batch["duration_s"][0]) > 0:
        return ""
    seconds = batch["time_s"][0][batch["valid"][0]]
    return extent_text(float(seconds[0]), float(seconds[-1]), float(batch["duration_s"][0]))
