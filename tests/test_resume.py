"""Which run and which checkpoint is gone on from. What comes of it: test_stopped_training.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_checkpoint import remembered

from lightning_cam.commands import run_train
from lightning_cam.errors import CheckpointError, ConfigError, UserError
from lightning_cam.training import agreeing
from lightning_cam.training.agreeing import TOLD, Run, shared
from lightning_cam.training.checkpoint import KEY
from lightning_cam.training.runs import FOLDER, discard, open_run, same_as_before

# --- finding the run ----------------------------------------------------------------------------


_LAUNCHED = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", TOLD, FOLDER)


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM", "TORCHELASTIC")) or name in _LAUNCHED:
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
    # Published weights are remembered as a class and its settings, which are compared once loaded.
    task["model"] = {"_target_": f"{task['model']['_target_']}.from_pretrained", "hidden": 9}
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


# --- several processes ---------------------------------------------------------------------------

Environment = dict[str, str]


def of_job(step: int | None = 0, rank: int = 0, restart: int = 0, **more: str) -> Environment:
    """What SLURM tells a task of job 77."""
    step_id = {} if step is None else {"SLURM_STEP_ID": str(step)}
    return {
        "SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": str(rank), **step_id,
        "SLURM_RESTART_COUNT": str(restart), **more,
    }  # fmt: skip


def ranks(environment: Callable[[int], Environment], count: int, *given: object) -> list[Run | str]:
    """What each of several processes comes to, whichever is first: a run, or an error's words."""
    ends = []
    for rank in range(count):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.environ.update(environment(rank))
            time.sleep(0.05 * (rank == 0))  # the others ask before there is an answer
            try:
                said = open_run(*given).to_json()  # type: ignore[arg-type]
            except UserError as error:
                said = str(error)
            os.write(writing, said.encode())
            os._exit(0)
        os.close(writing)
        ends.append(reading)
    told = [os.fdopen(end).read() for end in ends]
    for _ in ends:
        os.wait()
    return [Run.from_json(text) if text.startswith("{") else text for text in told]


def one(runs: list[Run | str]) -> Run:
    """That to which all have come."""
    assert all(run == runs[0] for run in runs), runs
    assert isinstance(runs[0], Run), runs[0]
    return runs[0]


@pytest.mark.slow
def test_all_ranks_of_a_step_go_where_the_first_says(tmp_path: Path) -> None:
    """Steps, and the commands or the sweep of one, are runs of their own, and so when requeued."""
    seen = {}
    for restart in (0, 1, 3):  # once the job was killed before a rank had said anything
        found = {
            (step, turn): one(
                ranks(lambda rank, at=(step, restart): of_job(at[0], rank, at[1]), 3, tmp_path, "a")  # type: ignore[misc]
            )
            for step in (0, 1)
            for turn in (1, 2)
        }
        assert len({run.folder for run in found.values()}) == 4
        assert found[0, 1].folder == tmp_path / "a" / "slurm-77"
        assert [run.resume for run in found.values()] == [seen.get(key) for key in found]
        for n, (key, run) in enumerate(found.items()):
            seen[key] = checkpoint(run.checkpoints / "last.ckpt", age=100 * n + 10 - restart)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        ".slurm-77", "slurm-77", "slurm-77-1", "slurm-77-0-turn-2", "slurm-77-1-turn-2",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("where", ["alone", "in its run", "last"])
def test_a_requeued_job_goes_on_in_its_folder_whatever_it_was_told_to_resume(
    tmp_path: Path, where: str
) -> None:
    given = checkpoint(tmp_path / "old" / "checkpoints" / "last.ckpt", age=500)
    if where != "alone":
        (tmp_path / "old" / "config.yaml").touch()
    name, resume = ("old", "last") if where == "last" else ("a", str(given))
    root = tmp_path.parent if where == "last" else tmp_path
    name = tmp_path.name if where == "last" else name

    def start(restart: int) -> Run:
        return one(ranks(lambda rank: of_job(0, rank, restart), 4, root, name, resume))

    first = start(0)
    assert first.resume == given
    assert (first.folder == tmp_path / "old") == (where != "alone")
    assert start(1) == replace(first, note="", restart=1)  # killed before it had saved anything
    newer = checkpoint(first.checkpoints / "last.ckpt", age=100)
    other = checkpoint(root / name / "another" / "checkpoints" / "last.ckpt", age=1)
    assert start(2).resume == newer != other
    assert start(2).folder != first.folder or where != "alone"  # a second command of the step


