"""The mean of clips' numbers and how sure it is: its 95% interval, Student's t.

mean ± t(n - 1) std / sqrt(n), with the standard deviation of a sample (n - 1): where the mean of
all clips of this kind may lie. The standard deviation itself says how much clips differ; papers
print it behind ±.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """A score of n clips.

    Attributes:
        mean: NaN of no clips.
        std: standard deviation between clips (of a sample, n - 1); NaN of fewer than two.
        low, high: 95% confidence interval of the mean; NaN of fewer than two clips.
        clips: n, those that have a score.
        unscored: how many have none.
    """

    mean: float
    std: float
    low: float
    high: float
    clips: int
    unscored: int


def mean_interval(values: Iterable[float | None]) -> Statistics:
    """What clips' numbers say together; NaN and None are clips without a score."""
    given = [math.nan if value is None else float(value) for value in values]
    numbers = np.array([value for value in given if not math.isnan(value)])
    mean, std, low, high = (float(value) for value in mean_std_interval(numbers))
    n = len(numbers)
    return Statistics(mean, std, low, high, clips=n, unscored=len(given) - n)


def mean_std_interval(samples: Array) -> tuple[Array, Array, Array, Array]:
    """Mean, standard deviation and both ends of the mean's 95% interval, over the first axis.

    Args:
        samples: (n, ...).

    Returns:
        Four arrays (...): the mean is NaN of no samples, all others of fewer than two.
    """
    n = len(samples)
    unknown = np.full(samples.shape[1:], np.nan)
    mean = samples.mean(0) if n else unknown
    std = samples.std(0, ddof=1) if n > 1 else unknown
    return mean, std, *interval(mean, std, n)


def interval(mean: Any, std: Any, n: int) -> tuple[Any, Any]:
    """Both ends of the 95% interval of a mean of n samples; NaN of fewer than two.

    Args:
        mean, std: floats, or arrays or tensors of one shape.
        n: how many samples they are of.
    """
    half = student(n - 1) * std / math.sqrt(n) if n > 1 else std * math.nan
    return mean - half, mean + half


@lru_cache
def student(dof: int) -> float:
    """How many standard errors the 95% interval of a mean reaches to either side.

    Student's t for whole degrees of freedom, from the finite sums of its distribution (Abramowitz
    and Stegun, 26.7.3 and 26.7.4); beyond 200, where these grow long, its expansion about the
    normal distribution (26.7.5), which is then exact to 1e-9.
    """
    if dof > 200:
        z = NormalDist().inv_cdf(0.975)
        first = (z**3 + z) / 4
        second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / dof + second / dof**2 + third / dof**3
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, dof) < 0.95 else (low, middle)
    return math.sqrt(dof) * math.tan(low)


def _within(angle: float, dof: int) -> float:
    """Probability that |t| is at most sqrt(dof) tan(angle)."""
    cos, sin = math.cos(angle), math.sin(angle)
    odd = dof % 2
    term, series = (cos, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, dof, 2):
        series += term
        term *= cos * cos * k / (k + 1)
    return 2 / math.pi * (angle + sin * series) if odd else sin * series
