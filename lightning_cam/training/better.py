"""Which of two values of a metric is better, by what its name holds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

_BETTER: tuple[tuple[str, Literal["min", "max"]], ...] = (
    (r"loss$|/loss_epoch$|error$|_rel$|rmse|/ate$", "min"),
    (r"acc$|/acc/|/top5$|/map$|/ap/", "max"),
)


def better(metric: str) -> Literal["min", "max"] | None:
    """ "max" where more is better, "min" where less is; None where the name does not tell."""
    return next((mode for part, mode in _BETTER if re.search(part, metric)), None)


def keep_best(best: dict[str, float], metrics: Mapping[str, Any]) -> None:
    """Take over what is better of the metrics of validation; what is not finite never is."""
    for name, value in metrics.items():
        mode = better(name) if name.startswith("val/") else None
        if mode is None or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        known = best.get(name, value)
        best[name] = max(known, value) if mode == "max" else min(known, value)
