"""A training that is stopped, whenever and however, goes on and ends where it would have ended."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from commands import ENVIRONMENT, end, run, start, tiny, typed
from kills import AT_EPOCH, MOMENTS, moments, start_limited
from preloaded import Process

from lightning_cam.training.checkpoint import KEY
from lightning_cam.training.reproducible import ReseedBatches

pytestmark = [pytest.mark.attack, pytest.mark.slow]

EPOCHS = 2 * MOMENTS + 2  # a kill comes within two epochs


def settings(data: Path, *more: str) -> Sequence[str]:
    """Three clips of 32 pixels for training, three for validation; a network with dropout."""
    return [
        *tiny(data), "data.groups=3", "data.clips=1", "data.size=32", "data.resize=32",
        "data.crop=32", "data.num_frames=4", "data.train_groups=[1]", "data.val_groups=[2]",
        "data.test_groups=[3]", "data.batch_size=2", "model.hidden=4", "explain=none", "name=a",
        f"trainer.max_epochs={EPOCHS}", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "data"


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    place = tmp_path_factory.mktemp("straight")
    done = run("train", *settings(data), cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"({EPOCHS} of {EPOCHS})" in done.stdout
    (folder,) = (place / "runs" / "a").iterdir()
    return folder


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def ends_like(straight: Path, place: Path) -> None:
    """The one run in `place` has ended bit for bit like the one that nothing stopped."""
    (folder,) = (place / "runs" / "a").iterdir()  # one run, one folder
    one, two = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        for run in (straight, folder)
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert same(one[part], two[part]), part
    assert one["epoch"] == EPOCHS - 1
    # The weights would differ had a generator been somewhere else: dropout is on.
    assert one[KEY]["task"]["model"]["dropout"] > 0
    assert not list(folder.rglob(".*.part"))


def go_on(line: str, place: Path) -> CompletedProcess[str]:
    """Run the command that ends a line."""
    _python, *words = shlex.split(line.rpartition(": ")[2])
    return end(Process(words, place, ENVIRONMENT))


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def until(process: Process, marks: int) -> list[str]:
    """Lines of progress, up to so many: the first comes before training, others after epochs."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines += [line] if line.startswith(("run folder", "epoch_")) else []
        if len(lines) == marks:
            break
    return lines


def follows(done: int, out: str) -> int:
    """The epochs printed go on behind `done`, at most the last one repeated; returns the newest."""
    epochs = [int(number) for number in re.findall(r"^epoch_\d+ \((\d+) of", out, re.MULTILINE)]
    if not epochs:
        return done
    assert epochs[0] in (done, done + 1)
    assert epochs == list(range(epochs[0], epochs[-1] + 1))
    return epochs[-1]


