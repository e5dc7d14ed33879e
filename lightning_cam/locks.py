"""One process at a time, on the file systems of clusters as well.

NFS makes of `flock` a lock on bytes, for which the file must be open for writing. Lustre has none
unless it is mounted with `-o flock`; with `-o localflock` they hold within a machine alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

from lightning_cam.errors import say
from lightning_cam.files import claimed, machine, open_to_append

PATIENCE = 10.0  # seconds of waiting for another machine, after which it is said
_PAUSE = 0.1  # seconds between two looks
_ABSENT = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_TAKEN = (errno.EACCES, errno.EAGAIN)
T = TypeVar("T")


def absent(error: OSError) -> bool:
    """Whether a lock failed because the file system has none."""
    return error.errno in _ABSENT


def taken(error: OSError) -> bool:
    """Whether a lock failed because another process has it."""
    return error.errno in _TAKEN


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this path, on any machine that sees it.

    A process that was forked inside keeps the others out as long as it lives, though it outlive the
    one that forked it. Where there are no locks, the first on a machine, which its kernel knows,
    makes a file `<path>.claim` that no other machine can make then. It may be left by a machine
    that died: who is waited for is said, and which file to remove.

    Args:
        path: a file for this alone, in a folder that is there; removed at the end.

    Raises:
        WriteError: it cannot be written.
        OSError: it cannot be locked for another reason than that there are no locks.
    """
    with ExitStack() as held:
        try:
            file = _locked(path)
        except OSError as error:
            if not absent(error):
                raise
            held.enter_context(_until(lambda: _first_here(path)))
            claim = path.with_name(f"{path.name}.claim")
            file = _until(lambda: _claim(claim), claim)
            held.callback(claim.unlink, missing_ok=True)
        held.enter_context(file)
        held.callback(path.unlink, missing_ok=True)
        file.truncate(0)  # a killed one's name
        file.write(f"{machine()} {os.getpid()}\n".encode())
        yield


@contextmanager
def behind_the_first(path: Path, limit: float) -> Iterator[None]:
    """Come in at once where no other process is in such a block for this path, else when it is out.

    All that wait for one come in together behind it, for what it made is there, or cannot be. If it
    dies inside, one of them comes in in its place, and the others wait for that one.

    Args:
        path: a file for this alone, in a folder that is there; removed at the end.
        limit: seconds after which nobody waits any longer, as for a machine that has hung.

    Raises:
        WriteError: it cannot be written.
        OSError: it cannot be locked.
    """
    until = time.monotonic() + limit
    with open_to_append(path) as file:
        while not (mine := _takes(file)) and time.monotonic() < until:
            time.sleep(_PAUSE)
        first = mine and _is_at(file, path)  # who leaves the block removes it
        if not mine:
            say(f"waited {limit:g} s for the process that holds {path}; going on without it")
        if not first:
            file.close()
        try:
            yield
        finally:
            if first:
                path.unlink(missing_ok=True)
                fcntl.flock(file, fcntl.LOCK_UN)  # closing does not, where a fork has it as well


def _takes(file: FileIO) -> bool:
    """Whether a lock was free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if not taken(error):
            raise
        return False
    return True


def _is_at(file: FileIO, path: Path) -> bool:
    """Whether an open file is yet the one of this name, which on NFS a handle may tell."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False


def _locked(path: Path) -> FileIO:
    """The file, with a lock that goes when the last process closes it that has it from this one."""
    while True:
        file = open_to_append(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):  # else whoever held it has removed it
                return file
        except OSError:
            file.close()
            raise
        file.close()


def _first_here(path: Path) -> socket.socket | None:
    """What one process of this machine, and those it forks, can have for a path."""
    folder = path.parent.stat()  # the same however it is mounted
    name = hashlib.sha256(f"{folder.st_dev} {folder.st_ino} {path.name}".encode()).hexdigest()
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        end.bind(f"\0lightning_cam-{name}")  # no file: the kernel forgets it with the process
    except OSError as error:
        end.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return end


def _claim(file: Path) -> FileIO | None:
    """The claim, made by this process, which is the first on its machine."""
    with suppress(OSError):
        if _named(file)[0] == machine():  # left by one that was killed
            file.unlink()
    return open_to_append(file) if claimed(file) else None


def _named(file: Path) -> tuple[str, str]:
    """(machine, process) in a claim; empty where it is not written yet."""
    who, _, pid = file.read_text(errors="replace")[:200].strip().rpartition(" ")
    return who, pid


def _until(take: Callable[[], T | None], claim: Path | None = None) -> T:
    """What is there at last; of a claim it is said for whom one waits."""
    said = time.monotonic() + PATIENCE
    while (found := take()) is None:
        if claim is not None and time.monotonic() > said:
            with suppress(OSError):  # it has gone in this moment
                who, pid = _named(claim)
                owner = f"process {pid} on {who}" if who else "another process"
                say(f"waiting for {owner}; if it has ended, remove {claim}")
                said = float("inf")
        time.sleep(_PAUSE)
    return found
