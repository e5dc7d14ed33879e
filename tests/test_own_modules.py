"""Networks that are not ours, by dotted name: train, what `next` says, explain."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import tiny
from hydra import compose, initialize_config_dir

from lightning_cam.commands.run_explain import explain_clips
from lightning_cam.commands.run_train import train
from lightning_cam.commands.search import PACKAGE
from lightning_cam.errors import CheckpointError, UserError

MODULE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv3d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv3d(width, width, 3, 2, 1)
        )
        self.head = nn.Linear(width, num_classes)

    def forward(self, clip):
        return self.head(self.blocks(clip).mean((2, 3, 4)))

class Answers(Net):
    def forward(self, clip):
        scores = super().forward(clip)
        return {"scores": scores, "features": scores}

class Misspelt(Net):
    explain_layer = ("blocks.2",)

def make(num_classes):
    return Net(num_classes)
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("actions") / "data"


@pytest.fixture
def call(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path | None]:
    """A command's function on three classes of tiny clips; `mine` is importable."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.chdir(tmp_path)
    small = [word for word in tiny(rendered) if not word.startswith("model.")]
    small += ["data.num_frames=4", "trainer.max_epochs=1"]
    small += ["+trainer.limit_train_batches=1", "explain=gradcam", "videos.clips=1", "name=own"]

    def run(name: str, *arguments: str) -> Path | None:
        given = [*small, *arguments] if name == "train" else list(arguments)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *given])
        with initialize_config_dir(str(PACKAGE), version_base="1.3"):
            cfg = compose(name, given)
        return train(cfg) if name == "train" else explain_clips(cfg)

    return run


def follow(call: Callable[..., Path | None], out: str, name: str) -> None:
    """What `next` proposes works, and does not without the trust it gives."""
    (line,) = (line for line in out.splitlines() if line.startswith("next "))
    _, python, script, ckpt, trust = shlex.split(line)
    assert (Path(python).name, script, trust) == ("python", "explain.py", f"trust=[{name}]")
    with pytest.raises(CheckpointError, match=rf"add trust=\[{name}\]"):
        call("explain", ckpt, "clips=1")
    page = call("explain", ckpt, trust, "clips=1")
    assert page is not None
    assert len(list(page.parent.rglob("*.mp4"))) == 1


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
@pytest.mark.slow
def test_torchvisions_video_networks(name: str, call, capsys) -> None:
    path = f"model._target_=torchvision.models.video.{name}"
    # without AdamW's state, which is twice the network: a third of the checkpoint
    light = "task.optimizer._target_=torch.optim.SGD"
    folder = call("train", "model=torchvision_r3d18", path, light)  # its layer is known
    assert len(list((folder / "explain").glob("epoch_*/*.mp4"))) == 1
    follow(call, capsys.readouterr().out, f"torchvision.models.video.{name}")


@pytest.mark.slow
def test_a_module_of_ones_own(call, capsys) -> None:
    node = "task.model={_target_: mine.Net, num_classes: null, width: 6}"
    folder = call("train", node, "task.layers=[blocks.2]")
    assert len(list((folder / "explain").glob("epoch_*/*.mp4"))) == 1
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["model.head.weight"].shape == (3, 6)
    follow(call, capsys.readouterr().out, "mine.Net")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model=torchvision_r3d18", "task.layers=[layer5]"],
            r"^no layer 'layer5'; nearest: layer4",
        ),
        (
            ["task.model={_target_: mine.Net, num_classes: 3}"],
            r"task\.layers=\[blocks\.2\] \(it has blocks.*explain=none",
        ),
        (
            ["task.model={_target_: mine.make, num_classes: 3}", "task.layers=[blocks.2]"],
            r"task\.model: explain.py could not rebuild 'mine\.make'",
        ),
        (
            ["task.model={_target_: mine.Answers, num_classes: 3}", "task.layers=[blocks.2]"],
            r"^Answers returns a dict with 'scores' .*, 'features' .*task\.outputs=KEY",
        ),
        (
            ["task.model={_target_: mine.Misspelt, num_classes: 3}"],
            r"^mine\.Misspelt has 'explain_layer'.*nearest: explain_layers",
        ),
    ],
)
def test_mistakes_show_before_training(arguments: list[str], message: str, call, tmp_path) -> None:
    with pytest.raises(UserError, match=message):
        call("train", *arguments)
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize(
    "more", [["explain=none"], ["explain.gradcam.layer=blocks.2"], ["task.layers=[blocks.2]"]]
)
def test_remedies_for_a_network_without_layers(more: list[str], call) -> None:
    call("train", "task.model={_target_: mine.Net, num_classes: null}", *more)
