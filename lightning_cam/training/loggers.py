"""The logger of a run: W&B that never asks and never stops a run, CSV, or none."""

from __future__ import annotations

import netrc
import os
import re
import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from lightning_cam.errors import UnknownNameError, say
from lightning_cam.files import make_folder, write_text
from lightning_cam.training.runs import Run

KINDS = ("wandb", "csv", "none")


def make_logger(
    settings: dict[str, Any], run: Run, name: str, config: dict[str, Any], first: bool = True
) -> Logger | None:
    """The logger of a run: W&B, CSV or none.

    W&B never asks and never stops a run: without a key it works offline, and so it does when the
    server cannot be reached.

    Args:
        settings: the `logger` node of the configuration.
        run: the run.
        name: its name.
        config: what the logger shows as the run's configuration.
        first: this process writes (rank 0).

    Raises:
        UnknownNameError: no such kind of logger.
    """
    kind = settings["kind"]
    if kind not in KINDS:
        raise UnknownNameError("logger.kind", kind, KINDS)
    if kind == "none":
        return None
    if kind == "csv":
        return CSVLogger(run.folder, name="csv")
    if not first:
        return WandbLogger(save_dir=run.folder)  # logs nothing away from rank 0
    import wandb

    mode = settings["mode"] or wandb_mode()
    try:
        experiment = _start_wandb(settings, run, name, mode, config)
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0]
        say(f"W&B cannot be reached ({reason}); logging offline")
        wandb.teardown()
        experiment = _start_wandb(settings, run, name, "offline", config)
    return WandbLogger(save_dir=run.folder, experiment=experiment)


def _start_wandb(
    settings: dict[str, Any], run: Run, name: str, mode: str, config: dict[str, Any]
) -> Any:
    """A run of W&B. WandbLogger would start it with outdated options, and warn of them."""
    import wandb

    note = run.folder / "wandb_id.txt"
    if not _is_id(note):
        write_text(note, secrets.token_hex(4), sync=True)  # half an id would be another run's
    make_folder(run.folder / "wandb", "runs=DIR")
    experiment = wandb.init(
        name=f"{name} {run.folder.name}",
        dir=run.folder,
        id=note.read_text().strip(),
        project=settings["project"],
        entity=settings["entity"],
        config=config,
        allow_val_change=True,
        mode=mode,  # type: ignore[arg-type]
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(init_timeout=30, console="off", silent=mode != "online"),
    )
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return experiment


def _is_id(note: Path) -> bool:
    """Whether a file holds the id of a W&B run as it is written here.

    Others, in a folder from elsewhere, could name a run of the user's own.
    """
    try:
        with note.open("rb") as file:
            return re.fullmatch(rb"[0-9a-f]{8}\s*", file.read(100)) is not None
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
