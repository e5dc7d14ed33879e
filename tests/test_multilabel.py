"""Several labels a clip: loss and average precision by hand, fits, and what is explained."""

from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from nets import batch_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import lightning_cam as lc
from lightning_cam.commands.search import composed
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.clip_drawing import draw_clip
from lightning_cam.explaining.clip_explanations import explain_clip
from lightning_cam.explaining.score_tables import score_rows
from lightning_cam.tasks import MultiLabelClassification, VideoClassification
from lightning_cam.tasks.classification.multilabel import AveragePrecision

CLASSES = ["left", "right", "both"]


class Halves(nn.Module):
    """Brightness of the left half, of the right half, and of the darker one."""

    explain_layers = ("layer",)

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.fc = nn.Identity(), nn.Linear(3, 3)

    def forward(self, clip: Tensor) -> Tensor:
        left, right = (half.mean((1, 2, 3, 4)) for half in self.layer(clip).chunk(2, 4))
        return self.fc(torch.stack([left, right, torch.minimum(left, right)], 1))


def task(**settings: object) -> MultiLabelClassification:
    torch.manual_seed(0)
    return MultiLabelClassification(Halves(), CLASSES, **settings)  # type: ignore[arg-type]


def loader(count: int = 4) -> DataLoader:
    """Clips whose halves are bright or dark."""
    bright = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]] * count)
    video = 2.0 * bright.repeat_interleave(4, 1)[:, None, None, None].expand(-1, 3, 2, 8, 8) - 1
    label = torch.cat([bright, bright.prod(1, keepdim=True)], 1)
    samples = [{"video": v.clone(), "label": y} for v, y in zip(video, label, strict=True)]
    return DataLoader(samples, batch_size=4)  # type: ignore[arg-type]


def bce(logit: float, y: float) -> float:
    return float(np.logaddexp(0, logit) - y * logit)


def test_loss_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    label = torch.tensor([[1, 0, -1], [1, 1, 0]])
    each = [bce(2, 1), bce(-1, 0), bce(0, 1), bce(3, 1), bce(1, 0)]
    assert task().loss(logits, None, label).item() == pytest.approx(np.mean(each))
    weights = [2, 1, 2, 1, 3]
    weighted = task(class_weights=[2.0, 1.0, 3.0]).loss(logits, None, label)
    assert weighted.item() == pytest.approx(np.average(each, weights=weights))
    soft = [bce(2, 0.9), bce(-1, 0.1), bce(0, 0.9), bce(3, 0.9), bce(1, 0.1)]
    smoothed = task(label_smoothing=0.2).loss(logits, None, label)
    assert smoothed.item() == pytest.approx(np.mean(soft))
    known = label.clamp(min=0).float()
    theirs = F.binary_cross_entropy_with_logits(logits, known)
    torch.testing.assert_close(task().loss(logits, None, known.long()), theirs)


def test_nothing_known_is_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = task().loss(logits, None, torch.full((2, 3), -1))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_steps_have_the_labels_of_their_clip() -> None:
    one = task()
    one.step_loss = 1.0
    steps = torch.tensor([[[1.0, 2, 3], [9.0, 9, 9]]])
    label, valid = torch.tensor([[1, 0, 1]]), torch.tensor([[True, False]])
    expected = np.mean([bce(1, 1), bce(2, 0), bce(3, 1)])
    assert one.loss(torch.zeros(1, 3), steps, label, valid).item() == pytest.approx(expected)


def test_average_precision_by_hand() -> None:
    """Class 0 ranks true, false, true: (1/1 + 2/3) / 2; class 1 is always last; 2 has no clip."""
    logits = torch.tensor([[30.0, 0.1, 0], [20.0, 0.2, 0], [10.0, 0.3, 0], [5.0, 0.0, 0]])
    label = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 0, -1], [-1, 1, 0]])
    metric = AveragePrecision()
    for rows in (slice(0, 2), slice(2, 4)):  # logits of one batch alone may lie in 0..1
        metric.update(logits[rows], label[rows])
    found = metric.compute()
    torch.testing.assert_close(found[:2].double(), torch.tensor([5 / 6, 1 / 4]).double())
    assert found[2].isnan()


