"""Deletion and insertion in `explain.py`: which rows, tables and pictures it adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cam.attribution import Explainable, Explanation
from lightning_cam.errors import ConfigError
from lightning_cam.faithful import (
    Curves,
    draw_measured,
    measure,
    protocol_name,
    protocol_of,
    score_name,
    with_baselines,
)
from lightning_cam.files import write_csv

CURVES = ("clip_id", "method", "target", "fraction", "deletion", "insertion")


@dataclass(frozen=True)
class Measured:
    """One clip.

    Attributes:
        explanations: what tables compare: the methods, and baselines where there are measurements.
        found: (method, class) -> columns that scores.csv gets in addition.
        picture: of the curves.
    """

    explanations: Mapping[str, Explanation]
    found: Mapping[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    picture: Path | None = None

    def columns(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What a row of scores.csv gets in addition."""
        return self.found.get((row["method"], row["target"]), {})

    def shown(self) -> dict[str, str]:
        """What the report shows: "deletion" and "insertion" -> the areas of all methods."""
        classes = list(dict.fromkeys(name for _, name in self.found))  # of a contrast, A is first
        roles = [""] if len(classes) < 2 else [" for A", " for B"]
        return {
            kind: ", ".join(
                f"{method}{roles[classes.index(name)]} {columns[kind]}"
                for (method, name), columns in self.found.items()
            )
            for kind in ("deletion", "insertion")
            if self.found
        }


class Measurements:
    """The measurements of one run of `explain.py`; where the setting says no, there are none.

    Args:
        setting: as for `protocol_of`.

    Raises:
        ConfigError: it makes no sense.
    """

    def __init__(self, setting: Any) -> None:
        try:
            self.protocol = protocol_of(setting)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.failed: dict[str, str] = {}  # why -> where first
        self._rows: list[dict[str, Any]] = []
        self._curves: dict[str, list[Curves]] = {}
        self._score = ""

    def clip(
        self,
        model: Explainable,
        explanations: Mapping[str, Explanation],
        clip: Tensor,
        picture: Path,
        title: str,
    ) -> Measured:
        """Measure one clip, and draw the curves of the class explained (of a contrast, class A).

        Args:
            model: bound to this clip's batch.
            explanations: method -> explanation.
            clip: `(1, C, T, H, W)`.
            picture: where to draw.
            title: the clip's name.

        Raises:
            ConfigError: nothing could be measured of the first clip.
        """
        protocol = self.protocol
        if protocol is None:
            return Measured(explanations)
        compared = with_baselines(model, explanations, clip)

        def failed(name: str, error: Exception) -> None:
            self.failed.setdefault(str(error), f"{name} of {title}")

        found = measure(model, compared, clip, protocol, failed)
        if not found and not self._rows:
            raise ConfigError(f"faithfulness: {next(iter(self.failed))}")
        columns = {}
        target = int(next(iter(explanations.values())).target[0])
        shown = {name: [pair] for (name, column), pair in found.items() if column == target}
        for (name, column), pair in found.items():
            key = name, model.name(column)
            columns[key] = {**pair.columns(), "protocol": protocol_name(protocol)}
            self._rows += ({"clip_id": title, "method": name, "target": key[1], **point}
                           for point in _points(pair))  # fmt: skip
        for name, pairs in shown.items():
            self._curves.setdefault(name, []).extend(pairs)
        self._score = score_name(model, protocol)
        if not shown:
            return Measured(compared, columns)
        score = score_name(model, protocol, model.name(target))
        draw_measured(picture, shown, protocol, title=title, score=score)
        return Measured(compared, columns, picture)

    def write(self, folder: Path) -> tuple[list[Path], Path | None]:
        """Write `curves.csv` and, of several clips, `curves.png`, their mean curves."""
        if self.protocol is None:
            return [], None
        tables = [write_csv(folder / "curves.csv", self._rows, CURVES)]
        if max(map(len, self._curves.values()), default=0) < 2:
            return tables, None
        title = "deletion and insertion, all clips"
        picture = folder / "curves.png"
        draw_measured(picture, self._curves, self.protocol, title=title, score=self._score)
        return tables, picture


def _points(pair: Curves) -> Iterator[dict[str, str]]:
    columns = pair.deletion.fraction, pair.deletion.score[0], pair.insertion.score[0]
    for values in zip(*columns, strict=True):
        yield dict(zip(CURVES[3:], (f"{float(value):.6f}" for value in values), strict=True))
