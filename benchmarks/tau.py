"""How often intervals of Kendall's tau between two measures hold the true one, in simulations.

    python benchmarks/tau.py                  # 500 studies of each kind; writes tau.csv

A made-up study has methods whose true means are known by two measures, clips that differ more than
methods do, and noise of standard deviation 1. Kinds differ in how far neighbouring methods lie
apart (`gap`, in standard deviations of the noise) and in their true order by the second measure:
`alike`; by `chance`, another one in each study; `normal`, both drawn with a correlation of .7; and
`cluster`, one half far apart and alike, the other a gap apart and in reverse. Compared are plain
percentiles of the bootstrap, the same corrected for its median bias, and what studies print.
`sure` is the share of studies whose interval leaves out 0.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from lightning_cam.study.rankings import Numbers, agreement, draws, kendall, percentiles

KINDS = ("alike", "chance", "normal", "cluster")
GAPS = (1.0, 0.3, 0.1, 0.02)
SIZES = ((8, 40),)  # methods, clips
HEADINGS = ("methods", "clips", "gap", "kind", "interval", "held", "width", "sure")
Interval = Callable[[Numbers, Numbers], tuple[float, float]]


def truth(kind: str, gap: float, methods: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """The true means of the methods by two measures, `(M,)` each."""
    first = gap * np.arange(float(methods))
    if kind == "alike":
        return first, first
    if kind == "chance":
        return first, rng.permutation(first)
    if kind == "normal":
        a, b = rng.normal(size=(2, methods)) * gap * methods / 3.5  # as far apart on average
        return a, 0.7 * a + np.sqrt(1 - 0.7**2) * b
    half = methods // 2
    first = np.r_[first[:half], 3 + np.arange(float(methods - half))]
    return first, np.r_[first[half - 1 :: -1], first[half:]]


def plain(a: Numbers, b: Numbers) -> tuple[float, float]:
    shares = draws(a.shape[1])
    low, high = percentiles(kendall(shares @ a.T, shares @ b.T), a.shape[1])
    return float(low), float(high)


def corrected(a: Numbers, b: Numbers) -> tuple[float, float]:
    """For median bias (Efron, 1987)."""
    shares, tau = draws(a.shape[1]), float(kendall(a.mean(1), b.mean(1)))
    drawn = kendall(shares @ a.T, shares @ b.T)
    below = ((drawn < tau).sum() + (drawn == tau).sum() / 2 + 0.5) / (len(drawn) + 1)
    shift = 2 * stats.norm.ppf(below)
    low, high = np.quantile(drawn, stats.norm.cdf([shift - 1.96, shift + 1.96]))
    return min(float(low), tau), max(float(high), tau)


def printed(a: Numbers, b: Numbers) -> tuple[float, float]:
    return agreement(a, b)[1:]


INTERVALS: dict[str, Interval] = {"plain": plain, "corrected": corrected, "printed": printed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    rows: list[list[object]] = []
    for methods, clips in SIZES:
        for kind, gap in [(kind, gap) for kind in KINDS for gap in GAPS]:
            rng = np.random.default_rng(0)
            found: dict[str, list[tuple[bool, float, bool]]] = {name: [] for name in INTERVALS}
            for _ in range(args.studies):
                means = truth(kind, gap, methods, rng)
                a, b = (
                    m[:, None] + rng.normal(0, 2, clips) + rng.normal(0, 1, (methods, clips))
                    for m in means
                )
                tau = float(kendall(*means))
                for name, interval in INTERVALS.items():
                    low, high = interval(a, b)
                    held = low - 1e-9 <= tau <= high + 1e-9
                    found[name].append((held, high - low, low > 0 or high < 0))
            for name, values in found.items():
                figures = (round(float(x), 3) for x in np.mean(np.array(values, float), 0))
                rows.append([methods, clips, gap, kind, name, *figures])
                print(*rows[-1], sep=", ", flush=True)
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([HEADINGS, *rows, [f"# {args.studies} studies of each kind"]])


if __name__ == "__main__":
    main()
