"""The files of measured clips: curves.csv and curves.png, in training also measures.csv."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cam.attribution import Explainable, Explanation
from lightning_cam.explaining.measuring import (
    BASELINES,
    build_measures,
    compares,
    measure_clip,
    with_baselines,
)
from lightning_cam.explaining.score_tables import SCORE_COLUMNS
from lightning_cam.files import write_csv
from lightning_cam.metrics import (
    Curve,
    CurveMeasure,
    Measure,
    Measured,
    mean_interval,
    number_column,
    settings_of,
    summarise,
    titles,
)
from lightning_cam.viz import CurveLine, CurvePanel, draw_curves, save_png

CURVE_COLUMNS = ("clip_id", "method", "target", "measure", "fraction", "score")
EPOCH_COLUMNS = ("epoch", "clip", "method")
_SHADED = 5  # clips from which on an interval says more than that it is wide

MeasuredMaps = Mapping[tuple[str, int], Measured]  # (method, column explained) -> what was measured


@dataclass(frozen=True)
class ClipNumbers:
    """What is kept of the measurements of one clip.

    Attributes:
        points: rows of curves.csv.
        curves: method -> measure -> curve of the class explained (of a contrast, class A).
        failed: why a measure failed -> on which map.
        any: whether a measure has a value.
        classes: whether the network's columns are classes.
    """

    points: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    any: bool = False
    classes: bool = True


@dataclass(frozen=True)
class MeasuredClip:
    """One clip of `explain.py`.

    Attributes:
        explanations: what tables compare: the methods, and maps that know nothing of the network.
        found: what was measured of them.
        kept: what the tables and plots of all clips need of that.
        figure: of the curves, if there are any.
    """

    explanations: Mapping[str, Explanation]
    found: MeasuredMaps
    kept: ClipNumbers
    figure: Path | None = None


class RunMeasurements:
    """The measurements of one run of `explain.py`.

    Args:
        node: of the configuration, name -> measure.

    Raises:
        ConfigError: it makes no sense.
    """

    def __init__(self, node: Any) -> None:
        self.measures = build_measures(node, SCORE_COLUMNS)

    @property
    def columns(self) -> list[str]:
        """Of scores.csv, those of the measures among them."""
        return [*SCORE_COLUMNS, *self.measures]

    def clip(
        self,
        model: Explainable,
        explanations: Mapping[str, Explanation],
        clip: Tensor,
        batch: Mapping[str, Any],
        figure: Path,
    ) -> MeasuredClip:
        """Measure one clip, and draw the curves of the class explained (of a contrast, class A).

        Args:
            model: bound to this clip's batch.
            explanations: method -> explanation.
            clip: `(1, C, T, H, W)`.
            batch: of this clip.
            figure: where to draw.
        """
        title = str(batch["clip_id"][0])
        compared = dict(explanations)
        if compares(self.measures):
            compared = with_baselines(model, explanations, clip)
        failed: dict[str, str] = {}

        def on_error(what: str, method: str, error: Exception) -> None:
            failed.setdefault(f"{what}: {' '.join(str(error).split())}", f"{method} of {title}")

        found = measure_clip(model, compared, clip, batch, self.measures, on_error)
        target = int(next(iter(explanations.values())).target[0])
        curves = {name: m.curves for (name, column), m in found.items() if column == target}
        classes = model.kind(target) is not None
        points = [
            {"clip_id": title, "method": name, "target": model.name(column)} | point
            for (name, column), measured in found.items()
            for point in _points(measured)
        ]
        valued = any(
            bool(value.isfinite().any()) for m in found.values() for value in m.values.values()
        )
        drawn = draw_measured(
            figure, self.measures, {name: [each] for name, each in curves.items()}, BASELINES,
            title=title, classes=classes, column=model.name(target),
        )  # fmt: skip
        kept = ClipNumbers(points, curves, failed, valued, classes)
        return MeasuredClip(compared, found, kept, drawn)

    def write_points(self, folder: Path, clips: Sequence[ClipNumbers]) -> list[Path]:
        """Write `curves.csv`, the points of all curves, if there are any."""
        rows = [row for clip in clips for row in clip.points]
        return [write_csv(folder / "curves.csv", rows, CURVE_COLUMNS)] if rows else []

    def draw(self, folder: Path, clips: Sequence[ClipNumbers]) -> Path | None:
        """Write `curves.png`, the mean curves of several clips, if there are any."""
        shown: dict[str, list[Mapping[str, Curve]]] = {}
        for clip in clips:
            for method, curves in clip.curves.items():
                shown.setdefault(method, []).append(curves)
        if max(map(len, shown.values()), default=0) < 2:
            return None
        return draw_measured(
            folder / "curves.png", self.measures, shown, BASELINES,
            title="all clips", classes=clips[-1].classes,
        )  # fmt: skip


def failed_measures(clips: Sequence[ClipNumbers]) -> dict[str, str]:
    """Why measures failed -> on which map first."""
    failed: dict[str, str] = {}
    for clip in clips:
        for reason, where in clip.failed.items():
            failed.setdefault(reason, where)
    return failed


def nothing_measured(clips: Sequence[ClipNumbers]) -> bool:
    """Whether measures failed and none has a value of any clip."""
    return bool(failed_measures(clips)) and not any(clip.any for clip in clips)


def _points(measured: Measured) -> Iterator[dict[str, str]]:
    """Rows of curves.csv."""
    for name, curve in measured.curves.items():
        for fraction, score in zip(curve.fraction.tolist(), curve.score[0].tolist(), strict=True):
            yield {"measure": name, "fraction": f"{fraction:.6f}", "score": f"{score:.6f}"}


def write_epoch(
    folder: Path,
    epoch: int,
    clips: Sequence[tuple[str, Mapping[str, Measured]]],
    measures: Mapping[str, Measure],
    classes: bool,
) -> tuple[dict[str, float], Path | None]:
    """Write `measures.csv` and, where there are curves, `curves.png` of clips seen in training.

    Args:
        folder: of the epoch's images.
        epoch: its number.
        clips: (title, method -> what was measured).
        measures: by which.
        classes: whether the network's columns are classes.

    Returns:
        What loggers get: "explain/METHOD/MEASURE" -> mean of the clips that have a value, and the
        image of the curves.
    """
    methods: dict[str, list[Measured]] = {}
    rows = []
    for title, of_clip in clips:
        for method, measured in of_clip.items():
            methods.setdefault(method, []).append(measured)
            rows.append({"epoch": epoch, "clip": title, "method": method} | measured.texts())
    write_csv(folder / "measures.csv", rows, [*EPOCH_COLUMNS, *measures])
    means = {
        f"explain/{method}/{name}": mean_interval(float(m.values[name]) for m in found)
        for method, found in methods.items()
        for name in measures
    }
    curves = {method: [m.curves for m in found] for method, found in methods.items()}
    figure = draw_measured(
        folder / "curves.png", measures, curves, BASELINES,
        title=f"epoch {epoch}", classes=classes,
    )  # fmt: skip
    return {name: s.mean for name, s in means.items() if s.clips}, figure


def page_measures(
    rows: Sequence[Mapping[str, Any]], measures: Mapping[str, Measure], found: MeasuredMaps
) -> list[list[str]]:
    """What the report shows of a clip's rows: a line a method, a column a measure; headings first.

    What a measure found out beside its value has a column as well. Empty without a value.
    """
    classes = list(dict.fromkeys(row["target"] for row in rows))  # of a contrast, A's come first
    role = dict(zip(classes, [" for A", " for B"] if len(classes) > 1 else [""], strict=False))
    called = titles(measures)
    beside = {
        number_column(name, number): f"{called[name]}: {each.number_titles.get(number, number)}"
        for measured in found.values()
        for name, each in measures.items()
        for number in measured.numbers.get(name, ())
    }
    columns = {n: title for n, title in (called | beside).items() if any(r.get(n) for r in rows)}
    if not columns:
        return []
    lines = [
        [f"{row['method']}{role[row['target']]}", *(str(row.get(name) or "") for name in columns)]
        for row in rows
        if any(row.get(name) for name in columns)
    ]
    return [["", *columns.values()], *lines]


def draw_measured(
    path: Path,
    measures: Mapping[str, Measure],
    found: Mapping[str, Sequence[Mapping[str, Curve]]],
    baselines: Collection[str],
    *,
    title: str,
    classes: bool,
    column: str | None = None,
) -> Path | None:
    """Draw the mean curves of methods, a diagram for each measure; None where there are none.

    Args:
        path: the image to write.
        measures: name -> measure.
        found: method -> of each clip, measure -> curve.
        baselines: methods that know nothing of the network.
        title: stands above, behind the measures' names.
        classes: whether the network's columns are classes.
        column: the name of the column, where all clips have the same.
    """
    column = column or ("the explained class" if classes else "the explained output")
    panels = []
    for name, measure in measures.items():
        if not isinstance(measure, CurveMeasure):
            continue
        lines = {
            method: _line(measure, curves)
            for method, clips in found.items()
            if (curves := [of_clip[name] for of_clip in clips if name in of_clip])
        }
        if lines:
            scored = measure.scored(classes, column)
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
