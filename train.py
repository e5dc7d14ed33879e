"""Train a video network: `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from lightning_cam.entry import command, one_line_errors


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> None:
    with one_line_errors():
        from lightning_cam.cli import train  # torch loads here, not for --help

        train(cfg)


if __name__ == "__main__":
    command(main, __file__)
