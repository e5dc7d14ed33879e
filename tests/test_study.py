"""The study command: what it measures, that it survives kills, and what it makes of its rows."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping
from itertools import chain
from math import sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, start
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Gap3d, batch_of, clip_of, describe
from omegaconf import OmegaConf
from preloaded import Process
from rich.console import Console
from test_config import CONFIGS, composed

from lightning_cam.data.core.clips import Clip
from lightning_cam.errors import ConfigError, DataError, UserError, VideoReadError, WriteError
from lightning_cam.explaining.explain_settings import _NOT_IN_STUDIES, check_explain, check_study
from lightning_cam.explaining.journal import Journal
from lightning_cam.metrics import CurveMeasure, Explained, Measure, mean_interval, mean_std_interval
from lightning_cam.study import run_study
from lightning_cam.study.cell_runs import measure_cells
from lightning_cam.study.claims import FAILS, HOLDS, MISSING, OPEN, conclude, judge
from lightning_cam.study.csv_tables import summary_rows
from lightning_cam.study.design import Design
from lightning_cam.study.design_parts import method_cells
from lightning_cam.study.journal import cell_key, read_journal, same_study
from lightning_cam.study.method_tables import main_tables, sweep_tables
from lightning_cam.study.networks import Network, _named
from lightning_cam.study.plots import write_plots
from lightning_cam.study.results import Results
from lightning_cam.study.tables import Table
from lightning_cam.study.work_items import missing_work, work_items
from lightning_cam.training.build import build
from lightning_cam.training.checkpoint import KEY, Remember, rebuild
from lightning_cam.training.ranks import processes

STUDY: dict[str, Any] = {
    "name": "small",
    "clips": 4,
    "sweep_clips": 2,
    "methods": {
        "gradcam": {"_target_": "lightning_cam.GradCAM"},
        "rise": {"_target_": "lightning_cam.RISE", "masks": 8, "cells": [2, 2, 2]},
        "random": {"_target_": "lightning_cam.RandomMap"},
    },
    "sweeps": {
        "masks": {"method": "rise", "setting": "masks", "values": [4, 8]},
        "cells": {"method": "rise", "setting": "cells", "values": [[2, 2, 2], [4, 2, 2]]},
    },
}


MEASURES: dict[str, Any] = {
    "deletion": {"_target_": "lightning_cam.metrics.DeletionArea", "steps": 4},
    "insertion": {"_target_": "lightning_cam.metrics.InsertionArea", "steps": 4},
}


def study(**changes: Any) -> dict[str, Any]:
    return {**STUDY, **changes}


def design_of(measures: Mapping[str, Any] = MEASURES, **changes: Any) -> Design:
    """The small study with some settings changed."""
    return Design.of(study(**changes), measures)


def network(
    design: Design,
    name: str = "Net",
    trained: str = "",
    inputs: tuple[str, ...] = ("",),
    **more: Any,
) -> Network:
    """A network without weights whose clips are c0, c1, ...; of spectra c0_ir, c0_tv, ..."""
    names = [f"c{n}_{i}".rstrip("_") for i in inputs for n in range(design.clips)]
    dataset: Any = SimpleNamespace(clips=[Clip(Path(n), n) for n in names])
    of = {i: tuple(range(k * design.clips, (k + 1) * design.clips)) for k, i in enumerate(inputs)}
    facts: dict[str, Any] = {
        "name": name, "kind": name, "trained": trained, "path": Path("a.ckpt"), "digest": name,
        "task": None, "data": None, "dataset": dataset, "inputs": of,
        "columns": {},
        "swept": {i: frozenset(list(clips)[: design.sweep_clips]) for i, clips in of.items()},
    }  # fmt: skip
    return Network(**{**facts, **more})


def made_up(design: Design, networks: list[Network], score: Any) -> Results:
    """Results whose areas are `score(network, input, clip number, cell) -> a value a measure`;
    None leaves a row out, a text is an error."""
    units, rows = work_items(networks, design), {}
    for unit in units:
        n = unit.clip % design.clips
        for cell in unit.cells:
            found = score(unit.network, unit.input, n, cell)
            if found is None:
                continue
            row: dict[str, Any] = {
                "network": unit.network.name, "trained": unit.network.trained, "input": unit.input,
                "index": unit.clip, "clip_id": unit.network.dataset.clips[unit.clip].clip_id,
                "sequence": unit.network.sequence(unit.input, unit.clip), "cell": cell,
                "error": found if isinstance(found, str) else "", "device": "cpu",
                "label": "a", "prediction": "a", "warning": "",
            }  # fmt: skip
            if not isinstance(found, str):
                row |= {"seconds": 1.5, "metric_seconds": 1.0, "flat": False}
                row["measured"] = {}
                for (name, digest), value in zip(design.digests.items(), found, strict=True):
                    entry: dict[str, Any] = {"value": value, "numbers": {}, "error": ""}
                    if isinstance(design.measures[name], CurveMeasure):
                        entry["curve"] = [1.0, value, 0.0]
                    row["measured"][digest] = entry
            rows[cell_key(row)] = row
    return Results.of(design, networks, units, rows)


# --- what is measured ---------------------------------------------------------------------------


def test_equal_settings_are_one_cell() -> None:
    design = design_of()
    assert list(design.cells) == ["gradcam", "rise", "random", "rise masks=4", "rise cells=4x2x2"]
    masks, cells = design.sweeps
    assert masks.cells == {"4": "rise masks=4", "8": "rise"}
    assert cells.cells == {"2x2x2": "rise", "4x2x2": "rise cells=4x2x2"}
    assert design.cells["rise masks=4"].method.masks == 4  # type: ignore[attr-defined]
    assert [design.cells[m].title for m in design.methods] == ["Grad-CAM", "RISE", "Random"]
    assert design.cells_of(swept=False) == design.methods
    assert design.cells_of(swept=True) == tuple(design.cells)


def test_methods_of_one_title_go_by_their_names() -> None:
    nodes = {n: {"_target_": "lightning_cam.GradCAM", "pool": n} for n in ("space", "spacetime")}
    design = design_of(methods=nodes, sweeps=None)
    assert [cell.title for cell in design.cells.values()] == ["space", "spacetime"]


def test_the_paper_is_what_the_study_says() -> None:
    config = composed("explain", "ckpt=x", "study=multispectral")
    design = Design.of(config["study"], config["measure"])
    assert config["data"]["split"] == "test"
    assert design.methods == ("gradcam", "rise", "sidu", "random", "centre")
    values = {sweep.name: list(sweep.cells) for sweep in design.sweeps}
    assert values == {
        "rise_masks": ["100", "1000", "10000"],
        "rise_cells": ["2x8x8", "4x8x8", "8x8x8"],
        "rise_p": ["0.1", "0.25", "0.5"],
        "sidu_threshold": ["-1", "-0.5", "0", "0.5", "1"],
    }
    assert len(design.cells) == 5 + 2 + 2 + 2 + 4  # the default is a value of each sweep
    assert len(design.claims) == 10
    without = study(sweeps={**STUDY["sweeps"], "cells": None})  # null takes out
    assert [sweep.name for sweep in Design.of(without, MEASURES).sweeps] == ["masks"]
    config = composed("explain", "ckpt=x", "study=multispectral_tiny")
    tiny = Design.of(config["study"], config["measure"])
    assert (tiny.clips, tiny.sweep_clips) == (40, 20)
    assert {name: m.settings for name, m in tiny.measures.items()} == {
        "deletion": "default, steps=32", "insertion": "default, steps=32",
    }  # fmt: skip
    assert len(tiny.claims) == 10


def test_the_example_in_the_docs_is_a_study(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "study.md").read_text()
    (example,) = re.findall(r"```yaml\n(# @package _global_.*?)```", text, re.DOTALL)
    shutil.copytree(CONFIGS, tmp_path / "configs")
    file = tmp_path / "configs/study/layers.yaml"
    file.write_text(example.replace("my_package.MyMethod", "lightning_cam.CentreMap"))
    with initialize_config_dir(str(tmp_path / "configs"), version_base="1.3"):
        config: Any = OmegaConf.to_container(
            compose("explain", ["ckpt=x", "study=layers"]), resolve=True
        )
    design = Design.of(config["study"], config["measure"])
    assert config["data"]["split"] == "val"
    assert {name: m.settings for name, m in design.measures.items()} == {
        "deletion": "rise, steps=50, unit=(1, 8, 8), voxels=None",
        "insertion": "rise, steps=50, unit=(1, 8, 8), voxels=None",
        "gini": "",
    }
    assert len(design.cells) == 5 + 2 and len(design.claims) == 2
    assert design.claims[0].measures == ("deletion", "insertion")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip": 3}, "study.clip"),
        ({"clips": 0}, "study.clips=0"),
        ({"methods": {}}, "at least one method"),
        ({"methods": {"a": {"_target_": "torch.nn.ReLU"}}}, "study.methods.a is not a method"),
        ({"methods": {"a": {"_target_": "lightning_cam.RISE", "mask": 3}}}, "study.methods.a"),
        ({"sweeps": {"s": {"method": "rise", "setting": "q", "values": [1]}}}, "does not take"),
        ({"sweeps": {"s": {"method": "rise", "setting": "p", "values": []}}}, "values=[]"),
        (
            {"sweeps": {"s": {"method": "rise", "setting": "p", "values": [2]}}},
            "p must be a number",
        ),
        ({"protocol": "rise"}, "no setting 'study.protocol'"),
        ({"only": ["rice"]}, "no method of study.only 'rice'; nearest: rise"),
        ({"only": "rise"}, "study.only=rise must be a list"),
        ({"only": []}, "study.methods is empty"),
        ({"claims": {"c": {"better": "rise", "worse": "random"}}}, "says is missing"),
        ({"claims": {"c": {"says": "x", "sweep": "masks", "within": -1}}}, "above 0"),
        ({"retry": 3}, "study.retry=3"),
    ],
)
def test_mistakes_in_a_study_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        design_of(**changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_about_methods_and_measures_that_are_not_there_is_left_out_and_said() -> None:
    says = {"says": "x", "better": "rise", "worse": "random"}
    claims = {
        "kept": says,
        "measure": {**says, "measures": ["tied"]},
        "method": {**says, "worse": "sidu"},
        "sweep": {"says": "x", "sweep": "cells", "better": "2x2x2", "worse": "4x2x2"},
        "value": {"says": "x", "sweep": "masks", "better": 4, "worse": 5},
        "ranking": {"says": "x", "agree": ["deletion", "tied"]},
    }
    sweeps = {**STUDY["sweeps"], "rice": {"method": "rice", "setting": "p", "values": [1]}}
    design = design_of(claims=claims, sweeps=sweeps)
    assert [claim.says for claim in design.claims] == ["x", "x"] and not design.ranking_claims
    assert design.left_out == {
        "method 'rice'": ["study.sweeps.rice"],
        "measure 'tied'": ["study.claims.measure", "study.claims.ranking"],
        "method 'sidu'": ["study.claims.method"],
        "value '5'": ["study.claims.value"],
    }
    few = design_of(claims=claims, only=["random", "gradcam"])
    assert few.methods == tuple(few.cells) == ("random", "gradcam") and not few.sweeps
    assert len([*chain.from_iterable(few.left_out.values())]) == 2 + 6 and not few.claims
    assert few.settings != design_of(only=None).settings == design_of().settings


DELETION = MEASURES["deletion"]


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ({}, "measure is empty"),
        (3, "measure=3 must be a mapping"),
        ({"deletion": None}, "measure is empty"),
        ({"a": {"_target_": "lightning_cam.GradCAM"}}, "measure.a is not a measure"),
        ({"a": 3}, "measure.a is not a measure"),
        ({"a": {"steps": 3}}, "take it out with measure.a=null"),
        ({"seconds": DELETION}, "measure.seconds cannot have this name"),
        ({"deletion": {**DELETION, "protocol": "rice"}}, "nearest: rise"),
        ({"deletion": {**DELETION, "protocol": 3}}, "measure.deletion: "),
        ({"deletion": {**DELETION, "stpes": 3}}, "measure.deletion: "),
        ({"deletion": {**DELETION, "unit": "second"}}, "unit must be"),
    ],
)
def test_mistakes_in_measures_are_named(measure: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        design_of(measure)
    assert words in str(caught.value) and "\n" not in str(caught.value)


class Sideways(Measure):
    """A measure of which neither high nor low values are good."""

    title = "Where it begins"
    better = None
    needs = frozenset({"map"})

    def __call__(self, explained: Explained) -> torch.Tensor:
        return explained.heat[:, 0, 0, 0]


SIDEWAYS: dict[str, Any] = {"side": {"_target_": f"{__name__}.Sideways"}}


def test_a_measure_without_direction_is_shown_and_decides_nothing() -> None:
    claim = {"says": "x", "better": "gradcam", "worse": "random"}
    with pytest.raises(ConfigError, match=r"study.claims.c: of side neither high nor low values"):
        design_of(SIDEWAYS, claims={"c": claim})
    with pytest.raises(ConfigError, match=r"study.claims.c.measures: side cannot decide"):
        design_of({**MEASURES, **SIDEWAYS}, claims={"c": {**claim, "measures": ["side"]}})
    design = design_of({**MEASURES, **SIDEWAYS}, claims={"c": claim})
    assert design.claims[0].measures == ("deletion", "insertion")
    (table,) = main_tables(made_up(design, [network(design)], lambda *_: (0.2, 0.8, 0.4)))
    assert table.head[1:] == (
        "Net\nDeletion ↓", "Net\nInsertion ↑", "Net\nWhere it begins", "Net\ns/clip",
    )  # fmt: skip
    assert {column for _, column in table.best} == {1, 2}
    assert table.rows[0][1:] == ("0.20 ± 0.00", "0.80 ± 0.00", "0.40 ± 0.00", "1.5")


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 7), clips=st.integers(1, 20), swept=st.integers(1, 20))
def test_processes_share_all_clips_evenly(count: int, clips: int, swept: int) -> None:
    design = design_of(clips=clips, sweep_clips=swept)
    units = work_items([network(design, inputs=("ir", "tv"))], design)
    shares = [units[rank::count] for rank in range(count)]
    assert sorted((u.input, u.clip) for share in shares for u in share) == sorted(
        (u.input, u.clip) for u in units
    )
    work = [sum(len(u.cells) for u in share) for share in shares]
    assert max(work) - min(work) <= len(design.cells)


def test_networks_that_are_alike_go_by_their_paths() -> None:
    design = design_of()
    nets = [
        network(design, trained=t, path=Path("runs", run, "date", "checkpoints", "last.ckpt"))
        for t, run in (("ir", "a"), ("ir", "b"), ("tv", "a"))
    ]
    assert [n.key for n in _named(nets)] == [("Net a", "ir"), ("Net b", "ir"), ("Net", "tv")]


def test_settings_that_studies_do_not_have() -> None:
    config = composed("explain", "ckpt=x", "study=multispectral")
    check_study(config)
    for key, (default, _) in _NOT_IN_STUDIES.items():
        assert config[key] == default, key
    for key, value in {
        "video": "a.mp4", "select": "wrong", "target": 1, "contrast": 2, "clips": 3, "fps": 4,
        "layer": "x", "layers": "list", "explain": {"gradcam": {}},
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=f"^{key}=.*study; leave it out"):
            check_study({**config, key: value})
    check_study({**config, "ckpt": ["a", "b"]})
    for ckpt in ([], [1]):
        with pytest.raises(ConfigError, match="ckpt="):
            check_study({**config, "ckpt": ckpt})
    with pytest.raises(ConfigError, match=r"ckpt=.*must be text"):
        check_explain({**config, "ckpt": ["a", "b"]})


def test_ranks_of_launchers(monkeypatch) -> None:
    for name in [n for n in os.environ if n.startswith("SLURM_")] + ["RANK", "WORLD_SIZE"]:
        monkeypatch.delenv(name, raising=False)
    assert processes() == (0, 1)
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert processes() == (0, 1)  # the batch script has no others beside it
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert processes() == (3, 4)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes() == (1, 2)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ConfigError, match="RANK and WORLD_SIZE"):
        processes()


# --- the rows on the disk -----------------------------------------------------------------------


def line(n: int, **more: Any) -> dict[str, Any]:
    return {
        "network": "a",
        "trained": "",
        "input": "",
        "index": n,
        "cell": "é",
        "error": "",
        **more,
    }


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_kill_costs_the_last_row_at_most(cut: int, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("rows")
    journal = Journal(folder)
    for n in range(4):
        journal.add(line(n))
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert len(read_journal(folder)) in (kept, kept + 1)  # the whole line may lack its end alone
    again = Journal(folder)
    again.add(line(9))
    again.close()
    assert [key[3] for key in read_journal(folder)] == [*range(kept), 9]


def test_of_repeated_rows_what_worked_counts(tmp_path: Path) -> None:
    for rank, error in enumerate(("broken", "", "broken")):
        journal = Journal(tmp_path, rank)
        journal.add(line(0, error=error))
        journal.close()
    (row,) = read_journal(tmp_path).values()
    assert row["error"] == ""


def test_one_process_a_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ConfigError, match=r"another process is writing .*rows.rank0.jsonl"):
        Journal(tmp_path)
    Journal(tmp_path, 1).close()
    journal.close()
    Journal(tmp_path).close()


def test_another_study_does_not_go_on(tmp_path: Path) -> None:
    facts = {"study": {"steps": 4, "values": [1, 2]}, "ckpt": [{"sha256": "a"}], "about": {"v": 1}}
    same_study(tmp_path / "s", facts)
    same_study(tmp_path / "s", {**facts, "about": {"v": 2}})
    for changed, words in (
        ({"study": {"steps": 8, "values": [1, 2]}}, r"study.steps=4, not 8"),
        ({"ckpt": [{"sha256": "b"}]}, r'ckpt\[0\].sha256="a", not "b"'),
        ({"study": {"steps": 4}}, r"study.values=\[1, 2\], not null"),
    ):
        with pytest.raises(ConfigError, match=f"{words}; .*choose out=DIR"):
            same_study(tmp_path / "s", {**facts, **changed})


# --- measuring ----------------------------------------------------------------------------------


class Breaks:
    """Fails on clips whose fourth voxel is above 0."""

    def __call__(self, model: Any, clip: torch.Tensor, target: Any) -> torch.Tensor:
        if float(clip.flatten()[3]) > 0:
            raise ValueError("cannot do\nthis one")
        return clip[:, 0]


class Clips:
    """Clips of noise; number 1 cannot be read, number 2 raises."""

    def __init__(self, count: int) -> None:
        self.clips = [Clip(Path(f"c{n}"), f"c{n}") for n in range(count)]

    def __getitem__(self, n: int) -> dict[str, Any]:
        if n == 2:
            raise VideoReadError("c2", "gone")
        batch = batch_of(clip_of(1, 3, 4, 8, 8, seed=n))
        sample = {k: v[0] for k, v in batch.items()} | {
            "clip_id": f"c{n}",
            "label": torch.tensor(1),
        }
        return {**sample, "error": "cut off" if n == 1 else ""}


class Task:
    device = torch.device("cpu")

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Gap3d().eval()
        self.forwards = 0
        self.net.register_forward_pre_hook(self.count)

    def count(self, module: Any, inputs: Any) -> None:
        self.forwards += len(inputs[0])

    def explainable(self, batch: Any = None) -> Any:
        return describe(self.net, outputs=["a", "b", "c", "d"])

    def to(self, device: Any) -> Task:
        return self

    def cpu(self) -> Task:
        return self


def test_failures_are_rows_and_end_nothing(tmp_path: Path, capsys) -> None:
    nodes = {**STUDY["methods"], "breaks": {"_target_": f"{__name__}.Breaks"}}
    design = design_of(methods=nodes, clips=5, sweep_clips=1)
    net = network(design, task=Task(), dataset=Clips(5))
    units = work_items([net], design)
    journal = Journal(tmp_path)
    measure_cells(design, units, {}, journal, "cpu")
    done = read_journal(tmp_path)
    assert all(not missing_work(unit, done, design) for unit in units)
    assert capsys.readouterr().out.count("skipped") == 2
    results = Results.of(design, [net], units, done)
    assert [row["error"] for row in results.skipped] == ["cut off", "cannot read video 'c2': gone"]
    failed = [row for row in results.rows if row["error"]]
    clips = [n for n in (0, 3, 4) if float(clip_of(1, 3, 4, 8, 8, seed=n).flatten()[3]) > 0]
    assert clips and [row["index"] for row in failed] == clips
    assert {row["error"] for row in failed} == {"ValueError: cannot do this one"}
    worked = [row for row in results.rows if not row["error"]]
    for row in worked:
        model = net.task.explainable()
        clip = clip_of(1, 3, 4, 8, 8, seed=row["index"])
        answer = model.forward(clip).detach().softmax(1)
        assert row["prediction"] == "abcd"[int(answer.argmax())] and row["label"] == "b"
        assert row["p_target"] == pytest.approx(float(answer.max()), abs=1e-6)
        for name in ("deletion", "insertion"):
            curve = row["curves"][name]
            assert len(curve) == 5
            area = (sum(curve) - (curve[0] + curve[-1]) / 2) / 4
            assert row["values"][name] == pytest.approx(area, abs=1e-5)
        assert row["curves"]["deletion"][0] == row["curves"]["insertion"][-1]
    rise = next(row for row in worked if row["cell"] == "rise")
    assert rise["forwards"] == 9 and rise["numbers"]["error"] > 0 and "8 masks" in rise["notes"]
    (table,) = main_tables(results)
    assert any("2 more clips could not be read" in note for note in table.notes)
    assert any(
        f"Breaks, Net: {3 - len(clips)} clips, {len(clips)} failed" in n for n in table.notes
    )
    before = len(done)
    measure_cells(design, units, done, journal, "cpu")
    assert len(read_journal(tmp_path)) == before
    repaired: Any = Clips(5)
    repaired.__class__ = type(
        "Whole", (Clips,), {"__getitem__": lambda self, n: Clips.__getitem__(self, 0)}
    )
    again = design_of(methods=nodes, clips=5, sweep_clips=1, retry=True)
    units = work_items([network(design, task=Task(), dataset=repaired)], again)
    measure_cells(again, units, done, journal, "cpu")
    assert not Results.of(again, [net], units, read_journal(tmp_path)).skipped
    journal.close()


def test_all_cells_of_a_clip_share_its_ends(tmp_path: Path) -> None:
    nodes = {n: {"_target_": "lightning_cam.CentreMap", "sigma": 0.1 * n} for n in (1, 2, 3)}
    nodes = {f"m{n}": node for n, node in nodes.items()}
    design = design_of(methods=nodes, sweeps=None, clips=1, sweep_clips=None)
    task = Task()
    journal = Journal(tmp_path)
    measure_cells(
        design,
        work_items([network(design, task=task, dataset=Clips(1))], design),
        {},
        journal,
        "cpu",
    )
    journal.close()
    # the clip and two references once; for each method the clip (by explain) and 3 + 3 points
    assert task.forwards == 1 + 2 + 3 * (1 + 2 * 3)


# --- tables, plots, conclusions -----------------------------------------------------------------


def test_statistics_are_students() -> None:
    s = mean_interval([1.0, 2.0, 6.0])
    std = sqrt((4 + 1 + 9) / 2)
    assert (s.mean, s.clips) == (3, 3)
    assert s.std == pytest.approx(std)
    assert s.high - s.mean == pytest.approx(4.302653 * std / sqrt(3), rel=1e-5)
    assert mean_interval([]).clips == 0 and str(mean_interval([1.0]).std) == "nan"
    curves = np.array([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])  # every point as its own number
    for point, found in zip(curves.T, zip(*mean_std_interval(curves), strict=True), strict=True):
        one = mean_interval(point)
        assert found == (one.mean, one.std, one.low, one.high)
    mean, *others = mean_std_interval(curves[:1])
    assert (mean == curves[0]).all() and all(np.isnan(each).all() for each in others)


def even(model: Any, clip: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(clip[:, 0])


def test_a_function_is_a_method_of_a_study() -> None:
    nodes = {"own": {"_target_": "test_study.even", "_partial_": True}}
    cell = method_cells(nodes)["own"]
    assert cell.title == cell.method.title == "even"
    assert not cell.method.baseline
    for node in ({"_target_": "torch.nn.ReLU"}, {"_target_": "pathlib.Path"}):
        with pytest.raises(ConfigError, match=r"study\.methods\.own is not a method"):
            method_cells({"own": node})


@pytest.mark.attack
def test_no_two_methods_of_a_study_have_one_title() -> None:
    """Methods of one title, one of them named as another one is titled."""
    target = {"cam": "lightning_cam.GradCAM", "rise": "lightning_cam.RISE"}
    for names in ({"RISE": "cam", "x": "cam", "r": "rise"}, {"Grad-CAM": "cam", "y": "cam"}):
        nodes = {name: {"_target_": target[kind]} for name, kind in names.items()}
        titles = [cell.title for cell in method_cells(nodes).values()]
        assert len(set(titles)) == len(titles), titles
    assert method_cells({"RISE": {"_target_": target["rise"]}})["RISE"].title == "RISE"


def paper(clips: int = 4) -> tuple[Design, list[Network]]:
    design = design_of(clips=clips)
    return design, [
        network(design, "R3D18", "ir", ("ir",)),
        network(design, "PAN", "ir", ("ir",)),
        network(design, "R3D18", "irtv", ("ir", "tv")),
        network(design, "PAN", "tv", ("tv",)),
    ]


def test_in_a_terminal_columns_that_do_not_fit_stand_in_more_tables() -> None:
    heads = ("Method", *(f"Measure {n}" for n in range(5)))
    rows = (("Grad-CAM", *(f"{n} ± 0" for n in range(5))), ("LRP", *"56789"))
    table = Table("All", heads, rows)
    for width, count in ((200, 1), (40, 3), (10, 5)):
        parts = list(table.fitting(width))
        assert len(parts) == count
        shown = Console(width=max(width, 30), record=True, file=io.StringIO())
        for part in parts:
            shown.print(part)
        text = shown.export_text()
        assert text.count("Grad-CAM") == count and all(text.count(head) == 1 for head in heads[1:])


def test_tables_are_laid_out_as_in_the_paper() -> None:
    design, networks = paper()

    def score(net: Network, name: str, n: int, cell: str) -> Any:
        area = 0.1 * (1 + list(design.cells).index(cell)) + 0.02 * (n % 2) - 0.01
        return area + 0.001 * (net.trained == "irtv"), 1 - area

    results = made_up(design, networks, score)
    infrared, visible = main_tables(results)
    assert (infrared.title, visible.title) == ("IR input data", "TV input data")
    rows = [row[0] for row in infrared.rows]
    assert rows == [
        "Grad-CAM IR", "RISE IR", "Grad-CAM IRTV", "RISE IRTV", "Random IR", "Random IRTV",
    ]  # fmt: skip
    assert infrared.baselines == {4, 5} and infrared.rule == 4
    spectra = [row[0].split()[-1] for row in visible.rows]
    assert spectra == ["IRTV", "IRTV", "TV", "TV", "IRTV", "TV"]
    assert infrared.head[1:4] == (
        "R3D18\nDeletion ↓", "R3D18\nInsertion ↑", "R3D18\ns/clip",
    )  # fmt: skip
    text = infrared.markdown().splitlines()
    assert text[4] == (
        "| Grad-CAM IR | **0.10 ± 0.01** | **0.90 ± 0.01** | 1.5 "
        "| **0.10 ± 0.01** | **0.90 ± 0.01** | 1.5 |"
    )
    # alike to two digits, alike in bold; PAN was not trained on both
    assert text[6] == "| Grad-CAM IRTV | **0.10 ± 0.01** | **0.90 ± 0.01** | 1.5 | - | - | - |"
    assert "over 4 clips" in text[-1] and "steps=4" in text[-1] and "standard deviation" in text[-1]
    masks, _ = sweep_tables(results)
    assert [row[:2] for row in masks.rows[:4]] == [
        ("IR, trained on IR", "4"), ("IR, trained on IR", "8"),
        ("IR, trained on IRTV", "4"), ("IR, trained on IRTV", "8"),
    ]  # fmt: skip
    assert "over 2 clips" in masks.notes[0]
    summary = list(summary_rows(results))
    assert len(summary) == 5 * (3 + 2 + 2)
    first = summary[0]
    assert (first["table"], first["row"], first["clips"]) == ("main", "Grad-CAM", 4)
    assert float(first["deletion_mean"]) == pytest.approx(0.1)
    assert float(first["deletion_low"]) < 0.1 < float(first["deletion_high"])
    assert {row["clips"] for row in summary if row["table"] != "main"} == {2}


def test_failed_cells_are_said(tmp_path: Path) -> None:
    design, networks = paper()
    results = made_up(
        design,
        networks,
        lambda net, name, n, cell: "RuntimeError: no" if cell == "rise" and n else (0.2, 0.8),
    )
    notes = main_tables(results)[0].notes
    assert "RISE IR, R3D18: 1 clips, 3 failed." in notes
    assert "over 1 to 4 clips" in notes[0]
    assert {path.name for path in write_plots(tmp_path, results)} >= {
        "curves_R3D18_irtv_tv.png", "sweep_masks.png",
    }  # fmt: skip


CLAIMS: dict[str, Any] = {
    "over": {"says": "over", "better": "gradcam", "worse": "random"},
    "more": {"says": "more", "sweep": "masks", "better": 8, "worse": 4},
    "same": {"says": "same", "sweep": "cells", "within": 0.05},
    "both": {"says": "both", "trained": "irtv", "methods": ["gradcam"]},
}


def verdicts(
    score: Any, measures: Mapping[str, Any] = MEASURES, networks: Any = None
) -> dict[str, str]:
    design = design_of(measures, claims=CLAIMS, sweep_clips=None)
    made = networks(design) if networks else [network(design)]
    results = made_up(design, made, score)
    return {claim.says: conclude(results, claim).verdict for claim in design.claims}


def test_claims_are_decided_by_paired_differences() -> None:
    hard = [0.0, 0.3, 0.6, 0.9]  # clips differ far more than methods do

    def score(shift: Mapping[str, float]) -> Any:
        def of(net: Network, name: str, n: int, cell: str) -> tuple[float, float]:
            noise = 0.001 * (n % 2)
            return hard[n] - shift.get(cell, 0) + noise, hard[n] + shift.get(cell, 0) - noise

        return of

    ahead = verdicts(score({"gradcam": 0.1}))
    assert ahead == {"over": HOLDS, "more": OPEN, "same": HOLDS, "both": MISSING}
    behind = verdicts(score({"random": 0.1, "rise masks=4": 0.1, "rise": 0.02}))
    assert (behind["over"], behind["more"], behind["same"]) == (FAILS, FAILS, HOLDS)
    assert verdicts(score({"rise": 0.2}))["same"] == FAILS
    none = verdicts(lambda *args: None)
    assert set(none.values()) == {MISSING}


def test_opposite_metrics_decide_nothing() -> None:
    def score(net: Network, name: str, n: int, cell: str) -> tuple[float, float]:
        return (0.2, 0.5) if cell == "gradcam" else (0.3 + 0.001 * n, 0.6 + 0.001 * n)

    assert verdicts(score)["over"] == OPEN


def test_least_relevant_first_turns_what_is_good() -> None:
    def score(net: Network, name: str, n: int, cell: str) -> tuple[float, float]:
        return (0.7 + 0.01 * n, 0.2 + 0.01 * n) if cell == "gradcam" else (0.5, 0.4)

    least = {name: {**node, "order": "least"} for name, node in MEASURES.items()}
    assert verdicts(score)["over"] == FAILS
    assert verdicts(score, least)["over"] == HOLDS
    design = design_of(least)
    (table,) = main_tables(made_up(design, [network(design)], score))
    assert table.head[1:3] == ("Net\nDeletion ↑", "Net\nInsertion ↓")
    assert {(0, 1), (0, 2)} == table.best


def test_training_is_compared_on_the_same_sequences() -> None:
    def pair(design: Design) -> list[Network]:
        return [
            network(design, trained="ir", inputs=("ir",)),
            network(design, trained="irtv", inputs=("ir", "tv")),
        ]

    def score(net: Network, name: str, n: int, cell: str) -> tuple[float, float]:
        if name == "tv":
            return 0.0, 0.0  # nothing to compare with
        return 0.5 - 0.01 * n, 0.5 + 0.1 * n + (0.05 if net.trained == "irtv" else 0)

    design = design_of(claims=CLAIMS)
    results = made_up(design, pair(design), score)
    conclusion = conclude(results, design.claims[3])
    assert conclusion.verdict == HOLDS
    (difference,) = conclusion.differences
    assert set(difference.values["insertion"]) == {"c0", "c1", "c2", "c3"}
    assert all(v == pytest.approx(0.05) for v in difference.values["insertion"].values())
    assert difference.label == "Net on IR, Grad-CAM: trained on IRTV vs IR"


@pytest.mark.parametrize(
    ("values", "within", "verdict"),
    [
        ([0.1, 0.2, 0.15], None, HOLDS),
        ([-0.1, -0.2, -0.15], None, FAILS),
        ([-0.1, 0.2, 0.15], None, OPEN),
        ([0.01, 0.02, 0.01], 0.05, HOLDS),
        ([0.1, 0.11, 0.1], 0.05, FAILS),
        ([0.04, 0.06, 0.05], 0.05, OPEN),
        ([0.1], None, MISSING),
        ([], 0.05, MISSING),
    ],
)
def test_the_rule(values: list[float], within: float | None, verdict: str) -> None:
    assert judge(mean_interval(values), within) == verdict


# --- the command --------------------------------------------------------------------------------

MULTISPECTRAL = {
    "_target_": "lightning_cam.synthetic.multispectral.data_module.SyntheticMultispectral",
    "actors": 4,
    "repetitions": 1,
    "actions": ["step_left", "step_right"],
    "num_frames": 4,
    "resize": 24,
    "crop": 24,
}
BOTH = "ckpt=[ir.ckpt,irtv.ckpt]"
QUICK = [
    "study=multispectral_tiny",
    "study.clips=3",
    "study.sweep_clips=2",
    "measure.deletion.steps=4",
    "study.methods.rise.masks=16",
    "study.methods.sidu.threshold=0",
    "study.sweeps.rise_masks.values=[4,16]",
    "study.claims.more_masks={better: 16, worse: 4}",
    "study.sweeps.rise_cells=null",
    "study.claims.time_cells=null",
]


def checkpoint(path: Path, root: Path, spectrum: str, fusion: str = "union") -> Path:
    """An untrained network for a spectrum, as `train.py` would have left it."""
    channels = {"ir": 1, "tv": 3, "irtv": 3 if fusion == "union" else 4}[spectrum]
    classes = MULTISPECTRAL["actions"]
    model = {"_target_": "lightning_cam.models.ResNet3D", "backbone": "r3d_small"}
    task = {
        "_target_": "lightning_cam.tasks.VideoClassification",
        "model": {**model, "num_outputs": 2, "in_channels": channels},
        "classes": classes,
    }
    data = {**MULTISPECTRAL, "root": str(root), "spectrum": spectrum, "fusion": fusion}
    torch.manual_seed(channels)
    memory = Remember(task, data, classes, {"name": f"{spectrum}_{fusion}", "explain": {}}).memory  # type: ignore[arg-type]
    weights = build(task).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights, "epoch": 0, "global_step": 1, KEY: memory}, path)
    return path


def begin(cwd: Path, *arguments: object, **environment: str) -> Process:
    return start("explain", *arguments, cwd=cwd, **environment)


def end(process: Process) -> str:
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), err
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with rendered data and three checkpoints."""
    folder = tmp_path_factory.mktemp("study")
    build({**MULTISPECTRAL, "root": str(folder / "data")}).prepare_data()
    for spectrum in ("ir", "irtv"):
        checkpoint(folder / f"{spectrum}.ckpt", folder / "data", spectrum)
    checkpoint(folder / "run/checkpoints/fused.ckpt", folder / "data", "irtv", "early")
    return folder


