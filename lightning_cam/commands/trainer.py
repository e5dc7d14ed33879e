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
from lightning_cam.interfaces import Monitored, is_offered
from lightning_cam.training.build import TARGET, build
from lightning_cam.training.checkpoint import Remember
from lightning_cam.training.checkpoint_io import AtomicCheckpointIO
from lightning_cam.training.reproducible import EpochLines, ReseedEpochs
from lightning_cam.training.resuming import CheckedResume
from lightning_cam.training.runs import Run

_DEVICE = r"\b(accelerator|backend|cuda|gpus?)\b|xla"


def monitored(task: object) -> tuple[str, str]:
    """The metric that chooses the best checkpoint, and whether it is to be "max" or "min".

    Raises:
        ConfigError: the task says neither.
    """
    if not is_offered(task, Monitored):
        return "val/acc", "max"
    monitor = task.monitor
    if not _is_monitor(monitor):
        raise ConfigError(
            f"{type(task).__name__}.monitor must be the name of a logged metric and 'max' or "
            f"'min', such as ('val/loss', 'min'), got {monitor!r}"
        )
    return monitor


def _is_monitor(value: object) -> bool:
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and value[1] in ("max", "min")


def make_trainer(
    config: dict[str, Any],
    explained: Mapping[str, Any],
    classes: Sequence[str],
    monitor: tuple[str, str],
    run: Run,
    more: Sequence[Callback],
) -> Trainer:
    """The trainer of a run, without its logger, which comes when everything else is right.

    Args:
        config: the settings, with what only the data know filled in.
        explained: the methods and measures of the explanations; empty for none.
        classes: names of the output columns.
        monitor: see `monitored`.
        run: where it works.
        more: callbacks that come before all others.

    Raises:
        ConfigError: Lightning does not take these settings.
    """
    options = {key: value for key, value in config["trainer"].items() if value is not None}
    logs = config["logger"].get("kind") != "none" and not options.get("fast_dev_run")
    node = {
        TARGET: "lightning.pytorch.Trainer",
        **options,
        "logger": False,
        "callbacks": [
            CheckedResume(),
            *more,
            ReseedEpochs(config["seed"]),
            TQDMProgressBar() if sys.stdout.isatty() else EpochLines(),
            _remember(config, classes),
            *_savers(run, *monitor),
            *([LearningRateMonitor("step")] if logs else []),
            *([_explainer(config["videos"], explained)] if explained else []),
        ],
        "plugins": [AtomicCheckpointIO(run.checkpoints)],
        "default_root_dir": str(run.folder),
        "enable_progress_bar": sys.stdout.isatty(),
        "enable_model_summary": False,
        # The data modules shard over the ranks themselves, and evaluate every clip once.
        "use_distributed_sampler": False,
    }
    try:
        return build(node, where="trainer")
    except (MisconfigurationException, ImportError, ConfigError) as error:
        device = options.get("accelerator") != "cpu" and re.search(_DEVICE, str(error), re.I)
        hint = "; try trainer=cpu" if device else ""
        raise ConfigError(f"trainer: {str(error).removeprefix('trainer: ')}{hint}") from error


def _remember(config: Mapping[str, Any], classes: Sequence[str]) -> Remember:
    """Writes into checkpoints how task and data are built, and what else explaining needs."""
    facts = {key: config[key] for key in ("name", "seed", "explain")}
    return Remember(config["task"], config["data"], classes, facts)


def _savers(run: Run, metric: str, mode: str) -> list[ModelCheckpoint]:
    """Two: the best epoch, and the last. `save_last` would write only when the best improves."""
    save = partial(ModelCheckpoint, dirpath=run.checkpoints, enable_version_counter=False)
    # A name without "=", so that it can be passed to ckpt=.
    best = save(
        filename="epoch_{epoch:03d}", auto_insert_metric_name=False, monitor=metric, mode=mode
    )
    return [best, save(filename="last", save_on_train_epoch_end=True)]


def _explainer(videos: Mapping[str, Any], explained: Mapping[str, Any]) -> Callback:
    """The callback that explains validation clips, as the settings below `videos` say."""
    node = {TARGET: "lightning_cam.explaining.ExplainCallback", **explained, **videos}
    return build(node, where="videos")
