"""How a study's measures rank its methods, and whether they agree, as tables.

Baselines are no methods: they are left out of rankings. Measures that run the network rank by the
gain over random maps of a method's own grain, where the study measured any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from lightning_cam.metrics import mean_interval
from lightning_cam.study.rankings import (
    NOTHING,
    Estimate,
    Numbers,
    agreement,
    consistency,
    first_group,
    krippendorff,
    mean_ranks,
    pareto,
    spearman,
)
from lightning_cam.study.results import Group, Results
from lightning_cam.study.tables import Table, title_of

FEWEST = 5  # methods, that the agreement of two rankings means anything


def ranked_methods(results: Results) -> list[str]:
    """Keys of the cells that are ranked."""
    return [key for key in results.design.methods if key not in results.design.baselines]


def ranked_by(results: Results, group: Group, measures: Sequence[str]) -> list[Numbers]:
    """Values of all methods on the clips where each has a value of each of these measures.

    Returns:
        For each measure `(M, C)`, turned so that more is better.
    """
    found = [
        [_turned(results, group, key, name) for key in ranked_methods(results)] for name in measures
    ]
    all_of = [set(values) for methods in found for values in methods]
    clips = sorted(set.intersection(*all_of)) if all_of else []
    return [np.array([[v[c] for c in clips] for v in methods], float) for methods in found]


def _turned(results: Results, group: Group, key: str, name: str) -> dict[str, float]:
    design = results.design
    if design.random_seeds and "model" in design.measures[name].needs:
        return results.gains(group, key, name)
    values = results.values(group, key, name)
    return {clip: design.signs[name] * value for clip, value in values.items()}


def agree(results: Results, group: Group, pair: tuple[str, str]) -> Estimate:
    """Kendall's tau-b between two measures' rankings; NaN of fewer than five methods."""
    if len(ranked_methods(results)) < FEWEST:
        return NOTHING
    a, b = ranked_by(results, group, pair)
    return agreement(a, b) if a.shape[1] else NOTHING


def agreement_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Rows of agreement.csv: each two measures of a network and input; none of too few methods."""
    methods = ranked_methods(results)
    if len(methods) < FEWEST:
        return
    for group in results.groups:
        for pair in combinations(results.design.directed, 2):
            a, b = ranked_by(results, group, pair)
            if not a.shape[1]:
                continue
            tau, within = agree(results, group, pair), mean_interval(spearman(a, b))
            over = mean_interval(spearman(a.T, b.T)) if a.shape[1] > 2 else mean_interval([])
            yield {
                **_place(group), "measure": pair[0], "other": pair[1],
                "tau": tau.value, "tau_low": tau.low, "tau_high": tau.high,
                "within_clips": within.mean, "within_low": within.low, "within_high": within.high,
                "over_clips": over.mean, "methods": len(methods), "clips": a.shape[1],
            }  # fmt: skip


