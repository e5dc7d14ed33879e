"""Where the processes of a SLURM step meet."""

from __future__ import annotations

import os

from lightning.pytorch.plugins.environments import SLURMEnvironment

from lightning_cam.training.ranks import Job

_FIRST, _PORTS = 15_000, 10_000
_STRIDE = 997  # between two steps, so that a job's are not those of the jobs that follow it


class StepEnvironment(SLURMEnvironment):
    """Lightning's, with a port for each step: steps of a job that run side by side would meet.

    `MASTER_PORT` in the environment is taken first. The first step has Lightning's own port.

    Args:
        job: with the step.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(auto_requeue=False)
        self.step = job.step or 0

    @property
    def main_port(self) -> int:
        own = int(os.environ["SLURM_JOB_ID"]) + _STRIDE * self.step
        os.environ.setdefault("MASTER_PORT", str(_FIRST + own % _PORTS))
        return super().main_port
