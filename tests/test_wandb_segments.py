"""Runs in W&B that are stopped and go on: each row once, in order, whatever was killed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT, run_python
from wandb_server import Received, serving

from lightning_cam.training import wandb_segments
from lightning_cam.training.wandb_logger import SegmentedWandbLogger, sync_command
from lightning_cam.training.wandb_segments import JOURNAL, earlier_segments


class Experiment:
    """W&B's run, as far as it is used: keeps its rows with their numbers."""

    disabled = False

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.id, self.dir = folder.name, str(folder / "files")
        Path(self.dir).mkdir(parents=True)
        self.offline = folder.name.startswith("offline-")
        self.step, self.rows = step, []  # type: ignore[var-annotated]
        self.summary: dict[str, Any] = {}
        self.metrics: dict[str, str] = {}

    def log(self, row: dict[str, Any], step: int | None = None, commit: bool = True) -> None:
        self.step = self.step if step is None else step
        if commit:
            self.rows.append({"_step": self.step, **row})
            self.step += 1

    def define_metric(self, key: str, summary: str, **_: Any) -> None:
        self.metrics[key] = summary

    def finish(self) -> None: ...


class Training:
    """A run of five steps an epoch, whose checkpoints are written before an epoch's numbers come.

    Args:
        home: the run's `wandb/`.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.segments = home, {}  # type: ignore[var-annotated]

    def start(
        self, done: int, until: int, end: str = "killed", online: bool = False, before: int = 0
    ) -> Experiment:
        """Train from a checkpoint of `done` steps on; `before` is where the server would go on."""
        name = f"{'' if online else 'offline-'}run-2026{len(self.segments):02}-abc"
        experiment = Experiment(self.home / name, before)
        earlier = earlier_segments(self.home, done)
        # Its own segment is not among the earlier ones.
        logger = SegmentedWandbLogger(self.home, experiment, earlier)
        for step in range(done, until):
            logger.log_metrics({"train/loss": 10 * len(self.segments) + step}, step)
            if step % 5 == 4:
                image = self.home / f"{step}.png"
                image.touch()
                logger.log_table("explain/attention", ["a"], [[step]], step=step + 1)
                assert logger._journal is not None
                logger._journal.note(saved=step + 1)
                logger.log_metrics({"val/acc": (7 * step % 11) / 11, "train/acc": 1.0}, step)
        if end == "ended":
            logger.finish()
        self.segments[name] = experiment
        return experiment

    def rows(self) -> list[dict[str, Any]]:
        """All rows of the segments that are there."""
        there = [e for name, e in self.segments.items() if (self.home / name).is_dir()]
        return [row for experiment in there for row in experiment.rows]


def expected(until: int) -> list[tuple[str, int]]:
    """(key, step of the trainer) of a training that nothing has stopped."""
    keys = []
    for step in range(until):
        keys.append(("train/loss", step))
        if step % 5 == 4:
            keys += [("explain/attention", step + 1), ("val/acc", step), ("train/acc", step)]
    return keys


def given(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [
        (key, row["trainer/global_step"])
        for row in rows
        for key in row
        if "/" in key and key != "trainer/global_step"
    ]


HISTORIES = {  # (from checkpoint, until step, how it ended)
    "nothing stopped it": [(0, 20, "ended")],
    "stopped at a checkpoint": [(0, 10, "ended"), (10, 20, "ended")],
    "stopped within an epoch": [(0, 13, "ended"), (10, 20, "ended")],
    "killed": [(0, 13, "killed"), (10, 20, "ended")],
    "killed before anything was saved": [(0, 3, "killed"), (0, 4, "ended"), (0, 20, "ended")],
    "killed twice within an epoch": [
        (0, 10, "ended"), (10, 13, "killed"), (10, 14, "killed"), (10, 20, "ended"),
    ],
    "killed again and again": [
        (0, 6, "killed"), (5, 11, "killed"), (10, 12, "killed"), (10, 20, "ended"),
    ],
    "gone on from an older checkpoint": [(0, 16, "ended"), (5, 20, "ended")],
    "killed at its end": [(0, 10, "ended"), (10, 20, "killed")],
}  # fmt: skip


@pytest.mark.attack
@pytest.mark.parametrize("history", HISTORIES)
def test_each_row_comes_once_and_in_order(tmp_path: Path, history: str) -> None:
    """Offline W&B runs stopped, killed and gone on in every order: each row once, in order."""
    training = Training(tmp_path)
    for start in HISTORIES[history]:
        training.start(*start)
    rows = training.rows()
    assert given(rows) == expected(20)
    numbers = [row["_step"] for row in rows]
    assert numbers == list(range(len(rows)))
    seen = {row["trainer/global_step"]: row["train/loss"] for row in rows if "train/loss" in row}
    last = HISTORIES[history][-1][0]
    newest = 10 * (len(HISTORIES[history]) - 1)
    # What came after the checkpoint is what was trained last.
    assert [seen[step] for step in range(last, 20)] == [newest + step for step in range(last, 20)]


def test_what_the_server_has_is_not_sent_again(tmp_path: Path) -> None:
    """Of a segment that was online, or is synced, what comes twice is left out."""
    training = Training(tmp_path)
    first = training.start(0, 13, online=True)
    second = training.start(10, 20, "ended", online=True, before=first.step)
    assert given(first.rows + second.rows) == expected(20)
    assert second.rows[0]["trainer/global_step"] == 13
    offline = training.start(20, 23, "ended")  # the network is gone
    assert offline.rows[0]["_step"] == second.step
    (tmp_path / "offline-run-202602-abc" / "run.wandb.synced").touch()
    assert training.start(20, 25).rows[0]["trainer/global_step"] == 23


def test_a_row_that_only_repeats_is_left_out_and_each_has_its_epoch(tmp_path: Path) -> None:
    """The learning rate of three batches that make a step; what comes after a stop in between."""
    rows = []
    for n in range(2):
        experiment = Experiment(tmp_path / f"offline-run-{n}-a")
        logger = SegmentedWandbLogger(tmp_path, experiment, earlier_segments(tmp_path, 4))
        for _batch in range(3):
            logger.log_metrics({"lr": 0.1}, 4)
        logger.log_metrics({"odd": float("nan")}, 4)
        if n:
            logger.log_metrics({"train/loss": 1.0, "epoch": 2}, 4)
            logger.log_metrics({"val/loss": 1.0, "epoch": 2}, 4)
        else:
            logger.log_metrics({"train/acc": 1.0, "epoch": 2}, 4)
        logger._journal.note(saved=4)  # type: ignore[union-attr]
        logger.finish()
        rows += [{k: v for k, v in row.items() if k[0] != "_"} for row in experiment.rows]
    step = {"trainer/global_step": 4}
    assert [row for row in rows if "odd" not in row] == [
        {"lr": 0.1, **step},
        {"train/acc": 1.0, "epoch": 2, **step},
        {"train/loss": 1.0, "epoch": 2, **step},
        {"val/loss": 1.0, "epoch": 2, **step},
    ]


def test_the_best_of_all_segments_is_the_summary(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.start(0, 15, "ended")
    last = training.start(15, 20, "ended")
    found = [row["val/acc"] for row in training.rows() if "val/acc" in row]
    assert last.metrics["val/acc"] == "max" and "train/acc" not in last.metrics
    assert last.summary["val/acc"] == {"max": max(found)} != {"max": found[-1]}


def test_what_cannot_be_noted_is_logged_all_the_same(tmp_path: Path) -> None:
    training = Training(tmp_path)
    experiment = training.start(0, 1)
    logger = SegmentedWandbLogger(
        tmp_path, Experiment(tmp_path / "offline-run-1-b"), earlier_segments(tmp_path / "no", 0)
    )
    odd = object()
    logger.log_metrics({"odd": odd}, 3)
    assert logger.experiment.rows == [{"_step": 0, "odd": odd, "trainer/global_step": 3}]
    note = tmp_path / "offline-run-1-b" / JOURNAL
    assert json.loads(note.read_text().splitlines()[-1])["kind"] == "lost"
    with note.open("a") as file:
        file.write('{"kind": "metr')  # killed while it wrote
    assert earlier_segments(tmp_path, 0).replaced[0].calls == 1
    assert experiment.rows


def test_a_full_disk_under_the_journal_is_a_warning(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "offline-run-1-a")
    logger = SegmentedWandbLogger(tmp_path, experiment, earlier_segments(tmp_path, 0))
    assert logger._journal is not None

    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

    logger._journal._file = Full()  # type: ignore[assignment]
    with pytest.warns(UserWarning, match=r"handed\.jsonl cannot be written \(No space left"):
        logger.log_metrics({"a": 1}, 0)
    logger.log_metrics({"a": 2}, 1)
    assert [row["a"] for row in experiment.rows] == [1, 2]


def test_a_file_that_a_full_disk_has_cut_off_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's service says nothing, and its own log cannot be closed; the segment comes again."""
    monkeypatch.setattr(wandb_segments, "PATIENCE", 0.0)
    folder = tmp_path / "offline-run-1-a"
    logger = SegmentedWandbLogger(tmp_path, Experiment(folder), earlier_segments(tmp_path, 0))
    logger.log_metrics({"a": 1}, 0)

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logger.experiment, "finish", full)
    file = folder / "run-a.wandb"
    record = struct.pack("<IHB", 0, 3, 1) + b"abc"
    for cut in (0, 7, 9, 14, 16):
        file.write_bytes((bytes(7) + record)[:cut])
        with pytest.warns(UserWarning, match=r"run-a\.wandb is not whole: free some space"):
            logger.finish()
    assert [s.folder for s in earlier_segments(tmp_path, 1).replaced] == [folder]
    padding = 2**15 - 7 - len(record) - 3  # too little is left of the block for another head
    long = struct.pack("<IHB", 0, padding - 7, 1) + bytes(padding - 7)
    file.write_bytes(bytes(7) + record + long + bytes(3) + record)
    logger.finish()
    assert not earlier_segments(tmp_path, 1).replaced


