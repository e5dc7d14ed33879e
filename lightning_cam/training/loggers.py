"""The logger of a run: W&B that never asks and never stops a run, CSV, or none."""

from __future__ import annotations

import netrc
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from lightning_cam.errors import ConfigError, UnknownNameError, say
from lightning_cam.files import make_folder, write_text
from lightning_cam.training.agreeing import Run
from lightning_cam.training.artefacts import keep_code
from lightning_cam.training.furthest import progress_of
from lightning_cam.training.ranks import slurm_job
from lightning_cam.training.wandb_logger import SegmentedWandbLogger
from lightning_cam.training.wandb_segments import earlier_segments

MODES = ("online", "offline", "disabled")
CHECKPOINTS = ("best", "last", "none")
# What can be set of each kind of logger, and of what type.
_TEXTS = ("project", "entity", "name", "group", "job_type", "notes")
SETTINGS = {
    "wandb": ("kind", *_TEXTS, "tags", "mode", "checkpoint", "code"),
    "csv": ("kind",),
    "none": ("kind",),
}


def check_logger(settings: Mapping[str, Any]) -> None:
    """Whether a run can be logged as the settings below `logger` say.

    Raises:
        UnknownNameError: no such kind of logger, or none that has this setting.
        ConfigError: a value makes no sense.
    """
    kind = settings.get("kind")
    if kind not in [*SETTINGS]:  # a list has no hash
        raise UnknownNameError("logger.kind", kind, SETTINGS)
    for key in settings:
        if key not in SETTINGS[kind]:
            known = [f"logger.{name}" for name in SETTINGS[kind]]
            raise UnknownNameError(f"setting of logger={kind}", f"logger.{key}", known)
    for key, choices in (("mode", MODES), ("checkpoint", CHECKPOINTS)):
        if settings.get(key) is not None and settings[key] not in choices:
            raise UnknownNameError(f"logger.{key}", settings[key], choices)
    for key in _TEXTS:
        if not isinstance(settings.get(key), str | int | None):
            raise ConfigError(f"logger.{key}={settings[key]} must be text")
    if not isinstance(settings.get("code"), bool | None):
        raise ConfigError(f"logger.code={settings['code']} must be true or false")
    tags = settings.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise ConfigError(f"logger.tags={tags} must be a list of words: logger.tags=[pilot,ucf11]")


def make_logger(
    settings: Mapping[str, Any],
    run: Run,
    name: str,
    config: Mapping[str, Any],
    first: bool = True,
) -> Logger | None:
    """The logger of a run: W&B, CSV or none.

    W&B never asks and never stops a run: without a key it works offline, and so it does when the
    server cannot be reached.

    Args:
        settings: the `logger` node of the configuration, see `check_logger`.
        run: the run.
        name: its name.
        config: what the logger shows as the run's configuration.
        first: this process writes (rank 0).

    Raises:
        UnknownNameError, ConfigError: see `check_logger`.
    """
    check_logger(settings)
    kind = settings["kind"]
    if kind == "none":
        return None
    if kind == "csv":
        return CSVLogger(run.folder, name="csv")
    if not first:
        return WandbLogger(save_dir=run.folder)  # logs nothing away from rank 0
    import wandb

    mode = settings.get("mode") or wandb_mode()
    done = 0 if run.resume is None else max(progress_of(run.resume).steps, 0)
    earlier = earlier_segments(run.folder / "wandb", done)  # before there is a new one
    try:
        experiment = _start_wandb(settings, run, name, mode, config)
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0]
        say(f"W&B cannot be reached ({reason}); logging offline")
        wandb.teardown()
        experiment = _start_wandb(settings, run, name, "offline", config)
    logger = SegmentedWandbLogger(run.folder, experiment, earlier)
    if settings.get("code"):
        keep_code(experiment)
    return logger


def _start_wandb(
    settings: Mapping[str, Any], run: Run, name: str, mode: str, config: Mapping[str, Any]
) -> Any:
    """A run of W&B. WandbLogger would start it with outdated options, and warn of them."""
    import wandb

    make_folder(run.folder / "wandb", "runs=DIR")
    job = slurm_job()
    started = {"path": str(run.folder.absolute()), "job": job and job.name, "restart": run.restart}
    texts = {key: str(settings[key]) for key in _TEXTS if settings.get(key) is not None}
    experiment = wandb.init(
        **{"name": f"{name} {run.folder.name}", **texts},  # type: ignore[arg-type]
        dir=run.folder,
        id=_id_of(run.folder / "wandb_id.txt"),
        tags=settings.get("tags") or None,
        config={**config, "run": started},
        allow_val_change=True,
        mode=mode,  # type: ignore[arg-type]
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(init_timeout=30, console="wrap", silent=mode != "online"),
    )
    # A run that goes on has the configuration of its beginning.
    experiment.config.update({"run": started}, allow_val_change=True)
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return experiment


def _id_of(note: Path) -> str:
    """The id of the W&B run: the one in the run's folder, a sweep's, or a new one."""
    if not _is_id(note):
        swept = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        # Half an id would be another run's.
        write_text(note, swept or secrets.token_hex(4), sync=True)
    return note.read_text().strip()


def _is_id(note: Path) -> bool:
    """Whether a file holds the id of a W&B run as it is written here.

    Others, in a folder from elsewhere, could name a run of the user's own.
    """
    try:
        with note.open("rb") as file:
            return re.fullmatch(rb"[0-9a-z]{8}\s*", file.read(100)) is not None
    except OSError:
        return False


def wandb_mode() -> str:
    """`WANDB_MODE` if set, else online where a key is configured, else offline."""
    if mode := os.environ.get("WANDB_MODE"):
        return {"dryrun": "offline", "run": "online"}.get(mode, mode)  # their old names
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(url.split("//")[-1].strip("/"))
    except (OSError, netrc.NetrcParseError):
        known = None
    return "online" if known else "offline"
