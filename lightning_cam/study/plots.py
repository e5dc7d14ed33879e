"""The plots of a study, drawn from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.attribution import CentreMap, RandomMap
from lightning_cam.clip_files import file_name
from lightning_cam.metrics.mean_curves import student
from lightning_cam.study.design import Sweep
from lightning_cam.study.journal import Row
from lightning_cam.study.results import Group, Results, spectrum_name, statistics
from lightning_cam.study.tables import describe
from lightning_cam.viz import save_png
from lightning_cam.viz.curves import CurveLine, draw_curves


def title_of(group: Group) -> str:
    """A network and its input, in words."""
    trained = f", trained on {spectrum_name(group.trained)}" if group.trained else ""
    return f"{group.network}{trained}" + (
        f", {spectrum_name(group.input)} input" if group.input else ""
    )


def write_plots(folder: Path, results: Results) -> list[Path]:
    """`curves_<network>_<trained>_<input>.png` and `sweep_<name>.png`, as far as there are rows."""
    paths = []
    for group in results.groups:
        picture = _curves(results, group)
        if picture is not None:
            words = "_".join(filter(None, (group.network, group.trained, group.input)))
            paths.append(save_png(folder / f"curves_{file_name(words)}.png", picture))
    for sweep in results.design.sweeps:
        picture = _sweep(results, sweep)
        if picture is not None:
            paths.append(save_png(folder / f"sweep_{file_name(sweep.name)}.png", picture))
    return paths


def _curves(results: Results, group: Group) -> NDArray[np.uint8] | None:
    """Mean curves of the methods of one network."""
    lines, baselines = {}, []
    for key in results.design.methods:
        rows = [row for row in results.of_cell(group, key) if not row["error"]]
        if rows:
            cell = results.design.cells[key]
            lines[cell.title] = _line(rows, "deletion"), _line(rows, "insertion")
            if isinstance(cell.method, (RandomMap, CentreMap)):
                baselines.append(cell.title)
    if not lines:
        return None
    protocol = results.design.protocol
    return draw_curves(
        lines,
        baselines=baselines,
        title=title_of(group),
        score="score of the predicted class"
        if protocol.raw
        else "probability of the predicted class",
        note=f"mean and its 95% interval over {len(results.clips[group])} clips; "
        f"{describe(protocol)}",
        least=protocol.order == "least",
    )


def _line(rows: Sequence[Row], metric: str) -> CurveLine:
    scores = np.array([row["curves"][metric] for row in rows])
    s = statistics(row[metric] for row in rows)
    mean, n = scores.mean(0), len(scores)
    half = (
        student(n - 1) * scores.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full_like(mean, np.nan)
    )
    return CurveLine(mean, s.mean, s.std, mean - half, mean + half)


def _sweep(results: Results, sweep: Sweep) -> NDArray[np.uint8] | None:
    """Areas under the curves against a setting, a line for each network and input."""
    # pyplot would keep global state and choose a window system; these two do neither.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    drawn = False
    for axes, (metric, sign) in zip(figure.subplots(1, 2), results.signs.items(), strict=True):
        for n, group in enumerate(results.groups):
            found = [
                statistics(
                    row[metric]
                    for row in results.of_cell(group, key, swept=True)
                    if not row["error"]
                )
                for key in sweep.cells.values()
            ]
            known = [(x, s) for x, s in enumerate(found) if not isnan(s.mean)]
            if not known:
                continue
            drawn = True
            places = [x + 0.06 * (n - (len(results.groups) - 1) / 2) for x, _ in known]
            means = [s.mean for _, s in known]
            spread = [0.0 if isnan(s.low) else s.mean - s.low for _, s in known]
            axes.errorbar(
                places, means, spread, label=title_of(group), capsize=3,
                marker="os^Dv<>p"[n % 8], linewidth=1.4, markersize=5,
            )  # fmt: skip
        better = "lower" if sign < 0 else "higher"
        axes.set_xticks(range(len(sweep.cells)), list(sweep.cells))
        axes.set(xlabel=sweep.setting, title=f"{metric} ({better} is better)")
        axes.grid(axis="y", alpha=0.3)
    if not drawn:
        return None
    # below the axes, where it hides nothing
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(f"{sweep.title}, mean and its 95% interval", fontsize=11)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
