"""How a study's measures rank its methods, and whether they agree, as tables.

Baselines are no methods: they are left out of rankings. Measures that run the network rank by the
gain over random maps of a method's own grain, where the study measured any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from lightning_cam.metrics import mean_interval
from lightning_cam.study.rankings import (
    FEWEST_CLIPS,
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
from lightning_cam.study.results import Group, Results, title_of
from lightning_cam.study.tables import Table

FEWEST = 5  # methods, that the agreement of two rankings means anything


class Ranked(NamedTuple):
    """Methods of one network and input that have values on the same clips.

    Attributes:
        methods: keys of M cells.
        values: for each measure `(M, C)`, turned so that more is better.
    """

    methods: list[str]
    values: list[Numbers]


def ranked_by(results: Results, group: Group, measures: Sequence[str]) -> Ranked:
    """What these measures say of the methods, on the clips where each method has all of them.

    Methods that a network refuses have no values, and others few: those that have them on less
    than half of the clips are not ranked.
    """
    found = {
        key: [_turned(results, group, key, name) for name in measures]
        for key in results.design.methods
        if key not in results.design.baselines
    }
    clips = {key: set.intersection(*map(set, values)) for key, values in found.items()}
    most = max(map(len, clips.values()), default=0)
    methods = [key for key in found if clips[key] and 2 * len(clips[key]) >= most]
    common = sorted(set.intersection(*(clips[key] for key in methods))) if methods else []
    values = [
        np.array([[found[key][n][c] for c in common] for key in methods], float)
        for n in range(len(measures))
    ]
    return Ranked(methods, [v.reshape(len(methods), len(common)) for v in values])


def _turned(results: Results, group: Group, key: str, name: str) -> dict[str, float]:
    design = results.design
    runs = "model" in design.measures[name].needs and name in design.compared
    if design.random_seeds and runs:
        return results.gains(group, key, name)
    values = results.values(group, key, name)
    return {clip: design.signs[name] * value for clip, value in values.items()}


def agree(results: Results, group: Group, pair: tuple[str, str]) -> Estimate:
    """Kendall's tau-b between two measures' rankings; NaN of fewer than five methods."""
    methods, (a, b) = ranked_by(results, group, pair)
    return NOTHING if len(methods) < FEWEST or not a.size else agreement(a, b)


def agreement_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Rows of agreement.csv: each two measures of a network and input; none of too few methods."""
    for group in results.groups:
        for pair in combinations(results.design.directed, 2):
            methods, (a, b) = ranked_by(results, group, pair)
            tau = agree(results, group, pair)
            if math.isnan(tau.value):
                continue
            within = mean_interval(spearman(a, b))
            over = mean_interval(spearman(a.T, b.T) if a.shape[1] > 2 else [])
            yield {
                **_place(group), "measure": pair[0], "other": pair[1],
                "tau": tau.value, "tau_low": tau.low, "tau_high": tau.high,
                "within_clips": within.mean, "within_low": within.low, "within_high": within.high,
                "over_clips": over.mean, "methods": len(methods), "clips": a.shape[1],
            }  # fmt: skip


