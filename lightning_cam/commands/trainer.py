"""The trainer of a run: Lightning's, with the callbacks that every run has."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, TQDMProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_cam.attribution import Attribution
from lightning_cam.errors import ConfigError, UnknownNameError
from lightning_cam.explaining.callback_settings import logged_names
from lightning_cam.interfaces import Monitored, NamesMetrics, NamesOptionalMetrics, is_offered
from lightning_cam.own_folder import RunFolder
from lightning_cam.training.agreeing import Run
from lightning_cam.training.better import better
from lightning_cam.training.build import TARGET, build
from lightning_cam.training.checkpoint import Remember
from lightning_cam.training.checkpoint_io import AtomicCheckpointIO
from lightning_cam.training.mid_epoch import MidEpoch
from lightning_cam.training.preemption import Preemption, Within
from lightning_cam.training.ranks import slurm_step
from lightning_cam.training.reproducible import EpochLines, ReseedBatches
from lightning_cam.training.resuming import CheckedResume
from lightning_cam.training.saving import BestCheckpoint, LastCheckpoint
from lightning_cam.training.step_environment import StepEnvironment
from lightning_cam.training.throughput import Throughput

_OF_EPOCH = {"train/loss": "train/loss_epoch"}  # what is logged of each step -> of all of an epoch
_DEVICE = r"\b(accelerator|backend|cuda|gpus?)\b|xla"


def monitored(task: object, settings: Mapping[str, Any]) -> tuple[str, str]:
    """The metric that chooses the best checkpoint, and whether it is to be "max" or "min".

    Args:
        task: whose own choice it is where nothing is set.
        settings: `monitor` and `monitor_mode`.

    Raises:
        ConfigError: neither says what, or nobody knows which of two values is better.
    """
    metric, mode = settings["monitor"], settings["monitor_mode"]
    own = task.monitor if is_offered(task, Monitored) else ("val/acc", "max")
    if not _is_monitor(own):
        raise ConfigError(
            f"{type(task).__name__}.monitor must be the name of a logged metric and 'max' or "
            f"'min', such as ('val/loss', 'min'), got {own!r}"
        )
    if mode not in (None, "max", "min"):
        raise ConfigError(f"monitor_mode={mode} must be max or min")
    if is_offered(task, NamesMetrics) and _OF_EPOCH.get(metric) in task.metric_names:
        metric = _OF_EPOCH[metric]  # else it were that of the last batch, of the first process
    if metric is None or metric == own[0]:
        return own[0], mode or own[1]
    mode = mode or better(str(metric))
    if mode is None:
        raise ConfigError(f"is more of {metric} better, or less? add monitor_mode=max (or min)")
    return str(metric), mode


def check_monitor(
    task: object,
    metric: str,
    methods: Mapping[str, Attribution],
    measures: Mapping[str, Any],
) -> None:
    """Find before training that no metric of this name will be logged, where that is known.

    What a task or a method of another package logs shows after its first epoch, which is saved.
    What depends on the data shows in a pass over the validation clips before training, see
    `looks_first`.

    Args:
        task: which may name its metrics.
        metric: to monitor.
        methods: those that explain, name -> method.
        measures: what is measured of their maps, name -> measure.

    Raises:
        ConfigError: there will be none; the nearest names are named.
    """
    first, _, rest = metric.partition("/")
    method = methods.get(rest.partition("/")[0]) if first == "explain" else None
    offers = is_offered(task, NamesMetrics) and "metric_names" in vars(type(task))
    own = task.metric_names if offers else None  # type: ignore[attr-defined]
    ours = type(method).__module__.startswith("lightning_cam.")
    if not (ours if method else own):
        return
    known = [*(own or ()), *logged_names(methods, measures)]
    if metric not in known:
        unknown = UnknownNameError("logged metric", metric, known)
        raise ConfigError(f"{unknown}; choose one with monitor=NAME")


def looks_first(task: object, metric: str) -> bool:
    """Whether only a pass over the validation clips tells if a task logs a metric for them."""
    return is_offered(task, NamesOptionalMetrics) and metric in task.optional_metrics


def _is_monitor(value: object) -> bool:
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and value[1] in ("max", "min")


def to_try(config: Mapping[str, Any]) -> str:
    """What to try where the training loss is not finite, in words that follow "try"."""
    optimizer = config["task"].get("optimizer")
    rate = optimizer.get("lr") if isinstance(optimizer, Mapping) else None
    found = [f"task.optimizer.lr={rate / 10:g}"] if isinstance(rate, float | int) else []
    if config["trainer"].get("gradient_clip_val") is None:
        found.append("trainer.gradient_clip_val=1.0")
    if config["trainer"].get("precision") == "16-mixed":
        found.append("trainer.precision=bf16-mixed")
    if not found:
        found.append("a smaller learning rate")
    stop = "trainer.detect_anomaly=true, which stops at the operation it comes from"
    return f"{', '.join(found)}, or {stop}"


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
    if isinstance(options.get("max_time"), int | float):
        raise ConfigError(
            "trainer.max_time must be days, hours, minutes and seconds; for 12 hours set "
            "trainer.max_time=00:12:00:00"
        )
    logs = config["logger"].get("kind") != "none" and not options.get("fast_dev_run")
    last, step = LastCheckpoint(run.checkpoints), slurm_step()
    node = {
        TARGET: "lightning.pytorch.Trainer",
        **options,
        "logger": False,
        "callbacks": [
            MidEpoch(),  # what it takes up, the next one answers for
            CheckedResume(),
            *more,
            RunFolder(run.folder),
            ReseedBatches(config["seed"]),
            TQDMProgressBar(leave=True) if sys.stdout.isatty() else EpochLines(),
            _remember(config, classes),
            BestCheckpoint(run.checkpoints, *monitor),
            last,
            *([LearningRateMonitor("step"), Throughput()] if logs else []),
            *([_explainer(config["videos"], explained)] if explained else []),
            Preemption(last, Within(**config["checkpoint"])),
        ],
        # Lightning takes tasks of srun for a shell's where the job is of salloc.
        "plugins": [
            AtomicCheckpointIO(run.checkpoints),
            *([StepEnvironment(step)] if step else []),
        ],
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


def _explainer(videos: Mapping[str, Any], explained: Mapping[str, Any]) -> Callback:
    """The callback that explains validation clips, as the settings below `videos` say."""
    node = {TARGET: "lightning_cam.explaining.ExplainCallback", **explained, **videos}
    return build(node, where="videos")
