"""How much better than random maps of their own grain methods are, as tables."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_cam.metrics import format_number, mean_interval
from lightning_cam.study.results import Group, Results, title_of
from lightning_cam.study.tables import Table, interval_text


def gain_tables(results: Results) -> list[Table]:
    """One table a network and input: how much better methods are than random maps like theirs."""
    design, tables = results.design, []
    methods, baselines = design.parted
    for group in results.groups if design.random_seeds else ():
        rows = [
            (design.cells[key].title, *_gain_texts(results, group, key))
            for key in (*methods, *baselines)
        ]
        notes = [
            "Mean and 95% interval over clips, paired clip by clip, more than 0 is better than "
            f"random maps of the method's own grain ({design.random_seeds} for each clip).",
            *(telling_text(results, group, name) for name in design.compared),
        ]
        head = ("Method", *(design.titles[name] for name in design.compared))
        title = f"Gain over random maps: {title_of(group)}"
        below = frozenset(range(len(methods), len(rows)))
        tables.append(Table(title, head, tuple(rows), notes=tuple(notes), baselines=below))
    return tables


def _gain_texts(results: Results, group: Group, key: str) -> Iterator[str]:
    for name in results.design.compared:
        yield interval_text(mean_interval(results.gains(group, key, name).values()))


def telling_text(results: Results, group: Group, name: str) -> str:
    """Whether the truth itself is better than random maps by a measure, a sentence."""
    title, found = results.design.titles[name], results.telling(group, name)
    if found is None:
        return f"{title}: without ground truth nobody knows what it can tell."
    span = f"{format_number(found.span, 4, sign='+')} ± {format_number(found.error, 4)} (s.e.)"
    if found.tells:
        return f"{title}: the ground truth itself gains {span} over random maps."
    return (
        f"{title} cannot tell maps apart on these clips: the ground truth itself gains {span} over "
        "random maps, less than two standard errors."
    )
