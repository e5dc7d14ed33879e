"""What the command `explain` does, as a plain function of a configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lightning_cam.commands.common import plain_settings, short, was_typed
from lightning_cam.commands.demo import with_demo
from lightning_cam.errors import ConfigError, command_line, say, shell_word
from lightning_cam.explaining.explain_command import explain_checkpoint
from lightning_cam.explaining.sharing import Share
from lightning_cam.explaining.side_by_side import explain_side_by_side, is_side_by_side
from lightning_cam.progress import no_progress
from lightning_cam.study import run_study
from lightning_cam.survey.run import survey_data_set
from lightning_cam.training.build import TARGET
from lightning_cam.training.quiet import quiet

_KEYS = (
    "explain", "ckpt", "video", "data", "clips", "select", "compose", "target", "contrast", "scale",
    "layer", "layers", "out", "fps", "device", "trust", "measure", "study", "model", "demo",
    "windows", "stride", "start", "end", "size", "survey", "minutes",
)  # fmt: skip


def explain_clips(cfg: DictConfig) -> Path | None:
    """Explain clips with a trained network.

    Args:
        cfg: as composed from `configs/explain.yaml`.

    Returns:
        The page that shows them; None where only layers were listed, or other processes have not
        finished.

    Raises:
        UserError: what the user can mend; also if not a single clip could be explained.
    """
    config = plain_settings(cfg, _KEYS)
    config["measure"] = _without_idle(config["measure"])
    typed = command_line("explain", *map(shell_word, sys.argv[1:]))
    share = Share.of_command()
    # Bars of several processes would write over each other.
    with quiet(), no_progress() if share.rank else nullcontext():
        page = _work(config, share)(with_demo(config), typed)
    if page is not None:
        say(f"open {short(page)}")
    return page


def _work(config: dict[str, Any], share: Share) -> Callable[[dict[str, Any], str], Path | None]:
    """What the settings ask for: a study, networks or questions side by side, or one of them."""
    if config.get("study"):
        return run_study
    if config["survey"] is not None and config["survey"] is not False:  # 0 is refused
        if was_typed("measure") and config["measure"]:
            raise ConfigError("measure= says nothing in a survey; leave it out")
        return survey_data_set
    if config["minutes"] is not None:
        raise ConfigError("minutes= is for a whole data set; add survey=all, or leave out minutes=")
    if is_side_by_side(config):
        return partial(explain_side_by_side, share=share)
    if config["layers"] is not None and share.rank:
        return lambda *_: say(f"{share}nothing to do, layers= is the work of the first")
    return partial(explain_checkpoint, share=share)


def _without_idle(measures: Any) -> Any:
    """Measures without settings that a study's file has for one that is not chosen.

    What was typed stays, so that it is told that it says nothing.
    """
    if not isinstance(measures, dict):
        return measures
    return {
        name: node
        for name, node in measures.items()
        if not isinstance(node, dict) or TARGET in node or was_typed(f"measure.{name}")
    }
