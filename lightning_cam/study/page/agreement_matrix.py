"""Whether measures rank methods alike, as a coloured matrix of the page."""

from __future__ import annotations

from html import escape
from itertools import combinations
from math import isnan

from lightning_cam.study.agreement import FEWEST, agree
from lightning_cam.study.rankings import Estimate
from lightning_cam.study.results import Group, Results

_NOTE = (
    "Kendall's tau between the rankings of methods by two measures, and its 95% interval over "
    "clips, which is wide where methods hardly differ. 1: alike, -1: opposite. Unsure: the "
    "interval contains 0."
)


def agreement_matrix(results: Results, group: Group) -> str:
    """The matrix of one network and input; of fewer than five methods why there is none."""
    design, names = results.design, results.design.directed
    if len(names) < 2:
        return '<p class="note">One measure alone agrees with nothing.</p>'
    found = {pair: agree(results, group, pair) for pair in combinations(names, 2)}
    if all(isnan(tau.value) for tau in found.values()):
        return (
            f'<p class="note">Measures are compared where there are {FEWEST} methods beside '
            "baselines or more.</p>"
        )
    heads = "".join(f'<th scope="col">{escape(design.titles[n])}</th>' for n in names)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(design.titles[a])}</th>'
        + "".join(_cell(found.get((a, b)) or found.get((b, a))) for b in names)
        + "</tr>"
        for a in names
    )
    return (
        f'<div class="wide"><table class="matrix"><thead><tr><td></td>{heads}</tr></thead>\n'
        f'<tbody>{rows}</tbody></table></div>\n<p class="note">{_NOTE}</p>'
    )


def verdict_of(tau: Estimate) -> str:
    """Whether two measures "agree" or "oppose", or that this is "unsure"."""
    if tau.low > 0:
        return "agree"
    return "oppose" if tau.high < 0 else "unsure"


def _cell(tau: Estimate | None) -> str:
    if tau is None:
        return '<td class="same"></td>'
    if isnan(tau.value):
        return "<td>-</td>"
    said = verdict_of(tau)
    strength = 0 if said == "unsure" else round(100 * abs(tau.value))
    between = "" if isnan(tau.low) else f"[{tau.low:.2f}, {tau.high:.2f}]"
    return (
        f'<td class="{said}" style="--strength:{strength}%"><b>{tau.value:.2f}</b>'
        f"<small>{between}</small><em>{said}</em></td>"
    )
