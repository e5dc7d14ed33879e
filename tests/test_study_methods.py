"""Studies of any methods by any measures: kept maps, targets, columns that are no classes."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from nets import clip_of, describe
from omegaconf import OmegaConf
from test_config import CONFIGS, composed
from test_study import MEASURES, STUDY, Clips, Task, design_of, network

import lightning_cam as lc
from lightning_cam.errors import ConfigError, UnknownNameError, UserError
from lightning_cam.explaining.journal import Journal
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.study.cell_runs import measure_cells
from lightning_cam.study.cost import duration, expected_cost
from lightning_cam.study.csv_tables import cell_rows
from lightning_cam.study.design import Design
from lightning_cam.study.gain_tables import gain_tables
from lightning_cam.study.journal import StudyRow, named, read_journal, together
from lightning_cam.study.kept_maps import map_path
from lightning_cam.study.method_tables import main_tables
from lightning_cam.study.networks import _check_columns
from lightning_cam.study.results import Results
from lightning_cam.study.study_files import write_study
from lightning_cam.study.work_items import missing_work, shared_out, work_items

GINI: dict[str, Any] = {"gini": {"_target_": "lightning_cam.metrics.GiniIndex"}}


@dataclass(frozen=True)
class Counted(lc.Attribution):
    """The clip's first channel, doubled; tells how often it was asked, and of which columns."""

    title = "Counted"
    calls: ClassVar[Counter[int]] = Counter()

    def __call__(self, model: Any, clip: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls[int(target)] += 1
        model.numbers["channels"] = torch.full((len(clip),), float(clip.shape[1]))
        return 2 * clip[:, 0]


METHODS: dict[str, Any] = {
    "counted": {"_target_": f"{__name__}.Counted"},
    "gradcam": {"_target_": "lightning_cam.GradCAM"},
}


@pytest.fixture(autouse=True)
def uncounted() -> None:
    Counted.calls.clear()


def design(measures: Any = MEASURES, **changes: Any) -> Design:
    plain: dict[str, Any] = {"methods": METHODS, "sweeps": None, "clips": 1, "sweep_clips": None}
    return design_of(measures, **{**plain, **changes})


def run(folder: Path, of: Design, **more: Any) -> Results:
    """A study of noise clips in this folder, or what it lacks."""
    folder.mkdir(exist_ok=True)
    net = network(of, task=more.pop("task", None) or Task(), dataset=Clips(of.clips))
    net = replace(net, **more)
    units = work_items([net], of)
    journal = Journal(folder)
    measure_cells(of, units, read_journal(folder), journal, "cpu", say=lambda _: None)
    journal.close()
    done = read_journal(folder)
    assert not any(missing_work(unit, done, of) for unit in units)
    return Results.of(of, [net], units, done)


# --- kept maps ----------------------------------------------------------------------------------


def explained(method: lc.Attribution, frames: int = 4, size: int = 8) -> lc.Explanation:
    torch.manual_seed(0)
    clip = clip_of(1, 3, frames, size, size)
    return lc.explain(Task().explainable(), method, clip, 1)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("method", [lc.GradCAM(relu=False), lc.RandomMap(), lc.RISE(masks=8)])
def test_a_kept_map_is_the_map_up_to_sixteen_bits(
    method: lc.Attribution, scale: float, tmp_path: Path
) -> None:
    e = explained(method)
    level = None if e.level is None else e.level * scale
    e = replace(e, heatmap=e.heatmap * scale, level=level)
    kept = KeptMap.of(e)
    kept.write(tmp_path / "a.npz")
    read = KeptMap.read(tmp_path / "a.npz")
    assert read is not None
    heat = read.heatmap((4, 8, 8))
    assert torch.equal(heat, kept.heatmap((4, 8, 8)))
    base = 0 if level is None else float(level)
    error = (heat - e.heatmap).abs()
    bound = 2.0**-10 * (e.heatmap - base).abs() + 1e-6 * scale
    assert bool((error <= bound).all())
    assert (read.level is None) == (level is None)
    assert level is None or torch.allclose(read.level, level, rtol=1e-6)  # type: ignore[arg-type]


def test_fine_maps_are_kept_as_means_of_blocks_and_flat_ones_stay_flat() -> None:
    e = explained(lc.RandomMap())
    kept = KeptMap.of(e, (2, 4, 8))
    assert kept.values.shape == (2, 4, 8)
    blocks = e.heatmap[0].reshape(2, 2, 4, 2, 8).mean((1, 3))
    torch.testing.assert_close(kept.heatmap((2, 4, 8))[0], blocks, rtol=1e-3, atol=1e-3)
    flat = KeptMap.of(replace(e, heatmap=torch.full_like(e.heatmap, 0.3)))
    assert flat.heatmap((4, 8, 8)).unique().numel() == 1
    with pytest.raises(ValueError, match="Random has numbers that are not finite"):
        KeptMap.of(replace(e, heatmap=e.heatmap * torch.nan))


@pytest.mark.parametrize("spoilt", [b"", b"no map", None])
def test_a_map_that_cannot_be_read_is_none(spoilt: bytes | None, tmp_path: Path) -> None:
    if spoilt is not None:
        (tmp_path / "a.npz").write_bytes(spoilt)
    assert KeptMap.read(tmp_path / "a.npz") is None


def test_a_new_measure_runs_no_method_again(tmp_path: Path) -> None:
    alone = run(tmp_path / "both", design({**MEASURES, **GINI}))
    Counted.calls.clear()
    run(tmp_path / "study", design(MEASURES))
    assert Counted.calls.total() == 1
    task = Task()
    later = run(tmp_path / "study", design({**MEASURES, **GINI}), task=task)
    assert Counted.calls.total() == 1
    assert task.forwards == 1  # the clip itself: Gini needs no network, and nothing else was asked
    for key in ("values", "beside", "curves", "unmeasured", "seconds"):
        same = [row[key] for row in later.rows]
        assert key == "seconds" or same == [row[key] for row in alone.rows], key
    # and of all measures, those whose settings changed
    fewer = {**MEASURES, "deletion": {**MEASURES["deletion"], "steps": 2}}
    changed = run(tmp_path / "study", design(fewer))
    assert Counted.calls.total() == 1
    assert [len(row["curves"]["deletion"]) for row in changed.rows] == [3, 3]
    assert [len(row["curves"]["insertion"]) for row in changed.rows] == [5, 5]


def test_a_lost_map_is_made_again(tmp_path: Path) -> None:
    of = design(MEASURES)
    results = run(tmp_path / "study", of)
    (path,) = (tmp_path / "study").glob("maps/Net/0/counted_*.npz")
    row = next(row for row in results.rows if row["cell"] == "counted")
    assert path == map_path(tmp_path / "study", ("Net", "", "", 0, "counted"))
    path.write_bytes(path.read_bytes()[:40])
    later = run(tmp_path / "study", design({**MEASURES, **GINI}))
    assert Counted.calls.total() == 2
    again = next(row for row in later.rows if row["cell"] == "counted")
    assert {name: again["values"][name] for name in MEASURES} == row["values"]
    assert KeptMap.read(path) is not None


def test_rows_of_one_cell_are_one_in_any_order() -> None:
    def row(error: str = "", **measured: Any) -> StudyRow:
        entries = {k: {"value": v, "numbers": {}, "error": ""} for k, v in measured.items()}
        return {"cell": "a", "error": error, "measured": entries}

    first, second, broken = row(x=1.0), row(y=2.0), {"cell": "a", "error": "no"}
    for pair in ((first, second), (second, first)):
        found = named(together(*pair), {"left": "x", "right": "y", "later": "z"})
        assert found["values"] == {"left": 1.0, "right": 2.0, "later": None}
    assert together(broken, first) == first == together(first, broken)
    worked, failed = row(x=1.0), row(x=None)
    failed["measured"]["x"]["error"] = "no"
    assert together(failed, worked)["measured"] == worked["measured"]
    assert together(worked, failed)["measured"] == worked["measured"]


# --- what is explained ---------------------------------------------------------------------------


def test_the_true_class_is_explained_where_it_is_asked_for(tmp_path: Path) -> None:
    run(tmp_path / "predicted", design(MEASURES))
    (predicted,) = Counted.calls
    Counted.calls.clear()
    results = run(tmp_path / "true", design(MEASURES, target=True))  # as YAML reads it
    assert Counted.calls == {1: 1} and predicted != 1
    model = Task().explainable()
    answer = model.forward(clip_of(1, 3, 4, 8, 8)).detach().softmax(1)
    for row in results.rows:
        assert (row["target"], row["label"], row["prediction"]) == ("b", "b", "abcd"[predicted])
        assert row["p_target"] == pytest.approx(float(answer[0, 1]), abs=1e-6)
        assert row["curves"]["deletion"][0] == pytest.approx(row["p_target"], abs=1e-5)


def test_a_clip_whose_class_nobody_knows_has_no_true_one(tmp_path: Path) -> None:
    unknown = type("Unknown", (Clips,), {
        "__getitem__": lambda self, n: {**Clips.__getitem__(self, n), "label": torch.tensor(-1)}
    })  # fmt: skip
    of = design(MEASURES, target="true")
    net = network(of, task=Task(), dataset=unknown(1))
    journal = Journal(tmp_path)
    measure_cells(of, work_items([net], of), {}, journal, "cpu")
    journal.close()
    rows = read_journal(tmp_path).values()
    assert len(rows) == 2 and not Counted.calls
    assert all("study.target=predicted needs none" in row["error"] for row in rows)


def test_what_a_method_found_out_is_a_column(tmp_path: Path) -> None:
    results = run(tmp_path / "study", design(MEASURES))
    counted, gradcam = cell_rows(results)
    assert counted["numbers.channels"] == 3.0 and gradcam["numbers.channels"] == ""
    assert counted["forwards"] == gradcam["forwards"] == 1


class Regressor(Task):
    """Its four columns are no classes."""

    def explainable(self, batch: Any = None) -> lc.Explainable:
        return describe(self.net, outputs=["depth/mean", "pose/ry", "c", "d"], probability=None)


def test_columns_that_are_no_classes_are_studied_each_as_an_input(tmp_path: Path) -> None:
    names = ["pose/ry", "depth/mean"]
    measures = {name: {**node, "normalised": True} for name, node in MEASURES.items()}
    of = design(measures, columns=names)
    columns = {name: name for name in names}
    inputs = dict.fromkeys(names, (0,))
    swept = {name: frozenset({0}) for name in names}
    more: dict[str, Any] = {"columns": columns, "inputs": inputs, "swept": swept}
    results = run(tmp_path / "study", of, task=Regressor(), **more)
    write_study(tmp_path / "study", results, [], "")
    assert Counted.calls == {1: 1, 0: 1}
    assert [group.input for group in results.groups] == names
    for row in results.rows:
        assert row["target"] == row["input"] and row["prediction"] == "" and row["p_target"] is None
        assert 0 <= (row["values"]["deletion"] or 0) <= 1
    with (tmp_path / "study" / "cells.csv").open() as file:
        assert {row["input"] for row in csv.DictReader(file)} == set(names)
    text = (tmp_path / "study" / "tables.md").read_text()
    assert "## pose/ry" in text and "the columns that the study names" in text


def test_columns_are_asked_for_where_there_are_no_classes() -> None:
    model = Regressor().explainable()
    with pytest.raises(ConfigError, match=r"study.columns=\[depth/mean,pose/ry\]"):
        _check_columns("a.ckpt", model, design())
    with pytest.raises(UnknownNameError, match="pose/rx"):
        _check_columns("a.ckpt", model, design(columns=["pose/rx"]))
    with pytest.raises(ConfigError, match="say two things"):
        _check_columns("a.ckpt", model, design(columns=["pose/ry"], target="true"))
    _check_columns("a.ckpt", Task().explainable(), design())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "ture"}, "nearest: true"),
        ({"columns": "depth"}, "must be a list"),
        ({"columns": ["a", "a"]}, "names a column twice"),
        ({"map_size": [4, 4]}, "frames, height and width"),
        ({"map_size": [4, 4, 0]}, "whole number"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        design(**changes)
    assert STUDY.keys().isdisjoint({"target", "columns", "map_size"})


# --- maps beside the methods ---------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(4, 2, 2), (2, 3, 5), (1, 1, 1)])
def test_a_resized_map_is_kept_on_its_grid(grid: tuple[int, int, int]) -> None:
    noise = lc.RandomMap(cells=grid)
    e = explained(noise)
    kept = KeptMap.of(e)
    assert kept.values.shape == grid == e.native
    bound = 1e-3 * float(e.heatmap.max())
    assert float((kept.heatmap((4, 8, 8)) - e.heatmap).abs().max()) <= bound
    blanked = e.heatmap.clone()
    blanked[:, 3, 0] = 0  # as padding is
    assert KeptMap.of(replace(e, heatmap=blanked)).values.shape == (4, 8, 8)


class Masked(Task):
    """Its clips have a ground truth: the right half."""

    def explainable(self, batch: Any = None) -> lc.Explainable:
        mask = torch.zeros(1, 4, 8, 8, dtype=torch.bool)
        mask[..., 4:] = True
        return replace(super().explainable(), truth=mask)


def test_random_maps_of_each_grain_stand_beside_the_methods(tmp_path: Path) -> None:
    nodes = {**METHODS, "noise": {"_target_": "lightning_cam.RandomMap", "cells": [2, 2, 2]}}
    of = design({**MEASURES, **GINI}, methods=nodes, clips=1, random_seeds=2)
    results = run(tmp_path / "study", of)
    grains = {row["cell"]: tuple(row["grain"]) for row in results.rows}
    assert grains["noise"] == (2, 2, 2) and grains["counted"] == (4, 8, 8)
    shapes = {"x".join(map(str, grain)) for grain in grains.values()}
    keys = {key[4] for key in results.references}
    assert keys == {f"random {shape} seed {seed}" for shape in shapes for seed in (0, 1)} | {
        "truth"
    }
    (group,) = results.groups
    for cell, grain in grains.items():
        row = next(row for row in results.rows if row["cell"] == cell)
        shape = "x".join(map(str, grain))
        noise = [
            found["values"]["deletion"]
            for key, found in results.references.items()
            if key[4].startswith(f"random {shape}")
        ]
        assert len(set(noise)) == 2  # seeds differ
        gain = sum(noise) / 2 - row["values"]["deletion"]  # lower is better
        assert results.gains(group, cell, "deletion")["c0"] == pytest.approx(gain)
    assert results.telling(group, "deletion") is None  # the clips have no ground truth
    files = {path.name.split("_")[0] for path in (tmp_path / "study").glob("maps/Net/0/*")}
    assert files == set(nodes)  # noise is quickly made again
    later = run(tmp_path / "study", of)
    assert Counted.calls.total() == 1 and later.references == results.references


def test_maps_that_are_made_again_have_no_random_ones_beside_them(tmp_path: Path) -> None:
    again = {"again": {"_target_": "lightning_cam.metrics.MaxSensitivity", "samples": 1}}
    of = design({**MEASURES, **again}, random_seeds=1)
    results = run(tmp_path / "study", of, task=Masked())
    rows = results.references.values()
    assert rows and all(
        set(row["measured"]) == {*of.digests.values()} - {of.digests["again"]} for row in rows
    )
    assert results.gains(results.groups[0], "gradcam", "again") == {}
    assert results.values(results.groups[0], "gradcam", "again")
    (table,) = gain_tables(results)
    assert table.head == ("Method", "Deletion", "Insertion")


def test_the_truth_as_a_map_says_whether_a_measure_can_tell(tmp_path: Path) -> None:
    of = design(MEASURES, clips=1, random_seeds=3)
    results = run(tmp_path / "study", of, task=Masked())
    (group,) = results.groups
    truth = next(row for key, row in results.references.items() if key[4] == "truth")
    assert truth["grain"] == [4, 8, 8] and truth["values"]["deletion"] is not None
    found = results.telling(group, "deletion")
    assert found is not None and found.clips == 1 and not found.tells


def with_gains(score: Any, clips: int = 6) -> Results:
    """Results of two methods and a baseline that gain `score(cell, clip)` by both measures."""
    nodes = {**METHODS, "centre": {"_target_": "lightning_cam.CentreMap"}}
    of = design(MEASURES, methods=nodes, clips=clips, random_seeds=1)
    net = network(of)
    (unit, *_) = units = work_items([net], of)
    rows: dict[Any, StudyRow] = {}
    for unit in units:
        for cell in (*of.cells, "random 2x2x2 seed 0", "truth"):
            gain = 0 if cell.startswith("random") else score(cell, unit.clip)
            hard = 0.5 + 0.05 * unit.clip  # clips differ more than methods do
            values = (hard - gain, hard + gain)
            rows[unit.key(cell)] = {
                "network": net.name, "trained": "", "input": "", "index": unit.clip, "cell": cell,
                "clip_id": f"c{unit.clip}", "sequence": f"c{unit.clip}", "error": "", "flat": False,
                "label": "a", "prediction": "a", "device": "cpu", "seconds": 1.0, "warning": "",
                "grain": [2, 2, 2], "metric_seconds": 1.0, "forwards": 1, "p_target": 0.5,
                "measured": {
                    digest: {"value": value, "numbers": {}, "error": "", "curve": [value, value]}
                    for digest, value in zip(of.digests.values(), values, strict=True)
                },
            }  # fmt: skip
    return Results.of(of, [net], units, rows)


def test_a_baseline_is_never_the_best_and_stands_below_a_rule() -> None:
    gain = {"counted": 0.1, "gradcam": 0.2, "centre": 0.4, "truth": 0.3}
    results = with_gains(lambda cell, clip: gain[cell] + 0.001 * (clip % 2))
    (main,) = main_tables(results)
    assert [row[0] for row in main.rows] == ["Counted", "Grad-CAM", "Centre"]
    assert main.best == {(1, 1), (1, 2)} and main.baselines == {2} and main.rule == 2
    lines = main.markdown().splitlines()
    assert lines[6].replace(" ", "") == "|||||" and lines[7].startswith("| *Centre* | *")
    assert "**" not in lines[7]
    (gains,) = gain_tables(results)
    assert gains.rows[1] == ("Grad-CAM", *["+0.2005 [+0.1999, +0.2011]"] * 2)
    assert gains.rows[3] == ("Ground truth", *["+0.3005 [+0.2999, +0.3011]"] * 2)
    assert gains.baselines == {2, 3}
    assert gains.notes[1].startswith("What the ground truth itself gains over random maps (± s.e.)")
    assert "Deletion +0.300 ± 0.000" in gains.notes[1] and len(gains.notes) == 2


def test_a_measure_that_cannot_tell_the_truth_from_noise_says_so() -> None:
    results = with_gains(lambda cell, clip: 0.1 * (-1) ** clip if cell == "truth" else 0.2)
    (gains,) = gain_tables(results)
    for note in gains.notes[1:]:
        assert "cannot tell maps apart on these clips" in note and "two standard errors" in note


# --- what it costs -------------------------------------------------------------------------------


def test_the_cost_is_said_before_and_the_time_after_the_first_clip(tmp_path: Path) -> None:
    of = design(
        {**GINI},
        clips=2,
        methods={**METHODS, "rise": {"_target_": "lightning_cam.RISE", "masks": 8}},
    )
    net = network(of, task=Task(), dataset=Clips(1))
    net = replace(net, dataset=_Good(2))
    units = work_items([net], of)
    words = expected_cost(of, units, {})
    assert words == "methods run 20 forwards and 2 backwards at most, besides Counted"
    said: list[str] = []
    journal = Journal(tmp_path)
    measure_cells(of, units, {}, journal, "cpu", say=said.append)
    journal.close()
    assert len(said) == 1 and "a clip took" in said[0] and "the rest takes about" in said[0]
    done = read_journal(tmp_path)
    assert expected_cost(of, units, done) == ""
    forwards = [row["forwards"] for row in done.values() if row["cell"] != "counted"]
    assert sum(forwards) == 20
    begun = {key: row for key, row in done.items() if key[3] == 0 and key[4] != "rise"}
    (tmp_path / "again").mkdir()
    said.clear()
    measure_cells(of, units, begun, Journal(tmp_path / "again"), "cpu", say=said.append)
    assert not said  # what was left of a clip says nothing of a whole one
    assert [duration(s) for s in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


class _Good(Clips):
    """All clips can be read."""

    def __getitem__(self, n: int) -> dict[str, Any]:
        return super().__getitem__(3 + n)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 5, 7, 40])
