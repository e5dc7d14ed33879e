"""What the machine does to a training: full disks, kills, two owners, moved folders, Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ENVIRONMENT, ROOT, run, start, tiny, typed

from lightning_cam.commands.stopped import fault
from lightning_cam.errors import ConfigError, UserError, WriteError
from lightning_cam.files import whole_file
from lightning_cam.synthetic import SyntheticActions
from lightning_cam.tasks.epoch_images import never_fatal
from lightning_cam.training.furthest import Length, Progress, furthest_first
from lightning_cam.training.owner import FILE, owned
from lightning_cam.training.runs import Run, built_as_before, open_run, writable
from lightning_cam.training.saving import BestCheckpoint

pytestmark = pytest.mark.attack


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    """Pictures of a training: no space, no folder, and names that matplotlib cannot set."""
    (tmp_path / "confusion").touch()
    blocked = tmp_path / "confusion" / "a.png"
    with (
        pytest.warns(UserWarning, match="no image of the confusion matrix: cannot write"),
        never_fatal("confusion matrix"),
        whole_file(blocked),
    ):
        pass
    with (
        pytest.warns(UserWarning, match="no image of the depth: ValueError"),
        never_fatal("depth"),
    ):
        raise ValueError


def test_faults_of_the_machine_have_words() -> None:
    """A full disk, a worker that is killed, full memory; a mistake in a program has none."""
    worker = "DataLoader worker (pid 7) is killed by signal: Killed. "
    assert "data.num_workers=0" in fault(RuntimeError(worker))
    assert "data.num_workers=0" in fault(
        RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly")
    )
    assert "free some space" in fault(OSError(28, "No space left on device", "metrics.csv"))
    assert "data.batch_size=N" in fault(torch.OutOfMemoryError("CUDA out of memory"))
    assert fault(WriteError("cannot write a")) == "cannot write a"
    assert fault(RuntimeError("shapes differ")) == fault(KeyError("a")) == ""
    assert fault(FileNotFoundError(2, "No such file", "clip.mp4")) == ""


@pytest.mark.parametrize("name", ["n" * 300, "é" * 150, "file/below"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, name: str) -> None:
    """name= of 300 letters, of 300 bytes, below a file; runs= below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"^cannot make the folder .*runs=DIR or name=NAME"):
        open_run(tmp_path, name)
    with pytest.raises(WriteError, match=r"^cannot make the folder .*runs=DIR or name=NAME"):
        open_run(tmp_path / "file", "a")
    with pytest.raises(ConfigError, match="no run to resume"):
        open_run(tmp_path / "none", name, "last")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, mounted to be read only."""
    place = tmp_path / "read_only"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root and a kernel that lets it")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_read_only_file_system_is_one_line(read_only: Path) -> None:
    """`runs=`, `out=` and `data.root=` of synthetic data on a file system mounted read only."""
    with pytest.raises(WriteError, match=r"^cannot make the folder .*: Read-only file system; .*"):
        open_run(read_only / "runs", "a")
    with pytest.raises(UserError, match=r"^cannot write to .*/out; choose out=DIR$"):
        writable(read_only / "out")
    with pytest.raises(UserError, match=r"^cannot render .*Read-only.*data\.root=FOLDER$"):
        SyntheticActions(str(read_only / "data"), groups=1, clips=1).prepare_data()


# --- furthest -----------------------------------------------------------------------------------


def saved(path: Path, step: int, epochs: int, **more: Any) -> Path:
    from test_checkpoint import remembered

    path.parent.mkdir(parents=True, exist_ok=True)
    loops = {"fit_loop": {"epoch_progress": {"current": {"processed": epochs}}}}
    facts = {"state_dict": {}, "epoch": max(epochs - 1, 0), "global_step": step, "loops": loops}
    torch.save({**facts, "lightning_cam": remembered(), **more}, path)
    return path


def test_the_furthest_goes_on_whatever_the_clocks_say(tmp_path: Path) -> None:
    """An older checkpoint touched later, all times alike (cp -r), times in the future."""
    folder = tmp_path / "a" / "run" / "checkpoints"
    old, last = saved(folder / "epoch_000.ckpt", 3, 1), saved(folder / "last.ckpt", 60, 20)
    requeued = saved(folder.parent / "hpc_ckpt_1.ckpt", 61, 20)
    twin = saved(folder / "epoch_019.ckpt", 60, 20)
    now = time.time()
    for times in ([9, 1, 1, 1], [5, 5, 5, 5], [10**9, 0, 0, 10**9]):
        for file, when in zip((old, last, requeued, twin), times, strict=True):
            os.utime(file, (now + when, now + when))
        assert [f for _, f in furthest_first(folder.parent)] == [requeued, last, twin, old]
    assert open_run(tmp_path, "a", "last").resume == requeued
    requeued.unlink()
    assert open_run(tmp_path, "a", "last").resume == last


def test_the_run_that_is_furthest_and_not_finished_goes_on(tmp_path: Path) -> None:
    """Runs of one name whose folders were touched in another order than they were trained in."""
    far = saved(tmp_path / "a" / "2026-01-01" / "checkpoints" / "last.ckpt", 60, 20)
    near = saved(tmp_path / "a" / "2026-01-02" / "checkpoints" / "last.ckpt", 9, 3)
    os.utime(far.parents[1], (0, 0))
    assert open_run(tmp_path, "a", "last").resume == far
    assert open_run(tmp_path, "a", "last", Length(epochs=40)).resume == far
    assert open_run(tmp_path, "a", "last", Length(epochs=20)).resume == near
    assert open_run(tmp_path, "a", "last", Length(steps=60)).resume == near
    assert not Length().reached(Progress(60, 20))


def test_weights_that_are_not_finite_are_not_gone_on_from(tmp_path: Path) -> None:
    """A requeued job's checkpoint of a network that is NaN, furthest of all."""
    folder = tmp_path / "a" / "run"
    good = saved(folder / "checkpoints" / "last.ckpt", 9, 3)
    bad = saved(
        folder / "hpc_ckpt_1.ckpt", 10, 3, state_dict={"w": torch.tensor([1, float("nan")])}
    )
    run = open_run(tmp_path, "a", "last")
    assert run.resume == good
    assert "weights are not finite (w)" in run.note
    with pytest.raises(Exception, match=r"hpc_ckpt_1.ckpt: its weights are not finite \(w\)"):
        open_run(tmp_path, "a", str(bad))