def here(place: Path, *arguments: str) -> Path | None:
    """The command in this process, which has loaded torch already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return run_study(composed("explain", *arguments))


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """An uninterrupted study of two networks."""
    assert here(place, BOTH, *QUICK, "out=whole") == place / "whole" / "index.html"
    return place / "whole"


def numbers(folder: Path) -> dict[str, Any]:
    """All that a study found out, without how long it took and its own name."""
    found: dict[str, Any] = {}
    for name in ("cells", "summary"):
        with (folder / f"{name}.csv").open() as file:
            found[name] = [
                {k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)
            ]
    found["conclusions"] = (folder / "conclusions.md").read_text()
    # of a table's row, every third number is the seconds
    found["tables"] = [
        re.sub(r" \*?[\d.e-]+\*? (?=\||$)", " s ", line)
        for line in (folder / "tables.md").read_text().splitlines()
    ]
    return found


def rows_in(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("rows.*"))


@pytest.mark.slow
def test_the_study_of_two_networks(whole: Path) -> None:
    text = (whole / "tables.md").read_text()
    assert "## IR input data" in text and "## TV input data" in text
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("|")]
    methods = ("Grad-CAM", "RISE", "SIDU", "Random", "Centre")
    blocks = methods[:3], methods[3:]  # baselines come last, in italics below a rule
    named = [[f"{m} {t}" for t in ("IR", "IRTV") for m in block] for block in blocks]
    assert rows[2:13] == [*named[0], "", *(f"*{name}*" for name in named[1])]
    assert rows[15:21] == [f"{m} IRTV" for m in blocks[0]] + ["", "*Random IRTV*", "*Centre IRTV*"]
    assert "over 3 clips" in text and "over 2 clips" in text and "steps=4" in text
    with (whole / "cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    own, swept = 5, 1 + 2 + 4
    assert len(cells) == 3 * (3 * own + 2 * swept)  # IR by two networks, TV by one
    assert not any(row["error"] for row in cells)
    pairs = {(row["network"], row["trained"], row["input"]) for row in cells}
    assert pairs == {
        ("ResNet3D", "ir", "ir"),
        ("ResNet3D", "irtv", "ir"),
        ("ResNet3D", "irtv", "tv"),
    }
    conclusions = (whole / "conclusions.md").read_text()
    assert "trained on IRTV vs IR" in conclusions
    assert "Training on IR and TV helps: missing" not in conclusions
    page = (whole / "index.html").read_text()
    assert page.count("<table") >= 6 and "curves_ResNet3D_irtv_tv.png" in page
    for name in re.findall(r'(?:src|href)="\./([^"]+)"', page):
        assert (whole / name).is_file(), name


# Signals that stop a study, and the exit code they leave.
STOPS = [
    (signal.SIGKILL, -signal.SIGKILL), (signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143),
    (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL),
]  # fmt: skip


@pytest.mark.attack
@pytest.mark.slow
def test_a_study_stopped_five_times_equals_an_uninterrupted_one(
    place: Path, whole: Path, record_property: Any
) -> None:
    """SIGKILL, SIGTERM and SIGINT in the middle of a study: it ends as if there were none."""
    record_property("tried", len(STOPS))
    folder, total = place / "killed", rows_in(whole)
    for kill, (stop, code) in enumerate(STOPS, 1):
        process = begin(place, BOTH, *QUICK, "out=killed")
        deadline = time.monotonic() + 200
        while rows_in(folder) < kill * total // 6:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(stop)
        said, err = process.communicate()
        assert process.returncode == code, err
        assert code < 0 or "stopped; the same command goes on: " in said
        if kill == 2:  # as if the kill had come in the middle of a line
            with (folder / "rows.rank0.jsonl").open("ab") as file:
                file.write(b'{"network": "ResNet3D", "trai')
    assert rows_in(folder) < total
    assert not (folder / "summary.csv").exists()
    out = end(begin(place, BOTH, *QUICK, "out=killed"))
    assert f"{total} cells, " in out and "of them are there" in out
    assert numbers(folder) == numbers(whole)
    assert rows_in(folder) == total


@pytest.mark.attack
@pytest.mark.slow
def test_a_study_whose_tables_cannot_be_written(place: Path, whole: Path, monkeypatch) -> None:
    """The disk is full, or Ctrl-C comes, when a study's tables are written: its command goes on."""

    def refuse(*_: object) -> None:
        raise WriteError("cannot write x")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for fails, error in ((refuse, WriteError), (stop, SystemExit)):
        with monkeypatch.context() as patch, pytest.raises(error) as caught:
            patch.setattr("lightning_cam.study.study_command.write_study", fails)
            here(place, BOTH, *QUICK, "out=whole")
        if error is WriteError:
            assert "; the same command goes on: " in str(caught.value)
        else:
            assert caught.value.code == 130


