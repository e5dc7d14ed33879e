"""Settings are composed once, and Hydra still does whatever else is asked of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig

from lightning_cam.commands.entry import command
from lightning_cam.commands.single_run import single_run
from lightning_cam.commands.train import _run


def test_settings_are_composed_once_and_know_hydras_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, seen = [0], {}
    compose = Hydra.compose_config

    def counted(self: Hydra, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return compose(self, *args, **kwargs)

    def train(cfg: Any) -> None:
        seen.update(name=cfg.name, keys={*cfg}, typed=[*HydraConfig.get().overrides.task])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Hydra, "compose_config", counted)
    monkeypatch.setattr("lightning_cam.commands.run_train.train", train)
    typed = ["name=${hydra:runtime.output_dir}", "seed=3"]
    monkeypatch.setattr(sys, "argv", ["train.py", *typed])
    before = HydraConfig.instance().cfg
    command(_run, "train")
    assert count == [1]
    assert seen["name"] == str(tmp_path) and seen["typed"][1:] == typed[1:]
    assert "hydra" not in seen["keys"] and HydraConfig.instance().cfg is before


@pytest.mark.parametrize("typed", ["-m", "hydra.run.dir=x", "hydra.job.chdir=true",
    "+hydra.job.env_set.A=b", "hydra/job_logging=default", "hydra.mode=MULTIRUN",
    "experiment=logged", "seed=0,1"])  # fmt: skip
def test_hydra_runs_what_asks_for_more(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a file of the user does; and a list without `-m` is refused in Hydra's words."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "configs" / "experiment" / "logged.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nhydra:\n  callbacks:\n    a: {_target_: mine.Callback}\n")
    assert single_run("train", [typed]) is None
