"""A command that runs once, with its settings composed once.

`hydra.main` composes them twice: first to find out whether there are several runs. That is half of
the time until a mistake in the settings is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from lightning_cam.commands.search import composed


def single_run(name: str, arguments: Sequence[str]) -> DictConfig | None:
    """All settings of a command, Hydra's own among them; None where Hydra has more to do.

    That is: a switch such as `-m` was typed, or settings ask for something that Hydra does around
    a run, as for another folder, logging, or a callback.

    Raises:
        HydraException, OmegaConfBaseException, ConfigError: they cannot be composed.
    """
    if any(argument.startswith("-") for argument in arguments):
        return None
    try:
        cfg = composed(name, arguments, internals=True)
    except ConfigCompositionException as error:
        if str(error).startswith("Ambiguous value"):  # Hydra quotes its remedy for the shell
            return None
        raise
    return None if _asks_for_more(cfg.hydra) else cfg


def _asks_for_more(own: Any) -> bool:
    logging = {own.runtime.choices[f"hydra/{kind}_logging"] for kind in ("job", "hydra")}
    return bool(
        own.mode == RunMode.MULTIRUN
        or own.callbacks
        or own.job.env_set
        or own.job.chdir
        or own.run.dir != "."
        or own.output_subdir is not None
        or logging != {"none"}
    )


@contextmanager
def without_internals(cfg: DictConfig) -> Iterator[DictConfig]:
    """The settings without Hydra's own, which `${hydra:...}` finds meanwhile."""
    known = HydraConfig.instance()
    before = known.cfg
    with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = str(Path.cwd())
    known.set_config(cfg)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    try:
        yield cfg
    finally:
        known.cfg = before
