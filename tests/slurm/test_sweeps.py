"""Sweeps of trainings of two ranks each: as jobs, in one step, and as an array."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_cam.files import read_csv
from slurm.cluster import Cluster, Job
from slurm.trainings import ROOT, SCRIPT, settings

pytestmark = [pytest.mark.attack, pytest.mark.slow]
TWO = ["--nodes=1", "--ntasks-per-node=2"]


def short(data: Path, *more: str) -> list[str]:
    """One step of training, and no explanations."""
    return settings(
        data, "trainer=slurm", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
        "explain=none", "logger=none", *more,
    )  # fmt: skip


def table(place: Path) -> dict[str, str]:
    """Folder -> seed of all runs, each of which has its folder, its best checkpoint and its row."""
    rows = read_csv(place / "runs" / "a" / "sweep.csv")
    folders = sorted(file.parents[1].name for file in place.glob("runs/a/*/checkpoints/last.ckpt"))
    assert [row["folder"] for row in sorted(rows, key=lambda row: row["folder"])] == folders
    assert all(row["monitor"] == "val/acc" and float(row["best"]) >= 0 for row in rows)
    for row in rows:
        config = (place / "runs" / "a" / row["folder"] / "config.yaml").read_text()
        assert f"\nseed: {row['seed']}\n" in config
    return {row["folder"]: row["seed"] for row in rows}


def test_each_run_is_a_job_of_two_ranks(slurm: Cluster, data: Path, tmp_path: Path) -> None:
    """Two of them, and a third that fails, of which the waiting command says where its log is."""
    pytest.importorskip("submitit")
    jobs = [
        "hydra/launcher=slurm", "hydra.launcher.tasks_per_node=2", "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.gpus_per_node=null",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "-m", "seed=3,4,-1", *short(data), *jobs],
        cwd=tmp_path, env=slurm.environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    found = table(tmp_path)
    assert sorted(found.values()) == ["3", "4"], done.stderr
    assert {name.rpartition("_")[2] for name in found} == {"0", "1"}  # of an array
    said = "error: a run of the sweep has failed: see "
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(said), done.stderr
    log = Path(done.stderr.splitlines()[-1].removeprefix(said)).read_text()
    assert "error: seed=-1 must be a whole number" in log


def test_all_runs_are_in_one_step_beside_another(
    slurm: Cluster, data: Path, tmp_path: Path
) -> None:
    """Of one job, so that only the step tells the ports at which their ranks meet."""
    srun = f"srun --exact --ntasks=2 --ntasks-per-node=2 python {ROOT}/train.py"
    words = " ".join(short(data))
    script = tmp_path / "sweep.sh"
    script.write_text(
        f"#!/bin/bash\n{srun} -m seed=3,4 {words} & one=$!\nsleep 1\n{srun} seed=5 {words} && "
        "wait $one\n"
    )
    options = ["--nodes=1", "--ntasks-per-node=4", "--output=slurm-%j.log"]
    job = slurm.submit(script, cwd=tmp_path, options=options)
    assert job.end(600) == "COMPLETED", job.log()
    first = f"slurm-{job.number}"
    assert (tmp_path / "runs" / "a" / f"{first}-1" / "checkpoints" / "last.ckpt").exists()
    shutil.rmtree(tmp_path / "runs" / "a" / f"{first}-1")  # no part of the sweep
    assert table(tmp_path) == {first: "3", f"{first}-0-turn-2": "4"}, job.log()


def test_an_array_whose_tasks_have_two_ranks(slurm: Cluster, data: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    options = [*TWO, "--array=3-4"]
    array = slurm.submit(SCRIPT, *short(data, "seed=%a"), cwd=tmp_path, options=options).number
    for task in ("3", "4"):
        job = Job(slurm, f"{array}_{task}", tmp_path)
        logs = tmp_path.glob("slurm-*.log")
        assert job.end(600) == "COMPLETED", "".join(log.read_text() for log in logs)
    assert table(tmp_path) == {f"slurm-{array}_{task}": task for task in ("3", "4")}
