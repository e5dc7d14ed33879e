"""Do measures rank methods alike? Tables, files and claims about rankings, from rows alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_study import MEASURES, STUDY, made_up, network

from lightning_cam.errors import UserError
from lightning_cam.metrics import Measure
from lightning_cam.study.agreement import agree, agreement_tables, front_of, ranked_by
from lightning_cam.study.claims import FAILS, HOLDS, MISSING, OPEN
from lightning_cam.study.design import Design
from lightning_cam.study.design_parts import RankingClaim
from lightning_cam.study.ranking_claims import NO_MAP, conclude_ranking
from lightning_cam.study.results import Results
from lightning_cam.study.study_files import write_study

NAMES = ["a", "b", "c", "d", "e"]
METHODS: dict[str, Any] = {
    name: {"_target_": "lightning_cam.GradCAM", "layer": name} for name in NAMES
} | {"noise": {"_target_": "lightning_cam.RandomMap"}}


class Inside(Measure):
    """A measure that looks at ground truth."""

    title = "Inside"
    better = "higher"
    needs = frozenset({"map", "truth"})

    def __call__(self, explained: Any) -> Any:
        raise AssertionError("rows are made up")


INSIDE = {"inside": {"_target_": f"{__name__}.Inside"}}
CLAIMS: dict[str, Any] = {
    "alike": {"says": "alike", "agree": ["deletion", "insertion"]},
    "opposite": {"says": "opposite", "agree": ["insertion", "inside"], "below": 0},
    "best": {"says": "best", "best": "e", "measures": ["insertion"]},
    "second": {"says": "second", "best": "d", "measures": ["insertion"]},
    "low": {"says": "low", "value": ["a"], "measures": ["deletion"], "below": 0.5},
    "high": {"says": "high", "value": ["a", "e"], "measures": ["insertion"], "above": 0.45},
}


def results(clips: int = 12, noise: float = 0.005, names: Any = NAMES) -> Results:
    """Deletion and insertion rank e first and a last, what lies inside the other way round."""
    rng = np.random.default_rng(0)
    methods = {name: METHODS[name] for name in (*names, "noise")}
    claims = {key: claim for key, claim in CLAIMS.items() if len(names) == len(NAMES)}
    design = Design.of(
        {**STUDY, "methods": methods, "sweeps": None, "clips": clips, "claims": claims,
         "sweep_clips": None}, MEASURES | INSIDE,
    )  # fmt: skip

    def score(net: Any, name: str, n: int, cell: str) -> tuple[float, ...]:
        place = 0.05 * NAMES.index(cell) if cell in NAMES else 1.0
        a, b, c = rng.normal(0, noise, 3) + 0.1 * (n % 3)  # clips differ more than methods
        return 0.5 - place + a, 0.4 + place + b, 0.3 - place + c

    return made_up(design, [network(design)], score)


def test_measures_that_rank_alike_and_oppositely() -> None:
    found = results()
    (group,) = found.groups
    assert agree(found, group, ("deletion", "insertion")) == (1, 1, 1)
    assert agree(found, group, ("insertion", "inside")) == (-1, -1, -1)
    methods, (values,) = ranked_by(found, group, ["deletion"])
    assert methods == NAMES and values.shape == (5, 12)  # without the baseline
    rankings, matrix = agreement_tables(found)
    assert rankings.rows[4][:4] == ("e", "1.0 [1.0, 1.0]", "1.0 [1.0, 1.0]", "5.0 [5.0, 5.0]")
    assert rankings.best == {(4, 1), (4, 2), (0, 3)}
    assert rankings.head[1] == "Deletion\nclips alike 1.00, alpha 1.00"
    assert matrix.rows[0][2] == matrix.rows[1][1] == "1.00 [1.00, 1.00]"


def test_noise_is_no_ranking() -> None:
    found = results(noise=3.0)
    rankings, matrix = agreement_tables(found)
    assert {r for r, c in rankings.best if c == 2} == {0, 1, 2, 3, 4}
    assert any(text.startswith("(") for row in matrix.rows for text in row)
    verdicts = {c.says: conclude_ranking(found, c).verdict for c in found.design.ranking_claims}
    assert OPEN in verdicts.values() and verdicts["best"] != HOLDS


def test_fewer_than_five_methods_say_nothing_about_measures(tmp_path: Path) -> None:
    found = results(names=NAMES[:4])
    (table,) = agreement_tables(found)
    assert not table.rows and "here are 4" in table.notes[0]
    (group,) = found.groups
    assert np.isnan(agree(found, group, ("deletion", "insertion")).value)
    write_study(tmp_path, found, [], "")
    assert not (tmp_path / "agreement.csv").exists() and (tmp_path / "rankings.csv").exists()


def test_claims_about_rankings_are_judged_by_intervals(tmp_path: Path) -> None:
    found = results()
    verdicts = {c.says: conclude_ranking(found, c).verdict for c in found.design.ranking_claims}
    assert verdicts == {
        "alike": HOLDS, "opposite": HOLDS, "best": HOLDS, "second": FAILS, "low": FAILS,
        "high": OPEN,
    }  # fmt: skip
    lone = results(clips=1)
    assert {conclude_ranking(lone, c).verdict for c in lone.design.ranking_claims} == {MISSING}
    write_study(tmp_path, found, [], "")
    text = (tmp_path / "conclusions.md").read_text()
    assert "## second: does not hold" in text and "| best: e | does not hold |" in text
    assert "tau +1.000 [+1.000, +1.000]" in text
    with (tmp_path / "agreement.csv").open() as file:
        rows = {(row["measure"], row["other"]): row for row in csv.DictReader(file)}
    assert float(rows["insertion", "inside"]["tau"]) == -1
    assert float(rows["insertion", "inside"]["within_clips"]) == -1
    with (tmp_path / "rankings.csv").open() as file:
        ranks = {(row["method"], row["measure"]): row for row in csv.DictReader(file)}
    assert (ranks["e", "deletion"]["rank"], ranks["e", "deletion"]["first_group"]) == ("1.0", "1")
    page = (tmp_path / "index.html").read_text()
    assert "✗ does not hold</b> <span>second</span>" in page and "<td>best: e</td>" in page


def test_a_claim_can_be_about_what_a_measure_found_beside_its_value() -> None:
    found = results()
    for row in found.rows:
        row["beside"] = {"insertion_tied": 0.3 + 0.01 * (row["index"] % 2), "deletion_tied": 0.0}
    for number, above, verdict in (
        ("tied", 0.2, HOLDS),
        ("tied", 0.4, FAILS),
        ("ties", 0, MISSING),
    ):
        claim = RankingClaim("x", "value", ("insertion",), ("a",), above, None, number)
        said = conclude_ranking(found, claim)
        assert said.verdict == verdict
        assert said.findings[0].found.startswith(f"insertion_{number} ")


def test_measures_of_the_method_itself_say_nothing_of_faithfulness_or_random_maps() -> None:
    again = {"again": {"_target_": "lightning_cam.metrics.WeightRandomisation"}}
    claims = {"noise": {"says": "x", "over_random": True}}
    plain = {**STUDY, "methods": METHODS, "sweeps": None, "random_seeds": 2, "claims": claims}
    design = Design.of(plain, MEASURES | again)
    assert design.directed == ("deletion", "insertion", "again")
    assert design.compared == design.ranking_claims[0].measures == ("deletion", "insertion")
    assert design.ranking_claims[0].cells == (*NAMES,)  # noise is not asked to beat noise
    for measures in (["again"], ["deletion", "again"]):
        claims["noise"]["measures"] = measures
        with pytest.raises(UserError, match="again cannot be held against random maps"):
            Design.of(plain, MEASURES | again)
    score = {"e": (0.1, 0.9, 0.5), "a": (0.5, 0.5, -0.5)}  # e is faithful, a hardly moves
    plain |= {"methods": {name: METHODS[name] for name in score}, "claims": None, "random_seeds": 0}
    design = Design.of(plain, MEASURES | again)
    found = made_up(design, [network(design)], lambda net, name, n, cell: score[cell])
    assert front_of(found, found.groups[0]) == {"e"}


def test_methods_without_maps_are_named_and_do_not_decide() -> None:
    found = results()
    for row in found.rows:
        if row["cell"] == "a":
            row["error"] = "UserError: the network has not what the method needs"
    said = {c.says: conclude_ranking(found, c) for c in found.design.ranking_claims}
    assert said["high"].verdict == HOLDS  # by e alone
    assert [f.verdict for f in said["high"].findings] == [NO_MAP, HOLDS]
    assert said["low"].verdict == MISSING  # a was all there was to it


def test_no_method_on_the_front_is_beaten_on_all_sides() -> None:
    found = results()
    (group,) = found.groups
    # what is more faithful is less inside, seconds are alike
    assert front_of(found, group) == set(NAMES)
    for row in found.rows:
        row["seconds"] = 9.0 if row["cell"] == "c" else 1.0
        if row["cell"] == "c":
            row["values"]["inside"] = -1.0
    assert front_of(found, group) == set(NAMES) - {"c"}


def test_a_method_that_the_network_refuses_is_not_ranked_and_costs_no_clip() -> None:
    found = results()
    (group,) = found.groups
    for row in found.rows:
        if row["cell"] == "a" or (row["cell"] == "b" and row["index"] < 3):
            row["error"] = "UserError: needs a recurrent network"
    methods, (values,) = ranked_by(found, group, ["deletion"])
    assert methods == ["b", "c", "d", "e"] and values.shape == (4, 9)
    rankings, matrix = agreement_tables(found)
    assert rankings.notes[-1].endswith("few): Deletion 9, Insertion 9, Inside 9 of 12.")
    assert rankings.rows[0] == ("a", "-", "-", "-", "")
    assert matrix.rows[0][2] == "(-)"  # four methods


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"says": "x", "agree": ["deletion"]}, "two measures"),
        ({"agree": ["deletion", "insertion"]}, "says is missing"),
        ({"says": "x", "agree": ["deletion", "insertion"], "blow": 1}, "'study.claims.c.blow'"),
        ({"says": "x", "best": ["a", "b"]}, "must be one method"),
        ({"says": "x", "value": "a"}, "above or below"),
        ({"says": "x", "value": "a", "below": "much"}, "must be a number"),
        ({"says": "x", "over_random": True}, "study.random_seeds=3"),
    ],
)
def test_mistakes_in_claims_about_rankings_are_named(claim: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        Design.of({**STUDY, "methods": METHODS, "sweeps": None, "claims": {"c": claim}}, MEASURES)
    assert words in str(caught.value) and "\n" not in str(caught.value)
