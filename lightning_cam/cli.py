"""What the two commands do, as plain functions of a configuration."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.syntax import Syntax
from torch import nn

from lightning_cam.attribution import Attribution, LayerAttribution
from lightning_cam.attribution.guard import unwrap
from lightning_cam.build import TARGET, build, rebuildable, strangers
from lightning_cam.checkpoint import AtomicCheckpointIO, Remember
from lightning_cam.errors import ConfigError, UnknownNameError, command_line, quoted
from lightning_cam.explaining import AS_TRAINED, explain_with
from lightning_cam.files import write_text
from lightning_cam.interfaces import (
    HasChannels,
    HasClasses,
    Monitored,
    ReportsProblems,
    check_data,
    check_task,
)
from lightning_cam.loggers import make_logger
from lightning_cam.measurements import EPOCH
from lightning_cam.measuring import build_measures
from lightning_cam.reproducible import EpochLines, ReseedEpochs
from lightning_cam.runs import Run, discard, open_run, same_as_before, shared
from lightning_cam.settings import check_clips, check_fps
from lightning_cam.skipped import SkippedClips
from lightning_cam.study import run_study
from lightning_cam.tasks import VideoClassification
from lightning_cam.tasks.schedules import build_schedule

_TRAIN_KEYS = (
    "model", "task", "data", "trainer", "logger", "explain", "measure", "name", "seed", "resume",
    "runs", "videos",
)  # fmt: skip
_EXPLAIN_KEYS = (
    "explain", "ckpt", "video", "data", "clips", "select", "target", "contrast", "layer", "layers",
    "out", "fps", "device", "trust", "measure", "study",
)  # fmt: skip
_ADVICE = (
    ".*does not have many workers.*",
    ".*exists and is not empty.*",  # a resumed run writes where it wrote before
    ".*logging interval.*",
    ".*`LightningDataModule`.*|.*LeafSpec.*",
    ".*use_distributed_sampler.*",
    ".*`srun` command is available.*",  # a login node
    ".*sync_dist=True.*",  # torchmetrics has synchronised what is logged
)
_DEVICE = r"\b(accelerator|backend|cuda|gpus?)\b|xla"


def train(cfg: DictConfig, callbacks: Sequence[Callback] = ()) -> Path:
    """Train, explain on the way, and say where everything lies.

    Args:
        cfg: as composed from `configs/train.yaml`.
        callbacks: more of them, for programs that call this function.

    Returns:
        The run's folder.

    Raises:
        UserError: what the user can mend.
    """
    config = _plain(cfg, _TRAIN_KEYS)
    _check(config)
    _no_distributed_sweep(config)
    run = open_run(config["runs"], config["name"], config["resume"])
    first = all(os.environ.get(v, "0") == "0" for v in ("LOCAL_RANK", "SLURM_PROCID"))
    with shared(run), _quiet():
        try:
            if run.resume is not None:
                same_as_before(run, config)
            if first:
                if run.note:
                    print(run.note, flush=True)
                _show(config, run)
            seed_everything(config["seed"], verbose=False)
            data = build(config["data"], where="data")
            check_data(data)
            data.prepare_data()
            data.setup()
            classes = _classes(data)
            channels = data.channels if isinstance(data, HasChannels) else 3
            config = _filled(config, classes, channels)
            _try_optimizer(config["task"])
            for part in ("task", "data"):
                rebuildable(config[part], part)
            task = build(config["task"], where="task")
            check_task(task)
            methods = build(config["explain"], where="explain")
            measures = build_measures(config["measure"], EPOCH)
            _check_layers(task, methods)
            skipped = SkippedClips()
            more = [skipped, *callbacks]
            watched = {"methods": methods, "measures": measures} if methods else {}
            trainer = _trainer(config, watched, classes, _monitor(task), run, more)
            logger = None
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                logger = make_logger(config["logger"], run, config["name"], config, first)
            trainer.logger = logger
        except BaseException:
            if first:
                discard(run)
            raise
        try:
            trainer.fit(task, data, ckpt_path=run.resume and str(run.resume))
        except SystemExit:  # how Lightning leaves after Ctrl-C
            if first:
                again = [word for word in sys.argv[1:] if not word.startswith("resume=")]
                going_on = quoted("resume", _short(run.folder))
                command = command_line("train", *map(shlex.quote, again), going_on)
                print(f"\nstopped; to go on: {command}")
            sys.exit(130)
        finally:
            if isinstance(logger, WandbLogger):
                import wandb

                wandb.finish()
        if trainer.is_global_zero:
            _summary(config, run, trainer, data, skipped)
    return run.folder


def explain(cfg: DictConfig) -> Path | None:
    """Explain clips with a trained network.

    Args:
        cfg: as composed from `configs/explain.yaml`.

    Returns:
        The page that shows them; None where only layers were listed, or a study's other processes
        have not finished.

    Raises:
        UserError: what the user can mend; also if not a single clip could be explained.
    """
    config = _plain(cfg, _EXPLAIN_KEYS)
    typed = command_line("explain", *map(shlex.quote, sys.argv[1:]))
    with _quiet():
        page = run_study(config, typed) if config.get("study") else explain_with(config, typed)
    if page is not None:
        print(f"open {_short(page)}")
    return page


def _plain(cfg: DictConfig, keys: Sequence[str]) -> dict[str, Any]:
    """Plain, resolved containers; `+key=` cannot smuggle in what nobody reads."""
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(config, dict):
        raise ConfigError("the configuration is not a mapping")
    for key in config:
        if key not in keys:
            raise UnknownNameError("setting", key, keys)
    return config  # type: ignore[return-value]


def _check(config: dict[str, Any]) -> None:
    """What must be right before there is a folder."""
    config["explain"] = config.get("explain") or {}
    config["measure"] = config.get("measure") or {}
    for key in ("task", "data", "trainer", "logger", "explain", "measure", "videos"):
        if not isinstance(config.get(key), dict):
            raise ConfigError(f"{key}={config.get(key)} must be one of the choices or a mapping")
    for key, node in (
        ("task", config["task"]),
        ("task.model", config["task"].get("model")),
        ("data", config["data"]),
    ):
        if isinstance(node, dict) and TARGET not in node:
            raise ConfigError(
                f"{key} names no class; add {TARGET}: package.module.Class to its file"
            )
    for key in ("name", "runs"):
        if config[key] in (None, ""):
            raise ConfigError(f"{key} is missing; add {key}=VALUE")
        config[key] = str(config[key])
    if config["resume"] is not None:
        config["resume"] = str(config["resume"])
    seed = config["seed"]
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed} must be a whole number from 0 to {2**32 - 1}")
    if AS_TRAINED in config["explain"]:
        raise ConfigError(
            "explain=as_trained is for the command explain; name the methods, for example "
            "explain=[gradcam]"
        )
    if config["measure"] and not config["explain"]:
        raise ConfigError(
            f"measure={','.join(config['measure'])} measures maps, and explain=none makes none; "
            "leave it out, or choose methods, for example explain=[gradcam]"
        )
    check_clips(config["videos"].get("clips"), "videos.clips")
    check_fps(config["videos"].get("fps"), "videos.fps")


def _no_distributed_sweep(config: Mapping[str, Any]) -> None:
    sweeping = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if sweeping and config["trainer"].get("strategy") != "auto":
        raise ConfigError(
            "a sweep (-m) cannot use trainer.strategy=ddp: every process would sweep again; "
            "start one run after the other, or a SLURM job array"
        )


def _try_optimizer(task: Mapping[str, Any]) -> None:
    """Lightning asks for these two late; a mistake in them is said before anything starts."""
    weights = [torch.nn.Parameter(torch.zeros(1))]
    key, optimizer = "optimizer", torch.optim.SGD(weights)
    try:
        if task.get("optimizer") is not None:
            optimizer = build(task["optimizer"], where="task.optimizer")(weights)
        key = "scheduler"
        if task.get("scheduler") is not None:
            build_schedule(build(task["scheduler"], where="task.scheduler"), optimizer, 100)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"task.{key}: {error}") from error


def _check_layers(task: Any, methods: Mapping[str, Attribution]) -> None:
    """Methods need a target layer; without one every epoch would pass unexplained."""
    if not isinstance(task, VideoClassification) or task.layers:
        return
    lacking = [
        name
        for name, method in methods.items()
        if isinstance(method, LayerAttribution) and method.layer is None
    ]
    if lacking:
        network = unwrap(task.model)
        names = _layer_names(network)
        offered = f" (it has {', '.join(names)})" if names else ""
        raise ConfigError(
            f"{type(network).__name__} names no target layer for {', '.join(lacking)}: add "
            f"task.layers=[{names[-1] if names else 'NAME'}]{offered}, or explain=none"
        )


def _layer_names(network: nn.Module) -> list[str]:
    """Parts of a network that contain convolutions, in order, looking into an only one."""
    names: list[str] = []
    while True:
        prefix = f"{names[0]}." if names else ""
        inside = [
            f"{prefix}{name}"
            for name, child in network.named_children()
            if any(type(module).__name__.startswith("Conv") for module in child.modules())
        ]
        if not inside:
            return names
        names = inside
        if len(names) > 1:
            return names[-6:]
        network = network.get_submodule(names[0].removeprefix(prefix))


def _show(config: dict[str, Any], run: Run) -> None:
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    write_text(run.folder / "config.yaml", text, sync=True)
    console = Console()
    console.print(Syntax(text, "yaml", background_color="default"), soft_wrap=True)
    console.print(f"run folder: {run.folder}", highlight=False, soft_wrap=True)


def _classes(data: object) -> Sequence[str]:
    """The class names of a data module that is set up.

    Raises:
        ConfigError: it has nothing to say about them.
    """
    if not isinstance(data, HasClasses):
        raise ConfigError(
            f"{type(data).__name__} has no `classes`: give it the names in the order of the "
            "labels, or an empty list where clips have none"
        )
    return data.classes


def _filled(config: dict[str, Any], classes: Sequence[str], channels: int) -> dict[str, Any]:
    """The configuration with what only the data know filled in."""
    task, data = dict(config["task"]), dict(config["data"])
    if "classes" in task:
        task["classes"] = task["classes"] or list(classes)
    model = task.get("model")
    if isinstance(model, dict):
        outputs = len(classes)  # two names: ours, torchvision's
        known = {"num_outputs": outputs, "num_classes": outputs, "in_channels": channels}
        missing = {key: n for key, n in known.items() if key in model and model[key] is None}
        task["model"] = {**model, **missing}
    if "classes" in data:  # a rebuilt model then needs no data to know its classes
        data["classes"] = list(classes)
    return {**config, "task": task, "data": data}


def _monitor(task: object) -> tuple[str, str]:
    """The metric that chooses the best checkpoint, and whether it is to be "max" or "min"."""
    return task.monitor if isinstance(task, Monitored) else ("val/acc", "max")


def _trainer(
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
        watcher = {TARGET: "lightning_cam.callbacks.ExplainCallback", **watched}
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


def _summary(
    config: Mapping[str, Any], run: Run, trainer: Trainer, data: object, skipped: SkippedClips
) -> None:
    """The last lines: what came out, where it lies, and what to run next."""
    saved = (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    best = next(saved, None)
    found = Path((best and best.best_model_path) or run.checkpoints / "last.ckpt")
    print()
    for reason, count in skipped.counts.items():
        print(f"skipped {count}x: {reason}")
    if isinstance(data, ReportsProblems) and data.problems:
        print(f"{len(data.problems)} problems with the data, the first is {data.problems[0]}")
    if best is not None and best.best_model_score is not None:
        print(f"best {best.monitor} {float(best.best_model_score):.3f} ({found.stem})")
    if not found.exists():
        print("nothing was saved")
        return
    found = _short(found)
    print(f"checkpoint   {found}")
    if config["explain"]:
        print(f"videos       {_short(run.folder / 'explain')}")
    trust = sorted({*strangers(config["task"]), *strangers(config["data"])})
    more = [f"trust=[{','.join(trust)}]"] if trust else []
    print(f"next         {command_line('explain', quoted('ckpt', found), *more)}", flush=True)


def _short(path: Path) -> Path:
    """The path as seen from here, where it lies below."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's greetings and advice that does not apply here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
