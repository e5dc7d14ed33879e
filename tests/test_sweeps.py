"""Several runs by one command: what is refused before anything starts, and which run is which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ROOT

from lightning_cam.commands import stopped, sweep_table, sweeps
from lightning_cam.commands.strategies import check_strategy, started_anew
from lightning_cam.commands.sweep_table import note_run
from lightning_cam.commands.sweeps import JobError, as_job, check_launcher, check_sweep, of_a_job
from lightning_cam.errors import ConfigError
from lightning_cam.files import read_csv
from lightning_cam.training.agreeing import Run
from lightning_cam.training.ranks import Job, slurm_step
from lightning_cam.training.step_environment import StepEnvironment

DDP = {"trainer": {"strategy": "ddp"}}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job around the tests."""
    for key in [*os.environ]:
        if key.startswith(("SLURM", "TORCHELASTIC", "MASTER")) or key in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(key)


def in_step(monkeypatch: pytest.MonkeyPatch, rank: int = 0, step: int = 0, job: int = 77) -> None:
    known = {"JOB_ID": job, "JOB_NAME": "a", "STEP_ID": step, "NTASKS": 2, "PROCID": rank}
    for key, value in {**known, "NTASKS_PER_NODE": 2}.items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))


def sweep(monkeypatch: pytest.MonkeyPatch, *typed: str) -> None:
    """As in a run of `-m`."""
    own = SimpleNamespace(overrides=SimpleNamespace(task=list(typed)))
    for module in (sweeps, sweep_table, stopped):
        monkeypatch.setattr(module, "sweeping", lambda: True, raising=False)
        known = SimpleNamespace(initialized=lambda: True, get=lambda: own)
        monkeypatch.setattr(module, "HydraConfig", known)


def test_jobs_are_submitted_once_and_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = ["seed=0,1", "hydra/launcher=slurm"]
    check_launcher(["-m", "seed=0,1"])
    check_launcher(["-m", "seed=0,1", "hydra/launcher=basic"])
    with pytest.raises(ConfigError, match="=slurm is for a sweep: add -m"):
        check_launcher(jobs)
    monkeypatch.setattr(sweeps, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="needs pip install hydra-submitit-launcher"):
        check_launcher(["-m", *jobs])
    monkeypatch.setattr(sweeps, "find_spec", lambda _: "there")
    monkeypatch.setattr(sweeps.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="has no sbatch; use a login node"):
        check_launcher(["-m", *jobs])
    monkeypatch.setattr(sweeps.shutil, "which", lambda _: "/usr/bin/sbatch")
    check_launcher(["-m", *jobs])
    in_step(monkeypatch)
    with pytest.raises(ConfigError, match="every process of this step would submit"):
        check_launcher(["-m", *jobs])


def test_only_processes_that_lightning_starts_would_sweep_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_sweep(DDP)  # a single run
    sweep(monkeypatch)
    for devices in (1, "1", [3], "3,", "auto", -1):
        check_sweep({"trainer": {"strategy": "auto", "accelerator": "cpu", "devices": devices}})
    for devices in (2, "2", [0, 1], "0,1"):  # Lightning makes ddp of auto
        with pytest.raises(ConfigError, match="or several devices: every process would sweep"):
            check_sweep({"trainer": {"strategy": "auto", "devices": devices}})
    with pytest.raises(ConfigError, match="every process would sweep again"):
        check_sweep(DDP)
    in_step(monkeypatch)
    check_sweep(DDP)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(ConfigError, match="every process would sweep again"):
        check_sweep(DDP)


def test_a_run_has_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"seed": 3, "data": {"batch_size": 8}}
    assert note_run(tmp_path / "a" / "one", config) is None  # no sweep
    (tmp_path / "a").mkdir()
    sweep(monkeypatch, "seed=${oc.env:N}", "+model=lrcn", "~logger", "explain=[a,b]")
    table = note_run(tmp_path / "a" / "one", config)
    sweep(monkeypatch, "seed=4", "data.batch_size=8")
    note_run(tmp_path / "a" / "two", {**config, "seed": 4}, "val/acc", 0.5)
    sweep(monkeypatch, "seed=3", "model=lrcn")
    note_run(tmp_path / "a" / "one", config, "val/acc", 0.912345678)
    assert table is not None
    two, one = read_csv(table)
    assert (one["folder"], one["seed"], one["model"]) == ("one", "3", "lrcn")
    assert (one["best"], one["monitor"]) == ("0.912346", "val/acc")
    assert (two["folder"], two["seed"], two["data.batch_size"]) == ("two", "4", "8")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["sweep.csv"]


def test_a_table_that_cannot_be_written_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(monkeypatch, "seed=3")
    (tmp_path / "sweep.csv").write_text("")
    assert note_run(tmp_path / "one", {"seed": 3}) is None
    assert capsys.readouterr().out.startswith(f"cannot add one to {tmp_path / 'sweep.csv'}: ")


