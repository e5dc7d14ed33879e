"""The trainer of a run: Lightning's, with the callbacks that every run has."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import (
    Monitored,
)
from lightning_cam.training.build import TARGET, build
from lightning_cam.training.checkpoint import AtomicCheckpointIO, Remember
from lightning_cam.training.reproducible import EpochLines, ReseedEpochs
from lightning_cam.training.runs import Run

_DEVICE = r"\b(accelerator|backend|cuda|gpus?)\b|xla"


def monitored(task: object) -> tuple[str, str]:
    """The metric that chooses the best checkpoint, and whether it is to be "max" or "min"."""
    return task.monitor if isinstance(task, Monitored) else ("val/acc", "max")


def make_trainer(
    config: dict[str, Any],
    watched: Mapping[str, Any],
    classes: Sequence[str],
    monitor: tuple[str, str],
    run: Run,
    more: Sequence[Callback],
) -> Trainer:
    best, mode = monitor
    save = partial(ModelCheckpoint, dirpath=run.checkpoints, enable_version_counter=False)
    callbacks: list[Callback] = [
        *more,
        ReseedEpochs(config["seed"]),
        TQDMProgressBar() if sys.stdout.isatty() else EpochLines(),
        Remember(
            config["task"],
            config["data"],
            classes,
            {key: config[key] for key in ("name", "seed", "explain")},
        ),
        # Names without "=", so that they can be passed to ckpt=.
        save(
            filename="epoch_{epoch:03d}",
            auto_insert_metric_name=False,
            monitor=best,
            mode=mode,
        ),
        # save_last of the one above would write only when the best improves.
        save(filename="last", save_on_train_epoch_end=True),
    ]
    options = {key: value for key, value in config["trainer"].items() if value is not None}
    if config["logger"].get("kind") != "none" and not options.get("fast_dev_run"):
        callbacks.append(LearningRateMonitor("step"))
    if watched:
        watcher = {TARGET: "lightning_cam.explaining.callback.ExplainCallback", **watched}
        callbacks.append(build({**watcher, **config["videos"]}, where="videos"))
    node = {
        TARGET: "lightning.pytorch.Trainer",
        **options,
        "logger": False,  # comes when everything else is right
        "callbacks": callbacks,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": str(run.folder),
        "enable_progress_bar": sys.stdout.isatty(),
        "enable_model_summary": False,
        # Ours shards over the ranks itself, and evaluates every clip once.
        "use_distributed_sampler": False,
    }
    try:
        return build(node, where="trainer")
    except (MisconfigurationException, ImportError, ConfigError) as error:
        device = options.get("accelerator") != "cpu" and re.search(_DEVICE, str(error), re.I)
        hint = "; try trainer=cpu" if device else ""
        raise ConfigError(f"trainer: {str(error).removeprefix('trainer: ')}{hint}") from error