def test_what_the_first_cannot_do_none_does(tmp_path: Path) -> None:
    said = ranks(lambda rank: of_job(0, rank), 4, tmp_path, "a", str(tmp_path / "no.ckpt"))
    assert len(set(said)) == 1 and str(said[0]).startswith("no checkpoint at")
    assert one(ranks(lambda rank: of_job(0, rank, 1), 3, tmp_path, "a")).resume is None


def test_only_the_first_rank_reads_checkpoints(tmp_path: Path, monkeypatch) -> None:
    checkpoint(tmp_path / "a" / "slurm-77" / "checkpoints" / "last.ckpt", age=1)
    first = one(ranks(lambda rank: of_job(0, rank), 1, tmp_path, "a", "last"))
    monkeypatch.setattr("lightning_cam.training.checkpoint.load", None)
    assert one(ranks(lambda rank: of_job(0, rank + 1), 3, tmp_path, "a", "last")) == first


def test_a_rank_that_hears_nothing_says_what_is_missing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(agreeing, "PATIENCE", 0.0)
    for name, value in of_job(0, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"first process of slurm-77 .* set runs=DIR"):
        open_run(tmp_path, "a")


@pytest.mark.parametrize("step", [None, 2**32 - 5])
def test_commands_of_a_slurm_script_take_turns(tmp_path: Path, step: int | None) -> None:
    def start(restart: int) -> Run:
        return one(ranks(lambda _: of_job(step, 0, restart), 1, tmp_path, "a"))

    runs = [start(0) for _ in range(3)]
    assert len({run.folder for run in runs}) == 3
    assert all(run.resume is None for run in runs)
    last = [checkpoint(run.checkpoints / "last.ckpt", age=1) for run in runs]
    assert [start(1).resume for _ in range(3)] == last
    fresh = start(1)  # the script has grown
    assert fresh.resume is None and fresh.folder not in {run.folder for run in runs}


