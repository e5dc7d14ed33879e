"""How measures rank methods, how sure a ranking is, and whether two measures rank alike.

All take values of M methods on C clips (by K measures), turned so that more is better. Clips are
drawn anew with replacement (bootstrap), all methods of a clip together: differences between methods
are paired, however much clips differ. Intervals are percentiles, expanded for few clips as in
Hesterberg, "What Teachers Should Know About the Bootstrap" (2015): at C = 40 the plain ones are
a tenth of a standard error too narrow. Of fewer than six clips there are too few different draws:
intervals of mean ranks held the truth in 47% of simulated studies of 2 clips, 75% of 3, 88% of 4
and 5, 94% of 6 (150 studies of 6 methods). There nothing has an interval or is told apart.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Numbers = NDArray[np.float64]
DRAWS, SURE = 2000, 0.95
FEWEST_CLIPS = 6  # that intervals are drawn from


class Estimate(NamedTuple):
    """A number and its 95% interval; NaN where it has none."""

    value: float
    low: float
    high: float


NOTHING = Estimate(math.nan, math.nan, math.nan)


@lru_cache(8)
def draws(clips: int, seed: int = 0) -> Numbers:
    """How often each clip is drawn, as shares: `(DRAWS, C)`, rows of sum 1; not to be written to.

    Kept, because every pair of measures is compared on the same draws.
    """
    if not clips:
        return np.zeros((DRAWS, 0))
    counts = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), DRAWS)
    found = np.asarray(counts / clips, np.float64)
    found.flags.writeable = False
    return found


def percentiles(drawn: Numbers, clips: int) -> tuple[Numbers, Numbers]:
    """The ends of the 95% interval of what was drawn `(DRAWS, ...)`."""
    if clips < FEWEST_CLIPS:
        nothing = np.full(drawn.shape[1:], np.nan)
        return nothing, nothing
    tail = float(stats.norm.cdf(-_wider(clips) * stats.norm.ppf((1 + SURE) / 2)))
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return low, high


def ranks(values: Numbers) -> Numbers:
    """Ranks of methods in each clip, 1 is the best, ties share theirs: `(M, C)` -> `(M, C)`."""
    return np.asarray(stats.rankdata(-values, axis=0), np.float64)


def mean_ranks(values: Numbers) -> list[Estimate]:
    """Each method's mean rank over clips, of values `(M, C)` without gaps."""
    found = ranks(values)
    low, high = percentiles(draws(values.shape[1]) @ found.T, values.shape[1])
    return [Estimate(*map(float, each)) for each in zip(found.mean(1), low, high, strict=True)]


def first_group(values: Numbers) -> NDArray[np.bool_]:
    """Which methods cannot be told apart from the best one by its mean: `(M, C)` -> `(M,)`.

    A method falls out if its paired difference to the best is, in standard errors, larger than the
    largest of all differences between equal methods in 95% of bootstrap draws (bootstrap-t).
    Correcting p-values for the comparisons with the best (Holm) is not enough: which one is the
    best is chosen by the same clips, and of 12 equal methods some fell out in 20% of all studies.
    """
    means, clips = values.mean(1), values.shape[1]
    if clips < FEWEST_CLIPS or len(values) < 2:
        return np.ones(len(values), bool)
    first, second = np.triu_indices(len(values), 1)
    apart = values[first] - values[second]  # (pairs, C)
    centre, shares = apart.mean(1), draws(clips)
    drawn = shares @ apart.T
    squares = np.maximum(shares @ (apart**2).T - drawn**2, 0)
    error = np.sqrt(squares / (clips - 1))
    t = np.divide(np.abs(drawn - centre), error, out=np.zeros_like(error), where=error > 0)
    limit = float(np.quantile(t.max(1), SURE))
    best = int(means.argmax())
    behind = values[best] - values
    return np.asarray(behind.mean(1) <= limit * behind.std(1, ddof=1) / math.sqrt(clips))


def _wider(clips: int) -> float:
    """By how much percentiles of drawn means are expanded, see above."""
    student = stats.t.ppf((1 + SURE) / 2, clips - 1) / stats.norm.ppf((1 + SURE) / 2)
    return float(math.sqrt(clips / (clips - 1)) * student)


