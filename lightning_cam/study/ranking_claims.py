"""What the rows of a study say about claims on rankings and on single values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from lightning_cam.metrics import mean_interval, number_column
from lightning_cam.study.agreement import agree, ranked_by
from lightning_cam.study.claims import FAILS, HOLDS, MISSING, OPEN
from lightning_cam.study.design_parts import RankingClaim
from lightning_cam.study.rankings import FEWEST_CLIPS, Estimate, first_group
from lightning_cam.study.results import Group, Results, title_of
from lightning_cam.study.tables import Table

RANKING_RULE = """\
A claim that two measures agree holds if the 95% interval of Kendall's tau between their rankings of
methods lies above 0, or below the number that the claim names. A claim that a method is the best
holds if it is told apart from all others (paired bootstrap over clips, 5% for all together), and
does not hold if it is told apart from the best one. A claim about random maps or about values holds
if the 95% interval lies on the claimed side for each method, and does not hold if one lies on the
other side.
A claim holds if it holds for all networks, inputs and measures, does not hold if it is refuted by
one of them, and is undecided otherwise. It is not judged where there is no interval: rankings need
six clips (and five methods, to be compared), values two. Methods that explain none of a network's
clips (it may lack what they need) are named, and do not decide."""

NO_MAP = "no map"


@dataclass(frozen=True)
class Finding:
    """A claim held against one network and input, by one measure (or two that are compared)."""

    where: str
    found: str
    verdict: str


@dataclass(frozen=True)
class RankingConclusion:
    """A claim and what became of it."""

    claim: RankingClaim
    verdict: str
    findings: Sequence[Finding]


def conclude_ranking(results: Results, claim: RankingClaim) -> RankingConclusion:
    """Hold a claim against the rows."""
    findings = [f for group in results.groups for f in _findings(results, group, claim)]
    verdicts = {finding.verdict for finding in findings}
    verdict = next((v for v in (MISSING, FAILS, OPEN, HOLDS) if v in verdicts), MISSING)
    return RankingConclusion(claim, verdict, findings)


def _findings(results: Results, group: Group, claim: RankingClaim) -> Iterator[Finding]:
    design, place = results.design, title_of(group)
    if claim.kind == "agree":
        first, second = claim.measures
        tau = agree(results, group, (first, second))
        words = f"{place}: {design.titles[first]} and {design.titles[second]}"
        yield Finding(words, f"tau {_shown(tau)}", _on_side(tau, claim))
        return
    for name in claim.measures:
        where = f"{place}: {design.titles[name]}"
        if claim.kind == "best":
            yield Finding(where, *_best(results, group, claim.cells[0], name))
            continue
        for key in claim.cells:
            tried = results.of_cell(group, key)
            if tried and not results.worked(group, key):
                yield Finding(f"{where}, {design.cells[key].title}", "-", NO_MAP)
                continue
            gains = claim.kind == "over_random"
            found = (
                results.gains(group, key, name)
                if gains
                else results.values(group, key, name, claim.number)
            )
            s = mean_interval(found.values())
            e = Estimate(s.mean, s.low, s.high)
            words = f"{where}, {design.cells[key].title}"
            what = "gain" if gains else number_column(name, claim.number) if claim.number else ""
            yield Finding(words, f"{what} {_shown(e)}".strip(), _on_side(e, claim))


def _best(results: Results, group: Group, key: str, name: str) -> tuple[str, str]:
    methods, (values,) = ranked_by(results, group, [name])
    if key not in methods or values.shape[1] < FEWEST_CLIPS:
        return "-", MISSING
    first = [methods[n] for n in np.flatnonzero(first_group(values))]
    titles = ", ".join(results.design.cells[each].title for each in first)
    if key not in first:
        return f"best: {titles}", FAILS
    return f"best: {titles}", HOLDS if first == [key] else OPEN


def _on_side(e: Estimate, claim: RankingClaim) -> str:
    """Whether an interval lies on the claimed side of a bound."""
    if isnan(e.low):
        return MISSING
    if claim.below is not None:
        return HOLDS if e.high < claim.below else FAILS if e.low > claim.below else OPEN
    return HOLDS if e.low > claim.above else FAILS if e.high < claim.above else OPEN


def _shown(e: Estimate) -> str:
    if isnan(e.value):
        return "-"
    return f"{e.value:+.3f}" + ("" if isnan(e.low) else f" [{e.low:+.3f}, {e.high:+.3f}]")


def ranking_verdicts(conclusions: Sequence[RankingConclusion]) -> Table:
    """The claims and what became of them."""
    rows = [(each.claim.says, each.verdict) for each in conclusions]
    return Table("Verdicts on rankings", ("Claim", "Verdict"), tuple(rows))


def findings_table(conclusion: RankingConclusion) -> Table:
    """What a claim rests on."""
    rows = tuple((f.where, f.found, f.verdict) for f in conclusion.findings)
    title = f"{conclusion.claim.says}: {conclusion.verdict}"
    return Table(title, ("Where", "Found", ""), rows)


def write_rankings(conclusions: Sequence[RankingConclusion]) -> str:
    """The part of conclusions.md about rankings; "" without any claim about them."""
    if not conclusions:
        return ""
    parts = ["", ranking_verdicts(conclusions).markdown(), RANKING_RULE, ""]
    parts += [findings_table(each).markdown() for each in conclusions]
    return "\n".join(parts)
