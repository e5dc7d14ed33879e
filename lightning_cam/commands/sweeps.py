"""Several runs by one command (-m), one after the other or as jobs of SLURM: what cannot be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from lightning_cam.commands.search import choices
from lightning_cam.errors import ConfigError
from lightning_cam.training.ranks import processes, slurm_step

_MODE = "hydra.mode"
_GROUP = "hydra/launcher"
_QUEUED = "SUBMITIT_EXECUTOR"  # stands in the environment of a job that submitit has queued


class JobError(Exception):
    """A run that is a job has failed; names its log."""


def sweeping() -> bool:
    """Whether this is one of several runs (-m)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def check_launcher(arguments: Sequence[str]) -> None:
    """Before anything is queued: whether runs can be jobs.

    Args:
        arguments: as typed.

    Raises:
        ConfigError: they cannot.
    """
    chosen = [a.partition("=")[2] for a in arguments if a.startswith(f"{_GROUP}=")]
    launcher = chosen[-1] if chosen else "basic"
    if launcher == "basic":
        return
    if not {"-m", "--multirun", f"{_MODE}=MULTIRUN"} & {*arguments}:
        raise ConfigError(f"{_GROUP}={launcher} is for a sweep: add -m")
    if processes()[1] > 1:
        raise ConfigError(
            f"{_GROUP}={launcher}: every process of this step would submit the sweep; type the "
            "command once, without srun or torchrun"
        )
    if launcher in choices(_GROUP) or launcher.startswith("submitit"):
        if find_spec("submitit") is None:
            raise ConfigError(f"{_GROUP}={launcher} needs pip install hydra-submitit-launcher")
        if launcher != "submitit_local" and shutil.which("sbatch") is None:
            raise ConfigError(f"{_GROUP}={launcher}: this machine has no sbatch; use a login node")


def check_sweep(config: Mapping[str, Any]) -> None:
    """Where Lightning starts the other processes, it does so by the words of the whole sweep.

    Raises:
        ConfigError: this is such a run. In a SLURM step srun has started them.
    """
    from lightning_cam.commands.strategies import starts_others  # torch loads here, not for --help

    if sweeping() and slurm_step() is None and starts_others(config["trainer"]):
        raise ConfigError(
            "a sweep (-m) cannot use trainer.strategy=ddp or several devices: every process would "
            "sweep again; take trainer.strategy=auto and trainer.devices=1, or on a cluster "
            f"trainer=slurm and {_GROUP}=slurm, by which each run is a job"
        )


@contextmanager
def as_job() -> Iterator[None]:
    """In a job that submitit has queued, a run that fails says so to whoever waits for it.

    Submitit hands on errors, and no exit codes.

    Raises:
        JobError: it has failed.
    """
    try:
        yield
    except SystemExit as leaving:
        if leaving.code in (None, 0) or _QUEUED not in os.environ:
            raise
        from submitit import JobEnvironment  # comes with what has queued the job

        raise JobError(str(JobEnvironment().paths.stdout)) from leaving


def of_a_job(error: Exception) -> str:
    """What to say of an error of a run that was a job, or of submitting it; "" of another."""
    if isinstance(error, JobError):
        return f"a run of the sweep has failed: see {error}"
    if type(error).__module__.startswith("submitit."):  # sbatch, or a job that was killed
        return f"the sweep has failed: {error}"
    return ""
