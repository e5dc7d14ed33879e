"""What the live callback measures of its clips after an epoch, and what methods found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cam.attribution import Explainable, Explanation
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.measured_files import write_epoch
from lightning_cam.explaining.measuring import (
    compares,
    measure_clip,
    with_baselines,
    without_values,
)
from lightning_cam.metrics import Measure, Measured


class EpochMeasures:
    """Measures, and what went wrong with them in this training.

    Args:
        measures: by name.
        warn: is told what failed, why, and where.
    """

    def __init__(
        self, measures: Mapping[str, Measure], warn: Callable[[str, Exception, str], None]
    ) -> None:
        self.measures, self._warn = measures, warn
        self._failed: set[str] = set()  # that are named already

    def of_clip(
        self,
        model: Explainable,
        explanations: Mapping[str, Explanation],
        batch: Mapping[str, Any],
        title: str,
        other: Tensor | None,
    ) -> dict[str, Measured]:
        """Method -> what was measured of one clip; `other` is the video of another."""
        if not self.measures:
            return {}

        def failed(measure: str, method: str, error: Exception) -> None:
            self._failed.add(measure)
            self._warn(f"{measure} of method {method!r}", error, f", first on {title}")

        clip = batch["video"]
        compared = dict(explanations)
        if compares(self.measures):
            compared = with_baselines(model, explanations, clip, ["random"])
        found = measure_clip(model, compared, clip, batch, self.measures, failed, other)
        target = int(next(iter(explanations.values())).target[0])  # of a contrast, class A
        return {name: each for (name, column), each in found.items() if column == target}

    def numbers(self, explanations: Mapping[str, Explanation]) -> dict[str, float]:
        """The methods' own numbers of one clip, as they are logged."""
        return {
            f"explain/{name}/{what}": float(value[0])
            for name, e in explanations.items()
            for what, value in e.numbers.items()
            if bool(value[0].isfinite()) and self._is_free(name, what)
        }

    def _is_free(self, method: str, number: str) -> bool:
        """Whether no measure has the name of what a method found out; else this is warned about."""
        if number in self.measures:
            error = ConfigError("a measure has this name; rename it")
            self._warn(f"{number!r} of method {method!r}", error, "")
        return number not in self.measures

    def write(
        self, epoch: int, records: Sequence[Mapping[str, Any]], folder: Path
    ) -> tuple[dict[str, float], Path | None]:
        """Write what was measured of all clips.

        Returns:
            The means, "explain/METHOD/MEASURE" -> value, and the image of the curves, if there is.
        """
        clips = [(record["clip"], record["measured"]) for record in records]
        if not any(measured for _, measured in clips):
            return {}, None
        for name, why in without_values(self.measures, clips).items():
            if name not in self._failed:
                self._warn(name, ConfigError(why), "")
        return write_epoch(folder, epoch, clips, self.measures, records[0]["classes"])
