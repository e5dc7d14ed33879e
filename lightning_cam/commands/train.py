"""The command `train`: a video network, and where it looks."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from lightning_cam.commands.entry import command, one_line_errors
from lightning_cam.commands.search import CONFIGS
from lightning_cam.commands.sweeps import as_job
from lightning_cam.stops import TerminatedError, ignore, orderly
from lightning_cam.training.ranks import slurm_job
from lightning_cam.training.requeue import requeued


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="train")
def _run(cfg: DictConfig) -> None:
    with as_job(), one_line_errors():
        try:
            with orderly():
                from lightning_cam.commands.run_train import train  # not for --help: torch is slow

                train(cfg)
        except TerminatedError:
            if not requeued("outside of training"):
                raise
        if slurm_job() is not None:
            ignore()  # or a signal, which all processes of a job get, would end it as a failure


def main() -> None:
    """Train as the command line says."""
    command(_run, "train")


if __name__ == "__main__":
    main()
