"""Unequal classes: weights of the loss, a balanced order, macro accuracy, and what is monitored."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_cam import RISE, GradCAM
from lightning_cam.commands.train_settings import filled
from lightning_cam.commands.trainer import check_monitor, monitored
from lightning_cam.data.core.loading import EpochSampler
from lightning_cam.errors import ConfigError
from lightning_cam.metrics import DeletionArea, GiniIndex
from lightning_cam.tasks import VideoClassification


class Identity(nn.Module):
    explain_layers = ()

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.scale * clip[:, :, 0, 0, 0]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_are_those_of_pytorch(smoothing: float) -> None:
    weights = [0.5, 1.0, 4.0]
    task = VideoClassification(
        Identity(), ["a", "b", "c"], label_smoothing=smoothing, class_weights=weights
    )
    logits, label = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, -1, 0, 0, 2])
    expected = F.cross_entropy(
        logits, label, torch.tensor(weights), ignore_index=-1, label_smoothing=smoothing
    )
    torch.testing.assert_close(task.loss(logits, None, label), expected)
    assert float(task.loss(logits, None, torch.full_like(label, -1))) == 0
    assert "class_weights" not in task.state_dict()


@pytest.mark.parametrize(
    "weights", [[1, 2], [1, 2, 0], [1, 2, -1], [1, 2, float("nan")], "abc", [1, 2, "x"]]
)
def test_weights_that_make_no_sense(weights: object) -> None:
    with pytest.raises(ConfigError, match="must be 3 numbers above 0, one for each class"):
        VideoClassification(Identity(), ["a", "b", "c"], class_weights=weights)  # type: ignore[arg-type]


def test_balanced_weights_come_from_the_data() -> None:
    config = {"task": {"class_weights": "balanced"}, "data": {}}
    data = SimpleNamespace(class_counts=[30, 10, 5])
    found = filled(config, ["a", "b", "c"], 3, data)["task"]["class_weights"]
    assert found == pytest.approx([0.5, 1.5, 3.0])  # 45 / (3 n)
    for wrong in (SimpleNamespace(class_counts=[30, 0, 5]), SimpleNamespace()):
        with pytest.raises(ConfigError, match=r"balanced: .*; set task\.class_weights=null"):
            filled(config, ["a", "b", "c"], 3, wrong)
    assert config["task"]["class_weights"] == "balanced"


def test_a_balanced_epoch_has_all_classes_equally_often() -> None:
    labels = [0] * 40 + [1] * 10 + [2] * 3
    seen: set[int] = set()
    for epoch in range(8):
        sampler = EpochSampler(labels, train=True, seed=3, labels=labels)  # type: ignore[arg-type]
        sampler.set_epoch(epoch)
        order = [index for _, index in sampler]
        assert order == [index for _, index in sampler]
        assert len(order) == len(labels)
        counts = Counter(labels[index] for index in order)
        assert max(counts.values()) - min(counts.values()) <= 1
        for label, size in ((1, 10), (2, 3)):
            often = Counter(index for index in order if labels[index] == label)
            assert len(often) == size and max(often.values()) - min(often.values()) <= 1
        seen |= set(order)
    assert seen == set(range(53))


def test_balanced_ranks_share_one_order_and_the_default_stays() -> None:
    labels = [0] * 9 + [1] * 2
    ranks = [
        EpochSampler(labels, train=True, num_replicas=2, rank=rank, labels=labels)  # type: ignore[arg-type]
        for rank in range(2)
    ]
    counts = Counter(labels[index] for rank in ranks for _, index in rank)
    assert sum(counts.values()) == 12 and min(counts.values()) >= 5
    plain = EpochSampler(labels, train=True, seed=5)  # type: ignore[arg-type]
    assert [i for _, i in plain] == np.random.default_rng((5, 0)).permutation(11).tolist()


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        (None, None, ("val/acc", "max")),
        ("val/macro_acc", None, ("val/macro_acc", "max")),
        ("val/acc/juggling", None, ("val/acc/juggling", "max")),
        ("val/loss", None, ("val/loss", "min")),
        ("train/loss", None, ("train/loss_epoch", "min")),  # not that of the last batch
        ("val/depth/abs_rel", None, ("val/depth/abs_rel", "min")),
        ("explain/gradcam/gini", "max", ("explain/gradcam/gini", "max")),
    ],
)
def test_any_metric_can_choose_the_best(metric, mode, expected) -> None:
    task = VideoClassification(Identity(), ["a", "b", "c"])
    assert monitored(task, {"monitor": metric, "monitor_mode": mode}) == expected


def test_which_is_better_has_to_be_known() -> None:
    task = VideoClassification(Identity(), ["a", "b", "c"])
    with pytest.raises(ConfigError, match=r"add monitor_mode=max"):
        monitored(task, {"monitor": "explain/gradcam/gini", "monitor_mode": None})
    with pytest.raises(ConfigError, match="monitor_mode=up must be max or min"):
        monitored(task, {"monitor": "val/acc", "monitor_mode": "up"})


class LogsMore(VideoClassification):
    """Its own metrics beside those of the class it is derived from."""


class Own(GradCAM):
    """Finds whatever it likes."""


METHODS = {"gradcam": GradCAM(), "rise": RISE()}
MEASURES = {"gini": GiniIndex(), "deletion": DeletionArea()}


@pytest.mark.attack
@pytest.mark.parametrize(
    ("metric", "near"),
    [
        ("val/accuracy", "val/acc"),
        ("val/macro_ac", "val/macro_acc"),
        ("val/acc/d", "val/acc/a"),
        ("val/depth/abs_rel", "val/acc"),
        ("loss", "val/loss"),
        ("test/acc", "val/acc"),
        ("explain/gradcan/gini", "explain/gradcam/gini"),
        ("explain/gradcam/gni", "explain/gradcam/gini"),
        ("explain/gradcam/error", "explain/rise/error"),
        ("explain/rise", "explain/rise/"),
        ("explain/random/delete", "explain/random/deletion"),
    ],
)
def test_a_metric_that_will_not_exist_is_found_before_training(metric: str, near: str) -> None:
    """`monitor=` with a misspelt metric, an absent class, a metric of another task or method."""
    task = VideoClassification(Identity(), ["a", "b", "c"])
    with pytest.raises(
        ConfigError, match=f"no logged metric '{metric}'; nearest: .*{near}"
    ) as said:
        check_monitor(task, metric, METHODS, MEASURES)
    assert str(said.value).endswith("; choose one with monitor=NAME")
    check_monitor(task, near if near[-1] != "/" else f"{near}masks", METHODS, MEASURES)
    other = {name: Own() for name in METHODS}
    check_monitor(LogsMore(Identity(), ["a", "b", "c"]), metric, other, MEASURES)  # nobody knows
