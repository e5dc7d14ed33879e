"""What is said of a training that was stopped, and the command that goes on."""

from __future__ import annotations

import shlex
import sys
from typing import NoReturn

from lightning_cam.commands.common import short
from lightning_cam.errors import UserError, command_line, quoted, say
from lightning_cam.stops import TerminatedError, exit_code, ignore
from lightning_cam.training.furthest import furthest_first
from lightning_cam.training.preemption import PreemptedError
from lightning_cam.training.requeue import requeued, slurm_job
from lightning_cam.training.runs import Run


class StoppedError(UserError):
    """A training that the machine stopped: a full disk, a killed process, no memory."""


def leave(run: Run, stop: KeyboardInterrupt, first: bool) -> NoReturn:
    """End a training that was stopped: its SLURM job starts again, or its command is printed.

    Args:
        run: that was stopped.
        stop: by what.
        first: whether this is rank 0, which speaks for all where they have left together.
    """
    together = isinstance(stop, PreemptedError)
    if isinstance(stop, TerminatedError) and slurm_job() is not None:
        ignore()
        if (together and not first) or requeued(str(stop) if together else "after training"):
            sys.exit(0)
    if first:
        say("", stopped_line(run))
    sys.exit(exit_code(stop))


def go_on(run: Run, *changes: str) -> str:
    """The command that continues a run, or begins it again where nothing was saved.

    Args:
        run: that was stopped.
        changes: KEY=VALUE, in place of what was typed for these keys.
    """
    left_out = ("resume=", *(change.partition("=")[0] + "=" for change in changes))
    again = [word for word in sys.argv[1:] if not word.startswith(left_out)]
    resume = run.resume
    if furthest_first(run.checkpoints):
        resume = run.folder
    words = [quoted("resume", short(resume))] if resume is not None else []
    return command_line("train", *map(shlex.quote, again), *words, *changes)


def stopped_line(run: Run) -> str:
    """What Ctrl-C and SIGTERM are answered with."""
    if run.resume is None and not furthest_first(run.checkpoints):
        return f"stopped before anything was saved; to begin again: {go_on(run)}"
    return f"stopped; to go on: {go_on(run)}"