def ranking_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Rows of rankings.csv: each method by each measure, for a network and input."""
    methods = ranked_methods(results)
    for group in results.groups:
        front = dict(zip(methods, front_of(results, group), strict=True))
        for name in results.design.directed:
            (values,) = ranked_by(results, group, [name])
            if not values.size:
                continue
            best = first_group(values)
            for n, (key, rank) in enumerate(zip(methods, mean_ranks(values), strict=True)):
                gain = mean_interval(results.gains(group, key, name).values())
                yield {
                    **_place(group), "method": key, "measure": name,
                    "rank": rank.value, "rank_low": rank.low, "rank_high": rank.high,
                    "first_group": int(best[n]), "front": int(front[key]),
                    "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high,
                    "consistency": consistency(values), "alpha": krippendorff(values),
                    "clips": values.shape[1],
                }  # fmt: skip


def _place(group: Group) -> dict[str, Any]:
    return {"network": group.network, "trained": group.trained, "input": group.input}


def front_of(results: Results, group: Group) -> list[bool]:
    """Which methods no other beats in faithfulness, localisation and seconds together.

    Faithfulness is the mean rank by measures that run the network, localisation that by measures
    that look at ground truth; what was not measured does not count.
    """
    design, methods = results.design, ranked_methods(results)
    sides: list[Any] = []
    for need in ("model", "truth"):
        names = [name for name in design.directed if need in design.measures[name].needs]
        tables = [ranked_by(results, group, [name])[0] for name in names]
        places = [[-r.value for r in mean_ranks(values)] for values in tables if values.size]
        if places:
            sides.append(np.mean(places, 0))
    seconds = [mean_interval(r["seconds"] for r in results.worked(group, key)) for key in methods]
    if not sides or any(math.isnan(s.mean) for s in seconds):
        return [False] * len(methods)
    # whatever differs by less is the machine
    sides.append([-float(f"{s.mean:.2g}") for s in seconds])
    return [bool(on) for on in pareto(np.array(sides).T)]


def agreement_tables(results: Results) -> list[Table]:
    """Rankings of methods and, for each network and input, whether measures rank them alike."""
    methods, names = ranked_methods(results), results.design.directed
    if len(methods) < FEWEST:
        why = (
            f"{len(methods)} methods beside baselines are ranked; whether measures agree can be "
            f"said of {FEWEST} and more."
        )
        return [Table("Do measures agree?", (), (), notes=(why,))] if len(names) > 1 else []
    tables = []
    for group in results.groups:
        tables.append(_rankings(results, group))
        if len(names) > 1:
            tables.append(_matrix(results, group))
    return tables


def _rankings(results: Results, group: Group) -> Table:
    """Mean ranks; those who cannot be told from the best in bold."""
    design, methods = results.design, ranked_methods(results)
    columns, heads, best = [], ["Method"], set()
    for c, name in enumerate(design.directed, 1):
        (values,) = ranked_by(results, group, [name])
        heads.append(f"{design.titles[name]}{_reliability(values)}")
        if not values.size:
            columns.append(["-"] * len(methods))
            continue
        columns.append([_text(rank, 1) for rank in mean_ranks(values)])
        best |= {(r, c) for r, first in enumerate(first_group(values)) if first}
    front = ["yes" if on else "" for on in front_of(results, group)]
    rows = [
        (design.cells[key].title, *(column[r] for column in (*columns, front)))
        for r, key in enumerate(methods)
    ]
    notes = (
        "Mean rank over clips, 1 is the best, and its 95% interval. Bold: not told apart from the "
        "best by paired bootstrap over clips (5% for all together). Front: no other method is as "
        "good in faithfulness, localisation and seconds, and better in one.",
        "Below each measure: how alike clips rank methods by it, as mean Spearman correlation and "
        "Krippendorff's alpha. Near 0 the ranking depends on the clip.",
    )
    title = f"Rankings: {title_of(group)}"
    return Table(title, (*heads, "Front"), tuple(rows), frozenset(best), notes)


def _reliability(values: Numbers) -> str:
    if not values.size or math.isnan(alike := consistency(values)):
        return ""
    return f"<br>clips alike {alike:.2f}, alpha {krippendorff(values):.2f}"


def _matrix(results: Results, group: Group) -> Table:
    """Kendall's tau-b of each two measures; in brackets where the interval contains 0."""
    design, names = results.design, results.design.directed
    texts = {}
    for pair in combinations(names, 2):
        tau = agree(results, group, pair)
        text = _text(tau, 2)
        texts[pair] = texts[pair[::-1]] = text if tau.low > 0 or tau.high < 0 else f"({text})"
    texts |= {(name, name): "" for name in names}
    rows = [(design.titles[a], *(texts[a, b] for b in names)) for a in names]
    note = (
        "Kendall's tau-b between the rankings of methods by two measures and its 95% interval "
        "(bootstrap over clips); in brackets where it contains 0. 1: alike, -1: opposite. Methods "
        "that noise keeps apart no better than by chance make rankings look less alike."
    )
    head = ("", *(design.titles[name] for name in names))
    return Table(f"Do measures agree? {title_of(group)}", head, tuple(rows), notes=(note,))


def _text(e: Estimate, decimals: int) -> str:
    if math.isnan(e.value):
        return "-"
    value, low, high = (format(x, f".{decimals}f") for x in e)
    return value if math.isnan(e.low) else f"{value} [{low}, {high}]"
