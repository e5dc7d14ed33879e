"""Explanations of one clip as the heatmaps of a figure, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lightning_cam.attribution.contrast import Contrast
from lightning_cam.attribution.explanation import Explanation
from lightning_cam.attribution.tensors import resize_heatmap


@dataclass(frozen=True)
class DrawnMaps:
    """The heatmaps of a figure, and what is said of them; keys are the captions they are under.

    Its fields are those of `ClipFigure`.
    """

    heatmaps: dict[str, np.ndarray] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)
    contrasts: list[tuple[str, str, str]] = field(default_factory=list)
    grainy: list[str] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Sequence[str]] = field(default_factory=dict)


def drawn_maps(
    explanations: Mapping[str, Explanation],
    size: Sequence[int],
    row: int = 0,
    called: Mapping[str, Sequence[str]] | None = None,
) -> DrawnMaps:
    """All maps of one clip at the size `(T, H, W)` of its frames.

    Args:
        explanations: by names, which are said where two captions read the same.
        size: of the frames.
        row: which clip of the batch.
        called: by name, what to call an explanation and its choices; None: its method and notes.
    """
    drawn = DrawnMaps()
    called = called or {n: (e.method.title, *e.notes.values()) for n, e in explanations.items()}
    captions = [tuple(called[name]) for name in explanations]
    for name, e in explanations.items():
        title, *choices = called[name]
        # two settings of one method may read the same
        alone = captions.count((title, *choices)) == 1
        maps = maps_of(title if alone else f"{name}: {title}", e)
        keys = [", ".join([method, *choices]) for method, *_ in maps]
        for key, (method, heat, negative), doubt in zip(keys, maps, doubts_of(e), strict=True):
            drawn.parts[key] = (method, *choices)
            drawn.heatmaps[key] = resize_heatmap(heat[row : row + 1], size)[0].cpu().numpy()
            drawn.signed.extend([key] * negative)
            drawn.grainy.extend([key] * e.method.grainy)
            if doubt[row]:
                drawn.doubts[key] = doubt[row]
        if isinstance(e, Contrast):
            a, b, both = keys
            drawn.contrasts.append((a, b, both))
    return drawn


def maps_of(title: str, e: Explanation) -> list[tuple[str, Tensor, bool]]:
    """What is drawn of an explanation: method, heatmap, whether negative values count."""
    signed = bool((e.evidence < 0).any())
    if not isinstance(e, Contrast):
        return [(title, e.evidence, signed)]
    a, b, both = (f"{title} for {role}" for role in ("A", "B", "A - B"))
    signed = signed or bool((e.against.evidence < 0).any())  # one colour scale for A and B
    return [(a, e.evidence, signed), (b, e.against.evidence, signed), (both, e.difference, True)]


def doubts_of(e: Explanation) -> list[tuple[str, ...]]:
    """Why each map of `maps_of` is not to be trusted, of each clip: a contrast's difference is as
    little as its classes' maps."""
    if not isinstance(e, Contrast):
        return [e.doubts]
    a, b = e.doubts, e.against.doubts
    return [a, b, tuple(one or other for one, other in zip(a, b, strict=True))]
