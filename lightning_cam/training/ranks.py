"""Which of the processes of a command this is, and which command of a SLURM job.

SLURM and torchrun start a command once for each rank, and say in the environment which is which.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lightning_cam.errors import ConfigError

# SLURM gives its own steps, such as the batch script, numbers from here on.
_NO_STEP = 2**31


@dataclass(frozen=True)
class Job:
    """A part of a SLURM job that runs commands one after the other.

    Attributes:
        number: of the job, `77`; of a task of an array `70_3`.
        step: number of the step that srun has started; None in the batch script itself.
        restart: how often the job has been requeued.
    """

    number: str
    step: int | None
    restart: int

    @property
    def name(self) -> str:
        """Of the folder of its first command."""
        return f"slurm-{self.number}"

    def folder(self, turn: int) -> str:
        """The name of the folder of its n-th command, n from 1 on."""
        if self.step is None:
            return f"{self.name}-batch-{turn}"
        if turn > 1:
            return f"{self.name}-{self.step}-turn-{turn}"
        return f"{self.name}-{self.step}" if self.step else self.name


def slurm_job() -> Job | None:
    """The job that this command is part of; None outside of one, and in an interactive shell."""
    if _is_shell() or not {"SLURM_JOB_ID", "SLURM_NTASKS"} <= os.environ.keys():
        return None
    number = os.environ["SLURM_JOB_ID"]
    if {"SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"} <= os.environ.keys():
        number = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    step = int(os.environ.get("SLURM_STEP_ID", _NO_STEP))
    restart = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    return Job(number, step if step < _NO_STEP else None, restart)


def _is_shell() -> bool:
    """Whether somebody types commands in the job.

    Lightning goes by the same names of jobs. But salloc calls its job so as well where srun starts
    several tasks in it, which have a step of their own and no terminal.
    """
    name = os.environ.get("SLURM_JOB_NAME")
    if name == "interactive" and "SLURM_PTY_PORT" not in os.environ:
        step = int(os.environ.get("SLURM_STEP_ID", _NO_STEP))
        return step >= _NO_STEP or os.environ.get("SLURM_NTASKS") == "1"
    return name in ("bash", "interactive")


def slurm_step() -> Job | None:
    """The job, if srun has started this process and nothing else between them; else None."""
    job = slurm_job()
    return None if job is None or job.step is None or by_torchrun() else job


def by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def processes() -> tuple[int, int]:
    """(rank, how many) of the processes that torchrun or srun has started for this command.

    Raises:
        ConfigError: the environment contradicts itself.
    """
    if {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return _rank("RANK", "WORLD_SIZE")
    job = slurm_job()
    if job is not None and job.step is not None:  # the batch script has a rank, but no others
        return _rank("SLURM_PROCID", "SLURM_NTASKS")
    return 0, 1


def local_rank() -> int:
    """Which of the processes of its machine this is, from 0 on: it says whose GPU is whose.

    Raises:
        ConfigError: the environment says no number.
    """
    local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    if not local.isdecimal():
        raise ConfigError(f"LOCAL_RANK={local} must be a number; or choose device=cuda:N")
    return int(local)


def _rank(*names: str) -> tuple[int, int]:
    try:
        rank, count = (int(os.environ[name]) for name in names)
    except (KeyError, ValueError):
        rank, count = -1, 0
    if not 0 <= rank < count:
        raise ConfigError(f"{' and '.join(names)} must say which of how many processes this is")
    return rank, count


@contextmanager
def group_left() -> Iterator[None]:
    """Leave the group that processes have joined within, when all come to the end of the block.

    Torch would leave it to the end of Python, where the threads of gloo abort one process in
    twenty (`terminate called without an active exception`): SLURM then takes the job for failed.
    """
    import torch.distributed as dist  # not for `explain --help`

    together = True
    try:
        yield
    except SystemExit:  # as all do that are preempted
        raise
    except BaseException:
        together = False  # NCCL would wait for those that have not failed
        raise
    finally:
        joined = dist.is_available() and dist.is_initialized()
        if joined and (together or dist.get_backend() == "gloo"):
            dist.destroy_process_group()
