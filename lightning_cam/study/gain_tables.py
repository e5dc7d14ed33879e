"""How much better than random maps of their own grain methods are, as tables."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_cam.metrics import format_number, mean_interval
from lightning_cam.study.results import Group, Results, title_of
from lightning_cam.study.tables import Table, interval_text

_UNKNOWN = "Without ground truth nobody knows what these can tell"
_BLIND = (
    "These cannot tell maps apart on these clips, for the ground truth itself gains less than two "
    "standard errors over random maps (gain ± s.e.)"
)
_TELLS = "What the ground truth itself gains over random maps (± s.e.)"


def gain_tables(results: Results) -> list[Table]:
    """One table a network and input: how much better methods are than random maps like theirs."""
    design, tables = results.design, []
    methods, baselines = design.parted
    for group in results.groups if design.random_seeds else ():
        rows = [
            (design.cells[key].title, *_gain_texts(results, group, key))
            for key in (*methods, *baselines)
        ]
        truths = [results.truth_gains(group, name) for name in design.compared]
        if any(truths):
            gained = (interval_text(mean_interval(truth.values())) for truth in truths)
            rows.append(("Ground truth", *gained))
        notes = [
            "Mean and 95% interval over clips, paired clip by clip, more than 0 is better than "
            f"random maps of the method's own grain ({design.random_seeds} for each clip).",
            *telling_texts(results, group),
        ]
        head = ("Method", *(design.titles[name] for name in design.compared))
        title = f"Gain over random maps: {title_of(group)}"
        below = frozenset(range(len(methods), len(rows)))
        tables.append(Table(title, head, tuple(rows), notes=tuple(notes), baselines=below))
    return tables


def _gain_texts(results: Results, group: Group, key: str) -> Iterator[str]:
    for name in results.design.compared:
        yield interval_text(mean_interval(results.gains(group, key, name).values()))


def telling_texts(results: Results, group: Group) -> Iterator[str]:
    """By which measures the truth itself is better than random maps, and by which it is not."""
    said: dict[str, list[str]] = {_UNKNOWN: [], _BLIND: [], _TELLS: []}
    for name in results.design.compared:
        found, title = results.telling(group, name), results.design.titles[name]
        if found is None:
            said[_UNKNOWN].append(title)
            continue
        span = f"{format_number(found.span, 3, sign='+')} ± {format_number(found.error, 3)}"
        said[_TELLS if found.tells else _BLIND].append(f"{title} {span}")
    for words, measures in said.items():
        if measures:
            yield f"{words}: {', '.join(measures)}."
