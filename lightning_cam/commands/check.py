"""The command `check`: whether a data set is complete."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from lightning_cam.commands.common import plain_settings
from lightning_cam.commands.entry import command, one_line_errors
from lightning_cam.commands.search import CONFIGS
from lightning_cam.stops import orderly


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="check")
def _run(cfg: DictConfig) -> None:
    with one_line_errors(), orderly():
        from lightning_cam.commands.run_check import KEYS, check  # torch loads here, not for --help

        sys.exit(check(plain_settings(cfg, KEYS)))


def main() -> None:
    """Check a data set as the command line says; the exit code is 0 where all is well."""
    command(_run, "check")


if __name__ == "__main__":
    main()
