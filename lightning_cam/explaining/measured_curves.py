"""The curves of measures that have any, drawn side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lightning_cam.metrics import (
    Curve,
    CurveMeasure,
    Measure,
    Measured,
    mean_interval,
    settings_of,
    summarise,
)
from lightning_cam.viz import CurveLine, CurvePanel, draw_curves, save_png

_SHADED = 5  # clips from which on an interval says more than that it is wide


def draw_measured(
    path: Path,
    measures: Mapping[str, Measure],
    found: Mapping[str, Sequence[Measured]],
    baselines: Collection[str],
    *,
    title: str,
    softmax: bool,
    column: str | None = None,
) -> Path | None:
    """Draw the mean curves of methods, a diagram for each measure; None where there are none.

    Args:
        path: the image to write.
        measures: name -> measure.
        found: method -> what was measured of each clip.
        baselines: methods that know nothing of the network.
        title: stands above, behind the measures' names.
        softmax: whether the network's columns are classes.
        column: the name of the column, where all clips have the same.
    """
    column = column or ("the explained class" if softmax else "the explained output")
    panels = []
    for name, measure in measures.items():
        if not isinstance(measure, CurveMeasure):
            continue
        lines = {
            method: _line(measure, curves)
            for method, clips in found.items()
            if (curves := [m.curves[name] for m in clips if name in m.curves])
        }
        if lines:
            scored = measure.scored(softmax, column)
            panels.append(CurvePanel(name, measure.better, scored, measure.axis, lines))
    if not panels:
        return None
    image = draw_curves(
        panels,
        baselines=[name for name in baselines if name in found],
        title=f"{' and '.join(panel.title for panel in panels)}, {title}",
        note=_note(measures, max(map(len, found.values()))),
    )
    return save_png(path, image)


def _line(measure: CurveMeasure, curves: Sequence[Curve]) -> CurveLine:
    numbers = mean_interval(value for curve in curves for value in measure.area(curve).tolist())
    mean = summarise(curves)[1]
    band = numbers.clips >= _SHADED
    return CurveLine(
        mean.mean.numpy(),
        numbers.mean,
        numbers.std,
        mean.low.numpy() if band else None,
        mean.high.numpy() if band else None,
    )


def _note(measures: Mapping[str, Measure], clips: int) -> str:
    shaded = ["shaded: 95% interval of the mean"] * (clips >= _SHADED)
    mean = [f"mean of {clips} clips", "± between clips", *shaded] if clips > 1 else []
    curves = {name: m for name, m in measures.items() if isinstance(m, CurveMeasure)}
    return "; ".join(filter(None, [*mean, settings_of(curves)]))
