"""A run that is stopped, whenever and however, goes on and ends where it would have ended."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run, start, tiny
from test_checkpoint import remembered

from lightning_cam.commands import run_train
from lightning_cam.errors import CheckpointError, ConfigError, UserError
from lightning_cam.training.checkpoint import KEY
from lightning_cam.training.runs import (
    FOLDER_VARIABLE,
    RESUME_VARIABLE,
    Run,
    discard,
    open_run,
    same_as_before,
    shared,
)

EPOCHS = 24


def weights_of(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def follows(done: int, out: str) -> int:
    """The epochs printed go on behind `done`, at most the last one repeated; returns the newest."""
    epochs = [int(number) for number in re.findall(r"^epoch (\d+)/", out, re.MULTILINE)]
    if not epochs:
        return done
    assert epochs[0] in (done, done + 1)
    assert epochs == list(range(epochs[0], epochs[-1] + 1))
    return epochs[-1]


@pytest.mark.slow
def test_killed_five_times_it_ends_like_an_uninterrupted_run(tmp_path: Path) -> None:
    settings = [*tiny(tmp_path / "data"), "explain=none", f"trainer.max_epochs={EPOCHS}"]
    straight = run("train", *settings, "name=straight", cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    assert f"epoch {EPOCHS}/{EPOCHS}" in straight.stdout

    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))  # other moments every time
    print(f"KILL_SEED={seed}")
    moments = random.Random(seed)
    done = 0  # epochs whose line was printed; the checkpoint follows the line
    for attempt in range(5):
        resume = ["resume=last"] if attempt else []
        process = start("train", *settings, "name=killed", *resume, cwd=tmp_path)
        assert process.stdout is not None
        lines: list[str] = []
        wanted = moments.randint(1, 3)
        for line in process.stdout:  # the first mark comes before training, others after epochs
            lines += [line] if line.startswith(("run folder", "epoch ")) else []
            if len(lines) == wanted:
                break
        time.sleep(moments.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        done = follows(done, "".join(lines) + rest)
    last = run("train", *settings, "name=killed", "resume=last", cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert follows(done, last.stdout) == EPOCHS
    assert len(list((tmp_path / "runs" / "killed").iterdir())) == 1  # one run, one folder

    (a,) = (tmp_path / "runs" / "straight").glob("*/checkpoints/last.ckpt")
    (b,) = (tmp_path / "runs" / "killed").glob("*/checkpoints/last.ckpt")
    one, two = weights_of(a), weights_of(b)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert same(one[part], two[part]), part
    assert one["epoch"] == EPOCHS - 1

    # The weights would differ had a generator been somewhere else: dropout is on.
    assert one[KEY]["task"]["model"]["dropout"] > 0
    refused = run("train", *settings, "name=killed", "resume=last", "model.hidden=17", cwd=tmp_path)
    assert refused.returncode == 2
    assert "model.hidden=16, not 17" in refused.stderr


# --- finding the run ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLURM") or name in ("LOCAL_RANK", FOLDER_VARIABLE, RESUME_VARIABLE):
            monkeypatch.delenv(name)


def checkpoint(path: Path, age: float, size: float = 1.0) -> Path:
    """A file that is so many steps behind, written all the later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    step = 1000 - int(age)
    torch.save({"state_dict": {}, "epoch": 1, "global_step": step, KEY: remembered()}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(size * len(data))])
    then = time.time() - step
    os.utime(path, (then, then))
    return path


def test_new_runs_never_share_a_folder(tmp_path: Path) -> None:
    folders = {open_run(tmp_path, "a").folder for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.is_dir() and folder.parent == tmp_path / "a" for folder in folders)


def test_last_is_the_latest_run_with_a_readable_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a" / "old" / "checkpoints" / "last.ckpt", age=500)
    good = checkpoint(tmp_path / "a" / "new" / "checkpoints" / "last.ckpt", age=100)
    run = open_run(tmp_path, "a", "last")
    assert (run.folder, run.resume) == (tmp_path / "a" / "new", good)
    assert run.note == f"{run.folder} is the furthest of 2 runs"
    (tmp_path / "a" / "newest").mkdir()
    run = open_run(tmp_path, "a", "last")
    assert run.resume == good
    assert "newest has no checkpoint" in run.note


@pytest.mark.parametrize("size", [0.0, 0.5])
def test_a_broken_checkpoint_is_named_and_the_one_before_taken(tmp_path: Path, size: float) -> None:
    folder = tmp_path / "a" / "run" / "checkpoints"
    good = checkpoint(folder / "epoch_003.ckpt", age=100)
    checkpoint(folder / "epoch_001.ckpt", age=300)
    checkpoint(folder / "last.ckpt", age=10, size=size)
    (folder.parent / "config.yaml").touch()
    run = open_run(tmp_path, "a", "last")
    assert run.resume == good
    assert "skipped" in run.note and "last.ckpt" in run.note
    assert open_run(tmp_path, "a", str(folder.parent)) == run


def test_killed_before_the_first_checkpoint_it_starts_over_in_its_folder(tmp_path: Path) -> None:
    folder = open_run(tmp_path, "a").folder
    run = open_run(tmp_path, "a", "last")
    assert (run.folder, run.resume) == (folder, None)
    assert "starting from the beginning" in run.note


def test_any_folder_stands_for_its_newest_checkpoint(tmp_path: Path) -> None:
    """The run is where the checkpoint lies, not the folder that was named."""
    for name, age in (("old", 100), ("new", 10)):
        last = checkpoint(tmp_path / "a" / name / "checkpoints" / "last.ckpt", age=age)
        (tmp_path / "a" / name / "config.yaml").touch()
    for folder in (tmp_path, tmp_path / "a", last.parents[1], last.parent):
        assert open_run(tmp_path, "b", str(folder)) == Run(last.parents[1], last)
    assert not (tmp_path / "b").exists()


