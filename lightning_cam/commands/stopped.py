"""What is said of a training that was stopped, and the command that goes on."""

from __future__ import annotations

import shlex
import sys

from hydra.core.hydra_config import HydraConfig

from lightning_cam.commands.common import short
from lightning_cam.commands.sweeps import sweeping
from lightning_cam.errors import UserError, command_line, quoted
from lightning_cam.stops import TerminatedError, ignore
from lightning_cam.training.agreeing import Run
from lightning_cam.training.furthest import furthest_first
from lightning_cam.training.preemption import PreemptedError
from lightning_cam.training.ranks import slurm_job
from lightning_cam.training.requeue import requeued


class StoppedError(UserError):
    """A training that the machine stopped: a full disk, a killed process, no memory."""


def starts_again(stop: KeyboardInterrupt, first: bool) -> bool:
    """Whether a training that was stopped is in a SLURM job that starts again, which is seen to.

    Args:
        stop: what stopped it.
        first: whether this is rank 0, which acts for all where they have left together.
    """
    if not isinstance(stop, TerminatedError) or slurm_job() is None:
        return False
    ignore()
    together = isinstance(stop, PreemptedError)
    return (together and not first) or requeued(str(stop) if together else "after training")


def go_on(run: Run, *changes: str) -> str:
    """The command that continues a run, or begins it again where nothing was saved.

    Args:
        run: that was stopped.
        changes: KEY=VALUE, in place of what was typed for these keys.
    """
    left_out = ("resume=", *(change.partition("=")[0] + "=" for change in changes))
    typed = HydraConfig.get().overrides.task if sweeping() else sys.argv[1:]
    again = [word for word in typed if not word.startswith(left_out)]
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
