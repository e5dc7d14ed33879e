"""A checkpoint of a plain Lightning training, explained by `explain.py` when its class is named."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from commands import run, run_python
from lightning.pytorch import LightningModule

from lightning_cam.errors import ConfigError, NetworkError
from lightning_cam.training.own_module import OwnModule, OwnTask, _check_forward
from lightning_cam.viz import write_video

# What a user has: no word of lightning_cam in it, but where a data module or module says more.
MODULE = """
import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F
from lightning_cam.data.clips import VideoFolder


class Encoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv3d(3, width, 3, padding=1)

    def forward(self, clip):
        return self.conv(clip).relu()


class MyModule(pl.LightningModule):
    def __init__(self, width, lr=0.1, classes=3):
        super().__init__()
        if type(self) is MyModule:
            self.save_hyperparameters()
        self.lr, self.encoder, self.head = lr, Encoder(width), nn.Linear(width, classes)

    def forward(self, clip):
        return self.head(self.encoder(clip).mean((2, 3, 4)))

    def training_step(self, batch, _):
        clip, label = batch
        loss = F.cross_entropy(self(clip), label)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]


class Forgetful(MyModule):  # of its hyper-parameters
    pass


class FramesFirst(MyModule):  # in a part, and no forward of its own
    def __init__(self, width=4):
        super().__init__(width)
        self.net = Net(width)

    def forward(self, clip):
        raise NotImplementedError

    def training_step(self, batch, _):
        return F.cross_entropy(self.net(batch[0].transpose(1, 2)), batch[1])


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.encoder, self.head = Encoder(width), nn.Linear(width, 3)

    def forward(self, frames):
        assert frames.shape[2] == 3, "frames before channels"
        return self.head(self.encoder(frames.transpose(1, 2)).mean((2, 3, 4)))


class Pickled(MyModule):  # a hyper-parameter that is an object
    def __init__(self, width=4, act=nn.ReLU()):
        super().__init__(width)
        self.save_hyperparameters()


class MyData(VideoFolder):  # knows what clips are
    def __init__(self):
        super().__init__(".", num_frames=4, crop=16, resize=16, classes=["go", "stop", "turn"])


class Own(MyModule):  # says itself how it is looked into
    def __init__(self, width=4):
        super().__init__(width)

    def explainable(self, batch=None):
        import lightning_cam as lc

        return lc.Explainable.of(self, ["encoder.conv"], ["go", "stop", "turn"])
"""
TRAIN = """
import sys
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader
import my_package

torch.manual_seed(0)
made = {"MyModule": {"width": 4}, "Forgetful": {"width": 4}}
clips = [(torch.randn(3, 4, 16, 16), torch.tensor(n % 3)) for n in range(6)]
for name in ("MyModule", "Forgetful", "FramesFirst", "Pickled", "Own"):
    module = getattr(my_package, name)(**made.get(name, {}))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=name, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(clips, batch_size=2))
"""
CLIPS = [
    "data.num_frames=4",
    "data.crop=16",
    "data.mean=[0.45,0.45,0.45]",
    "data.std=[0.2,0.2,0.2]",
]
SEEN = ["explain=gradcam", "measure=none", "layer=encoder.conv"]
Explain = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plain training that has ended, and videos in a folder of classes."""
    place = tmp_path_factory.mktemp("mine")
    (place / "my_package.py").write_text(MODULE)
    (place / "train_mine.py").write_text(TRAIN)
    rng = np.random.default_rng(0)
    for name in ("b_stop", "a_go", "c_turn"):
        for n in range(3):
            (place / "videos" / name).mkdir(parents=True, exist_ok=True)
            frames = rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
            write_video(place / "videos" / name / f"{n}.mp4", frames, fps=8)
    done = run_python("train_mine.py", cwd=place)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def explain(place: Path) -> Explain:
    def call(name: str, *settings: str, ckpt: str = "") -> CompletedProcess[str]:
        file = ckpt or str(next((place / name).rglob("*.ckpt")).relative_to(place))
        words = [f"ckpt={file}", f"model=my_package.{name}", f"trust=[my_package.{name}]"]
        return run("explain", *words, *settings, cwd=place)

    return call


def scores(place: Path, done: CompletedProcess[str]) -> list[dict[str, str]]:
    assert done.returncode == 0, done.stderr
    page = place / done.stdout.splitlines()[-1].removeprefix("open ")
    assert page.is_file()
    with (page.parent / "scores.csv").open() as file:
        return list(csv.DictReader(file))


VIDEO = ["video=videos/a_go/0.mp4", "windows=centre"]


def test_a_plain_checkpoint_and_a_video(explain: Explain, place: Path) -> None:
    done = explain("MyModule", *VIDEO, *CLIPS, *SEEN)
    (row,) = scores(place, done)
    assert row["target"].startswith("output ") and row["label"] == ""
    assert "clips: 4 frames, every frame (data.fps=), the short side resized to 16" in done.stdout


def test_a_plain_checkpoint_and_a_folder_of_classes(explain: Explain, place: Path) -> None:
    """Labels are in the order of the columns, whatever that of the folders is."""
    folder = ["data.root=videos", "clips=2", "data.split=train", *CLIPS, *SEEN]
    done = explain("MyModule", *folder)
    assert done.returncode == 2
    assert "add 'model.classes=[NAME,...]'" in done.stderr
    rows = scores(place, explain("MyModule", "model.classes=[b_stop,a_go,c_turn]", *folder))
    assert {row["label"] for row in rows} <= {"b_stop", "a_go", "c_turn"}
    assert all(row["clip_id"].startswith(row["label"]) for row in rows)


