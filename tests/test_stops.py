"""Ctrl-C and SIGTERM before the work begins: one line, the exit code, nothing is left behind."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import layouts
import pytest
from commands import tiny, typed

pytestmark = [pytest.mark.attack, pytest.mark.slow]

STOPS = {"ctrl_c": (signal.SIGINT, 130), "term": (signal.SIGTERM, 143)}
PREPARED = {  # where a training is stopped, in the order it comes there
    "libraries": "lightning_cam.commands.run_train.plain_settings",
    "folder": "lightning_cam.commands.run_train._show",
    "rendering": "lightning_cam.synthetic.rendering._finished",
    "building": "lightning_cam.commands.run_train.check_layers",
    "starting": "lightning.pytorch.strategies.SingleDeviceStrategy.setup_environment",
}


@pytest.fixture(params=STOPS)
def stop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a function send a signal before it does its work; gives the exit code."""
    number, code = STOPS[request.param]
    before = signal.getsignal(signal.SIGTERM)

    def at(place: str) -> int:
        def stopped(*given: Any, **named: Any) -> Any:
            os.kill(os.getpid(), number)
            return plain(*given, **named)

        plain: Callable[..., Any] = pkgutil.resolve_name(place)
        monkeypatch.setattr(place, stopped)
        return code

    yield at
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stops") / "data"


@pytest.mark.parametrize("place", PREPARED)
def test_a_training_that_has_not_begun(
    place: str, stop: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Ctrl-C and SIGTERM to a training while its data are rendered and its network is built."""
    monkeypatch.chdir(tmp_path)
    code = stop(PREPARED[place])
    root = tmp_path / "data" if place == "rendering" else data
    assert typed(monkeypatch, "train", [*tiny(root), "explain=none"]) == code
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    if place == "starting":  # Lightning has it in hand
        assert out.splitlines()[-1].startswith("stopped before anything was saved; to begin again:")
    else:
        assert err == "stopped\n"
    assert not (tmp_path / "runs").exists() or not [*(tmp_path / "runs").iterdir()]


@pytest.mark.parametrize(
    "place",
    ["lightning_cam.training.build.build", "lightning_cam.data.check.inspection.wait"],
)
def test_a_check(
    place: str, stop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Ctrl-C and SIGTERM to a check while it lists and decodes: no process of it is left."""
    monkeypatch.chdir(tmp_path)
    layouts.ucf11(tmp_path / "set")
    code = stop(place)
    settings = ["data=ucf11", "data.root=set", "processes=2"]
    assert typed(monkeypatch, "check", settings) == code
    out, err = capfd.readouterr()
    assert err.splitlines()[-1] == "stopped" and "Traceback" not in out + err
    assert not multiprocessing.active_children()


def test_explaining_that_has_not_begun(
    stop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Ctrl-C and SIGTERM while a checkpoint is read."""
    monkeypatch.chdir(tmp_path)
    code = stop("lightning_cam.commands.run_explain.explain_checkpoint")
    assert typed(monkeypatch, "explain", ["ckpt=net.ckpt", "explain=gradcam"]) == code
    out, err = capfd.readouterr()
    assert (out, err) == ("", "stopped\n")
