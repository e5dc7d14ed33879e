"""The plots of a study, drawn from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cam.explaining.clip_files import file_name
from lightning_cam.metrics import CurveMeasure, mean_std_interval, settings_of
from lightning_cam.study.design_parts import Sweep
from lightning_cam.study.journal import StudyRow
from lightning_cam.study.results import Group, Results, of_measure, title_of
from lightning_cam.viz import save_png
from lightning_cam.viz.curves import CurveLine, CurvePanel, draw_curves
from lightning_cam.viz.fonts import drawable, matplotlib_fonts


def write_plots(folder: Path, results: Results) -> list[Path]:
    """`curves_<network>_<trained>_<input>.png` and `sweep_<name>.png`, as far as there are rows."""
    paths = []
    for group in results.groups:
        figure = _curves(results, group)
        if figure is not None:
            words = "_".join(filter(None, (group.network, group.trained, group.input)))
            paths.append(save_png(folder / f"curves_{file_name(words)}.png", figure))
    for sweep in results.design.sweeps:
        figure = _sweep(results, sweep)
        if figure is not None:
            paths.append(save_png(folder / f"sweep_{file_name(sweep.name)}.png", figure))
    return paths


def _curves(results: Results, group: Group) -> NDArray[np.uint8] | None:
    """Mean curves of the methods of one network, for each measure that has any."""
    design = results.design
    curves = {name: m for name, m in design.measures.items() if isinstance(m, CurveMeasure)}
    panels = []
    for name, measure in curves.items():
        lines = {
            design.cells[key].title: line
            for key in design.methods
            if (line := _line(results.worked(group, key), name)) is not None
        }
        if lines:
            scored = measure.scored(results.are_classes(group), results.explained(group))
            panels.append(CurvePanel(name, measure.better, scored, measure.axis, lines))
    if not panels:
        return None
    cells = [design.cells[key] for key in design.methods]
    clips = f"mean and its 95% interval over {len(results.clips[group])} clips"
    return draw_curves(
        panels,
        baselines=[c.title for c in cells if c.method.baseline],
        title=title_of(group),
        note="; ".join(filter(None, [clips, settings_of(curves)])),
    )


def _line(rows: Sequence[StudyRow], measure: str) -> CurveLine | None:
    scores = np.array([row["curves"][measure] for row in rows if measure in row["curves"]])
    if not len(scores):
        return None
    area, (mean, _, low, high) = of_measure(rows, measure), mean_std_interval(scores)
    return CurveLine(mean, area.mean, area.std, low, high)


def _sweep(results: Results, sweep: Sweep) -> NDArray[np.uint8] | None:
    """Measures against a setting, two beside each other, a line for each network and input."""
    titles = [title_of(group) for group in results.groups]
    texts = map(drawable, (*titles, sweep.title, sweep.setting, *sweep.cells))
    with matplotlib_fonts(texts):
        return _figure(results, sweep)


def _figure(results: Results, sweep: Sweep) -> NDArray[np.uint8] | None:
    # pyplot would keep global state and choose a window system; these two do neither.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measures = results.design.measures
    down, across = -(-len(measures) // 2), min(len(measures), 2)
    figure = Figure(figsize=(5 * across, 4.2 * down), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    places = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in places[len(measures) :]:
        axes.set_visible(False)
    drawn = [
        _draw_sweep(axes, results, sweep, name)
        for axes, name in zip(places, measures, strict=False)
    ]
    if not any(drawn):
        return None
    # below the axes, where it hides nothing
    labelled = [axes.get_legend_handles_labels() for axes in places]
    lines = {label: handle for pair in labelled for handle, label in zip(*pair, strict=True)}
    figure.legend(
        lines.values(), lines, loc="outside lower center", ncols=2 * across, fontsize=8,
        frameon=False,
    )  # fmt: skip
    figure.suptitle(f"{drawable(sweep.title)}, mean and its 95% interval", fontsize=11)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_sweep(axes: Any, results: Results, sweep: Sweep, measure: str) -> bool:
    """One measure against the values of a setting; whether there is anything to see."""
    count, drawn = len(results.groups), False
    for n, group in enumerate(results.groups):
        found = [
            of_measure(results.worked(group, key, swept=True), measure)
            for key in sweep.cells.values()
        ]
        known = [(x, s) for x, s in enumerate(found) if not isnan(s.mean)]
        if not known:
            continue
        drawn = True
        places = [x + 0.06 * (n - (count - 1) / 2) for x, _ in known]
        means = [s.mean for _, s in known]
        spread = [0.0 if isnan(s.low) else s.mean - s.low for _, s in known]
        axes.errorbar(
            places, means, spread, label=drawable(title_of(group)), capsize=3,
            marker="os^Dv<>p"[n % 8], linewidth=1.4, markersize=5,
        )  # fmt: skip
    better = results.design.measures[measure].better
    axes.set_xticks(range(len(sweep.cells)), [drawable(value) for value in sweep.cells])
    axes.set(
        xlabel=drawable(sweep.setting),
        title=f"{measure}{f' ({better} is better)' if better else ''}",
    )
    axes.grid(axis="y", alpha=0.3)
    return drawn