@pytest.mark.slow
def test_two_processes_and_then_one(place: Path, whole: Path) -> None:
    world = {"WORLD_SIZE": "2"}
    words = [BOTH, *QUICK, "out=ranks"]
    both = [begin(place, *words, RANK=rank, **world) for rank in "01"]
    said = "".join(end(process) for process in both)
    assert "process 1 of 2" in said and "process 2 of 2" in said and "conclusions" in said
    assert numbers(place / "ranks") == numbers(whole)
    counts = [(place / "ranks" / f"rows.rank{r}.jsonl").read_text().count("\n") for r in "01"]
    assert min(counts) > 0.4 * sum(counts)

    # one of two processes never came: one process alone finishes its work
    words[-1] = "out=fewer"
    first = end(begin(place, *words, RANK="1", **world))
    assert "are left to others" in first and not (place / "fewer" / "tables.md").exists()
    end(begin(place, *words))
    assert numbers(place / "fewer") == numbers(whole)


@pytest.mark.slow
def test_where_a_study_lies_and_what_it_refuses(place: Path, capfd) -> None:
    words = [*QUICK, "study.sweeps=null", "study.claims=null"]
    fused = "ckpt=run/checkpoints/fused.ckpt"
    page = here(place, fused, *words)
    folder = place / "run/study_multispectral_tiny"
    assert page == folder / "index.html"
    text = (folder / "tables.md").read_text()
    assert "## IRTV input data" in text and "Grad-CAM IRTV early" in text
    assert "open run/" not in capfd.readouterr().out  # that is said by the command
    for more, said in (
        ("study.clips=2", "study.clips=3, not 2"),
        ("data.split=train", 'data.split="test", not "train"'),
        ("clips=3", "clips=3 says nothing in a study"),
        ("study.methods.rise.p=2", "p must be a number between 0 and 1"),
        (f"out={place / 'ir.ckpt'}/x", "cannot write to"),
    ):
        with pytest.raises(UserError) as caught:
            here(place, fused, *words, more)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="are the same checkpoint"):
        here(place, "ckpt=[ir.ckpt,./ir.ckpt]", *words)