def test_a_job_tells_that_it_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit), as_job():
        raise SystemExit(2)  # no job
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    paths = SimpleNamespace(paths=SimpleNamespace(stdout=Path("7_0_0_log.out")))
    submitit = SimpleNamespace(JobEnvironment=lambda: paths)
    monkeypatch.setitem(sys.modules, "submitit", submitit)  # type: ignore[arg-type]
    with pytest.raises(SystemExit), as_job():
        raise SystemExit(0)  # requeued
    with pytest.raises(JobError) as found, as_job():
        raise SystemExit(2)
    assert of_a_job(found.value) == "a run of the sweep has failed: see 7_0_0_log.out"
    failed = type("FailedJobError", (Exception,), {"__module__": "submitit.core.utils"})
    assert of_a_job(failed("invalid partition")) == "the sweep has failed: invalid partition"
    assert of_a_job(ValueError("x")) == ""


def test_a_run_of_a_sweep_goes_on_as_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopped.sys, "argv", ["train.py", "-m", "seed=3,4"])
    sweep(monkeypatch, "seed=4")
    run = Run(Path("runs/a/none"), Path("old.ckpt"))
    assert stopped.go_on(run).endswith("train.py seed=4 resume=old.ckpt")


def test_steps_that_run_side_by_side_meet_at_ports_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports = {}
    for job, step in ((77, 0), (77, 1), (77, 2), (78, 0), (120_077, 11)):
        found = set()
        for rank in range(2):
            monkeypatch.delenv("MASTER_PORT", raising=False)
            in_step(monkeypatch, rank, step, job)
            own = slurm_step()
            assert own is not None
            found.add(StepEnvironment(own).main_port)
        (ports[job, step],) = found  # the same of all ranks
        assert 15_000 <= ports[job, step] < 25_000
    assert len({*ports.values()}) == 5
    assert ports[77, 0] == 15_077  # as Lightning alone
    monkeypatch.setenv("MASTER_PORT", "29512")
    assert StepEnvironment(Job("77", 1, 0)).main_port == 29512


def test_strategies_that_split_are_refused() -> None:
    lightning = "lightning.pytorch.strategies."
    for fine in (
        "auto",
        "ddp",
        "ddp_find_unused_parameters_true",
        {"_target_": f"{lightning}DDPStrategy"},
    ):
        check_strategy({"strategy": fine, "accelerator": "cpu", "sync_batchnorm": False})
    for wrong, message in (
        ("fsdp", "=fsdp puts a part"), ("deepspeed_stage_2", "=deepspeed_stage_2 puts a part"),
        ({"_target_": f"{lightning}FSDPStrategy"}, "=FSDPStrategy puts a part"),
        ({"_target_": f"{lightning}DDPStrategy", "static_graph": True}, "static_graph: processes"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            check_strategy({"strategy": wrong})
    with pytest.raises(ConfigError, match="sync_batchnorm=true is for GPUs"):
        check_strategy({"strategy": "ddp", "accelerator": "cpu", "sync_batchnorm": True})


def test_processes_are_started_where_copies_are_asked_for() -> None:
    for asked, given in (
        ("ddp_spawn", "ddp"), ("ddp_notebook", "ddp"), ("ddp", "ddp"), ("auto", "auto"),
        ("ddp_fork_find_unused_parameters_true", "ddp_find_unused_parameters_true"),
        ({"_target_": "x.DDPStrategy", "start_method": "fork", "bucket_cap_mb": 5},
         {"_target_": "x.DDPStrategy", "start_method": "popen", "bucket_cap_mb": 5}),
        ({"_target_": "x.DDPStrategy"}, {"_target_": "x.DDPStrategy"}),
    ):  # fmt: skip
        assert started_anew({"strategy": asked, "devices": 2}) == {"strategy": given, "devices": 2}


def test_what_the_batch_script_starts(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "slurm" / "train.sbatch"
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\necho "$PWD: $*"\n')
    srun.chmod(0o755)
    job = {"SLURM_CPUS_PER_TASK": "6", "SLURM_ARRAY_TASK_ID": "3", "SLURM_SUBMIT_DIR": str(ROOT)}
    environment = {**os.environ, **job, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def start(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", script, "seed=%a", "name=a b"], env={**environment, **more}, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert start().stdout == (
        f"{ROOT}: --kill-on-bad-exit=1 --cpus-per-task=6 env --block-signal=USR1,TERM "
        "python train.py trainer=slurm seed=3 name=a b\n"
    )
    elsewhere = start(REPOSITORY=str(tmp_path))
    assert elsewhere.returncode == 2 and "no train.py in" in elsewhere.stderr
