"""The files of measured clips: curves.csv and curves.png, in training also measures.csv."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
class MeasuredClip:
    """One clip of `explain.py`.

    Attributes:
        explanations: what tables compare: the methods, and maps that know nothing of the network.
        found: what was measured of them.
        figure: of the curves, if there are any.
    """

    explanations: Mapping[str, Explanation]
    found: MeasuredMaps
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
        self.failed: dict[str, str] = {}  # why -> where first
        self._any = False  # value
        self._rows: list[dict[str, Any]] = []
        self._shown: dict[str, list[Measured]] = {}  # method -> of each clip
        self._softmax = True

    @property
    def columns(self) -> list[str]:
        """Of scores.csv, those of the measures among them."""
        return [*SCORE_COLUMNS, *self.measures]

    @property
    def nothing(self) -> bool:
        """Whether measures failed and none has a value of any clip."""
        return bool(self.failed) and not self._any

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

        def on_error(what: str, method: str, error: Exception) -> None:
            self.failed.setdefault(f"{what}: {error}", f"{method} of {title}")

        found = measure_clip(model, compared, clip, batch, self.measures, on_error)
        self._any |= any(
            bool(value.isfinite().any()) for m in found.values() for value in m.values.values()
        )
        target = int(next(iter(explanations.values())).target[0])
        shown = {name: [m] for (name, column), m in found.items() if column == target}
        for name, measured in shown.items():
            self._shown.setdefault(name, []).extend(measured)
        self._softmax = model.softmax
        for (name, column), one in found.items():
            row = {"clip_id": title, "method": name, "target": model.name(column)}
            self._rows += [row | point for point in _points(one)]
        drawn = draw_measured(
            figure, self.measures, shown, BASELINES,
            title=title, softmax=model.softmax, column=model.name(target),
        )  # fmt: skip
        return MeasuredClip(compared, found, drawn)

    def write(self, folder: Path) -> tuple[list[Path], Path | None]:
        """Write `curves.csv` and, of several clips, `curves.png`: points, and mean curves."""
        if not self._rows:
            return [], None
        tables = [write_csv(folder / "curves.csv", self._rows, CURVE_COLUMNS)]
        if max(map(len, self._shown.values())) < 2:
            return tables, None
        return tables, draw_measured(
            folder / "curves.png", self.measures, self._shown, BASELINES,
            title="all clips", softmax=self._softmax,
        )  # fmt: skip


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
    softmax: bool,
) -> tuple[dict[str, float], Path | None]:
    """Write `measures.csv` and, where there are curves, `curves.png` of clips seen in training.

    Args:
        folder: of the epoch's images.
        epoch: its number.
        clips: (title, method -> what was measured).
        measures: by which.
        softmax: whether the network's columns are classes.

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
    figure = draw_measured(
        folder / "curves.png", measures, methods, BASELINES,
        title=f"epoch {epoch}", softmax=softmax,
    )  # fmt: skip
    return {name: s.mean for name, s in means.items() if s.clips}, figure


def page_measures(
    rows: Sequence[Mapping[str, Any]], measures: Mapping[str, Measure], found: MeasuredMaps
) -> dict[str, str]:
    """What the report shows of a clip's rows: measure -> the values of all methods.

    What a measure found out beside its value stands behind them, under the measure's title.
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
    texts = {
        title: ", ".join(
            f"{row['method']}{role[row['target']]} {row[name]}" for row in rows if row.get(name)
        )
        for name, title in (called | beside).items()
    }
    return {title: text for title, text in texts.items() if text}


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
