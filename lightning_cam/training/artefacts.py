"""What a run keeps with W&B beside its numbers: a checkpoint, the source."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_cam.errors import say, why

_SOURCE = (".py", ".yaml", ".yml", ".toml")
_LARGEST = 2**20  # bytes of a file that is source


def keep_checkpoint(experiment: Any, file: Path, alias: str) -> None:
    """Keep a checkpoint as an artefact of type "model"; a failure is said, and stops nothing.

    Args:
        experiment: W&B's run.
        file: the checkpoint.
        alias: "best" or "last".
    """
    _keep(experiment, "model", {file.name: file}, [alias])


def keep_code(experiment: Any) -> None:
    """Keep the package's source, and what lies where the command was started: its `*.py`, `*.yaml`
    and `*.toml`, and those of its `configs/`. Nothing else is looked through.
    """
    package, here = Path(__file__).parents[1], Path.cwd()
    found = {f"{package.name}/{file.relative_to(package)}": file for file in package.rglob("*")}
    own = (*here.glob("*"), *(here / "configs").rglob("*"))
    found |= {str(file.relative_to(here)): file for file in own}
    _keep(experiment, "code", {name: file for name, file in found.items() if _is_source(file)}, [])


def _is_source(file: Path) -> bool:
    try:
        return file.suffix in _SOURCE and file.is_file() and file.stat().st_size < _LARGEST
    except OSError:
        return False


def _keep(experiment: Any, kind: str, files: dict[str, Path], aliases: Iterable[str]) -> None:
    import wandb

    try:
        artefact = wandb.Artifact(re.sub(r"[^\w.-]", "_", f"{kind}-{experiment.id}"), type=kind)
        for name, file in files.items():
            artefact.add_file(str(file), name)
        experiment.log_artifact(artefact, aliases=list(aliases) or None)
    except Exception as error:
        say(f"W&B does not keep the {kind}: {why(error)}")
