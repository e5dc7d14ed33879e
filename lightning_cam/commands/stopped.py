"""What is said of a training that was stopped, and the command that goes on."""

from __future__ import annotations

import errno
import re
import shlex
import sys

import torch

from lightning_cam.commands.common import short
from lightning_cam.errors import UserError, WriteError, command_line, quoted
from lightning_cam.training.furthest import furthest_first
from lightning_cam.training.runs import Run

_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? .*(killed by signal|exited unexpectedly)")
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


class StoppedError(UserError):
    """A training that the machine stopped: a full disk, a killed process, no memory."""


def fault(error: BaseException) -> str:
    """What went wrong with the machine while training, with the remedy; "" for anything else."""
    if isinstance(error, WriteError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _WRITING:
        what = error.filename or "the run's files"
        return f"cannot write {what}: {error.strerror}; free some space there"
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "the device's memory is full; end what else runs on it, or begin anew with a smaller "
            "data.batch_size=N, or with trainer=cpu"
        )
    if isinstance(error, MemoryError):
        return "the memory is full; end what else runs, or set data.num_workers=0 data.cache=false"
    if _WORKER.search(str(error)):
        return (
            "a loader process was killed, as the system does when memory is full; set fewer, or "
            "data.num_workers=0, and data.cache=false"
        )
    if "DataLoader timed out" in str(error):
        return (
            "a loader process did not answer for two minutes; see that the data can be read, or "
            "set data.num_workers=0"
        )
    return ""


def go_on(run: Run) -> str:
    """The command that continues a run, or begins it again where nothing was saved."""
    again = [word for word in sys.argv[1:] if not word.startswith("resume=")]
    resume = run.resume
    if furthest_first(run.checkpoints):
        resume = run.folder
    words = [quoted("resume", short(resume))] if resume is not None else []
    return command_line("train", *map(shlex.quote, again), *words)


def stopped_line(run: Run) -> str:
    """What Ctrl-C is answered with."""
    if run.resume is None and not furthest_first(run.checkpoints):
        return f"stopped before anything was saved; to begin again: {go_on(run)}"
    return f"stopped; to go on: {go_on(run)}"
