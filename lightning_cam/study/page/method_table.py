"""The page's table of methods and measures, which its headings sort."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isfinite, isnan

from lightning_cam.metrics import Statistics, format_number
from lightning_cam.study.agreement import clips_alike, ranked_clips
from lightning_cam.study.gain_tables import telling_texts
from lightning_cam.study.page.method_numbers import MethodNumbers
from lightning_cam.study.results import Group, Results
from lightning_cam.study.tables import interval_text

_SHOWN = {
    "value": "mean and 95% interval",
    "gain": "gain over random maps of its own grain",
    "rank": "mean rank, 1 is the best",
}


def method_table(
    results: Results, group: Group, methods: Sequence[MethodNumbers], name: str
) -> str:
    """The table of one network and input, and what is to be said of it.

    Args:
        results: of the study.
        group: network and input.
        methods: what is known of them.
        name: of the choice of what is shown: another one for each group.
    """
    design = results.design
    arrow = {1: "higher is better ↑", -1: "lower is better ↓", 0: ""}
    heads = [_head("Method", ""), _head("Front", "")]
    for measure, title in design.titles.items():
        said = (arrow[design.signs[measure]], clips_alike(results, group, measure))
        heads.append(_head(title, ", ".join(filter(None, said))))
    heads += [_head("Seconds", "a clip"), _head("Forwards", "a clip")]
    rows = "\n".join(_row(results, m) for m in methods)
    gains = any(isfinite(s.mean) for m in methods for s in m.gains.values())
    choices = "".join(
        f'<label><input type="radio" name="{name}" value="{kind}"{" checked" * (kind == "value")}>'
        f" {words}</label>"
        for kind, words in _SHOWN.items()
        if kind != "gain" or gains
    )
    notes = [
        "Bold: not told apart from the best by paired bootstrap over clips (5% for all together). "
        "★ Front: no other method is as good in faithfulness, localisation and seconds, and better "
        "in one. Baselines in italics know nothing of the network and are never the best. Clips "
        "alike: mean Spearman correlation of two clips' rankings; near 0 they depend on the clip.",
        ranked_clips(results, group),
        *(telling_texts(results, group) if design.random_seeds else ()),
    ]
    return (
        f'<fieldset class="choices"><legend>Shown</legend>{choices}</fieldset>\n'
        '<div class="wide"><table class="numbers sortable" data-shown="value">'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>{rows}</tbody></table></div>\n"
        + "".join(f'<p class="note">{escape(note)}</p>' for note in notes if note)
    )


def _head(title: str, below: str) -> str:
    small = f"<small>{below}</small>" if below else ""
    return f'<th scope="col"><button type="button">{escape(title)}{small}</button></th>'


def _row(results: Results, m: MethodNumbers) -> str:
    cells = [
        f'<th scope="row">{escape(m.title)}</th>',
        f'<td data-number="{int(m.front)}">{"★" * m.front}</td>',
        *(_cell(m, name) for name in results.design.measures),
        *(_plain(value) for value in (m.seconds, m.forwards)),
    ]
    kind = ' class="baseline"' if m.baseline else ""
    return f'<tr{kind} data-method="{escape(m.key)}">{"".join(cells)}</tr>'


def _cell(m: MethodNumbers, name: str) -> str:
    """A measure's mean, gain and rank, of which one is shown."""
    s = m.values[name]
    found = [("value", s.mean, *_mean_and_interval(s))]
    if name in m.gains:
        mean, _, rest = interval_text(m.gains[name]).partition(" ")
        found.append(("gain", m.gains[name].mean, mean, rest))
    if name in m.ranks:
        value, low, high = m.ranks[name]
        found.append(("rank", value, f"{value:.1f}", f"[{low:.1f}, {high:.1f}]"))
    bold = name in m.first and not m.baseline
    spans = "".join(
        f'<span data-kind="{kind}"{_number(value)}>{"<b>" * bold}{text}{"</b>" * bold}'
        f"<small>{small}</small></span>"
        for kind, value, text, small in found
    )
    return f'<td title="{s.clips} clips">{spans}</td>'


def _mean_and_interval(s: Statistics) -> tuple[str, str]:
    """As two texts; the interval decides how many digits both have."""
    if isnan(s.mean):
        return "-", ""
    size = s.mean if isnan(s.low) else max(abs(s.low), abs(s.high))
    decimals = 3 if abs(size) < 10 else 1
    mean, low, high = (format_number(x, decimals, size) for x in (s.mean, s.low, s.high))
    return mean, "" if isnan(s.low) else f"[{low}, {high}]"


def _plain(value: float) -> str:
    return f"<td{_number(value)}>{'-' if isnan(value) else f'{value:,.3g}'}</td>"


def _number(value: float) -> str:
    return f' data-number="{value:.9g}"' if isfinite(value) else ""
