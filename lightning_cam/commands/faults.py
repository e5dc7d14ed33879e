"""Faults of the machine in words: full disks, full memory, killed processes."""

from __future__ import annotations

import errno
import re

from lightning_cam.errors import WriteError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
_FILES = (errno.EMFILE, errno.ENFILE)
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? .*(killed by signal|exited unexpectedly)")
# Of torch's allocator, of C++, OpenCV and threads: none has a type of its own.
_MEMORY = re.compile(
    r"can't allocate memory|[Cc]annot allocate memory|bad_alloc|Insufficient memory|"
    r"can't start new thread|failed to map segment"
)
_OVERFLOW = "cannot be converted to type float without overflow"  # of a learning rate of 1e38


def fault(error: BaseException, *, training: bool = False) -> str:
    """What went wrong with the machine, with the remedy; "" for anything else.

    Args:
        error: that was raised.
        training: whether it was a training, which can be set to need less.
    """
    said = str(error)
    if isinstance(error, WriteError):
        return said
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which may not be loaded
        less = "begin anew with a smaller data.batch_size=N, or with trainer=cpu"
        other = less if training else "take device=cpu"
        return f"the device's memory is full; end what else runs on it, or {other}"
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _MEMORY.search(said):
        less = ", or set data.num_workers=0 data.cache=false" if training else ""
        return f"the memory is full; end what else runs{less}"
    if number in _FILES or "Too many open files" in said:
        return "too many files are open; raise the limit, as with ulimit -n 4096"
    if isinstance(error, OSError) and number in (*_FULL, *_REFUSED):
        remedy = "free some space there" if number in _FULL else "see that it can be used"
        what = "write" if error.filename is None else f"use {error.filename}"
        return f"cannot {what}: {error.strerror}; {remedy}"
    if _WORKER.search(said):
        return (
            "a loader process was killed, as the system does when memory is full; set fewer, or "
            "data.num_workers=0, and data.cache=false"
        )
    if "DataLoader timed out" in said:
        return (
            "a loader process did not answer for two minutes; see that the data can be read, or "
            "set data.num_workers=0"
        )
    return ""


def overflowed(error: Exception) -> bool:
    """Whether a step of an optimiser was larger than any number."""
    return isinstance(error, RuntimeError) and _OVERFLOW in str(error)
