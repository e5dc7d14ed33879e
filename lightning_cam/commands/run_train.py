"""What the command `train` does, as a plain function of a configuration."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import (
    Callback,
    LightningDataModule,
    LightningModule,
    Trainer,
    seed_everything,
)
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.syntax import Syntax

from lightning_cam.commands.common import plain_settings, short
from lightning_cam.commands.faults import fault, overflowed
from lightning_cam.commands.stopped import StoppedError, go_on, starts_again, stopped_line
from lightning_cam.commands.sweep_table import note_run
from lightning_cam.commands.sweeps import check_sweep, sweeping
from lightning_cam.commands.train_settings import (
    check_layers,
    check_question,
    check_settings,
    classes_of,
    filled,
    try_optimizer,
)
from lightning_cam.commands.trainer import (
    check_monitor,
    looks_first,
    make_trainer,
    monitored,
    to_try,
)
from lightning_cam.errors import ConfigError, command_line, quoted, say
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
from lightning_cam.stops import TerminatedError, answered, exit_code, held_back
from lightning_cam.training.agreeing import Run, shared
from lightning_cam.training.artefacts import keep_checkpoint
from lightning_cam.training.build import build, rebuildable, strangers
from lightning_cam.training.finite import FiniteLoss
from lightning_cam.training.furthest import Length, furthest_first, progress_of
from lightning_cam.training.loggers import make_logger
from lightning_cam.training.owner import owned
from lightning_cam.training.preemption import Preemption
from lightning_cam.training.pretrained_nodes import with_weights
from lightning_cam.training.quiet import quiet
from lightning_cam.training.ranks import group_left
from lightning_cam.training.runs import built_as_before, discard, open_run, same_as_before
from lightning_cam.training.saving import LAST, BestCheckpoint, LastCheckpoint, MetricError
from lightning_cam.training.skipped_clips import SkippedClips
from lightning_cam.training.wandb_logger import SegmentedWandbLogger

_KEYS = (
    "model", "task", "data", "trainer", "logger", "explain", "measure", "name", "seed", "resume",
    "runs", "videos", "checkpoint", "monitor", "monitor_mode",
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
        loss: knows whether the loss was finite.
        finished: a note if there is nothing left to train, else "".
    """

    config: Mapping[str, Any]
    run: Run
    task: LightningModule
    data: LightningDataModule
    trainer: Trainer
    skipped: SkippedClips
    loss: FiniteLoss
    finished: str

    @property
    def best(self) -> BestCheckpoint:
        return next(c for c in self.trainer.callbacks if isinstance(c, BestCheckpoint))  # type: ignore[attr-defined]

    @property
    def best_file(self) -> Path:
        """The best checkpoint; the last one where none is known to be."""
        return Path(self.best.best_model_path or self.run.checkpoints / LAST)


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
    check_sweep(config)
    length = Length.of(config["trainer"])
    run = open_run(config["runs"], config["name"], config["resume"], length)
    owner = owned(run.folder) if _writes() else nullcontext()
    with owner, shared(run), quiet(), group_left():
        try:
            prepared = _prepare(config, run, callbacks)
            if _writes():
                note_run(run.folder, config)
            _fit(prepared)
        except BaseException:
            if _writes():
                discard(run)
            raise
        if prepared.trainer.is_global_zero:
            _print_summary(prepared)
            _check_finite(prepared)
    return run.folder


def _writes() -> bool:
    """Whether this process is the one of its run that prints and writes."""
    ranks = ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID")
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


def _still_to_train(run: Run, length: Length) -> str:
    """A note if a run is finished; else "".

    Raises:
        ConfigError: it is beyond the length that is asked for.
    """
    if run.resume is None or not length.reached(done := progress_of(run.resume)):
        return ""
    trained = f"{done.epochs} epochs, {done.steps} steps"
    on = f"to train on, set {length.longer(done)}"
    if exceeded := length.exceeded(done):
        raise ConfigError(
            f"{run.folder} has been trained for {trained}, more than {exceeded}; {on}; for a new "
            "run leave resume out"
        )
    return f"{run.folder} is finished: {trained}; {on}"


def _prepare(config: dict[str, Any], run: Run, callbacks: Sequence[Callback]) -> _Prepared:
    """Build everything, and find every mistake that can be found before the first step.

    Raises:
        UserError: there is one.
    """
    finished = _still_to_train(run, Length.of(config["trainer"]))
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
    config = filled(config, classes, channels, data)
    node, config["task"] = with_weights(config["task"], "task")
    if run.resume is not None:
        built_as_before(run, config, classes)
    try_optimizer(config["task"])
    for part in ("task", "data"):
        rebuildable(config[part], part)
    task = build(node, where="task")
    check_task(task)
    methods = build(config["explain"], where="explain")
    measures = build_measures(config["measure"], EPOCH_COLUMNS)
    check_layers(task, methods)
    check_question(task, config["videos"])
    skipped, loss = SkippedClips(), FiniteLoss(to_try(config))
    own = [skipped, loss, *callbacks]
    explained = {"methods": methods, "measures": measures} if methods else {}
    monitor = monitored(task, config)
    if not callbacks:  # which may log anything
        check_monitor(task, monitor[0], methods, measures)
    trainer = make_trainer(config, explained, classes, monitor, run, own)
    if looks_first(task, monitor[0]) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.num_sanity_val_steps = math.inf  # all validation clips
    trainer.logger = None
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        with held_back():  # W&B starts a process, which shall outlast what stops this one
            trainer.logger = make_logger(config["logger"], run, config["name"], config, _writes())
    return _Prepared(config, run, task, data, trainer, skipped, loss, finished)


