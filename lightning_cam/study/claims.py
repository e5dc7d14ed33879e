"""What the rows of a study say about claims: paired differences over clips, and a rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan

from lightning_cam.metrics import Statistics, mean_interval
from lightning_cam.study.design_parts import Claim
from lightning_cam.study.results import Group, Results, spectrum_name
from lightning_cam.study.tables import Table, interval_text, markdown_text

HOLDS, FAILS, OPEN, MISSING = "holds", "does not hold", "undecided", "not judged"
CLAIM_RULE = """\
Every claim is a difference between two cells, taken clip by clip, so that the difficulty of a clip
cancels. Its sign is turned so that more than 0 speaks for the claim: less of a measure of which low
values are good (deletion), more of the others (insertion). Behind each mean stands its 95% interval
(Student's t over clips). By one measure a claim **holds** if the interval lies above 0, it **does
not hold** if the interval lies below 0, and is **undecided** otherwise. A claim that two cells
differ by less than m holds if the interval lies within ±m, and does not hold if it lies outside.

The verdict on a claim pools networks, inputs and methods: each clip counts once, with the mean of
its differences. It holds if it holds by at least one measure and by none does not hold; it does not
hold if that is so by at least one measure and it holds by none; else it is undecided. A claim of
small differences must hold by all measures and for all pairs of values. Intervals are not corrected
for the number of claims."""


@dataclass(frozen=True)
class Difference:
    """Two cells on the same clips.

    Attributes:
        label: what is compared, in words.
        pair: keys of the cells.
        values: measure -> clip -> difference, above 0 where the first is better.
    """

    label: str
    pair: tuple[str, str]
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Conclusion:
    """A claim and what became of it, by each measure that decides it and together."""

    claim: Claim
    verdict: str
    by_measure: Mapping[str, tuple[str, Statistics]]
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
    by_measure = {name: _pooled(claim, found, name) for name in claim.measures}
    verdicts = [verdict for verdict, _ in by_measure.values()]
    return Conclusion(claim, _together(claim, verdicts), by_measure, found, missing)


def _differences(results: Results, claim: Claim) -> Iterator[Difference]:
    if claim.trained is not None:
        yield from _trained(results, claim)
        return
    for group in results.groups:
        place = f"{group.network} {spectrum_name(group.trained)}".strip()
        place += f" on {spectrum_name(group.input)}" if group.input else ""
        for pair in claim.pairs:
            titles = " vs ".join(_title(results, claim, key) for key in pair)
            yield _difference(results, claim, f"{place}: {titles}", (group, group), pair)


def _trained(results: Results, claim: Claim) -> Iterator[Difference]:
    """Networks trained on what the claim is about, and those trained on the input alone."""
    for group, other in product(results.groups, repeat=2):
        alike = (group.kind, group.input) == (other.kind, other.input)
        if not alike or group.trained != claim.trained or other.trained != other.input:
            continue
        names = " or ".join(dict.fromkeys((group.network, other.network)))
        spectra = [spectrum_name(s) for s in (group.input, group.trained, other.trained)]
        for cell in claim.cells:
            title = results.design.cells[cell].title
            label = f"{names} on {spectra[0]}, {title}: trained on {spectra[1]} vs {spectra[2]}"
            yield _difference(results, claim, label, (group, other), (cell, cell))


def _title(results: Results, claim: Claim, key: str) -> str:
    """A cell's name; of a sweep its value, for the table of a claim about a sweep."""
    for sweep in results.design.sweeps:
        names = {cell: value for value, cell in sweep.cells.items()}
        if all(cell in names for pair in claim.pairs for cell in pair):
            return f"{sweep.setting} {names[key]}"
    return results.design.cells[key].title


def _difference(
    results: Results, claim: Claim, label: str, groups: tuple[Group, Group], pair: tuple[str, str]
) -> Difference:
    values = {}
    for name in claim.measures:
        a, b = (results.values(g, cell, name) for g, cell in zip(groups, pair, strict=True))
        sign = results.design.signs[name]
        values[name] = {clip: sign * (a[clip] - b[clip]) for clip in a if clip in b}
    return Difference(label, pair, values)


def _pooled(claim: Claim, found: Sequence[Difference], measure: str) -> tuple[str, Statistics]:
    """The verdict by one measure, and the pooled difference (of the pair furthest apart)."""
    pairs = list(dict.fromkeys(difference.pair for difference in found))
    if claim.within is None or not pairs:
        s = mean_interval(_per_clip(d.values[measure] for d in found))
        return judge(s, claim.within), s
    each = [
        mean_interval(_per_clip(d.values[measure] for d in found if d.pair == pair))
        for pair in pairs
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
    """The verdict on one mean difference, by `CLAIM_RULE`."""
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


def write_conclusions(
    conclusions: Sequence[Conclusion], clips: str, titles: Mapping[str, str]
) -> str:
    """conclusions.md.

    Args:
        conclusions: in the order of the study.
        clips: what they rest on, in words.
        titles: what tables call the measures.
    """
    parts = ["# Conclusions", "", markdown_text(clips), ""]
    if conclusions:
        parts += [summary_table(conclusions, titles).markdown(), CLAIM_RULE, ""]
    return "\n".join([*parts, *(compared_table(each, titles).markdown() for each in conclusions)])


def compared_table(conclusion: Conclusion, titles: Mapping[str, str]) -> Table:
    """All comparisons of one claim."""
    claim = conclusion.claim
    rows = [
        (
            d.label,
            *(text for name in claim.measures for text in _shown(claim, d, name)),
            str(max(len(values) for values in d.values.values())),
        )
        for d in conclusion.differences
    ]
    head = (
        "Comparison",
        *(text for name in claim.measures for text in (titles[name], "")),
        "Clips",
    )
    missing = tuple(f"Missing: {label}." for label in conclusion.missing)
    nothing = () if rows or missing else ("Missing: no two networks to compare.",)
    title = f"{claim.says}: {conclusion.verdict}"
    return Table(title, head, tuple(rows), notes=(*missing, *nothing))


def summary_table(conclusions: Sequence[Conclusion], titles: Mapping[str, str]) -> Table:
    """Claims, pooled differences and verdicts; "-" where a measure does not decide a claim."""
    deciding = [name for name in titles if any(name in c.by_measure for c in conclusions)]
    rows = []
    for conclusion in conclusions:
        found = conclusion.by_measure
        texts = [interval_text(found[name][1]) if name in found else "-" for name in deciding]
        rows.append((conclusion.claim.says, *texts, conclusion.verdict))
    head = ("Claim", *(f"{titles[name]}, better by" for name in deciding), "Verdict")
    return Table("Verdicts", head, tuple(rows))


def _shown(claim: Claim, difference: Difference, measure: str) -> tuple[str, str]:
    s = mean_interval(difference.values[measure].values())
    return interval_text(s), judge(s, claim.within)