def test_a_network_in_a_part_with_frames_first(explain: Explain, place: Path) -> None:
    settings = ["model.part=net", "model.axes=btchw", "model.classes=[x,y,z]"]
    (row,) = scores(place, explain("FramesFirst", *VIDEO, *CLIPS, *SEEN, *settings))
    assert row["target"] in "xyz"


def test_a_module_that_says_how_it_is_looked_into(explain: Explain, place: Path) -> None:
    (row,) = scores(place, explain("Own", *VIDEO, *CLIPS, *SEEN[:2]))
    assert row["target"] in ("go", "stop", "turn")
    done = explain("Own", *VIDEO, *CLIPS, *SEEN[:2], "model.axes=btchw")
    assert "model.axes=btchw says nothing where my_package.Own.explainable" in done.stderr


def test_data_that_know_what_clips_are(explain: Explain, place: Path) -> None:
    data = "+data._target_=my_package.MyData"
    (row,) = scores(place, explain("Own", *VIDEO, data, *SEEN[:2]))
    assert row["target"] in ("go", "stop", "turn")


def test_arguments_that_the_checkpoint_does_not_have(explain: Explain, place: Path) -> None:
    done = explain("Forgetful", *VIDEO, *CLIPS, *SEEN)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "add 'model.arguments={width:VALUE}'" in done.stderr
    done = explain("Forgetful", *VIDEO, *CLIPS, *SEEN, "model.arguments={width: 5}")
    assert "its weights do not fit my_package.Forgetful" in done.stderr
    scores(place, explain("Forgetful", *VIDEO, *CLIPS, *SEEN, "model.arguments={width: 4}"))


def test_objects_in_a_checkpoint(explain: Explain, place: Path) -> None:
    """The line proposes a command that leaves them out, and which works as it stands."""
    done = explain("Pickled", *VIDEO, *CLIPS, *SEEN)
    assert done.returncode == 2 and "holds pickled code" in done.stderr
    proposed = done.stderr.partition("save what is plain of it: ")[2].rpartition(", and explain")[0]
    python, *words = shlex.split(proposed)
    assert python == "python" and run_python(*words, cwd=place).returncode == 0
    scores(place, explain("Pickled", *VIDEO, *CLIPS, *SEEN, ckpt="plain.ckpt"))


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        (["data.crop=16"], "say what its clips are: add, for example, data.crop=112 (frames,"),
        (CLIPS, "add, for example, data.num_frames=16 data.crop=112 data.mean=[0.485,"),
        (["layer=encoder.conv"], "names no target layer for gradcam: add layer=encoder.conv"),
        (["explain=gradcam"], "choose methods, for example explain=[gradcam]"),
        (["trust"], "if you trust the file and this class, add trust=[my_package.MyModule]"),
        (["model"], "such as my_package.MyModule, add model=CLASS"),
    ],
)
def test_what_is_missing_is_named(left_out: list[str], said: str, place: Path) -> None:
    file = str(next((place / "MyModule").rglob("*.ckpt")).relative_to(place))
    words = [f"ckpt={file}", "model=my_package.MyModule", "trust=[my_package.MyModule]"]
    words += [*VIDEO, *CLIPS, *SEEN]
    kept = [word for word in words if word not in left_out and word.split("=")[0] not in left_out]
    done = run("explain", *kept, cwd=place)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


class NoForward(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Conv3d(3, 4, 3)


class Forward(NoForward):
    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.net(clip.transpose(1, 2)).mean((2, 3, 4))


def test_how_a_network_is_to_be_called_is_said_in_settings() -> None:
    own, clip = OwnModule("mine.Net"), torch.rand(1, 3, 4, 8, 8)
    with pytest.raises(
        ConfigError, match=r"mine.Net has no forward; .* model.part=net \(it has net"
    ):
        _check_forward(OwnTask(NoForward(), own))
    _check_forward(OwnTask(NoForward(), replace(own, part="net")))
    with pytest.raises(NetworkError, match=r"if it takes btchw, add model\.axes=btchw"):
        OwnTask(Forward(), own).explainable().forward(clip)
    found = OwnTask(Forward(), replace(own, axes="btchw")).explainable()
    assert found.forward(clip.transpose(1, 2).contiguous().transpose(1, 2)).shape == (1, 4)
    assert found.column("output 3") == 3  # as pages call it


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.axes=bthwc"], "no model.axes 'bthwc'"),
        (["model.classes=go"], "model.classes=go must be a list of names"),
        (["model=my_package.Encoder", "trust=[my_package.Encoder]"], "is no LightningModule"),
        (["model=my_package.Mine", "trust=[my_package.Mine]"], "cannot find 'my_package.Mine'"),
        (["model.part=nett"], "no layer 'nett'"),
        (["model.name=null", "model.part=net"], "model.part=net needs a class"),
        (["layers=list"], "encoder.conv"),
    ],
)
def test_mistakes_in_what_is_said(words: list[str], said: str, explain: Explain) -> None:
    done = explain("MyModule", *VIDEO, *CLIPS, *SEEN, *words)
    assert said in done.stderr + done.stdout, done.stderr
    assert "Traceback" not in done.stderr
