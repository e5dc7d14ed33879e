"""One run, one owner: no two processes train in the same folder.

The owner holds a POSIX lock on `<run>/.owner`. It ends with the process, however that ends; forked
loader workers do not hold it on. It holds between machines where the file system has locks for all
of them: NFS (version 4, or 3 with lockd), Lustre mounted with `flock`, GPFS, CephFS. On Lustre with
`localflock` it holds between the processes of one machine. On a file system without locks the name
in the file is all there is: an owner on this machine that lives is respected, of one on another
machine nobody knows, which is said.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from lightning_cam.errors import ConfigError
from lightning_cam.files import alive, cannot_write, machine, open_to_append, remove_leftovers
from lightning_cam.locks import absent, taken

FILE = ".owner"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a run's folder, and remove what killed owners have left half written in it.

    Raises:
        ConfigError: another process owns it, which is named.
        WriteError: nothing can be written there.
    """
    # Closing any other descriptor of the file would end the lock as well.
    with open_to_append(folder / FILE) as file:
        _take(file, folder)
        try:
            for inside in {part.parent for part in folder.rglob(".*.part")}:
                remove_leftovers(inside)
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _take(file: FileIO, folder: Path) -> None:
    file.seek(0)
    who, _, pid = file.read(200).decode(errors="replace").strip().rpartition(" ")
    owner = f"process {pid} on {who}" if who else "another process"
    remedy = "wait until it has ended, or leave resume out for a new run"
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if taken(error):
            raise ConfigError(f"{folder} is being trained by {owner}; {remedy}") from error
        if not absent(error):
            raise cannot_write(folder / FILE, error) from error
        if who == machine() and pid.isdecimal() and int(pid) != os.getpid() and alive(int(pid)):
            raise ConfigError(f"{folder} is being trained by {owner}; {remedy}") from error
        if who and who != machine():
            warnings.warn(
                f"the file system of {folder} has no locks: see that {owner} trains there no more",
                stacklevel=4,
            )
    try:
        file.truncate(0)
        file.write(f"{machine()} {os.getpid()}\n".encode())
    except OSError as error:  # which names no file
        raise cannot_write(folder / FILE, error) from error
