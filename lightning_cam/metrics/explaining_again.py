"""Making a map again, of a changed clip or network, where the method is not too slow for that."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.explanation import explain
from lightning_cam.attribution.method import Attribution


class TooManyForwardsError(Exception):
    """A method runs the network more often than it may."""


def map_again(
    model: Explainable,
    method: Attribution,
    clip: Tensor,
    target: Tensor | None,
    limit: int | None = None,
) -> Tensor:
    """The heatmap `(B, T, H, W)` of clips.

    Args:
        model, method, clip, target: as for `explain`.
        limit: forwards of each clip that it may take; None: any number.

    Raises:
        TooManyForwardsError: it takes more; it is stopped then.
    """
    rows_left = None if limit is None else limit * len(clip)

    def forward(rows: Tensor, **inputs: Any) -> Any:
        nonlocal rows_left
        if rows_left is not None:
            rows_left -= len(rows)
            if rows_left < 0:
                raise TooManyForwardsError
        return model.forward(rows, **inputs)

    with warnings.catch_warnings():  # outputs of a changed network may be said not to be finite
        warnings.simplefilter("ignore")
        return explain(replace(model, forward=forward), method, clip, target).heatmap


def say_left_out(method: Attribution, limit: int | None, measure: str) -> None:
    """Warn that a method is too slow for a measure, named as its settings are."""
    warnings.warn(
        f"{method.title} runs the network more than {limit} times for a map, so that its maps are "
        f"not made again for this measure; allow it with measure.{measure}.limit=null",
        stacklevel=3,
    )