def test_settings_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    run_train._show({"name": "first"}, Run(tmp_path))

    def killed(_number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        run_train._show({"name": "second"}, Run(tmp_path))
    assert (tmp_path / "config.yaml").read_text() == "name: first\n"


@pytest.mark.parametrize("text", [None, "", "model:\n  hidden: 8\ntask: {", "task:\n", "\xff: ["])
def test_without_its_settings_a_run_goes_by_what_its_checkpoint_remembers(
    tmp_path: Path, text: str | None
) -> None:
    file = checkpoint(tmp_path / "checkpoints" / "last.ckpt", age=1)
    if text is not None:
        (tmp_path / "config.yaml").write_bytes(text.encode("latin1"))
    memory = remembered()
    task = {**memory["task"], "optimizer": {"lr": 1}, "classes": None}
    same_as_before(Run(tmp_path, file), {"task": task, "data": memory["data"], "seed": 0})
    task = {**task, "model": {**task["model"], "hidden": 9}}
    with pytest.raises(ConfigError, match=r"task\.model\.hidden=8, not 9"):
        same_as_before(Run(tmp_path, file), {"task": task, "data": memory["data"], "seed": 0})


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to resume"):
        open_run(tmp_path / "none", "a", "last")
    open_run(tmp_path, "lrcn")
    with pytest.raises(UserError, match="no run 'lrnc'; nearest: lrcn"):
        open_run(tmp_path, "lrnc", "last")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        open_run(tmp_path, "a", str(tmp_path / "a.ckpt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        open_run(tmp_path, "a", str(tmp_path / "empty"))


def test_a_path_goes_on_in_its_own_folder(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a" / "run" / "checkpoints" / "epoch_001.ckpt", age=1)
    moved = open_run(tmp_path, "b", str(path))  # no config.yaml: not a run folder
    assert moved.folder.parent == tmp_path / "b"
    assert "in a new one" in moved.note
    (tmp_path / "a" / "run" / "config.yaml").touch()
    assert open_run(tmp_path, "b", str(path)) == Run(tmp_path / "a" / "run", path)


@pytest.fixture
def job(monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_NTASKS", "4")


def test_slurm_job_keeps_its_folder_when_requeued(tmp_path: Path, job, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    first = open_run(tmp_path, "a")
    assert first == Run(tmp_path / "a" / "slurm-77")
    checkpoint(first.checkpoints / "last.ckpt", age=100)
    requeued = checkpoint(first.folder / "hpc_ckpt_1.ckpt", age=10)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert open_run(tmp_path, "a").resume == requeued
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # a shell inside an allocation is not a job
    assert "slurm" not in open_run(tmp_path, "a").folder.name


def test_steps_of_a_slurm_job_are_runs_of_their_own(tmp_path: Path, job, monkeypatch) -> None:
    last = {}
    for step in ("0", "1"):  # one after the other, the first has saved when the second begins
        monkeypatch.setenv("SLURM_STEP_ID", step)
        ranks = [open_run(tmp_path, "a") for _ in range(4)]
        assert ranks == [ranks[0]] * 4
        assert ranks[0].resume is None
        last[step] = checkpoint(ranks[0].checkpoints / "last.ckpt", age=1)
        assert open_run(tmp_path, "a").resume is None  # a late rank
    assert last["0"] != last["1"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    for step, path in last.items():
        monkeypatch.setenv("SLURM_STEP_ID", step)
        assert [open_run(tmp_path, "a").resume for _ in range(4)] == [path] * 4


@pytest.mark.parametrize("step", [None, str(2**32 - 5)])
def test_commands_of_a_slurm_script_take_turns(tmp_path: Path, job, monkeypatch, step) -> None:
    if step:  # the number of the batch script itself
        monkeypatch.setenv("SLURM_STEP_ID", step)
    runs = [open_run(tmp_path, "a") for _ in range(3)]
    assert len({run.folder for run in runs}) == 3
    assert all(run.resume is None for run in runs)
    last = [checkpoint(run.checkpoints / "last.ckpt", age=1) for run in runs]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert [open_run(tmp_path, "a").resume for _ in range(3)] == last
    fresh = open_run(tmp_path, "a")  # the script has grown
    assert fresh.resume is None and fresh.folder not in {run.folder for run in runs}
    monkeypatch.setenv("LOCAL_RANK", "0")  # torchrun's processes could not agree
    with pytest.raises(ConfigError, match="srun"):
        open_run(tmp_path, "a")


def test_processes_of_one_run_agree(tmp_path: Path, monkeypatch) -> None:
    run = Run(tmp_path / "a", tmp_path / "a" / "last.ckpt")
    with shared(run):
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert open_run(tmp_path, "other") == run
        with shared(run):
            pass
        assert FOLDER_VARIABLE in os.environ  # a child leaves what its parent set
        monkeypatch.delenv("LOCAL_RANK")
    assert FOLDER_VARIABLE not in os.environ
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match="started by torchrun"):
        open_run(tmp_path, "other")


def test_a_run_that_failed_before_it_began_leaves_no_folder(tmp_path: Path) -> None:
    run = open_run(tmp_path, "a")
    (run.folder / "config.yaml").touch()
    discard(run)
    assert not (tmp_path / "a").exists()
    run = open_run(tmp_path, "a")
    discard(run)
    assert not run.folder.exists()
    run = open_run(tmp_path, "a")
    (run.folder / "config.yaml").touch()
    (run.folder / "notes.txt").touch()
    discard(run)
    assert run.folder.exists()
