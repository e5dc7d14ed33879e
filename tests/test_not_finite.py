"""A network that is not finite is never right, never best, and costs no checkpoint that was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from commands import run, tiny
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from lightning_cam.commands.common import plain_settings
from lightning_cam.commands.faults import overflowed
from lightning_cam.commands.train_settings import try_optimizer
from lightning_cam.commands.trainer import looks_first
from lightning_cam.errors import ConfigError
from lightning_cam.tasks import VideoClassification
from lightning_cam.tasks.classification.scores import Accuracy, Scores
from lightning_cam.training.finite import FiniteLoss
from lightning_cam.training.saving import BestCheckpoint, LastCheckpoint, MetricError, has_best

NAN, INF = float("nan"), float("inf")


class Breaks(nn.Module):
    """Right about nothing, finite until `epoch`; then the outputs or the weights are broken."""

    explain_layers = ()

    def __init__(self, epoch: int, how: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[-1.0, 1.0]]))
        self.epoch, self.how, self.now = epoch, how, 0

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        broken = self.now >= self.epoch
        if broken and self.how == "weights":
            self.weight.data.fill_(NAN)
        logits = self.weight.expand(len(clip), 2) + 0 * clip.mean((1, 2, 3, 4))[:, None]
        if broken and self.how == "one clip" and not self.training:
            logits = torch.cat([logits[:1] * INF, logits[1:]])
        return logits + NAN if broken and self.how == "outputs" else logits


class Clock(L.Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.net.now = trainer.current_epoch


def fitted(folder: Path, epoch: int, how: str, epochs: int = 4) -> tuple[L.Trainer, list[Any]]:
    """Forty clips of class 0 and ten of class 1: whoever says 0 is right about four of five."""
    task = VideoClassification(Breaks(epoch, how), ["a", "b"])
    label = torch.tensor([0] * 40 + [1] * 10)
    batch = {"video": torch.zeros(50, 3, 1, 2, 2), "label": label}
    savers = [BestCheckpoint(folder, *task.monitor), LastCheckpoint(folder)]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=[Clock(), FiniteLoss(), *savers],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    loader = DataLoader([batch], batch_size=None)
    trainer.fit(task, loader, loader)
    return trainer, savers


@pytest.mark.attack
@pytest.mark.parametrize("how", ["outputs", "weights", "one clip"])
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_finite_never_replaces_what_was(tmp_path: Path, how: str) -> None:
    """A network breaks in its third epoch: outputs, weights, or the output of one clip."""
    trainer, (best, last) = fitted(tmp_path, 2, how)
    assert float(best.best_model_score) == pytest.approx(0.2)
    assert Path(best.best_model_path).name == "epoch_000.ckpt"
    assert last.refused
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["epoch_000.ckpt", "last.ckpt"]
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    assert set(trainer.callback_metrics) == set(trainer.lightning_module.metric_names)
    right = 0.0 if how != "one clip" else 0.2
    assert float(trainer.callback_metrics["val/acc"]) == pytest.approx(right)


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore")
def test_a_network_that_was_never_finite_has_no_best(tmp_path: Path) -> None:
    """A network whose outputs are NaN from the start, and one of NaN weights."""
    for how, left in (("one clip", ["last.ckpt"]), ("weights", [])):
        _, (best, _) = fitted(tmp_path / how, 0, how, epochs=2)
        assert best.best_model_score is None
        assert sorted(path.name for path in (tmp_path / how).glob("*.ckpt")) == left


@pytest.mark.attack
@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_outputs_that_are_not_finite_are_never_right(broken: float) -> None:
    """Outputs of NaN, inf and -inf among finite ones, in top-1, top-5 and the confusion matrix."""
    logits = torch.tensor([[2.0, 1, 0], [broken, 1, 0], [0, broken, 0], [0, 1, 2.0]])
    label = torch.tensor([0, 0, 1, 2])
    scores = Scores(3)
    scores.update(logits, label)
    assert float(scores.acc.compute()) == float(scores.top5.compute()) == 0.5
    found = scores.per_class()
    assert found.matrix.diag().tolist() == [1, 0, 1]
    assert found.lost.tolist() == [1, 1, 0]
    assert found.clips.tolist() == [2, 1, 1]
    scores.update(logits[1:3], label[1:3])  # nothing finite at all
    assert float(scores.acc.compute()) == pytest.approx(2 / 6)
    assert scores.per_class().clips.tolist() == [1, 1, 0]


@pytest.mark.parametrize("top_k", [1, 2])
def test_finite_outputs_are_scored_as_torchmetrics_does(top_k: int) -> None:
    from torchmetrics.classification import MulticlassAccuracy

    logits, label = torch.randn(40, 4, generator=torch.manual_seed(0)), torch.arange(40) % 5 - 1
    theirs = MulticlassAccuracy(4, top_k=top_k, average="micro", ignore_index=-1)
    ours = Accuracy(4, top_k=top_k)
    for metric in (theirs, ours):
        for part in range(4):
            metric.update(logits[part::4], label[part::4])
    assert torch.equal(ours.compute(), theirs.compute())


@pytest.mark.attack
@pytest.mark.slow
def test_it_is_said_once_at_its_step_and_in_the_end(tmp_path: Path) -> None:
    """`task.optimizer.lr=1e30`: warned of once, no success, and the remedy trains."""
    settings = [*tiny(tmp_path / "data"), "explain=none", "trainer.max_epochs=2", "seed=1"]
    settings.append("trainer.gradient_clip_val=null")
    broken = run("train", *settings, "task.optimizer.lr=1e30", cwd=tmp_path)
    assert broken.returncode == 2
    assert broken.stderr.count("the training loss is nan at step 2 (epoch 1)") == 1
    assert "first at step 2 (epoch 1)" in broken.stdout and "best" not in broken.stdout
    said = broken.stderr.splitlines()[-1]
    assert said.startswith("error: the network broke while training: its weights are not finite (")
    assert "try task.optimizer.lr=1e+29" in said and "trainer.detect_anomaly=true" in said
    stops = run(
        "train", *settings, "task.optimizer.lr=1e30", "trainer.detect_anomaly=true", cwd=tmp_path
    )
    assert "returned nan values" in stops.stderr


@pytest.mark.attack
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"lr": INF}, "task.optimizer.lr=inf must be finite; choose a number"),
        ({"weight_decay": INF}, "task.optimizer.weight_decay=inf must be finite"),
        ({"betas": [0.9, NAN]}, "task.optimizer"),
        ({"lr": ".inf"}, "task.optimizer: .* (lr=.inf is text)"),
    ],
)
def test_settings_of_an_optimizer_that_are_no_numbers(setting: dict[str, Any], said: str) -> None:
    """Learning rate, weight decay and moments' decay of inf and NaN, and a rate that is text."""
    node = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.1, **setting}
    with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace(")", r"\)")):
        try_optimizer({"optimizer": node})