def ranking_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Rows of rankings.csv: each method by each measure, for a network and input."""
    for group in results.groups:
        front = front_of(results, group)
        for name in results.design.directed:
            methods, (values,) = ranked_by(results, group, [name])
            if not values.size:
                continue
            best = first_group(values)
            for n, (key, rank) in enumerate(zip(methods, mean_ranks(values), strict=True)):
                gain = mean_interval(results.gains(group, key, name).values())
                yield {
                    **_place(group), "method": key, "measure": name,
                    "rank": rank.value, "rank_low": rank.low, "rank_high": rank.high,
                    "first_group": int(best[n]), "front": int(key in front),
                    "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high,
                    "consistency": consistency(values), "alpha": krippendorff(values),
                    "clips": values.shape[1],
                }  # fmt: skip


def _place(group: Group) -> dict[str, Any]:
    return {"network": group.network, "trained": group.trained, "input": group.input}


def front_of(results: Results, group: Group) -> set[str]:
    """Methods that no other beats in faithfulness, localisation and seconds together.

    Faithfulness is the mean rank by measures that run the network on changed clips, localisation
    that by measures that look at ground truth; what was not measured does not count, nor do
    measures that make maps again.
    """
    design, sides = results.design, []
    for need in ("model", "truth"):
        places: dict[str, list[float]] = {}
        for name in design.compared:
            if need in design.measures[name].needs:
                methods, (values,) = ranked_by(results, group, [name])
                found = mean_ranks(values) if values.size else []
                for key, rank in zip(methods, found, strict=bool(found)):
                    places.setdefault(key, []).append(-rank.value)
        if places:
            sides.append({key: sum(found) / len(found) for key, found in places.items()})
    if not sides:
        return set()
    known = [key for key in sides[0] if all(key in side for side in sides)]
    seconds = [mean_interval(r["seconds"] for r in results.worked(group, key)) for key in known]
    # seconds that differ by less are the machine's
    points = [
        [*(side[key] for side in sides), -float(f"{s.mean:.2g}")]
        for key, s in zip(known, seconds, strict=True)
    ]
    on = pareto(np.array(points).reshape(len(known), len(sides) + 1))
    return {key for key, best in zip(known, on, strict=True) if best}


def agreement_tables(results: Results) -> list[Table]:
    """Rankings of methods and, for each network and input, whether measures rank them alike."""
    design = results.design
    count = len(set(design.methods) - design.baselines)
    if count < FEWEST:
        why = (
            f"Methods are ranked, and measures compared, where there are {FEWEST} beside baselines "
            f"or more; here are {count}."
        )
        return [Table("Do measures agree?", (), (), notes=(why,))] * (len(design.directed) > 1)
    tables = []
    for group in results.groups:
        tables.append(_rankings(results, group))
        if len(design.directed) > 1:
            tables.append(_matrix(results, group))
    return tables


def _rankings(results: Results, group: Group) -> Table:
    """Mean ranks; those who cannot be told from the best in bold."""
    design = results.design
    keys = [key for key in design.methods if key not in design.baselines]
    heads, columns, best = ["Method"], [], set()
    for c, name in enumerate(design.directed, 1):
        methods, (values,) = ranked_by(results, group, [name])
        heads.append(f"{design.titles[name]}{_reliability(values)}")
        texts = dict.fromkeys(keys, "-")
        if values.size:
            texts |= zip(methods, (_text(rank, 1) for rank in mean_ranks(values)), strict=True)
            first = np.flatnonzero(first_group(values))
            best |= {(keys.index(methods[n]), c) for n in first}
        columns.append(texts)
    front = front_of(results, group)
    rows = [
        (design.cells[key].title, *(texts[key] for texts in columns), "yes" * (key in front))
        for key in keys
    ]
    notes: tuple[str, ...] = (
        "Mean rank over clips, 1 is the best, and its 95% interval. Bold: not told apart from the "
        "best by paired bootstrap over clips (5% for all together). Front: no other method is as "
        "good in faithfulness, localisation and seconds, and better in one. -: the method has "
        "values on less than half of the clips.",
        "Below each measure: how alike clips rank methods by it, as mean Spearman correlation and "
        "Krippendorff's alpha. Near 0 the ranking depends on the clip.",
    )
    notes = tuple(filter(None, (*notes, ranked_clips(results, group))))
    title = f"Rankings: {title_of(group)}"
    return Table(title, (*heads, "Front"), tuple(rows), frozenset(best), notes)


def ranked_clips(results: Results, group: Group) -> str:
    """On how many clips methods are ranked, where these are few or not all; "" where they are."""
    whole, titles = len(results.clips[group]), results.design.titles
    counts = {
        titles[name]: ranked_by(results, group, [name]).values[0].shape[1]
        for name in results.design.directed
    }
    said = []
    if few := [f"{title} {count}" for title, count in counts.items() if count < whole]:
        said.append(
            "Methods are ranked on the clips where each of them has a value (without those that "
            f"have few): {', '.join(few)} of {whole}."
        )
    if min(counts.values(), default=FEWEST_CLIPS) < FEWEST_CLIPS:
        said.append(
            f"On fewer than {FEWEST_CLIPS} clips no rank has an interval, and no method is told "
            "apart from another."
        )
    return " ".join(said)


def clips_alike(results: Results, group: Group, name: str) -> str:
    """How alike clips rank methods by a measure, in words; "" where nothing is ranked."""
    if name not in results.design.directed:
        return ""
    _, (values,) = ranked_by(results, group, [name])
    if len(values) < 2 or math.isnan(alike := consistency(values)):
        return ""
    return f"clips alike {alike:.2f}"


def _reliability(values: Numbers) -> str:
    if not values.size or math.isnan(alike := consistency(values)):
        return ""
    return f"\nclips alike {alike:.2f}, alpha {krippendorff(values):.2f}"


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
        "(bootstrap over clips, and wider by the share of pairs of methods whose order that is not "
        "sure of); in brackets where it contains 0. 1: alike, -1: opposite."
    )
    head = ("", *(design.titles[name] for name in names))
    return Table(f"Do measures agree? {title_of(group)}", head, tuple(rows), notes=(note,))


def _text(e: Estimate, decimals: int) -> str:
    if math.isnan(e.value):
        return "-"
    value, low, high = (format(x, f".{decimals}f") for x in e)
    return value if math.isnan(e.low) else f"{value} [{low}, {high}]"