def test_more_processes_than_clips_share_the_cells_of_a_clip(processes: int) -> None:
    of = design_of(clips=2, sweep_clips=1)
    units = work_items([network(of)], of)
    shares = shared_out(units, processes)
    found = sorted((unit.clip, cell) for unit in shares for cell in unit.cells)
    assert found == sorted((unit.clip, cell) for unit in units for cell in unit.cells)
    busy = sum(bool(shares[rank::processes]) for rank in range(processes))
    assert busy >= min(processes, 2 * (processes // 2), 5)


# --- the studies that come along -----------------------------------------------------------------

ELSEWHERE = {"TruthMap"}  # measured beside the methods of every study with `random_seeds`


def test_every_method_is_in_a_study() -> None:
    """What `explain=` knows, some study compares: a new method has to be entered."""
    studied = {
        node["_target_"].rsplit(".")[-1]
        for name in ("methods", "methods_sfm")
        for node in composed("explain", "ckpt=x", f"study={name}")["study"]["methods"].values()
    }
    nodes = (OmegaConf.load(path) for path in (CONFIGS / "explain").glob("*.yaml"))
    known = {str(node["_target_"]) for node in nodes if "_target_" in node}
    assert {name.split(".")[1] for name in known} - studied == ELSEWHERE


@pytest.mark.parametrize(
    ("name", "methods", "measures"),
    [("methods", 30, 11), ("methods_tiny", 30, 11), ("methods_sfm", 10, 3)],
)
def test_the_studies_of_methods(name: str, methods: int, measures: int) -> None:
    config = composed("explain", "ckpt=x", f"study={name}")
    of = Design.of(config["study"], config["measure"])
    assert len(of.cells) - len(of.baselines) == methods and len(of.measures) == measures
    assert len(of.baselines) == 4 and of.random_seeds == 3 and of.ranking_claims
