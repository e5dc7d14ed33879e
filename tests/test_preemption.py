"""Stops that are marked and answered later: signals, worker processes, SLURM's answers."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from commands import tiny, typed

from lightning_cam import stops
from lightning_cam.errors import ArgumentError
from lightning_cam.tasks import VideoClassification
from lightning_cam.training.preemption import Within
from lightning_cam.training.ranks import group_left
from lightning_cam.training.requeue import RequeueError, requeue

pytestmark = [pytest.mark.attack, pytest.mark.slow]

# A `scontrol` that answers for a job, and notes what it is asked.
SCONTROL = """#!/bin/sh
echo "$@" >> {place}/asked
[ "$1" = show ] && {{ cat {place}/facts; exit 0; }}
[ -e {place}/refuses ] && {{ echo 'Requested operation is presently disabled' >&2; exit 1; }}
sed -i 's/Restarts=0/Restarts=1/; s/JobState=RUNNING/JobState=COMPLETING/' {place}/facts
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the answers for job 77, of which this process is a part."""
    place = tmp_path / "scontrol-answers"
    place.mkdir()
    (place / "scontrol").write_text(SCONTROL.format(place=place))
    (place / "scontrol").chmod(0o755)
    (place / "facts").write_text("JobId=77 JobState=RUNNING Reason=None Restarts=0")
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    more = {"JOB_ID": "77", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**more, "STEP_ID": "0", "NTASKS_PER_NODE": "1", "NNODES": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return place


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ("JobState=RUNNING Reason=None Restarts=0", ""),
        ("JobState=COMPLETING Reason=TimeLimit Restarts=0", ""),
        ("JobState=COMPLETING Reason=None Restarts=1", None),  # SLURM does it
        ("JobState=COMPLETING Reason=None Restarts=0", "job 77 was cancelled"),
        ("JobState=CANCELLED Reason=None Restarts=0", "job 77 was cancelled"),
    ],
)
def test_who_is_requeued(job: Path, facts: str, said: str | None) -> None:
    """A job that runs or whose time is up is requeued; one that somebody has cancelled is not."""
    (job / "facts").write_text(facts)
    if said:
        with pytest.raises(RequeueError, match=said):
            requeue("77")
    else:
        requeue("77")
    assert ("requeue 77" in (job / "asked").read_text()) is (said == "")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("lightning_cam.commands.run_train.plain_settings", "outside of training"),
        ("lightning_cam.training.saving.LastCheckpoint.setup", "before training"),
        ("lightning_cam.tasks.VideoClassification.training_step", "in epoch 1, step 1: saved"),
        ("lightning_cam.tasks.VideoClassification.validation_step", "in epoch 1, step 3: saved"),
        ("lightning_cam.explaining.ExplainCallback._made", "in epoch 1, step 3: saved"),
        ("lightning_cam.commands.run_train._keep_checkpoint", "after training"),
    ],
)
@pytest.mark.parametrize("number", stops.ASKING)
def test_a_job_is_requeued_wherever_it_is(
    job: Path,
    place: str,
    said: str,
    number: signal.Signals,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    """SIGUSR1 and SIGTERM, twice, to a job that starts, trains, validates, explains or ends."""
    owner, _, name = place.rpartition(".")
    found = pkgutil.resolve_name(owner)
    plain = getattr(found, name)

    def told(*given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        return plain(*given, **named)

    monkeypatch.setattr(found, name, told)
    monkeypatch.chdir(tmp_path)
    data = tmp_path_factory.getbasetemp() / "clips"
    settings = [
        *tiny(data),
        "explain=gradcam",
        "videos.clips=3",
        "trainer.max_epochs=1",
        "logger=csv",
    ]
    assert typed(monkeypatch, "train", settings) == 0
    out, err = capfd.readouterr()
    assert f"preempted {said}, requeued as 77\n" in out and "Traceback" not in out + err
    assert out.count("preempted") == 1 == (job / "asked").read_text().count("requeue")
    saved = list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt"))
    assert bool(saved) is ("saved" in said or said == "after training")
    for file in saved:
        checkpoint = torch.load(file, weights_only=True)
        counted = [n for k, n in checkpoint["state_dict"].items() if "batches_tracked" in k]
        assert counted and {int(n) for n in counted} == {checkpoint["global_step"]}


def test_a_job_that_slurm_does_not_requeue_says_how_to_go_on(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """SIGTERM to a job that was submitted without --requeue: saved, exit code 143, its command."""
    (job / "refuses").touch()
    plain = VideoClassification.training_step

    def told(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(*given)

    monkeypatch.setattr(VideoClassification, "training_step", told)
    monkeypatch.chdir(tmp_path)
    settings = [*tiny(tmp_path / "data"), "explain=none", "name=a"]
    assert typed(monkeypatch, "train", settings) == 143
    out = capfd.readouterr().out
    refused = "in epoch 1, step 1: saved, not requeued: Requested operation is presently disabled"
    assert f"preempted {refused}\n" in out
    assert out.splitlines()[-1].endswith("resume=runs/a/slurm-77")


@pytest.mark.parametrize("setting", ["every_minutes=0.000001", "every_steps=2"])
def test_checkpoints_within_an_epoch(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SIGKILL without warning would leave of the first epoch."""
    seen: list[int] = []
    plain = VideoClassification.training_step

    def step(task: VideoClassification, *given: Any) -> Any:
        last = list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt"))
        seen.append(torch.load(last[0], weights_only=True)["global_step"] if last else 0)
        return plain(task, *given)

    monkeypatch.setattr(VideoClassification, "training_step", step)
    monkeypatch.chdir(tmp_path)
    settings = [*tiny(tmp_path / "data"), "explain=none", "trainer.max_epochs=1"]
    settings += [f"checkpoint.{setting}", "data.batch_size=3", "logger=csv"]
    assert typed(monkeypatch, "train", settings) == 0
    assert seen == ([0, 0, 2, 2, 4, 4] if "steps" in setting else [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("settings", [{"every_steps": 0}, {"every_minutes": -1}])
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(settings))} must be"):
        Within(**settings)


EARLY = """
import os, signal
from lightning_cam import stops
os.kill(os.getpid(), signal.SIGUSR1)
try:
    with stops.orderly():
        print("not reached")
except stops.TerminatedError:
    os.kill(os.getpid(), signal.SIGTERM)
    print("requeued")
"""


def test_signals_before_and_after_python_can_answer() -> None:
    """SIGUSR1 and SIGTERM that the batch script holds back, while a program starts and ends."""
    words = ["env", "--block-signal=USR1,TERM", sys.executable, "-c", EARLY]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "requeued\n"


@pytest.mark.parametrize("end", [None, SystemExit(0), ValueError(), KeyboardInterrupt()], ids=repr)
def test_a_group_that_was_joined_is_left(end: BaseException | None) -> None:
    """However a command ends: at the end of Python, gloo's threads abort a process now and then."""
    with suppress(SystemExit, ValueError, KeyboardInterrupt), group_left():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        if end is not None:
            raise end
    assert not dist.is_initialized()
    with group_left():  # there is none
        pass


def _worker(ready: Any) -> None:
    stops.left_to_parent()
    ready.set()
    time.sleep(60)


def test_a_worker_obeys_its_parent_alone() -> None:
    """SIGUSR1 and SIGTERM for a whole job reach its loader workers, which go on."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=_worker, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(30)
    for number in stops.ASKING:  # from another process
        subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
    worker.join(0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