def test_a_task_of_an_array_is_found_by_its_numbers(tmp_path: Path) -> None:
    def task(n: int) -> Environment:
        numbers = {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": str(n)}
        return of_job(0, 0, SLURM_JOB_ID=str(77 + n), SLURM_NTASKS="1", **numbers)

    folders = [one(ranks(lambda _, n=n: task(n), 1, tmp_path, "a")).folder.name for n in (0, 3)]  # type: ignore[misc]
    assert folders == ["slurm-70_0", "slurm-70_3"]


def test_shells_of_any_name_and_old_jobs_keep_their_checkpoints(tmp_path: Path) -> None:
    """salloc and srun --pty zsh: each command has its folder. Numbers of jobs may begin anew."""
    assert "slurm" not in one(
        ranks(lambda _: of_job(0, 0, SLURM_JOB_NAME="bash"), 1, tmp_path, "a")
    ).folder.name  # fmt: skip
    typed = {"SLURM_JOB_NAME": "interactive"}  # as salloc calls its jobs
    for shell in (
        of_job(None, 0, **typed),
        of_job(0, 0, **typed, SLURM_NTASKS="1"),
        of_job(0, 0, **typed, SLURM_PTY_PORT="4000"),
    ):
        run = one(ranks(lambda _, shell=shell: shell, 1, tmp_path, "a"))  # type: ignore[misc]
        assert "slurm" not in run.folder.name
    tasks = one(ranks(lambda rank: of_job(0, rank, **typed), 4, tmp_path, "b"))
    assert tasks.folder.name == "slurm-77"  # of srun within salloc
    old = checkpoint(tmp_path / "a" / "slurm-77" / "checkpoints" / "last.ckpt", age=1)
    shell = of_job(0, 0, SLURM_JOB_NAME="zsh", SLURM_NTASKS="1")
    runs = [one(ranks(lambda _: shell, 1, tmp_path, "a")) for _ in range(2)]
    assert len({run.folder for run in runs} | {old.parents[1]}) == 3
    assert all(run.resume is None for run in runs)
    again = one(ranks(lambda _: shell, 1, tmp_path, "a", str(old.parent)))
    assert again.resume == old


def torchrun() -> Callable[..., Environment]:
    """What one torchrun tells its processes; its store lives as long as this is known."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def environment(rank: int, restart: int = 0, **more: str) -> Environment:
        return {
            "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": str(restart),
            "TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), **more,
        }  # fmt: skip

    return environment


def test_torchrun_needs_no_folder_and_goes_on_when_it_starts_anew(tmp_path: Path) -> None:
    agent = torchrun()
    run = one(ranks(agent, 3, tmp_path, "a"))
    last = checkpoint(run.checkpoints / "last.ckpt", age=1)
    again = one(ranks(lambda rank: agent(rank, 1), 3, tmp_path, "a", str(tmp_path / "gone")))
    assert again == Run(run.folder, last, restart=1)


def test_processes_that_torchrun_starts_anew_meet_in_a_store_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In torchrun's they would find, and wait for, those that have ended."""
    agent, found = torchrun(), []
    for rank in (0, 1):
        for name, value in agent(rank, 1).items():
            monkeypatch.setenv(name, value)
        open_run(tmp_path, "a")
        found.append(os.environ["MASTER_PORT"])
    assert found[0] == found[1] != agent(0)["MASTER_PORT"]
    assert not agreeing._torchrun_store().check(["lightning_cam/port/1"])  # it serves, and is empty


def test_torchrun_in_a_slurm_job_goes_on_when_the_job_is_requeued(tmp_path: Path) -> None:
    def start(restart: int) -> Run:
        agent = torchrun()
        return one(ranks(lambda rank: of_job(0, 0, restart) | agent(rank), 3, tmp_path, "a"))

    run = start(0)
    assert run.folder == tmp_path / "a" / "slurm-77"
    last = checkpoint(run.checkpoints / "last.ckpt", age=1)
    assert start(1) == Run(run.folder, last, restart=1)


@pytest.mark.slow
def test_torchrun_in_a_named_folder_resumes_or_refuses(tmp_path: Path) -> None:
    home = tmp_path / "mine"

    def start(*resume: object) -> Run | str:
        agent = torchrun()
        told = ranks(lambda rank: agent(rank, **{FOLDER: str(home)}), 3, tmp_path, "a", *resume)
        assert len({str(run) for run in told}) == 1
        return told[0]

    outside = checkpoint(tmp_path / "b" / "checkpoints" / "last.ckpt", age=500)
    assert start(str(outside)) == Run(home, outside)
    own = checkpoint(home / "checkpoints" / "last.ckpt", age=1)
    assert start("last") == start(str(home)) == start(str(own)) == Run(home, own)
    assert f"to go on add resume={home}" in str(start())
    assert "has checkpoints of its own" in str(start(str(outside)))


def test_processes_that_lightning_starts_are_told(tmp_path: Path, monkeypatch) -> None:
    run = Run(tmp_path / "a", tmp_path / "a" / "last.ckpt")
    with shared(run):
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert open_run(tmp_path, "other") == run
        with shared(run):
            pass
        assert TOLD in os.environ  # a child leaves what its parent set
        monkeypatch.delenv("LOCAL_RANK")
    assert TOLD not in os.environ
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match="started by a launcher that is not known"):
        open_run(tmp_path, "other")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--standalone"):
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
