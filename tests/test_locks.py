"""One process at a time: on a local disk, on NFS, and on Lustre without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_cam import locks
from lightning_cam.errors import WriteError
from lightning_cam.explaining.journal import Journal
from lightning_cam.files import machine
from lightning_cam.locks import alone, behind_the_first
from lightning_cam.synthetic.rendering import render_once
from lightning_cam.training.owner import owned

plain = fcntl.flock


def nfs(file: int, how: int) -> None:
    """A lock on bytes, for which the file has to be open for writing (flock(2))."""
    number = file if isinstance(file, int) else file.fileno()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    plain(number, how)


def lustre(*_: object) -> None:
    """Mounted without `-o flock`."""
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.fixture(params=[plain, nfs, lustre], ids=["disk", "nfs", "lustre"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A file system, by its `flock`."""
    monkeypatch.setattr(fcntl, "flock", request.param)
    return request.param


def test_one_after_the_other(system: Callable[..., None], tmp_path: Path) -> None:
    inside, most = [], []

    def work() -> None:
        for _ in range(3):
            with alone(tmp_path / "lock"):
                inside.append(1)
                time.sleep(0.01)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 9
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_process_has_forked_keeps_others_out(
    system: Callable[..., None], tmp_path: Path
) -> None:
    lock, begun = tmp_path / "lock", tmp_path / "begun"
    gate, opened = os.pipe()
    parent = os.fork()
    if not parent:
        with alone(lock):
            os.close(opened)
            if not os.fork():  # a worker, until the test ends
                begun.touch()
                os.read(gate, 1)
                os._exit(0)
            time.sleep(60)
    while not begun.exists():
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    entered = threading.Event()

    def enter() -> None:
        with alone(lock):
            entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    assert not entered.wait(0.3)
    os.close(opened)  # the worker ends
    assert entered.wait(10)
    waiting.join()
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


@pytest.mark.parametrize("system", [plain, nfs], indirect=True)
def test_those_that_waited_come_in_together(system: Callable[..., None], tmp_path: Path) -> None:
    lock, ready = tmp_path / "lock", threading.Barrier(3, timeout=10)
    both, order = threading.Barrier(2, timeout=10), list[str]()

    def other() -> None:
        ready.wait()
        with behind_the_first(lock, 10):
            both.wait()
            order.append("other")

    threads = [threading.Thread(target=other) for _ in range(2)]
    for thread in threads:
        thread.start()
    with behind_the_first(lock, 10):
        ready.wait()
        time.sleep(0.3)
        order.append("first")
    for thread in threads:
        thread.join()
    assert order == ["first", "other", "other"]
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("system", [lustre], indirect=True)
def test_a_claim_of_another_machine_is_waited_for(
    system: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    claim = tmp_path / "lock.claim"
    claim.write_text("elsewhere 12\n")
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            claim.unlink()

    monkeypatch.setattr(locks.time, "sleep", sleep)
    with alone(tmp_path / "lock"):
        assert claim.read_text() == f"{machine()} {os.getpid()}\n"
    assert len(pauses) == 5
    line = f"waiting for process 12 on elsewhere; if it has ended, remove {claim}\n"
    assert capsys.readouterr().out == line
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("system", [lustre], indirect=True)
def test_a_claim_that_a_killed_process_of_this_machine_left(
    system: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "lock.claim").write_text(f"{machine()} {os.getpid()}\n")  # a number used again
    with alone(tmp_path / "lock"):
        pass
    assert not [*tmp_path.iterdir()]


def test_a_data_set_is_rendered(system: Callable[..., None], tmp_path: Path) -> None:
    """On NFS this ended with `Bad file descriptor: name a writable folder`."""

    def write(folder: Path, name: str) -> None:
        (folder / name).write_text("clip")

    for _ in range(2):
        render_once(tmp_path / "set", {"name": "two"}, ["a", "b"], write, lambda _: ["a", "b"])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_journal_is_written(system: Callable[..., None], tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add({"clip": "a"})
    journal.close()
    assert (tmp_path / "rows.rank0.jsonl").read_text() == '{"clip": "a"}\n'


def test_a_disk_that_fails_is_no_other_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    monkeypatch.setattr(fcntl, "lockf", fail)
    with pytest.raises(WriteError, match=r"rank0\.jsonl: Input/output error"):
        Journal(tmp_path)
    with pytest.raises(WriteError, match=r"\.owner: Input/output error"), owned(tmp_path):
        pass
    with pytest.raises(OSError, match="Input/output error"), alone(tmp_path / "lock"):
        pass