def test_what_cannot_be_copied_again_is_a_warning(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.start(0, 6)
    experiment = Experiment(tmp_path / "offline-run-3-a")
    logged = experiment.log

    def full(row: dict[str, Any], **more: Any) -> None:
        if "explain/attention" in row:
            raise OSError(28, "No space left on device")
        logged(row, **more)

    experiment.log = full  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match=r"W&B lacks 1 files of before this start \(.*No space"):
        SegmentedWandbLogger(tmp_path, experiment, earlier_segments(tmp_path, 5))
    assert [row["train/loss"] for row in experiment.rows if "train/loss" in row] == [0, 1, 2, 3, 4]


# --- with W&B itself ----------------------------------------------------------------------------

STARTED = """
import os, signal, sys
os.setsid()  # W&B's service dies with it
from pathlib import Path
import torch
from lightning_cam.training.agreeing import Run
from lightning_cam.training.loggers import make_logger

folder, done, until, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
resume = None
if done:
    resume = folder / "last.ckpt"
    torch.save({"state_dict": {}, "epoch": 1, "global_step": done}, resume)
settings = {"kind": "wandb", "project": "p", "mode": "offline", "group": "g", "tags": ["a"]}
logger = make_logger(settings, Run(folder, resume), "n", {"lr": 1})
for step in range(done, until):
    logger.log_metrics({"train/loss": 1 / (step + 1)}, step)
    if step % 5 == 4:
        logger._journal.note(saved=step + 1)
        logger.log_metrics({"val/acc": (7 * step % 11) / 11}, step)
if end == "killed":
    os.kill(0, signal.SIGKILL)  # W&B's service as well
logger.finish()
"""


