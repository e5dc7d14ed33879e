"""What the commands share: plain settings, quiet libraries, short paths."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lightning_cam.errors import ConfigError, UnknownNameError, printable

_ADVICE = (
    ".*does not have many workers.*",
    ".*exists and is not empty.*",  # a resumed run writes where it wrote before
    ".*logging interval.*",
    ".*`LightningDataModule`.*|.*LeafSpec.*",
    ".*use_distributed_sampler.*",
    ".*`srun` command is available.*",  # a login node
    ".*sync_dist=True.*",  # torchmetrics has synchronised what is logged
)


def plain_settings(cfg: DictConfig, keys: Sequence[str]) -> dict[str, Any]:
    """Plain, resolved containers; `+key=` cannot smuggle in what nobody reads."""
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(config, dict):
        raise ConfigError("the configuration is not a mapping")
    for key in config:
        if key not in keys:
            raise UnknownNameError("setting", key, keys)
    return config  # type: ignore[return-value]


def was_typed(key: str) -> bool:
    """Whether a setting, or one below it, comes from the command line and not from a file."""
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else sys.argv[1:]
    return any(re.match(rf"\+*{re.escape(key)}[.=]", word) for word in typed)


def short(path: Path) -> Path:
    """The path as seen from here, where it lies below."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _one_line(message: Warning | str, category: type[Warning], *_place: object, **_: object) -> str:
    """A warning as it is shown: what it says, not where in the code."""
    return f"{category.__name__}: {printable(str(message))}\n"


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's greetings and advice that does not apply here; warnings in one line."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    formatted = warnings.formatwarning
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        warnings.formatwarning = _one_line
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        warnings.formatwarning = formatted
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