def kendall(a: Numbers, b: Numbers) -> Numbers:
    """Kendall's tau-b of the last axis, `(..., M)` each -> `(...)`; NaN where all are equal."""
    first, second = np.triu_indices(a.shape[-1], 1)
    x, y = (np.sign(v[..., first] - v[..., second]) for v in (a, b))
    untied = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(-1) / np.where(untied > 0, untied, np.nan))


def agreement(a: Numbers, b: Numbers) -> Estimate:
    """Kendall's tau-b between the rankings of methods by two measures' means, `(M, C)` each.

    Percentiles alone are too narrow: noise makes rankings less alike than they are, drawn ones less
    alike again, and methods that hardly differ may in truth be in either order. So both ends are
    moved outwards by the share of pairs of methods whose order draws do not agree on: of a pair
    that is ordered one way in a share p of them by one measure and q by the other, it is
    1 - |2p - 1| |2q - 1|. `benchmarks/tau.py` says how often other intervals are right.
    """
    clips = a.shape[1]
    tau = float(kendall(a.mean(1), b.mean(1)))
    shares = draws(clips)
    means = shares @ a.T, shares @ b.T  # (DRAWS, M) each
    drawn = kendall(*means)
    drawn = drawn[~np.isnan(drawn)]
    if clips < FEWEST_CLIPS or math.isnan(tau) or not len(drawn):
        return Estimate(tau, math.nan, math.nan)
    low, high = percentiles(drawn, clips)
    doubt = 1 - float(np.mean(_sureness(means[0]) * _sureness(means[1])))
    return Estimate(
        tau, max(-1.0, min(float(low) - doubt, tau)), min(1.0, max(float(high) + doubt, tau))
    )


def _sureness(means: Numbers) -> Numbers:
    """How far draws `(DRAWS, M)` agree on the order of each pair: 0 to 1; 1 of those that tie."""
    first, second = np.triu_indices(means.shape[1], 1)
    order = np.sign(means[:, first] - means[:, second])
    return np.where((order == 0).all(0), 1.0, np.abs(order.mean(0)))


def spearman(a: Numbers, b: Numbers) -> Numbers:
    """Spearman's correlation along the first axis, `(M, C)` each -> `(C,)`; NaN where all tie."""
    x, y = _standard(a), _standard(b)
    return np.asarray((x * y).sum(0))


def consistency(values: Numbers) -> float:
    """Mean Spearman correlation between the rankings of methods in any two clips, `(M, C)`.

    Near 0 a measure's ranking depends on the clip. NaN where fewer than two clips rank anything.
    """
    x = _standard(values)
    x = x[:, ~np.isnan(x).any(0)]
    clips = x.shape[1]
    if clips < 2:
        return math.nan
    return float(((x.sum(1) ** 2).sum() - clips) / (clips * (clips - 1)))


def krippendorff(values: Numbers) -> float:
    """Krippendorff's alpha (ordinal) of the rankings of methods in all clips, `(M, C)`.

    Clips are the observers, methods the units, ranks the values: 1 if all clips rank alike, 0 if
    they rank at random. NaN of fewer than two clips or where nothing is ranked.
    """
    found = ranks(values)
    methods, clips = found.shape
    levels, codes = np.unique(found, return_inverse=True)
    if clips < 2 or len(levels) < 2:
        return math.nan
    counts = np.zeros((methods, len(levels)))
    np.add.at(counts, (np.arange(methods)[:, None], codes.reshape(found.shape)), 1)
    n = counts.sum(0)
    together = (counts.T @ counts - np.diag(n)) / (clips - 1)
    middle = np.cumsum(n) - n / 2  # of each level among all values
    distance = (middle[:, None] - middle) ** 2
    expected = float((np.outer(n, n) * distance).sum()) / (n.sum() - 1)
    return 1 - float((together * distance).sum()) / expected


def pareto(points: Numbers) -> NDArray[np.bool_]:
    """Which points `(M, D)` no other one beats: as good in all, better in one; more is better."""
    as_good = (points[:, None] >= points[None]).all(-1)  # [a, b]: a is as good as b
    better = (points[:, None] > points[None]).any(-1)
    return np.asarray(~(as_good & better).any(0))


def _standard(values: Numbers) -> Numbers:
    """Ranks of each column with mean 0 and length 1; NaN where all tie."""
    found = stats.rankdata(values, axis=0)
    found = found - found.mean(0)
    size = np.sqrt((found**2).sum(0))
    return np.asarray(found / np.where(size > 0, size, np.nan))
