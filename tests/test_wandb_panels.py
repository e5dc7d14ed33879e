"""What W&B's page of a run shows: few curves, each clip by itself, as `docs/cluster.md` says."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from commands import ROOT
from lightning.pytorch.callbacks import LearningRateMonitor
from test_callbacks import Clips
from test_wandb_segments import Experiment
from torch.utils.data import DataLoader

import lightning_cam as lc
from lightning_cam.errors import UserError
from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.metrics import DeletionArea, InsertionArea
from lightning_cam.models import LRCN
from lightning_cam.tasks import VideoClassification
from lightning_cam.training.artefacts import keep_checkpoint, keep_code
from lightning_cam.training.throughput import Throughput
from lightning_cam.training.wandb_logger import SegmentedWandbLogger
from lightning_cam.training.wandb_segments import earlier_segments

CLASSES = 174  # of Something-Something

pytestmark = pytest.mark.slow


class Labelled(Clips):
    """Each clip of a class of its own."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "label": torch.tensor(index % CLASSES)}


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(Labelled(12), batch_size=6)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Labelled(CLASSES), batch_size=58)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What W&B is given by two epochs of a training of 174 classes with two explained clips."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("run")
    experiment = Experiment(folder / "wandb" / "offline-run-1-a")
    logger = SegmentedWandbLogger(folder, experiment, earlier_segments(folder / "wandb", 0))
    methods = {"gradcam": lc.GradCAM(), "recurrent_gradcam": lc.RecurrentGradCAM()}
    measures = {"deletion": DeletionArea(steps=3), "insertion": InsertionArea(steps=3)}
    explain = ExplainCallback(methods, clips=2, measures=measures)
    names = [f"class {n}" for n in range(CLASSES)]
    torch.manual_seed(0)
    model = LRCN(CLASSES, hidden=8, readout="attention")
    task = VideoClassification(model, names, optimizer=partial(torch.optim.AdamW, lr=0.01))
    trainer = pl.Trainer(
        max_epochs=2, logger=logger, accelerator="cpu", default_root_dir=folder,
        callbacks=[explain, LearningRateMonitor("step"), Throughput()], log_every_n_steps=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, Data())
    return experiment.rows


def panels(rows: list[dict[str, Any]]) -> tuple[set[str], set[str]]:
    """Keys of numbers and of everything else."""
    scalars = {k for row in rows for k, v in row.items() if isinstance(v, int | float)} - {"_step"}
    return scalars, {key for row in rows for key in row} - scalars - {"_step"}


def test_174_classes_are_no_more_panels_than_two(rows: list[dict[str, Any]]) -> None:
    scalars, others = panels(rows)
    assert len(scalars) <= 25, sorted(scalars)
    assert not [key for key in scalars | others if "class " in key]
    tables = [row["val/per_class"] for row in rows if "val/per_class" in row]
    assert [len(table.data) for table in tables] == [CLASSES] * 2
    assert len([row for row in rows if "val/per_class_chart" in row]) == 2


def test_a_clip_is_followed_by_its_key(rows: list[dict[str, Any]]) -> None:
    _, others = panels(rows)
    assert {key for key in others if key.startswith("explain/video/")} == {
        f"explain/video/clip_{n}/gradcam+recurrent_gradcam" for n in (0, CLASSES - 1)
    }
    for key in others:
        if re.match("explain/(video|sheet|attention_epochs)/", key):
            assert [len(row[key]) for row in rows if key in row] == [1, 1], key  # one an epoch


def test_the_documentation_lists_the_panels(rows: list[dict[str, Any]]) -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    section = text.partition("## What W&B shows")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE))
    scalars, others = panels(rows)

    def general(key: str) -> str:
        clip = re.sub(r"/clip_\d+", "/CLIP", key)
        clip = re.sub("gradcam[+]recurrent_gradcam", "METHOD+METHOD", clip)
        return re.sub(r"^(explain/epochs\w*/CLIP)/\w+$", r"\1/METHOD", clip)

    found = {general(key) for key in scalars | others}
    measured = {key for key in found if re.match(r"explain/\w+/(deletion|insertion)$", key)}
    assert len(measured) == 6  # two methods and the random map
    expected = found - measured - {"trainer/global_step"} | {"explain/METHOD/MEASURE"}
    assert listed - {"speed/gpu_gb"} == expected


def test_media_can_be_thinned() -> None:
    callback = ExplainCallback(lc.GradCAM(), log_every_n_epochs=5)
    assert callback.log_every_n_epochs == 5
    with pytest.raises(UserError, match="log_every_n_epochs must be at least 1"):
        ExplainCallback(lc.GradCAM(), log_every_n_epochs=0)


class Kept:
    """W&B's run that keeps artefacts."""

    id = "0123abcd"

    def __init__(self) -> None:
        self.artefacts: list[tuple[Any, Any]] = []

    def log_artifact(self, artefact: Any, aliases: Any) -> None:
        self.artefacts.append((artefact, aliases))


def test_a_checkpoint_and_the_source_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Kept()
    file = tmp_path / "epoch_003.ckpt"
    file.write_bytes(b"weights")
    keep_checkpoint(kept, file, "best")
    (tmp_path / "configs").mkdir()
    for name in ("mine.py", "configs/mine.yaml", "video.mp4"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    keep_code(kept)
    (model, aliases), (code, _) = kept.artefacts
    assert (model.type, model.name, aliases) == ("model", "model-0123abcd", ["best"])
    assert set(model.manifest.entries) == {"epoch_003.ckpt"}
    names = set(code.manifest.entries)
    assert {"mine.py", "configs/mine.yaml", "lightning_cam/training/artefacts.py"} <= names
    assert "lightning_cam/commands/configs/train.yaml" in names
    assert not {name for name in names if name.endswith((".mp4", ".ckpt", ".pyc"))}
    keep_checkpoint(kept, tmp_path / "gone.ckpt", "best")
    assert "W&B does not keep the model: ValueError" in capsys.readouterr().out