def test_data_that_have_changed_are_named(tmp_path: Path) -> None:
    """A class folder added, removed, renamed; other channels: before any weight is loaded."""
    from test_checkpoint import remembered

    memory = remembered()
    known = memory["classes"]
    run = Run(tmp_path, saved(tmp_path / "last.ckpt", 9, 3))
    config = {"task": memory["task"], "data": memory["data"]}
    built_as_before(run, config, known)
    for classes, said in (
        ([*known, "zebra"], "they have zebra besides; put the data back"),
        (known[1:], f"they lack {known[0]}; put"),
        (["zebra", *known[1:]], f"have zebra besides and lack {known[0]}"),
        (known[::-1], "their classes in another order"),
    ):
        with pytest.raises(ConfigError, match=said):
            built_as_before(run, config, classes)
    model = {**memory["task"]["model"], "num_outputs": 77}
    with pytest.raises(ConfigError, match=r"trained with task\.model\.num_outputs=.*, not 77"):
        built_as_before(run, {**config, "task": {**memory["task"], "model": model}}, known)


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "last.ckpt", "epoch_001.ckpt/../../x", "local:///x", "folder", 7],
)
def test_a_checkpoint_names_no_file_elsewhere(tmp_path: Path, name: object) -> None:
    """What the best checkpoint is, by a stranger: other folders, schemes, links, folders."""
    (tmp_path / "epoch_009.ckpt").mkdir()
    (tmp_path / "epoch_008.ckpt").symlink_to(tmp_path)
    for each in (name, "epoch_009.ckpt", "epoch_008.ckpt", "epoch_007.ckpt"):
        best = BestCheckpoint(tmp_path, "val/acc", "max")
        best.load_state_dict({"best": each, "score": torch.tensor(0.5), "best_k_models": {each: 1}})
        assert not best.best_model_path and not best.best_k_models


# --- owners -------------------------------------------------------------------------------------

HOLDS = """
import sys, time
from pathlib import Path
from lightning_cam.training.owner import owned
from lightning_cam.files import whole_file
folder = Path(sys.argv[1])
with owned(folder), whole_file(folder / "checkpoints" / "last.ckpt") as file:
    print(file.name, flush=True)
    time.sleep(60)
"""