def started(folder: Path, *words: object) -> None:
    run_python("-c", STARTED, str(folder), *map(str, words), cwd=folder)


def synced(folder: Path) -> tuple[Received, str]:
    """What the server has of a run after the command that is documented; what that printed."""
    command = sync_command(folder / "wandb")
    with serving() as server:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        more = {**server.environment, "WANDB_MODE": "online", "PATH": path}
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=120, cwd=folder,
            env={**ENVIRONMENT, **more},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (run,) = server.runs.values()
    return run, done.stderr


@pytest.mark.slow
@pytest.mark.attack
def test_all_segments_reach_the_server(tmp_path: Path) -> None:
    """A W&B run of which two of four processes were killed, service and all: `wandb sync`."""
    started(tmp_path, 0, 10, "ended")
    started(tmp_path, 10, 13, "killed")
    started(tmp_path, 10, 20, "ended")
    started(tmp_path, 20, 22, "killed")
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 3
    run, said = synced(tmp_path)
    assert "ERROR Failed to read" in said  # of the last, which nobody has gone on from
    assert [row["_step"] for row in run.rows] == list(range(24))
    steps = [row["trainer/global_step"] for row in run.rows if "train/loss" in row]
    assert steps == list(range(20))
    assert run.summary["val/acc"] == {"max": max(r["val/acc"] for r in run.rows if "val/acc" in r)}
    assert run.upserted("groupName") == "g" and run.upserted("tags") == ["a"]
    assert run.upserted("displayName") == f"n {tmp_path.name}"
    assert json.loads(run.upserted("config"))["run"]["value"]["path"] == str(tmp_path)