@pytest.mark.attack
@pytest.mark.parametrize("place", ["a", "a.b", "a.b.c"])
@pytest.mark.parametrize("value", [NAN, [1.0, NAN]])
def test_a_setting_that_is_no_number(place: str, value: object) -> None:
    """`KEY=nan`, which no comparison refuses, at any depth of the settings."""
    settings: object = value
    for key in reversed(place.split(".")):
        settings = {key: settings}
    with pytest.raises(ConfigError, match=f"^{place}=nan is not a number; choose one, or leave"):
        plain_settings(OmegaConf.create(settings), ["a"])
    assert plain_settings(OmegaConf.create({"a": INF}), ["a"]) == {"a": INF}


@pytest.mark.attack
def test_a_step_that_is_larger_than_any_number() -> None:
    """`task.optimizer.lr=1e38`: a step that overflows is told from mistakes of the program."""
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    with pytest.raises(RuntimeError) as caught:
        torch.optim.AdamW([weight], lr=1e38, weight_decay=0.0).step()
    assert overflowed(caught.value) and not overflowed(RuntimeError("shapes differ"))


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore")
def test_a_metric_that_is_not_logged_costs_nothing(tmp_path: Path) -> None:
    """`monitor=` of what is not logged, or of a class without clips: no epoch is lost."""
    task = VideoClassification(Breaks(9, ""), ["a", "b"])
    assert looks_first(task, "val/acc/b") and not looks_first(task, "val/acc")
    batch = {"video": torch.zeros(2, 3, 1, 2, 2), "label": torch.tensor([0, 0])}
    loader = DataLoader([batch], batch_size=None)
    for metric, near, passes, epochs in (
        ("val/macro_ac", "val/macro_acc", 0, 1),
        ("val/macro_ac", "val/macro_acc", 0, 2),
        ("train/accu", "train/acc", 0, 1),
        ("val/acc/b", "val/acc/a", -1, 2),  # a pass over all clips tells, before any step
    ):
        folder = tmp_path / f"{metric.replace('/', '_')}_{epochs}"
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            callbacks=[BestCheckpoint(folder, metric, "max"), LastCheckpoint(folder)],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=passes,
            default_root_dir=folder,
        )
        with pytest.raises(MetricError, match=f"no logged metric '{metric}'; nearest: .*{near}"):
            trainer.fit(task, loader, loader)
        assert trainer.global_step == int(passes == 0)  # nothing, or the first epoch
        assert [file.name for file in folder.glob("*.ckpt")] == ["last.ckpt"] * int(passes == 0)
        assert passes or not has_best(torch.load(folder / "last.ckpt", weights_only=True))
