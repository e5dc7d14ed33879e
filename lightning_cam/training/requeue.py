"""A SLURM job that is stopped is started again: it is put back into the queue."""

from __future__ import annotations

import os
import subprocess

from lightning_cam.errors import say
from lightning_cam.stops import ignore
from lightning_cam.training.ranks import slurm_job


class RequeueError(Exception):
    """SLURM does not start this job again; says why."""


def requeued(where: str) -> bool:
    """Whether this job, if there is one, starts again after it has ended, which is said.

    From then on it cannot be stopped, nor can `scontrol`: the signal may come again meanwhile.

    Args:
        where: the training was, in words that follow "preempted".
    """
    job = slurm_job()
    if job is None:
        return False
    ignore()
    try:
        requeue(job.number)
    except RequeueError as reason:
        say(f"preempted {where}, not requeued: {reason}")
        return False
    say(f"preempted {where}, requeued as {job.number}")
    return True


def requeue(job: str) -> None:
    """See that a job starts again after it has ended.

    A job that somebody has cancelled gets the same SIGTERM as one whose time is up, and would come
    back to life; so SLURM is asked first.

    Raises:
        RequeueError: it was cancelled, or SLURM refuses, as for what is no batch job.
    """
    facts = _facts(job)
    if _starts_again(facts):
        return  # SLURM does it by itself, as for a job of more importance, or another rank did
    if facts["JobState"] != "RUNNING" and facts["Reason"] != "TimeLimit":
        raise RequeueError(f"job {job} was cancelled")
    try:
        _scontrol("requeue", job)
    except RequeueError:
        if not _starts_again(_facts(job)):
            raise


def _starts_again(facts: dict[str, str]) -> bool:
    return int(facts["Restarts"]) > int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _facts(job: str) -> dict[str, str]:
    """What SLURM says of a job: KEY -> value."""
    shown = _scontrol("show", "job", "--oneliner", job)
    return {key: value for key, _, value in (word.partition("=") for word in shown.split())}


def _scontrol(*words: str) -> str:
    try:
        done = subprocess.run(
            ["scontrol", *words], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RequeueError(f"scontrol: {error}") from error
    if done.returncode:
        raise RequeueError(" ".join(done.stderr.split()) or f"scontrol {words[0]} has failed")
    return done.stdout
