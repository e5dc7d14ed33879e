"""What the page says of each method of a network and input, as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from lightning_cam.metrics import Statistics, mean_interval
from lightning_cam.study.agreement import front_of, ranked_by
from lightning_cam.study.rankings import Estimate, first_group, mean_ranks
from lightning_cam.study.results import Group, Results, of_measure


@dataclass(frozen=True)
class MethodNumbers:
    """One method of one network and input.

    Attributes:
        key: of its cell.
        title: in tables.
        baseline: whether its maps know nothing of the network.
        front: whether no other is as good in faithfulness, localisation and seconds.
        values: measure -> mean over clips and its interval.
        gains: measure -> gain over random maps of its own grain.
        ranks: measure -> mean rank over clips; without methods that are not ranked.
        first: measures by which it is not told apart from the best.
        seconds: a clip.
        forwards: of the network a clip.
    """

    key: str
    title: str
    baseline: bool
    front: bool
    values: Mapping[str, Statistics]
    gains: Mapping[str, Statistics]
    ranks: Mapping[str, Estimate]
    first: frozenset[str]
    seconds: float
    forwards: float


def method_numbers(results: Results, group: Group) -> list[MethodNumbers]:
    """All methods of the main table, the baselines last."""
    design = results.design
    front = front_of(results, group)
    ranks: dict[str, dict[str, Estimate]] = {}
    first: dict[str, set[str]] = {}
    for name in design.directed:
        methods, (values,) = ranked_by(results, group, [name])
        if not values.size:
            continue
        for key, rank in zip(methods, mean_ranks(values), strict=True):
            ranks.setdefault(key, {})[name] = rank
        for n in np.flatnonzero(first_group(values)):
            first.setdefault(methods[n], set()).add(name)
    found = []
    for key in (*design.parted[0], *design.parted[1]):
        rows = results.worked(group, key)
        forwards = mean_interval(row["forwards"] for row in rows if "forwards" in row)
        found.append(
            MethodNumbers(
                key=key,
                title=design.cells[key].title,
                baseline=key in design.baselines,
                front=key in front,
                values={name: of_measure(rows, name) for name in design.measures},
                gains={
                    name: mean_interval(results.gains(group, key, name).values())
                    for name in design.compared
                },
                ranks=ranks.get(key, {}),
                first=frozenset(first.get(key, ())),
                seconds=mean_interval(row["seconds"] for row in rows).mean,
                forwards=forwards.mean,
            )
        )
    return found


def chart_data(results: Results, methods: Sequence[MethodNumbers]) -> str:
    """What the page's diagrams show, as JSON that may stand inside a `<script>`."""
    design = results.design
    axes = [
        {"id": name, "label": title, "better": design.signs[name], "need": _need(results, name)}
        for name, title in design.titles.items()
    ]
    if any(isfinite(m.gains[name].mean) for m in methods for name in design.compared):
        axes += [
            {"id": f"gain {name}", "label": f"{design.titles[name]}: gain over random", "better": 1}
            for name in design.compared
        ]
    for name, label in (("seconds", "Seconds a clip"), ("forwards", "Forwards a clip")):
        axes.append({"id": name, "label": label, "better": -1, "log": True})
    points = [
        {
            "key": m.key,
            "title": m.title,
            "baseline": m.baseline,
            "at": {name: _interval(s) for name, s in m.values.items()}
            | {f"gain {name}": _interval(s) for name, s in m.gains.items()}
            | {"seconds": [_plain(m.seconds)], "forwards": [_plain(m.forwards)]},
        }
        for m in methods
    ]
    text = json.dumps({"axes": axes, "methods": points})
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _need(results: Results, name: str) -> str:
    needs = results.design.measures[name].needs
    return next((need for need in ("truth", "model") if need in needs), "")


def _interval(s: Statistics) -> list[Any]:
    return [_plain(value) for value in (s.mean, s.low, s.high)]


def _plain(value: float) -> float | None:
    return round(value, 6) if isfinite(value) else None
