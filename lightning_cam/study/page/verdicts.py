"""Claims and what became of them, as the page says it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lightning_cam.study.claims import (
    CLAIM_RULE,
    FAILS,
    HOLDS,
    MISSING,
    OPEN,
    Conclusion,
    compared_table,
    summary_table,
)
from lightning_cam.study.ranking_claims import RANKING_RULE, RankingConclusion, findings_table
from lightning_cam.study.results import Results

_MARKS = {HOLDS: "✓", FAILS: "✗", OPEN: "?", MISSING: "-"}
_KINDS = {HOLDS: "holds", FAILS: "fails", OPEN: "open", MISSING: "missing"}


def verdicts(
    results: Results,
    conclusions: Sequence[Conclusion],
    rankings: Sequence[RankingConclusion],
) -> str:
    """All claims; each opens to show what it rests on. "" without any."""
    if not conclusions and not rankings:
        return ""
    titles = results.design.titles
    items = [
        _item(
            each.claim.says,
            each.verdict,
            summary_table([each], titles).body() + compared_table(each, titles).body(),
        )
        for each in conclusions
    ]
    items += [
        _item(each.claim.says, each.verdict, findings_table(each).body()) for each in rankings
    ]
    rules = [CLAIM_RULE] * bool(conclusions) + [RANKING_RULE] * bool(rankings)
    said = "".join(f"<p>{_marked(part)}</p>" for rule in rules for part in rule.split("\n\n"))
    return (
        f'<ul class="claims">{"".join(items)}</ul>\n'
        f"<details><summary>How claims are judged</summary>{said}</details>"
    )


def _item(says: str, verdict: str, table: str) -> str:
    return (
        f'<li><details><summary><b class="{_KINDS[verdict]}">{_MARKS[verdict]} {verdict}</b> '
        f"<span>{escape(says)}</span></summary>{table}</details></li>"
    )


def _marked(text: str) -> str:
    """Our own text with bold words as HTML."""
    words = escape(text).split("**")
    return "".join(f"<b>{word}</b>" if n % 2 else word for n, word in enumerate(words))