def test_a_run_has_one_owner_who_is_named_and_whose_remains_are_removed(tmp_path: Path) -> None:
    """Two processes in one run folder; the first is killed while it writes a checkpoint."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    try:
        part = Path(holder.stdout.readline().strip())
        host = re.sub("[^A-Za-z0-9-]", "-", socket.gethostname())[:24]
        assert f".{host}-{holder.pid}-" in part.name
        said = f"is being trained by process {holder.pid} on {host}; .* leave resume out"
        with pytest.raises(ConfigError, match=said), owned(tmp_path):
            pass
        assert part.exists()
    finally:
        holder.kill()
        holder.wait()
    theirs = part.with_name(f".last.ckpt.elsewhere-{holder.pid}-0123abcd.part")
    theirs.touch()  # of another machine, whose locks may not reach here
    with owned(tmp_path):
        assert not part.exists() and theirs.exists()
        assert (tmp_path / FILE).read_text() == f"{host} {os.getpid()}\n"
    os.utime(theirs, (0, 0))
    with owned(tmp_path):
        assert not theirs.exists()
    assert (tmp_path / FILE).read_text() == ""


def test_without_locks_the_name_in_the_file_has_to_do(tmp_path: Path, monkeypatch) -> None:
    """A file system without locks: an owner that lives, one that is dead, one elsewhere."""
    host = re.sub("[^A-Za-z0-9-]", "-", socket.gethostname())[:24]

    def without(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("lightning_cam.training.owner.fcntl.lockf", without)
    note = tmp_path / FILE
    note.write_text(f"{host} {os.getppid()}\n")
    with pytest.raises(ConfigError, match=f"process {os.getppid()} on {host}"), owned(tmp_path):
        pass
    note.write_text(f"{host} 4194999\n")
    with warnings.catch_warnings(), owned(tmp_path):
        pass
    note.write_text("elsewhere 12\n")
    with (
        pytest.warns(UserWarning, match="no locks: see that process 12 on elsewhere"),
        owned(tmp_path),
    ):
        pass


# --- whole commands -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run `a` of two epochs."""
    place = tmp_path_factory.mktemp("faults")
    done = run("train", *settings(place, 2), cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def settings(place: Path, epochs: int, *more: str) -> Sequence[str]:
    return [
        *tiny(place / "data"), "explain=none", "name=a", f"trainer.max_epochs={epochs}", *more,
    ]  # fmt: skip


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


@pytest.mark.slow
def test_resuming_what_is_finished_or_beyond_or_moved(
    place: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    """`resume=` of a finished run, with fewer epochs than it has, and after `mv`."""
    (old,) = (place / "runs" / "a").iterdir()
    moved = tmp_path / "runs" / "moved" / old.name
    shutil.copytree(old, moved)
    (best,) = moved.glob("checkpoints/epoch_*.ckpt")
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, "train", settings(place, 2, f"resume={moved}")) == 0
    out = capfd.readouterr().out
    assert "is finished: 2 epochs, 6 steps; to train on, set trainer.max_epochs=4" in out
    assert f"({best.stem})" in out and f"moved/{old.name}/checkpoints/{best.name}" in out
    assert typed(monkeypatch, "train", settings(place, 1, f"resume={moved}")) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "has been trained for 2 epochs, more than trainer.max_epochs=1" in err


@pytest.mark.slow
def test_a_full_disk_at_a_checkpoint_leaves_the_last_good_one(place: Path, tmp_path: Path) -> None:
    """No space for the next checkpoint: one line, and its command goes on."""
    shutil.copytree(place / "runs", tmp_path / "runs")
    (last,) = tmp_path.glob("runs/a/*/checkpoints/last.ckpt")
    before = last.read_bytes()
    limit = len(before) // 2
    full = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *settings(place, 3, "resume=last")],
        cwd=tmp_path,
        env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert full.returncode == 2, full.stderr
    said = last_line(full.stderr)
    assert said.startswith("error: cannot write ") and "free some space there; to go on:" in said
    assert "Traceback" not in full.stderr
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*.part"))
    command = shlex.split(said.partition("to go on: ")[2])
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert torch.load(last, weights_only=True)["epoch"] == 2


@pytest.mark.slow
def test_a_killed_loader_worker_is_one_line(place: Path, tmp_path: Path) -> None:
    """SIGKILL of a loader process, as the system does when memory is full."""
    more = ["data.num_workers=1", "data.cache=false", f"runs={tmp_path / 'runs'}"]
    process = start("train", *settings(place, 500), *more, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/"):  # the checkpoint of the first is saved
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(
            OSError, IndexError
        ):  # none, one that ends by itself, or the process did
            os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        time.sleep(0.2)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2, err
    said = last_line(err)
    assert said.startswith("error: a loader process was killed") and "resume=" in said
    assert "Traceback" not in err
    (last,) = (tmp_path / "runs").rglob("last.ckpt")
    torch.load(last, weights_only=True)


@pytest.mark.slow
def test_ctrl_c_prints_a_command_that_works(place: Path, tmp_path: Path) -> None:
    """SIGINT in the first epoch, before anything is saved, and in the middle of a later one."""
    for wanted in ("run folder", "epoch 2/"):
        process = start("train", *settings(place, 500), cwd=tmp_path)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(wanted):
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        if "stopped" in err:  # before the training began
            assert not list(tmp_path.glob("runs/a/*"))
            continue
        saved_one = bool(list(tmp_path.glob("runs/a/*/checkpoints/last.ckpt")))
        assert ("to go on: " in out) is saved_one, out
        assert ("before anything was saved" in out) is not saved_one
        typed = last_line(out).partition(": ")[2].replace("max_epochs=500", "max_epochs=4")
        done = subprocess.run(
            shlex.split(typed), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "runs")
