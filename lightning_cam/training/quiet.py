"""Lightning without what it says to everybody."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_cam.errors import printable

_ADVICE = (
    ".*does not have many workers.*",
    ".*exists and is not empty.*",  # a resumed run writes where it wrote before
    ".*logging interval.*",
    ".*`LightningDataModule`.*|.*LeafSpec.*",
    ".*use_distributed_sampler.*",
    ".*`srun` command is available.*",  # a login node
    ".*sync_dist=True.*",  # torchmetrics has synchronised what is logged
)


def _one_line(message: Warning | str, category: type[Warning], *_place: object, **_: object) -> str:
    """A warning as it is shown: what it says, not where in the code."""
    return f"{category.__name__}: {printable(str(message))}\n"


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's greetings and advice that does not apply here; warnings in one line.

    Example:
        >>> with quiet():
        ...     Trainer(max_epochs=20).fit(task, data)
    """
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