@pytest.mark.attack
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_are_ranked_last(broken: float) -> None:
    """Several labels a clip, and logits that are not finite in one of three clips."""
    logits, label = torch.tensor([[3.0], [broken], [-3.0]]), torch.tensor([[1], [1], [0]])
    metric = AveragePrecision()
    metric.update(logits, label)
    assert metric.compute().item() == pytest.approx((1 + 2 / 3) / 2)


def test_a_fit_learns_and_logs_what_it_says(tmp_path) -> None:
    torch.manual_seed(0)
    one = task(optimizer=lambda groups: torch.optim.Adam(groups, lr=0.3))
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=12, logger=CSVLogger(tmp_path), log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[lc.ExplainCallback({"gradcam": lc.GradCAM()}, clips=1)],
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(one, loader(), loader(1))
    logged = {name for name in trainer.callback_metrics if not name.startswith("explain/")}
    assert logged == set(one.metric_names)
    assert trainer.callback_metrics["val/map"] == 1
    assert trainer.callback_metrics["val/loss"] < 0.3
    assert [one.monitor[0]] == [name for name in logged if name == "val/map"]
    assert list(tmp_path.rglob("*.mp4"))


def test_each_clip_s_highest_true_class_is_explained() -> None:
    one = task().eval()
    with torch.no_grad():
        one.model.fc.weight.copy_(torch.eye(3))
        one.model.fc.bias.copy_(torch.tensor([0.0, 0.0, 9.0]))  # the highest of all clips
    batch = next(iter(loader()))
    e = lc.explain(one.explainable(batch), lc.GradCAM(), batch["video"])
    highest = torch.where(batch["label"] > 0, e.outputs, -torch.inf).argmax(1)
    assert e.target.tolist() == [0, 1, 2, 2] and e.target[:3].tolist() == highest[:3].tolist()
    assert lc.explain(one.explainable(), lc.GradCAM(), batch["video"]).target.tolist() == [2] * 4
    asked = lc.explain(one.explainable(batch), lc.GradCAM(), batch["video"], "right")
    assert asked.target.tolist() == [1] * 4


def test_pages_and_tables_show_all_true_classes_with_their_own_probabilities() -> None:
    one, rows = task().eval(), next(iter(loader()))
    batch = batch_of(rows["video"][2:3]) | {"label": rows["label"][2:3]}
    model = one.explainable(batch)
    found = explain_clip(model, {"gradcam": lc.GradCAM()}, batch["video"])
    figure = draw_clip(model, found, np.zeros((2, 16, 16, 3), np.uint8), batch, "clip")
    assert figure.label is None and figure.labels == CLASSES and figure.outcome == ""
    p = found["gradcam"].outputs.sigmoid()[0].tolist()
    assert dict(figure.probabilities) == pytest.approx(dict(zip(CLASSES, p, strict=True)))
    [row] = score_rows(model, found, batch)
    assert row["label"] == "left; right; both" and row["target"] in CLASSES
    batch["label"] = torch.tensor([-1])  # of a video that is not of the data
    assert draw_clip(one.explainable(batch), found, np.zeros((2, 16, 16, 3), np.uint8),
                     batch, "clip").labels == []  # fmt: skip


@pytest.mark.attack
@pytest.mark.parametrize(
    ("kind", "label", "said"),
    [
        (MultiLabelClassification, torch.tensor([0, 1]), r"needs labels of 0 and 1 \(B, K\)"),
        (MultiLabelClassification, torch.tensor([[0, 2, 1]] * 2), r"from 0 to 2"),
        (MultiLabelClassification, torch.tensor([[0, 1]] * 2), r"got \(2, 2\)"),
        (VideoClassification, torch.tensor([[0, 1, 1]] * 2), r"shape \(2, 3\).*task=multilabel"),
    ],
)
def test_labels_of_another_kind_are_refused(kind, label: Tensor, said: str) -> None:
    """One label a clip given to a task of several, several to a task of one, labels above 1."""
    one = kind(Halves(), CLASSES)
    with pytest.raises(ConfigError, match=said):
        one.validation_step({"video": torch.rand(2, 3, 2, 8, 8), "label": label}, 0)


def test_the_setting_is_one_word() -> None:
    found = composed("train", ["task=multilabel"]).task
    assert found._target_ == "lightning_cam.tasks.MultiLabelClassification"
    assert set(found) == set(composed("train", []).task)
