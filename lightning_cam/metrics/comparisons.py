"""What clips' values say: over classes, beside random maps, and whether a measure tells at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lightning_cam.metrics.explained import Direction


def class_mean(values: ArrayLike, labels: Sequence[int | str]) -> float:
    """The mean over classes of the mean over a class's clips, as papers print pointing games.

    Args:
        values: `(N,)`, of clips; NaN: without a value, left out.
        labels: N classes.

    Raises:
        ValueError: there are not as many of both.
    """
    found, classes = np.asarray(values, float), np.asarray(labels)
    _same(values=found, labels=classes)
    known = ~np.isnan(found)
    means = [found[known & (classes == each)].mean() for each in np.unique(classes[known])]
    return float(np.mean(means)) if means else math.nan


def gain_over_random(values: ArrayLike, random: ArrayLike, better: Direction) -> np.ndarray:
    """By how much a map is better than random ones, clip by clip: more is better.

    A measure's value alone says little: holes of random noise destroy a clip as well. The random
    maps are to have the map's own grain.

    Args:
        values: `(N,)`, of clips.
        random: `(N,)`, or `(N, S)` of S seeds, of the same clips.
        better: of the measure.

    Returns:
        `(N,)`, NaN where either is.
    """
    return _gain(np.asarray(values, float), np.asarray(random, float), better)


def span_share(
    values: ArrayLike, random: ArrayLike, truth: ArrayLike, better: Direction
) -> np.ndarray:
    """Where a map lies between random maps (0) and the truth itself (1), clip by clip.

    Args:
        values, random: as for `gain_over_random`.
        truth: `(N,)`, of the ground truth as a map.
        better: of the measure.

    Returns:
        `(N,)`, NaN where one is, or the truth is no better than random maps: then there is no span.
    """
    gain = gain_over_random(values, random, better)
    span = gain_over_random(truth, random, better)
    return gain / np.where(span > 0, span, np.nan)


class Telling(NamedTuple):
    """Whether a measure can tell the truth from random maps.

    Attributes:
        span: mean gain of the truth over random maps, over clips.
        error: its standard error, of paired differences; NaN of fewer than two clips.
        clips: how many have both values.
    """

    span: float
    error: float
    clips: int

    @property
    def tells(self) -> bool:
        """Whether the span is at least twice its standard error; False of fewer than two clips."""
        return self.span > 0 and self.span >= 2 * self.error


def telling(truth: ArrayLike, random: ArrayLike, better: Direction) -> Telling:
    """Whether the ground truth itself does better than random maps by a measure.

    If it does not, differences between methods by this measure mean nothing on these clips.

    Args:
        truth: `(N,)`, the measure's values of the ground truth as a map.
        random: `(N,)` or `(N, S)`, those of random maps of the same clips.
        better: of the measure.
    """
    gains = gain_over_random(truth, random, better)
    gains = gains[~np.isnan(gains)]
    n = len(gains)
    error = float(gains.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Telling(float(gains.mean()) if n else math.nan, error, n)


def _gain(values: np.ndarray, random: np.ndarray, better: Direction) -> np.ndarray:
    random = random.mean(1) if random.ndim == 2 else random
    _same(values=values, random=random)
    return values - random if better == "higher" else random - values


def _same(**arrays: np.ndarray) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        found = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected a number per clip (N,) of each, got {found}")