def test_killed_at_random_moments_it_ends_like_an_uninterrupted_run(
    data: Path, straight: Path, tmp_path: Path, record_property: Any
) -> None:
    """SIGKILL at random moments of one training: it ends bit for bit as if there were none."""
    record_property("tried", MOMENTS)
    chosen, done = moments(), 0  # epochs whose line was printed; the checkpoint follows the line
    for attempt in range(MOMENTS):
        resume = ["resume=last"] if attempt else []
        process = start("train", *settings(data), *resume, cwd=tmp_path)
        lines = until(process, chosen.randint(1, 2))
        time.sleep(chosen.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        done = follows(done, "".join(lines) + rest)
    last = run("train", *settings(data), "resume=last", cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert follows(done, last.stdout) == EPOCHS
    ends_like(straight, tmp_path)


@pytest.mark.parametrize("marks", [1, 2], ids=["before anything is saved", "later"])
def test_ctrl_c_prints_a_command_that_works(
    data: Path, straight: Path, tmp_path: Path, marks: int
) -> None:
    """SIGINT before anything is saved, and within an epoch: its command ends bit for bit alike."""
    process = start("train", *settings(data), cwd=tmp_path)
    until(process, marks)
    time.sleep(moments().uniform(0, 0.25))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    if "stopped" in err:  # before the training began
        assert not list(tmp_path.glob("runs/a/*"))
        return
    saved = bool(list(tmp_path.glob("runs/a/*/checkpoints/*.ckpt")))
    assert ("to go on: " in out) is saved, out
    assert ("before anything was saved" in out) is not saved
    if not saved:
        shutil.rmtree(tmp_path / "runs")
    done = go_on(last_line(out), tmp_path)
    assert done.returncode == 0, done.stderr
    ends_like(straight, tmp_path)


def test_sigterm_prints_a_command_that_works(
    data: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """SIGTERM within an epoch, as of SLURM or a container: its command ends bit for bit alike."""
    begin = ReseedBatches.on_train_epoch_start
    before = signal.getsignal(signal.SIGTERM)

    def terminated(self: ReseedBatches, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1 and not trainer.ckpt_path:
            os.kill(os.getpid(), signal.SIGTERM)
        begin(self, trainer, module)

    monkeypatch.setattr(ReseedBatches, "on_train_epoch_start", terminated)
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, "train", settings(data)) == 143
    out, err = capfd.readouterr()
    said = last_line(out)
    assert said.startswith("stopped; to go on: ") and "Traceback" not in err
    assert signal.getsignal(signal.SIGTERM) == before
    words = shlex.split(said.rpartition(": ")[2])
    assert typed(monkeypatch, "train", words[words.index("train") + 1 :]) == 0
    ends_like(straight, tmp_path)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("limit(resource.RLIMIT_FSIZE, 5000)", "free some space there"),
        ("limit(resource.RLIMIT_AS, used()), bytearray(10**9)", "the memory is full"),
        ("limit(resource.RLIMIT_AS, used()), __import__('torch').empty(10**9)", "memory is full"),
    ],
    ids=["disk", "memory", "memory for a tensor"],
)
def test_a_limit_within_a_training_leaves_the_last_good_checkpoint(
    data: Path, straight: Path, tmp_path: Path, limit: str, said: str
) -> None:
    """No space, no memory (RLIMIT_AS) within an epoch: one line, and its command ends alike."""
    prelude = AT_EPOCH.format(epoch=1, what=limit)
    stopped = end(start_limited(prelude, "train", settings(data), cwd=tmp_path))
    assert stopped.returncode == 2, stopped.stderr
    line = last_line(stopped.stderr)
    assert line.startswith("error: ") and said in line and "; to go on: " in line
    assert "Traceback" not in stopped.stderr
    (last,) = tmp_path.glob("runs/a/*/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["epoch"] == 0
    assert not list(last.parent.glob(".*.part"))
    done = go_on(line, tmp_path)
    assert done.returncode == 0, done.stderr
    ends_like(straight, tmp_path)


def test_a_killed_loader_worker_is_one_line(data: Path, straight: Path, tmp_path: Path) -> None:
    """SIGKILL of a loader process, as the system does when memory is full."""
    more = ["data.num_workers=1", "data.cache=false", "trainer.max_epochs=500"]
    process = start("train", *settings(data), *more, cwd=tmp_path)
    until(process, 3)  # the checkpoint of the first epoch is saved
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # one that ended by itself, or the process did
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        time.sleep(0.05)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2, err
    said = last_line(err)
    assert said.startswith("error: a loader process was killed") and "resume=" in said
    assert "Traceback" not in err
    (last,) = (tmp_path / "runs").rglob("last.ckpt")
    torch.load(last, weights_only=True)


def test_resuming_what_is_finished_or_beyond_or_moved_or_another(
    data: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """`resume=` of a finished run, with fewer epochs or another network, and after `mv`."""
    moved = tmp_path / "runs" / "moved" / straight.name
    shutil.copytree(straight, moved)
    (best,) = moved.glob("checkpoints/epoch_*.ckpt")
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, "train", settings(data, f"resume={moved}")) == 0
    out = capfd.readouterr().out
    steps = 2 * EPOCHS
    said = f"is finished: {EPOCHS} epochs, {steps} steps; to train on, set trainer.max_epochs="
    assert f"{said}{2 * EPOCHS}" in out
    assert f"({best.stem})" in out and f"moved/{straight.name}/checkpoints/{best.name}" in out
    for more, said in (
        ("trainer.max_epochs=1", f"{EPOCHS} epochs, {steps} steps, more than trainer.max_epochs=1"),
        ("model.hidden=17", "model.hidden=4, not 17"),
    ):
        assert typed(monkeypatch, "train", settings(data, f"resume={moved}", more)) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1 and said in err
