"""What the command `train` does, as a plain function of a configuration."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import (
    Callback,
    LightningDataModule,
    LightningModule,
    Trainer,
    seed_everything,
)
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.syntax import Syntax

from lightning_cam.commands.common import plain_settings, quiet, short
from lightning_cam.commands.train_settings import (
    check_layers,
    check_settings,
    classes_of,
    filled,
    no_distributed_sweep,
    try_optimizer,
)
from lightning_cam.commands.trainer import make_trainer, monitored
from lightning_cam.errors import command_line, quoted, say
from lightning_cam.explaining.measured_files import EPOCH_COLUMNS
from lightning_cam.explaining.measuring import build_measures
from lightning_cam.files import write_text
from lightning_cam.interfaces import (
    HasChannels,
    ReportsProblems,
    check_data,
    check_task,
    is_offered,
)
from lightning_cam.training.build import build, rebuildable, strangers
from lightning_cam.training.loggers import make_logger
from lightning_cam.training.runs import Run, discard, open_run, same_as_before, shared
from lightning_cam.training.skipped_clips import SkippedClips

_KEYS = (
    "model", "task", "data", "trainer", "logger", "explain", "measure", "name", "seed", "resume",
    "runs", "videos",
)  # fmt: skip


@dataclass(frozen=True)
class _Prepared:
    """All that a training needs, built and checked.

    Attributes:
        config: the settings, with what only the data know filled in.
        run: its folder, and the checkpoint it goes on from.
        task: the LightningModule.
        data: the LightningDataModule, set up.
        trainer: with its callbacks and its logger.
        skipped: counts the clips that could not be read.
    """

    config: Mapping[str, Any]
    run: Run
    task: LightningModule
    data: LightningDataModule
    trainer: Trainer
    skipped: SkippedClips


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
    config = plain_settings(cfg, _KEYS)
    check_settings(config)
    no_distributed_sweep(config)
    run = open_run(config["runs"], config["name"], config["resume"])
    with shared(run), quiet():
        try:
            prepared = _prepare(config, run, callbacks)
        except BaseException:
            if _writes():
                discard(run)
            raise
        _fit(prepared)
        if prepared.trainer.is_global_zero:
            _print_summary(prepared)
    return run.folder


def _writes() -> bool:
    """Whether this process is the one of its run that prints and writes."""
    return all(os.environ.get(v, "0") == "0" for v in ("LOCAL_RANK", "SLURM_PROCID"))


def _prepare(config: dict[str, Any], run: Run, callbacks: Sequence[Callback]) -> _Prepared:
    """Build everything, and find every mistake that can be found before the first step.

    Raises:
        UserError: there is one.
    """
    if run.resume is not None:
        same_as_before(run, config)
    if _writes():
        if run.note:
            say(run.note)
        _show(config, run)
    seed_everything(config["seed"], verbose=False)
    data = build(config["data"], where="data")
    check_data(data)
    data.prepare_data()
    data.setup()
    classes = classes_of(data)
    channels = int(data.channels) if is_offered(data, HasChannels) else 3
    config = filled(config, classes, channels)
    try_optimizer(config["task"])
    for part in ("task", "data"):
        rebuildable(config[part], part)
    task = build(config["task"], where="task")
    check_task(task)
    methods = build(config["explain"], where="explain")
    measures = build_measures(config["measure"], EPOCH_COLUMNS)
    check_layers(task, methods)
    skipped = SkippedClips()
    own = [skipped, *callbacks]
    explained = {"methods": methods, "measures": measures} if methods else {}
    trainer = make_trainer(config, explained, classes, monitored(task), run, own)
    trainer.logger = None
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.logger = make_logger(config["logger"], run, config["name"], config, _writes())
    return _Prepared(config, run, task, data, trainer, skipped)


def _fit(prepared: _Prepared) -> None:
    """Train; after Ctrl-C print the command that goes on, and leave."""
    run, trainer = prepared.run, prepared.trainer
    try:
        trainer.fit(prepared.task, prepared.data, ckpt_path=run.resume and str(run.resume))
    except SystemExit:  # how Lightning leaves after Ctrl-C
        if _writes():
            again = [word for word in sys.argv[1:] if not word.startswith("resume=")]
            resume = quoted("resume", short(run.folder))
            say("", f"stopped; to go on: {command_line('train', *map(shlex.quote, again), resume)}")
        sys.exit(130)
    finally:
        if isinstance(trainer.logger, WandbLogger):
            import wandb

            wandb.finish()


def _show(config: dict[str, Any], run: Run) -> None:
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    write_text(run.folder / "config.yaml", text, sync=True)
    Console().print(Syntax(text, "yaml", background_color="default"), soft_wrap=True)
    say(f"run folder: {run.folder}")


def _print_summary(prepared: _Prepared) -> None:
    """The last lines: what came out, where it lies, and what to run next."""
    config, run, data = prepared.config, prepared.run, prepared.data
    saved = (c for c in prepared.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    best = next(saved, None)
    found = Path((best and best.best_model_path) or run.checkpoints / "last.ckpt")
    say("")
    for reason, count in prepared.skipped.counts.items():
        say(f"skipped {count}x: {reason}")
    if is_offered(data, ReportsProblems) and data.problems:
        say(f"{len(data.problems)} problems with the data, the first is {data.problems[0]}")
    if best is not None and best.best_model_score is not None:
        say(f"best {best.monitor} {float(best.best_model_score):.3f} ({found.stem})")
    if not found.exists():
        say("nothing was saved")
        return
    found = short(found)
    say(f"checkpoint   {found}")
    if config["explain"]:
        say(f"videos       {short(run.folder / 'explain')}")
    trust = sorted(strangers([config[part] for part in ("task", "data", "explain")]))
    more = [f"trust=[{','.join(trust)}]"] if trust else []
    say(f"next         {command_line('explain', quoted('ckpt', found), *more)}")
