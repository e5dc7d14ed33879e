"""How alike maps stay while the network's weights are drawn anew, as small diagrams of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import isnan

from lightning_cam.metrics import Statistics, WeightRandomisation, mean_interval
from lightning_cam.metrics.explained import number_column
from lightning_cam.metrics.sanity import verdict
from lightning_cam.study.page.method_numbers import MethodNumbers
from lightning_cam.study.results import Group, Results

_WIDE, _HIGH = 200, 110
_SAID = {True: "✓ depends on the weights", False: "✗ does not depend on them", None: "? undecided"}
_NOTE = (
    "Rank correlation with the map before, after the head, the last block, and so on have random "
    "weights; shaded: 95% interval over clips. Dashed: maps of two different clips. A line that "
    "stays above the dashed one does not come from what the network has learnt."
)


def sanity_curves(results: Results, group: Group, methods: Sequence[MethodNumbers]) -> str:
    """A diagram for each method that looks at the network; "" of studies without such a measure."""
    found = [
        panel
        for name, measure in results.design.measures.items()
        if isinstance(measure, WeightRandomisation)
        for m in methods
        if not m.baseline
        for panel in _panel(results, group, m, name)
    ]
    if not found:
        return ""
    return f'<div class="panels">{"".join(found)}</div>\n<p class="note">{_NOTE}</p>'


def _panel(results: Results, group: Group, m: MethodNumbers, name: str) -> Iterator[str]:
    rows = results.worked(group, m.key)

    def numbers(number: str) -> list[float]:
        column = number_column(name, number)
        values = (row["beside"].get(column) for row in rows)
        return [float("nan") if value is None else value for value in values]

    stages: list[Statistics] = []
    while True:
        s = mean_interval(numbers(f"stage_{len(stages) + 1}"))
        if isnan(s.mean):
            break
        stages.append(s)
    if not stages:
        return
    between = numbers("between")
    said = verdict(numbers("excess_early"), numbers("excess_last"), between)
    yield (
        f'<figure class="panel"><figcaption>{escape(m.title)}</figcaption>'
        f"{_drawing(stages, mean_interval(between).mean, m.title)}"
        f'<p class="note" title="{escape(said.why)}">{_SAID[said.passes]}</p></figure>'
    )


def _drawing(stages: Sequence[Statistics], between: float, title: str) -> str:
    """The line from the trained network (1) to the last stage, its interval, and two clips'."""

    def x(k: int) -> float:
        return 28 + (_WIDE - 36) * k / len(stages)

    def y(value: float) -> float:
        return 6 + (_HIGH - 24) * (1 - max(-1.0, min(1.0, value))) / 2

    known = [s if not isnan(s.low) else None for s in stages]
    line = " ".join(f"{x(k):.1f},{y(s.mean):.1f}" for k, s in enumerate(stages, 1))
    edge = [(x(k), y(s.high)) for k, s in enumerate(known, 1) if s]
    edge += [(x(k), y(s.low)) for k, s in reversed([*enumerate(known, 1)]) if s]
    band = " ".join(f"{a:.1f},{b:.1f}" for a, b in [(x(0), y(1)), *edge])
    level = "" if isnan(between) else _level(y(between), "between")
    marks = "".join(
        f'<text x="24" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>'
        for value in (1, 0, -1)
    )
    names = {0: "trained", 1: "head", len(stages): "all"}
    below = "".join(
        f'<text x="{x(k):.1f}" y="{_HIGH - 3}" text-anchor="{anchor}">{names[k]}</text>'
        for k, anchor in {0: "start", len(stages): "end"}.items()
    )
    last = stages[-1].mean
    return (
        f'<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{escape(title)}: similarity '
        f'{last:.2f} after all stages">{_level(y(0), "zero")}<polygon points="{band}"/>{level}'
        f'<polyline points="{x(0):.1f},{y(1):.1f} {line}"/>{marks}{below}</svg>'
    )


def _level(y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="28" x2="{_WIDE - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