def _fit(prepared: _Prepared) -> None:
    """Train; when it is stopped, see that it can go on, and leave.

    Raises:
        StoppedError: the machine stopped it.
    """
    run, trainer = prepared.run, prepared.trainer
    preemption = next(c for c in trainer.callbacks if isinstance(c, Preemption))  # type: ignore[attr-defined]
    stop: KeyboardInterrupt | None = None
    with answered(preemption.ask):
        try:
            trainer.fit(prepared.task, prepared.data, ckpt_path=run.resume and str(run.resume))
            _keep_checkpoint(prepared)
        except SystemExit as leaving:  # how Lightning leaves after Ctrl-C and what is like it
            if not isinstance(leaving.__context__, KeyboardInterrupt):
                raise
            stop = leaving.__context__
        except MetricError as error:
            raise StoppedError(f"{error}; choose one: {go_on(run, 'monitor=NAME')}") from error
        except Exception as error:
            if overflowed(error):
                broke = "the network broke while training: a step was larger than any number"
                raise StoppedError(f"{broke}; try {prepared.loss.to_try}") from error
            if not (said := fault(error, training=True)):
                raise
            raise StoppedError(f"{said}; to go on: {go_on(run)}") from error
        finally:
            if isinstance(trainer.logger, SegmentedWandbLogger):
                trainer.logger.finish()
        if stop is None and preemption.asked:
            stop = TerminatedError()
        if stop is not None:
            _leave(prepared, stop)


def _leave(prepared: _Prepared, stop: KeyboardInterrupt) -> NoReturn:
    """End a training that was stopped: its SLURM job starts again, or its command is printed."""
    if starts_again(stop, _writes()):
        sys.exit(0)
    if _writes():
        say("", stopped_line(prepared.run))
        _say_sync(prepared)
    sys.exit(exit_code(stop))


def _keep_checkpoint(prepared: _Prepared) -> None:
    """Give W&B the checkpoint that `logger.checkpoint` names."""
    logger, which = prepared.trainer.logger, prepared.config["logger"].get("checkpoint")
    if isinstance(logger, SegmentedWandbLogger) and which in ("best", "last"):
        found = prepared.best_file if which == "best" else prepared.run.checkpoints / LAST
        if found.is_file():
            keep_checkpoint(logger.experiment, found, which)


def _show(config: dict[str, Any], run: Run) -> None:
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    write_text(run.folder / "config.yaml", text, sync=True)
    Console().print(Syntax(text, "yaml", background_color="default"), soft_wrap=True)
    say(f"run folder: {run.folder}")


def _print_summary(prepared: _Prepared) -> None:
    """The last lines: what came out, where it lies, and what to run next."""
    config, run, data = prepared.config, prepared.run, prepared.data
    best, found = prepared.best, prepared.best_file
    say("")
    if prepared.finished:
        say(prepared.finished)
    for reason, count in prepared.skipped.counts.items():
        say(f"skipped {count}x: {reason}")
    if is_offered(data, ReportsProblems) and data.problems:
        say(f"{len(data.problems)} problems with the data, the first is {data.problems[0]}")
    if lost := prepared.loss.lost:
        say(
            f"not finite   the training loss of {lost.batches} batches, first at step {lost.step} "
            f"(epoch {lost.epoch})"
        )
    if best.best_model_score is not None:
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
    more += [] if config["explain"] else ["explain=[gradcam]"]
    best_score = best.best_model_score
    score = None if best_score is None else float(best_score)
    if table := note_run(run.folder, config, str(best.monitor), score):
        say(f"sweep        {short(table)}")
    say(f"next         {command_line('explain', quoted('ckpt', found), *more)}")
    _say_sync(prepared)


def _say_sync(prepared: _Prepared) -> None:
    """The command that uploads a run which W&B has offline."""
    logger = prepared.trainer.logger
    if isinstance(logger, SegmentedWandbLogger) and logger.sync_command:
        say(f"upload       {logger.sync_command}")


def _check_finite(prepared: _Prepared) -> None:
    """A training whose network ends as no numbers is not a success, unless it is one of a sweep.

    Raises:
        StoppedError: it is such a one.
    """
    last = next(c for c in prepared.trainer.callbacks if isinstance(c, LastCheckpoint))  # type: ignore[attr-defined]
    if not last.refused:
        return
    kept = furthest_first(prepared.run.checkpoints)
    said = f"the network broke while training: {last.refused}; try {prepared.loss.to_try}"
    if kept:
        said += f"; what was saved before is whole: {short(kept[0][1])}"
    if sweeping():
        say(said)
    else:
        raise StoppedError(said)
