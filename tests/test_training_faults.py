"""What the machine does to a training: full disks, false clocks, two owners, changed data."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from commands import ENVIRONMENT, ROOT
from omegaconf import OmegaConf

from lightning_cam.commands.faults import fault
from lightning_cam.commands.stopped import go_on
from lightning_cam.errors import ConfigError, UserError, WriteError
from lightning_cam.files import whole_file
from lightning_cam.synthetic import SyntheticActions
from lightning_cam.tasks.epoch_images import never_fatal
from lightning_cam.training.agreeing import Run
from lightning_cam.training.build import build
from lightning_cam.training.furthest import Length, Progress, furthest_first
from lightning_cam.training.owner import FILE, owned
from lightning_cam.training.runs import built_as_before, open_run, same_as_before, writable
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


def test_a_full_disk_below_a_run_names_its_file(tmp_path: Path, monkeypatch: Any) -> None:
    """The first that is written: who owns the run."""

    class Full(FileIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_cam.training.owner.open_to_append", lambda f: Full(f, "a+b"))
    said = r"cannot write .*\.owner: No space .*; free some space"
    with pytest.raises(WriteError, match=said), owned(tmp_path):
        raise AssertionError


def test_faults_of_the_machine_have_words() -> None:
    """A full disk, a worker that is killed, full memory; a mistake in a program has none."""
    worker = "DataLoader worker (pid 7) is killed by signal: Killed. "
    assert "data.num_workers=0" in fault(RuntimeError(worker))
    assert "data.num_workers=0" in fault(
        RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly")
    )
    assert "free some space" in fault(OSError(28, "No space left on device", "metrics.csv"))
    assert "data.batch_size=N" in fault(torch.OutOfMemoryError("CUDA out of memory"), training=True)
    for full in (
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        cv2.error("(-4:Insufficient memory) Failed to allocate 8 bytes"),
    ):
        assert fault(full).startswith("the memory is full; ")
    assert "ulimit -n" in fault(OSError(24, "Too many open files", "a"))
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
    """An older checkpoint touched later, times alike (cp -r), in the future, a clock set back."""
    folder = tmp_path / "a" / "run" / "checkpoints"
    old, last = saved(folder / "epoch_000.ckpt", 3, 1), saved(folder / "last.ckpt", 60, 20)
    requeued = saved(folder.parent / "hpc_ckpt_1.ckpt", 61, 20)
    twin = saved(folder / "epoch_019.ckpt", 60, 20)
    now = time.time()
    set_back = [0, -(10**6), -2 * 10**6, -(10**6)]  # each later one a fortnight earlier
    for times in ([9, 1, 1, 1], [5, 5, 5, 5], [10**9, 0, 0, 10**9], set_back):
        for file, when in zip((old, last, requeued, twin), times, strict=True):
            os.utime(file, (now + when, now + when))
        assert [f for _, f in furthest_first(folder.parent)] == [requeued, last, twin, old]
    assert open_run(tmp_path, "a", "last").resume == requeued
    requeued.unlink()
    assert open_run(tmp_path, "a", "last").resume == last


def test_the_run_that_is_furthest_and_not_finished_goes_on(tmp_path: Path) -> None:
    """Runs of one name whose folders' names and times are in another order than their steps."""
    far = saved(tmp_path / "a" / "2026-01-01" / "checkpoints" / "last.ckpt", 60, 20)
    near = saved(tmp_path / "a" / "2026-01-02" / "checkpoints" / "last.ckpt", 9, 3)
    os.utime(far.parents[1], (0, 0))
    assert open_run(tmp_path, "a", "last").resume == far
    assert open_run(tmp_path, "a", "last", Length(epochs=40)).resume == far
    assert open_run(tmp_path, "a", "last", Length(epochs=20)).resume == near
    assert open_run(tmp_path, "a", "last", Length(steps=60)).resume == near
    assert not Length().reached(Progress(60, 20))
    for length, below, on in (
        (Length(4), "trainer.max_epochs=4", "trainer.max_epochs=40"),
        (Length(20), "", "trainer.max_epochs=40"),
        (Length(99, 60), "", "trainer.max_steps=120"),
        (Length(99, 7), "trainer.max_steps=7", "trainer.max_steps=120"),
        (Length(20, 60), "", "trainer.max_epochs=40 trainer.max_steps=120"),
    ):
        done = Progress(60, 20)
        assert length.reached(done) and length.exceeded(done) == below and length.longer(done) == on
    # Begun and trained further while the clock was years behind.
    past = saved(tmp_path / "a" / "1970-01-01_00-00-07" / "checkpoints" / "last.ckpt", 90, 30)
    os.utime(past, (7, 7))
    assert open_run(tmp_path, "a", "last").resume == past


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


def test_another_metric_goes_on_where_nothing_was_the_best(tmp_path: Path) -> None:
    """`resume=` with another `monitor=`, after one that was not logged, and after one that was."""
    from test_checkpoint import remembered

    memory = remembered()
    config = {key: memory[key] for key in ("task", "data")}
    config |= {"seed": 0, "monitor": "val/acc", "monitor_mode": None}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config))
    kept = {"best": "epoch_000.ckpt", "score": torch.tensor(0.5)}
    for states, free in (({}, True), ({"BestCheckpoint{'monitor': 'val/acc'}": kept}, False)):
        run = Run(tmp_path, saved(tmp_path / "last.ckpt", 9, 3, callbacks=states))
        for change in ({"monitor": "val/loss"}, {"monitor_mode": "min"}):
            if free:
                same_as_before(run, config | change)
                continue
            with pytest.raises(ConfigError, match=f"with {next(iter(change))}="):
                same_as_before(run, config | change)
    more = {"monitor": "val/loss", "seed": 7}
    run = Run(tmp_path, saved(tmp_path / "last.ckpt", 9, 3, callbacks={}))
    with pytest.raises(ConfigError, match="with seed="):  # nothing else is free
        same_as_before(run, config | more)


def test_the_command_for_another_metric_goes_on(tmp_path: Path, monkeypatch) -> None:
    """The command that is printed names the run and asks for another metric, once each."""
    saved(tmp_path / "a" / "run" / "checkpoints" / "last.ckpt", 3, 1)
    monkeypatch.setattr("sys.argv", ["train.py", "name=a", "monitor=val/ac", "resume=last"])
    monkeypatch.chdir(tmp_path)
    said = go_on(Run(tmp_path / "a" / "run"), "monitor=NAME")
    assert said.endswith(" name=a resume=a/run monitor=NAME")


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


def test_a_class_without_a_signature_takes_its_settings() -> None:
    """A time-out in YAML: `datetime.timedelta` says only when called what it takes."""
    strategy = "lightning.pytorch.strategies.DDPStrategy"
    hour = {"_target_": "datetime.timedelta", "minutes": 60}
    built = build({"_target_": strategy, "timeout": hour}, where="trainer.strategy")
    assert built._timeout.total_seconds() == 3600
    assert build({**hour, "_partial_": True})() == built._timeout
    with pytest.raises(ConfigError, match=r"timeout: datetime\.timedelta: 'minuts' is an invalid"):
        build({"_target_": "datetime.timedelta", "minuts": 1}, where="timeout")
