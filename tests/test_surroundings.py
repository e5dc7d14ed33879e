"""What surrounds a command is gone or odd: its output, its folder, its memory."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_cam.commands.entry import command
from lightning_cam.errors import WriteError, quoted, say
from lightning_cam.files import whole_file, write_text
from lightning_cam.training.checkpoint_io import AtomicCheckpointIO
from lightning_cam.viz import save_png, write_video

pytestmark = pytest.mark.attack


def says() -> None:
    say("a line")


def left(main: Callable[[], Any], patch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit code of a command with this body."""
    patch.setattr(sys, "argv", ["train.py", *arguments])
    try:
        command(lambda *_: main(), "train")
    except SystemExit as leaving:
        return leaving.code
    return 0


def pipe() -> int:
    reads, writes = os.pipe()
    os.close(reads)
    return writes


@pytest.mark.parametrize("arguments", [(), ("--help",)])
@pytest.mark.parametrize(
    ("opened", "code", "said"),
    [
        (pipe, 141, ""),
        (lambda: os.open("/dev/full", os.O_WRONLY), 2, "error: cannot write"),
    ],
    ids=["pipe", "full"],
)
def test_output_that_nobody_takes(
    monkeypatch: Any, capfd: Any, opened: Any, code: int, said: str, arguments: tuple[str, ...]
) -> None:
    """Output goes to `| head` that has ended, or to a full disk: 141 as of others, or one line."""
    with os.fdopen(opened(), "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert left(says, patch, *arguments) == code
    err = capfd.readouterr().err
    assert err.startswith(said) and err.count("\n") == bool(said)


@pytest.mark.parametrize("names", [("stdout",), ("stderr",), ("stdin", "stdout", "stderr")])
def test_closed_streams(monkeypatch: Any, capfd: Any, names: tuple[str, ...]) -> None:
    """A command is started with its output, its errors or all streams closed (`>&-`)."""
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(sys, name, None)
        assert left(says, patch) == 0
        assert left(says, patch, "nosuch") == 2
        opened = [getattr(sys, name) for name in names]
    for stream in opened:
        stream.close()


def test_the_folder_is_gone(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    """A command is started in a folder that has been removed: one line."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert left(says, monkeypatch) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: the working folder is not there any more") and "cd to" in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "the memory is full"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "the memory is full"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is full"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "ulimit -n"),
        (OSError(errno.EIO, "Input/output error", "data"), "cannot use data: Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "data"), "cannot use data: Permiss"),
    ],
)
def test_faults_anywhere_are_one_line(
    monkeypatch: Any, capfd: Any, error: Exception, said: str
) -> None:
    """Memory, files or rights run out before or after the work: one line, exit code 2."""

    def fails() -> None:
        raise error

    assert left(fails, monkeypatch) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and said in err and err.count("\n") == 1


def test_mistakes_of_the_program_keep_their_traceback(monkeypatch: Any) -> None:
    """An error that the machine does not explain is shown whole, for a report."""

    def fails() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        left(fails, monkeypatch)


def save_npz(path: Path) -> None:
    with whole_file(path) as file:
        np.savez_compressed(file, frames=FRAMES)


def save_checkpoint(path: Path) -> None:
    AtomicCheckpointIO(path.parent).save_checkpoint({"a": torch.arange(3000)}, path)


FRAMES = np.random.default_rng(0).integers(0, 255, (4, 48, 48, 3), dtype=np.uint8)
WRITERS: dict[str, Callable[[Path], Any]] = {
    "mp4": lambda path: write_video(path, FRAMES),
    "png": lambda path: save_png(path, FRAMES[0]),
    "npz": save_npz,
    "ckpt": save_checkpoint,
}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_disk_that_is_full_at_any_byte(tmp_path: Path, ending: str) -> None:
    """The disk is full at 24 places of a video, image, array file, checkpoint: none is half."""
    path, old = tmp_path / f"a.{ending}", b"old"
    WRITERS[ending](path)
    whole = len(path.read_bytes())
    places = {*np.linspace(0, whole - 1, 20, dtype=int).tolist(), 1, 2, whole - 40, whole - 8}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for place in places:
        path.write_bytes(old)
        resource.setrlimit(resource.RLIMIT_FSIZE, (place, hard))
        try:
            with pytest.raises(WriteError, match="free some space there"):
                WRITERS[ending](path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        assert path.read_bytes() == old


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_holds_no_more_files(tmp_path: Path) -> None:
    """The disk has space and no inodes: the remedy is to remove files."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=6", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let root mount a tmpfs")
    try:
        with pytest.raises(WriteError, match="remove some files there"):
            for n in range(9):
                write_text(tmp_path / f"{n}.txt", "")
        assert len(list(tmp_path.iterdir())) == 5
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("value", ["caf\udce9.mp4", "a\tb", "it's \udcc3\udca9", "plain ü"])
def test_a_quoted_value_is_what_was_meant(value: str) -> None:
    """Names of other bytes, of an ASCII locale, with tabs and quotes are typed back as they are."""
    word = quoted("video", value)
    typed = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert typed.stdout == os.fsencode(f'video="{value}"')
