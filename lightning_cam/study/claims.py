"""What the rows of a study say about claims: paired differences over clips, and a rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from lightning_cam.metrics.mean_curves import Statistics
from lightning_cam.study.design import Claim
from lightning_cam.study.results import METRICS, Group, Results, spectrum_name, statistics
from lightning_cam.study.tables import Table

HOLDS, FAILS, OPEN, MISSING = "holds", "does not hold", "undecided", "missing"
RULE = """\
Every claim is a difference between two cells, taken clip by clip, so that the difficulty of a clip
cancels. Its sign is turned so that more than 0 speaks for the claim: less deletion, more insertion
(the other way round where the least relevant voxels come first). Behind each mean stands its 95%
interval (Student's t over clips). By one metric a claim **holds** if the interval lies above 0, it
**does not hold** if the interval lies below 0, and is **undecided** otherwise. A claim that two
cells differ by less than m holds if the interval lies within ±m, and does not hold if it lies
outside.

The verdict on a claim pools networks, inputs and methods: each clip counts once, with the mean of
its differences. It holds if it holds by at least one metric and by none does not hold; it does not
hold if that is so by at least one metric and it holds by none; else it is undecided. A claim of
small differences must hold by both metrics and for all pairs of values. Intervals are not corrected
for the number of claims."""


@dataclass(frozen=True)
class Difference:
    """Two cells on the same clips.

    Attributes:
        label: what is compared, in words.
        pair: keys of the cells.
        values: metric -> clip -> difference, above 0 where the first is better.
    """

    label: str
    pair: tuple[str, str]
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Conclusion:
    """A claim and what became of it."""

    claim: Claim
    verdict: str
    by_metric: Mapping[str, tuple[str, Statistics]]
    differences: Sequence[Difference]
    missing: Sequence[str]


def conclude(results: Results, claim: Claim) -> Conclusion:
    """Hold a claim against the rows."""
    found, missing = [], []
    for difference in _differences(results, claim):
        if any(difference.values.values()):
            found.append(difference)
        else:
            missing.append(difference.label)
    by_metric = {metric: _pooled(claim, found, metric) for metric in METRICS}
    verdicts = [verdict for verdict, _ in by_metric.values()]
    return Conclusion(claim, _together(claim, verdicts), by_metric, found, missing)


def _differences(results: Results, claim: Claim) -> Iterator[Difference]:
    if claim.trained is not None:
        for group in results.groups:
            for other in results.groups:
                alike = (group.kind, group.input) == (other.kind, other.input)
                if alike and group.trained == claim.trained and other.trained == other.input:
                    names = " or ".join(dict.fromkeys((group.network, other.network)))
                    for cell in claim.cells:
                        title = results.design.cells[cell].title
                        label = (
                            f"{names} on {spectrum_name(group.input)}, {title}: trained on "
                            f"{spectrum_name(group.trained)} vs {spectrum_name(other.trained)}"
                        )
                        yield _difference(results, label, (group, other), (cell, cell))
        return
    for group in results.groups:
        place = f"{group.network} {spectrum_name(group.trained)}".strip()
        place += f" on {spectrum_name(group.input)}" if group.input else ""
        for pair in claim.pairs:
            titles = " vs ".join(_title(results, claim, key) for key in pair)
            yield _difference(results, f"{place}: {titles}", (group, group), pair)


def _title(results: Results, claim: Claim, key: str) -> str:
    """A cell's name; of a sweep its value, for the table of a claim about a sweep."""
    for sweep in results.design.sweeps:
        names = {cell: value for value, cell in sweep.cells.items()}
        if all(cell in names for pair in claim.pairs for cell in pair):
            return f"{sweep.setting} {names[key]}"
    return results.design.cells[key].title


def _difference(
    results: Results, label: str, groups: tuple[Group, Group], pair: tuple[str, str]
) -> Difference:
    values = {}
    for metric, sign in results.signs.items():
        a, b = (results.values(g, cell, metric) for g, cell in zip(groups, pair, strict=True))
        values[metric] = {clip: sign * (a[clip] - b[clip]) for clip in a if clip in b}
    return Difference(label, pair, values)


def _pooled(claim: Claim, found: Sequence[Difference], metric: str) -> tuple[str, Statistics]:
    """The verdict by one metric, and the pooled difference (of the pair furthest apart)."""
    pairs = list(dict.fromkeys(difference.pair for difference in found))
    if claim.within is None or not pairs:
        s = statistics(_per_clip(d.values[metric] for d in found))
        return judge(s, claim.within), s
    each = [
        statistics(_per_clip(d.values[metric] for d in found if d.pair == pair)) for pair in pairs
    ]
    widest = max(each, key=lambda s: max(abs(s.low), abs(s.high)))
    verdicts = [judge(s, claim.within) for s in each]
    verdict = next((v for v in (MISSING, FAILS, OPEN) if v in verdicts), HOLDS)
    return verdict, widest


def _per_clip(values: Iterable[Mapping[str, float]]) -> list[float]:
    """The mean of each clip's differences."""
    of_clip: dict[str, list[float]] = {}
    for mapping in values:
        for clip, value in mapping.items():
            of_clip.setdefault(clip, []).append(value)
    return [sum(v) / len(v) for v in of_clip.values()]


def judge(s: Statistics, within: float | None = None) -> str:
    """The verdict on one mean difference, by `RULE`."""
    if isnan(s.low):
        return MISSING
    if within is not None:
        if max(abs(s.low), abs(s.high)) < within:
            return HOLDS
        return FAILS if s.low > within or s.high < -within else OPEN
    if s.low > 0:
        return HOLDS
    return FAILS if s.high < 0 else OPEN


def _together(claim: Claim, verdicts: Sequence[str]) -> str:
    if MISSING in verdicts:
        return MISSING
    if claim.within is not None:
        return next((v for v in (FAILS, OPEN) if v in verdicts), HOLDS)
    if HOLDS in verdicts:
        return OPEN if FAILS in verdicts else HOLDS
    return FAILS if FAILS in verdicts else OPEN


def write_conclusions(conclusions: Sequence[Conclusion], clips: str) -> str:
    """conclusions.md.

    Args:
        conclusions: in the order of the study.
        clips: what they rest on, in words.
    """
    parts = ["# Conclusions", "", clips, "", summary_table(conclusions).markdown(), RULE, ""]
    for conclusion in conclusions:
        rows = tuple(
            (d.label, *(text for metric in METRICS for text in _shown(conclusion.claim, d, metric)))
            for d in conclusion.differences
        )
        head = ("Comparison", "Deletion", "", "Insertion", "", "Clips")
        counted = tuple(
            (*row, str(max(len(v) for v in d.values.values())))
            for row, d in zip(rows, conclusion.differences, strict=True)
        )
        missing = tuple(f"Missing: {label}." for label in conclusion.missing)
        nothing = () if counted or missing else ("Missing: no two networks to compare.",)
        title = f"{conclusion.claim.says}: {conclusion.verdict}"
        parts.append(Table(title, head, counted, notes=(*missing, *nothing)).markdown())
    return "\n".join(parts)


def summary_table(conclusions: Sequence[Conclusion]) -> Table:
    """Claims, pooled differences and verdicts."""
    rows = []
    for conclusion in conclusions:
        texts = [_interval(s) for _, s in conclusion.by_metric.values()]
        rows.append((conclusion.claim.says, *texts, conclusion.verdict))
    head = ("Claim", "Deletion, better by", "Insertion, better by", "Verdict")
    return Table("Verdicts", head, tuple(rows))


def _shown(claim: Claim, difference: Difference, metric: str) -> tuple[str, str]:
    s = statistics(difference.values[metric].values())
    return _interval(s), judge(s, claim.within)


def _interval(s: Statistics) -> str:
    if isnan(s.mean):
        return "-"
    mean, low, high = (f"{x:+.4f}" for x in (s.mean, s.low, s.high))
    return mean if isnan(s.low) else f"{mean} [{low}, {high}]"