class Nothing(Sideways):
    """A measure that never has a value."""

    def __call__(self, explained: Explained) -> torch.Tensor:
        return explained.heat.new_full((1,), torch.nan)


def test_ground_truth_is_measured_and_nothing_at_all_is_told(place: Path, tmp_path: Path) -> None:
    words = [f"ckpt={place / 'ir.ckpt'}", "study=multispectral_tiny", "study.clips=2"]
    words += [f"study.methods.{name}=null" for name in ("gradcam", "rise", "sidu")]
    words += ["study.sweeps=null", "study.claims=null", "measure.deletion=null"]
    here(place, *words, "measure=[iou_action,energy_actor]", f"out={tmp_path / 'truth'}")
    with (tmp_path / "truth/cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 4
    assert all(0 < float(row["iou_action"]) <= 1 and row["energy_actor"] for row in cells)
    nothing = f"+measure.nothing._target_={__name__}.Nothing"
    with pytest.raises(DataError, match="no clip has a value of nothing; choose other measures"):
        here(place, *words, "measure=none", nothing, f"out={tmp_path / 'nothing'}")


@pytest.mark.slow
def test_clips_that_cannot_be_read_are_counted(place: Path, tmp_path: Path, capfd) -> None:
    root = tmp_path / "data"
    shutil.copytree(place / "data", root)
    ckpt = f"ckpt={checkpoint(tmp_path / 'ir.ckpt', root, 'ir')}"
    options = [
        "study=multispectral_tiny",
        "study.clips=2",
        "measure.deletion.steps=2",
        "study.sweeps=null",
    ]
    options += [
        "study.claims=null",
        *(f"study.methods.{m}=null" for m in ("gradcam", "rise", "sidu")),
    ]
    victim, other = _test_clips(tmp_path / "ir.ckpt")
    for figure in victim.iterdir():
        figure.write_bytes(b"no image")
    here(place, ckpt, *options)
    out = capfd.readouterr().out
    assert out.count("skipped ") == 1 and "1 clips could not be read" in out
    text = (tmp_path / "study_multispectral_tiny" / "tables.md").read_text()
    assert "over 1 clips" in text and "1 more clip could not be read" in text
    for figure in other.iterdir():
        figure.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"nothing could be measured: .*cannot"):
        here(place, ckpt, *options, f"out={tmp_path / 'none'}")


def _test_clips(path: Path) -> tuple[Path, Path]:
    """The folders of the two clips that `study.clips=2` chooses."""
    data = rebuild(path)[1]
    clips = data.test_set.clips  # type: ignore[attr-defined]
    return clips[0].path, clips[-1].path
