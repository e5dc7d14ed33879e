"""A search by W&B: its agent's command lines are Hydra's, and its run is the one that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from commands import ROOT

from lightning_cam.commands.common import plain_settings
from lightning_cam.commands.run_train import _KEYS
from lightning_cam.commands.search import composed
from lightning_cam.training.agreeing import Run
from lightning_cam.training.loggers import _id_of, make_logger


def command_of(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What W&B's agent runs for one choice of values."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    words = utils.create_sweep_command(sweep["command"])
    given = utils.create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    given |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
    return [
        part
        for word in words
        for part in (given[word[2:-1]] if word.startswith("${") else [word])
    ]  # fmt: skip


def test_the_command_of_a_sweep_composes() -> None:
    sweep = yaml.safe_load((ROOT / "scripts" / "sweep.yaml").read_text())
    first = {
        key: given.get("value", given.get("min", (given.get("values") or [None])[0]))
        for key, given in sweep["parameters"].items()
    }
    *started, program = command_of(sweep, {})
    assert started == ["/usr/bin/env", "python"] and (ROOT / program).is_file()
    config = plain_settings(composed("train", command_of(sweep, first)[3:]), _KEYS)
    for key, value in first.items():
        found: Any = config
        for part in key.split("."):
            found = found[part]
        assert found == value, key


def test_a_run_of_a_sweep_has_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within `wandb agent` the sweep names the run; a run that goes on keeps its own name."""
    import wandb

    begun: list[str] = []
    real = wandb.init

    def init(**options: Any) -> Any:
        begun.append(options["id"])
        return real(**{**options, "mode": "disabled"})

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_SWEEP_ID", "q1w2e3r4")
    monkeypatch.setenv("WANDB_RUN_ID", "zx9yo1b7")
    for _ in range(2):
        make_logger({"kind": "wandb", "project": "p", "mode": "offline"}, Run(tmp_path), "n", {})
        monkeypatch.setenv("WANDB_RUN_ID", "another1")
    assert begun == ["zx9yo1b7"] * 2
    assert (tmp_path / "wandb_id.txt").read_text() == "zx9yo1b7"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert _id_of(tmp_path / "b" / "wandb_id.txt") != "another1"  # of some other program
