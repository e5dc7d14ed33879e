"""The two commands as a user types them, on a data set that trains in seconds."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from preloaded import Process

ROOT = Path(__file__).parents[1]
# Of the two places the one that holds the commands' own; the other may hold a user's.
CONFIGS = next(
    folder
    for folder in (ROOT / "lightning_cam" / "commands" / "configs", ROOT / "configs")
    if (folder / "train.yaml").is_file()
)
ENVIRONMENT = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def tiny(root: Path) -> list[str]:
    """Settings for three classes of five groups of two clips."""
    return [
        f"data.root={root}",
        "data.groups=5",
        "data.clips=2",
        "data.size=32",
        "data.resize=32",
        "data.crop=32",
        "data.actions=[blink,expand,move_left]",
        "data.train_groups=[1,2,3]",
        "data.val_groups=[4]",
        "data.test_groups=[5]",
        "data.batch_size=6",
        "model.hidden=16",
        "trainer=cpu",
        "logger=none",
    ]


def start(script: str | Path, *arguments: object, cwd: Path, **more: str) -> Process:
    """One of the two commands; `more` are environment variables."""
    words = [str(ROOT / f"{script}.py"), *map(str, arguments)]
    return Process(words, cwd, {**ENVIRONMENT, **more})


def run(script: str, *arguments: object, cwd: Path) -> CompletedProcess[str]:
    """Run to the end; stderr and exit code are the caller's to judge."""
    return end(start(script, *arguments, cwd=cwd))


def run_python(*words: str, cwd: Path) -> CompletedProcess[str]:
    """Python with the given arguments, run to the end."""
    return end(Process(words, cwd, ENVIRONMENT))


def end(process: Process) -> CompletedProcess[str]:
    out, err = process.communicate()
    return CompletedProcess(process.args, process.wait(), out, err)


def run_here(words: list[str], patch: pytest.MonkeyPatch, capfd: Any) -> CompletedProcess[str]:
    """A script with its arguments, run in this process, which has loaded torch already."""
    patch.setattr(sys, "argv", words)
    capfd.readouterr()
    code: Any = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code
    return CompletedProcess(words, code, *capfd.readouterr())


def typed(patch: pytest.MonkeyPatch, command: str, settings: Sequence[str]) -> object:
    """The exit code of `python -m lightning_cam COMMAND`, run in this process."""
    patch.setattr(sys, "argv", ["lightning_cam", command, *settings])
    # Another test may have loaded it, which runpy warns of.
    patch.delitem(sys.modules, f"lightning_cam.commands.{command}", raising=False)
    try:
        runpy.run_module("lightning_cam", run_name="__main__")
    except SystemExit as leaving:
        return leaving.code
    return 0


def choices(group: str) -> list[str]:
    """Names of a group's configurations; those that begin with `_` are parts of others."""
    return sorted(path.stem for path in (CONFIGS / group).glob("[!_]*.yaml"))


def node_of(group: str, choice: str) -> dict[str, Any]:
    """One choice of a group, resolved, as `train.py` would build it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", [f"{group}={choice}"])
    node = OmegaConf.to_container(config, resolve=True)[group]  # type: ignore[index,call-overload]
    assert isinstance(node, dict)
    return node
