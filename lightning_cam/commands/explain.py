"""The command `explain`: clips, with a trained network."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from lightning_cam.commands.entry import command, one_line_errors
from lightning_cam.commands.search import CONFIGS
from lightning_cam.stops import orderly


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="explain")
def _run(cfg: DictConfig) -> None:
    with one_line_errors(), orderly():
        # torch loads here, not for --help
        from lightning_cam.commands.run_explain import explain_clips

        explain_clips(cfg)


def main() -> None:
    """Explain as the command line says."""
    command(_run, "explain")


if __name__ == "__main__":
    main()
