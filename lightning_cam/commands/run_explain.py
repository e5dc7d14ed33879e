"""What the command `explain` does, as a plain function of a configuration."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig

from lightning_cam.commands.common import plain_settings, quiet, short
from lightning_cam.errors import command_line
from lightning_cam.explaining.explain_command import explain_checkpoint
from lightning_cam.study import run_study

_KEYS = (
    "explain", "ckpt", "video", "data", "clips", "select", "target", "contrast", "layer", "layers",
    "out", "fps", "device", "trust", "measure", "study",
)  # fmt: skip


def explain_clips(cfg: DictConfig) -> Path | None:
    """Explain clips with a trained network.

    Args:
        cfg: as composed from `configs/explain.yaml`.

    Returns:
        The page that shows them; None where only layers were listed, or a study's other processes
        have not finished.

    Raises:
        UserError: what the user can mend; also if not a single clip could be explained.
    """
    config = plain_settings(cfg, _KEYS)
    typed = command_line("explain", *map(shlex.quote, sys.argv[1:]))
    with quiet():
        page = (
            run_study(config, typed) if config.get("study") else explain_checkpoint(config, typed)
        )
    if page is not None:
        print(f"open {short(page)}")
    return page
