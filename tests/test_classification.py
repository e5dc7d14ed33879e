"""The classification task: loss and metrics by hand, optimiser, schedule, images, fits."""

from __future__ import annotations

import math
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
import torchvision
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR
from torch.utils.data import DataLoader

from lightning_cam.attribution import GradCAM, RecurrentGradCAM, explain
from lightning_cam.errors import ConfigError, UserError
from lightning_cam.models import LRCN, FrameCNN, InflatedResNet, ResNet3D
from lightning_cam.own_folder import RunFolder, own_folder
from lightning_cam.tasks import VideoClassification
from lightning_cam.tasks.classification.confusion import save_confusion
from lightning_cam.tasks.schedules import build_schedule, one_cycle

CLASSES = ["left", "right", "up"]


class Table(nn.Module):
    """A network whose logits are its clip's first frame: (B, K, 1, 1, 1) -> (B, K)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, clip):
        return self.scale * clip[:, :, 0, 0, 0]


def batches(labels, batch=2, frames=4, size=32):
    """In-memory random batches as the data modules make them."""
    generator = torch.manual_seed(0)
    loader = []
    for start in range(0, len(labels), batch):
        label = torch.tensor(labels[start : start + batch])
        valid = torch.ones(len(label), frames, dtype=torch.bool)
        valid[0, -1] = False
        video = torch.randn(len(label), 3, frames, size, size, generator=generator)
        loader.append({"video": video, "label": label, "valid": valid})
    return DataLoader(loader, batch_size=None)


def trainer_of(tmp_path, **settings):
    settings = {"logger": False, "enable_checkpointing": False, **settings}
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )


# Colours ------------------------------------------------------------------------------------------


def test_the_data_of_its_trainer_know_the_colours(tmp_path):
    """So that a picture of a trained task's explanation looks like the video."""

    class Data(L.LightningDataModule):
        def to_frames(self, clip):
            return np.full((len(clip), 4, 8, 8, 3), 77, np.uint8)

    task = VideoClassification(ResNet3D(3, "r3d_small"), CLASSES)
    assert task.explainable().to_frames is None  # no trainer
    task.trainer = trainer_of(tmp_path)
    assert task.explainable().to_frames is None  # no data module
    task.trainer.datamodule = Data()
    e = explain(task.eval().explainable(), GradCAM(), torch.randn(1, 3, 4, 32, 32))
    frames, said = e.shown.frames(0)
    assert (frames == 77).all() and not said


# Loss ---------------------------------------------------------------------------------------------


def test_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    steps = torch.tensor([[[1.0, 0, 0], [3.0, 0, 0]], [[0.0, 0, 5], [9.0, 9, 9]]])
    label, valid = torch.tensor([0, 1]), torch.tensor([[True, True], [True, False]])

    def ce(row, k):
        return math.log(sum(math.exp(v) for v in row)) - row[k]

    clip = (ce([2, 0, 0], 0) + ce([0, 1, 0], 1)) / 2
    step = (ce([1, 0, 0], 0) + ce([3, 0, 0], 0) + ce([0, 0, 5], 1)) / 3
    for w in (0.0, 0.3, 1.0):
        task = VideoClassification(FrameCNN(3), CLASSES, step_loss=w)
        loss = task.loss(logits, steps, label, valid)
        assert loss.item() == pytest.approx((1 - w) * clip + w * step, rel=1e-5)


def test_label_smoothing_by_hand():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    task = VideoClassification(Table(), CLASSES, label_smoothing=0.3)
    log_p = logits.log_softmax(1)[0]
    expected = -(0.8 * log_p[0] + 0.1 * log_p[1] + 0.1 * log_p[2])
    torch.testing.assert_close(task.loss(logits, None, torch.tensor([0])), expected)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0])
def test_ignored_rows_count_nowhere(w):
    torch.manual_seed(0)
    task = VideoClassification(FrameCNN(3), CLASSES, step_loss=w, label_smoothing=0.1)
    logits, steps = torch.randn(4, 3), torch.randn(4, 5, 3)
    label = torch.tensor([2, -1, 0, -1])
    kept = label >= 0
    loss = task.loss(logits, steps, label)
    torch.testing.assert_close(loss, task.loss(logits[kept], steps[kept], label[kept]))


def test_a_batch_of_ignored_rows_trains_nothing():
    net = LRCN(3, readout="attention")
    task = VideoClassification(net, CLASSES, step_loss=0.5)
    clip = torch.randn(2, 3, 4, 32, 32)
    logits, steps = net.forward_steps(clip)
    loss = task.loss(logits, steps, torch.tensor([-1, -1]))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and p.grad.eq(0).all() for p in net.parameters())


# Metrics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["val", "test"])
def test_metrics_equal_those_by_hand(tmp_path, stage):
    classes = list("abcdefg")
    generator = torch.manual_seed(3)
    logits = torch.randn(30, 7, generator=generator)
    label = torch.arange(30) % 7 - 1  # some unreadable, none of class g
    loader = DataLoader(
        [
            {"video": x[:, :, None, None, None], "label": y}
            for x, y in zip(logits.split(8), label.split(8), strict=True)
        ],
        batch_size=None,
    )
    task = VideoClassification(Table(), classes)
    trainer = trainer_of(tmp_path)
    (trainer.validate if stage == "val" else trainer.test)(task, loader, verbose=False)
    found = {key: float(value) for key, value in trainer.callback_metrics.items()}

    kept = label >= 0
    x, y = logits[kept], label[kept]
    right = x.argmax(1) == y
    expected = {
        f"{stage}/loss": F.cross_entropy(x, y).item(),
        f"{stage}/acc": right.float().mean().item(),
        f"{stage}/top5": (x.topk(5).indices == y[:, None]).any(1).float().mean().item(),
    }
    for k, name in enumerate(classes[:6]):
        expected[f"{stage}/acc/{name}"] = right[y == k].float().mean().item()
    expected[f"{stage}/macro_acc"] = sum(expected[f"{stage}/acc/{c}"] for c in "abcdef") / 6
    assert found == pytest.approx(expected, rel=1e-5)
    image = Image.open(tmp_path / "confusion" / f"{stage}_epoch_000.png")
    assert min(image.size) > 300


def test_metrics_start_afresh_every_epoch(tmp_path):
    task = VideoClassification(Table(), CLASSES)
    trainer = trainer_of(tmp_path)
    for label, expected in ((0, 1.0), (1, 0.0)):
        batch = {"video": torch.eye(3)[:1, :, None, None, None], "label": torch.tensor([label])}
        trainer.validate(task, DataLoader([batch], batch_size=None), verbose=False)
        assert trainer.callback_metrics["val/acc"] == expected
        assert task.val_scores.confusion.confmat.sum() == 0


@pytest.mark.slow
def test_confusion_image_follows_the_matrix(tmp_path):
    def draw(name, matrix, classes=CLASSES):
        path = save_confusion(tmp_path / "new" / name, torch.tensor(matrix), classes, "title")
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    one = draw("1.png", [[4, 5, 0], [0, 0, 0], [2, 0, 8]])
    two = draw("2.png", [[4, 5, 0], [0, 0, 0], [8, 0, 2]])
    rows, columns = np.nonzero(np.abs(one - two).sum(2))
    height = one.shape[0]
    assert rows.min() > 0.5 * height  # only the last class's row differs
    assert columns.max() - columns.min() > 0.3 * height
    large = draw("large.png", np.eye(174, dtype=int).tolist(), [f"class {k}" for k in range(174)])
    assert max(large.shape) < 3000


class Images(CSVLogger):
    """Takes tables and images."""

    def log_image(self, key, images, step=None):
        pass

    def log_table(self, key, columns, data, step=None):
        pass


def test_images_of_two_runs_never_lie_in_one_place(tmp_path):
    def validated(callbacks=(), **settings):
        task = VideoClassification(Table(), CLASSES)
        trainer = trainer_of(tmp_path, callbacks=[*callbacks], **settings)
        clips = {"video": torch.eye(3)[:, :, None, None, None], "label": torch.arange(3)}
        for _ in range(2):  # of one run
            trainer.validate(task, DataLoader([clips], batch_size=None), verbose=False)
        found = [str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")]
        for path in tmp_path.rglob("*.png"):
            path.unlink()
        return sorted(found)

    assert [validated() for _ in range(2)] == [["confusion"], ["confusion_2"]]
    runs = [validated(logger=Images(tmp_path / "csv")) for _ in range(2)]
    assert runs == [
        [f"csv/lightning_logs/version_{n}/{name}" for name in ("confusion", "per_class")]
        for n in range(2)
    ]
    own = RunFolder(tmp_path / "own")  # of the program's runs, which go on in their folder
    assert [validated([own]) for _ in range(2)] == [["own/confusion"]] * 2


def test_confusion_image_reaches_wandb(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(
        WandbLogger,
        "log_image",
        lambda _self, key, images, step: logged.append((key, images, step)),
    )
    tables = []
    monkeypatch.setattr(
        WandbLogger, "log_table", lambda _self, key, columns, rows, step: tables.append((key, rows))
    )
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    monkeypatch.setattr(WandbLogger, "experiment", property(lambda _self: None))
    for name in ("log_metrics", "log_hyperparams", "log_graph", "finalize", "save"):
        monkeypatch.setattr(WandbLogger, name, lambda *_args, **_kwargs: None)
    task = VideoClassification(FrameCNN(3), CLASSES)
    trainer = trainer_of(tmp_path, logger=logger, max_epochs=1)
    trainer.fit(task, batches([0, 1, 2, 0]), batches([0, 1]))
    drawn = {key: (path, step) for key, (path,), step in logged}
    assert len(drawn) == len(logged) == 2  # once: the sanity check draws nothing
    for key, folder in (("val/confusion", "confusion"), ("val/per_class_chart", "per_class")):
        assert drawn[key] == (str(own_folder(trainer, folder) / "val_epoch_000.png"), 2)
        assert Image.open(drawn[key][0]).format == "PNG"
    ((key, rows),) = tables
    assert key == "val/per_class"
    assert [name for name, _, clips in rows if clips] == CLASSES[:2]


# Optimiser and schedule ---------------------------------------------------------------------------


def lrs(build, steps, groups=1):
    """The lr of every group at each optimiser step."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(groups)]
    optimizer = SGD([{"params": [p], "lr": 4e-3 / 10**i} for i, p in enumerate(parameters)])
    schedule = build(optimizer)
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("pct_start", [0.15, 0.3, 0.5])
def test_one_cycle_is_pytorchs(pct_start):
    theirs = lrs(
        lambda o: OneCycleLR(
            o, max_lr=4e-3, total_steps=40, pct_start=pct_start, cycle_momentum=False
        ),
        40,
    )
    ours = lrs(partial(one_cycle, total_steps=40, pct_start=pct_start), 40)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_one_cycle_of_a_few_steps_and_beyond_its_end(total):
    found = lrs(partial(one_cycle, total_steps=total), total + 3)
    assert found.isfinite().all()
    assert (found > 0).all()
    assert found[-1] == found[-2]


def test_one_cycle_keeps_the_ratio_of_groups():
    found = lrs(partial(one_cycle, total_steps=20), 20, groups=2)
    torch.testing.assert_close(found[:, 1] * 10, found[:, 0])
    assert found[:, 0].max() == pytest.approx(4e-3)


def test_schedules_get_the_length_under_their_own_name():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert build_schedule(CosineAnnealingLR, optimizer, 50).T_max == 50
    assert build_schedule(partial(CosineAnnealingLR, T_max=7), optimizer, 50).T_max == 7
    assert build_schedule(partial(OneCycleLR, max_lr=1.0), optimizer, 50).total_steps == 50
    assert build_schedule(partial(ExponentialLR, gamma=0.9), optimizer, math.inf).gamma == 0.9
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs"):
        build_schedule(one_cycle, optimizer, math.inf)


def test_onecyclelr_that_would_level_the_groups_is_refused():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    schedule = partial(OneCycleLR, total_steps=9)
    with pytest.raises(ConfigError, match="one_cycle"):
        build_schedule(partial(schedule, max_lr=1.0), SGD(groups), 9)
    assert build_schedule(partial(schedule, max_lr=[1.0, 0.1]), SGD(groups), 9)


def test_the_trunk_may_have_a_smaller_lr(tmp_path):
    net = LRCN(3)
    task = VideoClassification(
        net,
        CLASSES,
        optimizer=partial(AdamW, lr=1e-2),
        scheduler=one_cycle,
        trunk_lr_factor=0.1,
    )
    task.trainer = trainer_of(tmp_path, max_steps=10)
    built = task.configure_optimizers()
    rest, trunk = built["optimizer"].param_groups
    assert rest["initial_lr"] == pytest.approx(1e-2)
    assert trunk["initial_lr"] == pytest.approx(1e-3)
    assert {id(p) for p in trunk["params"]} == {id(p) for p in net.trunk.parameters()}
    assert len(rest["params"]) + len(trunk["params"]) == len(list(net.parameters()))
    assert built["lr_scheduler"]["interval"] == "step"


def test_frozen_parameters_are_not_optimised():
    net = LRCN(3, frozen=True)
    optimizer = VideoClassification(net, CLASSES).configure_optimizers()
    found = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert found == {id(p) for p in net.parameters() if p.requires_grad}


def test_settings_a_network_cannot_follow_are_refused():
    with pytest.raises(ConfigError, match=r"step_loss=0.5 needs step logits.*Table"):
        VideoClassification(Table(), CLASSES, step_loss=0.5)
    with pytest.raises(ConfigError, match=r"step_loss=2.*between 0 and 1"):
        VideoClassification(LRCN(3), CLASSES, step_loss=2)
    with pytest.raises(ConfigError, match=r"'trunk'.*Table"):
        VideoClassification(Table(), CLASSES, trunk_lr_factor=0.1)
    with pytest.raises(UserError, match=r"trunk.conf3.*trunk.conv3"):
        VideoClassification(LRCN(3), CLASSES, layers=["trunk.conf3"])


def test_a_wrong_number_of_outputs_is_named(tmp_path):
    task = VideoClassification(FrameCNN(5), CLASSES)
    with pytest.raises(ConfigError, match=r"\(2, 5\), expected \(B, 3\)"):
        trainer_of(tmp_path, fast_dev_run=True).fit(task, batches([0, 1]), batches([0, 1]))


# Fits ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # a frozen trunk is meant to be
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("net", "step_loss"),
    [
        (partial(FrameCNN, 3), 1.0),
        (partial(LRCN, 3, readout="attention"), 0.3),
        (partial(LRCN, 3, readout="last", frozen=True), 0.0),
    ],
)
def test_fit(tmp_path, precision, net, step_loss):
    torch.manual_seed(0)
    task = VideoClassification(
        net(),
        CLASSES,
        optimizer=partial(AdamW, lr=1e-3),
        scheduler=one_cycle,
        step_loss=step_loss,
        trunk_lr_factor=0.5,
    )
    before = {name: p.clone() for name, p in task.named_parameters()}
    trainer = trainer_of(
        tmp_path,
        logger=CSVLogger(tmp_path),
        max_epochs=2,
        precision=precision,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
    )
    trainer.fit(task, batches([0, 1, 2, 0, -1, -1, 1, 2]), batches([0, -1, 2]))
    assert trainer.global_step == 4  # 2 epochs x 4 batches / 2
    assert trainer.callback_metrics["train/loss"].isfinite()
    # 25 * 1e4 below the maximum: the schedule's length counts optimiser steps, not batches
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 / 25e4)
    for name, parameter in task.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
    for epoch in (0, 1):
        assert (own_folder(trainer, "confusion") / f"val_epoch_{epoch:03d}.png").is_file()


def test_fast_dev_run_leaves_no_files(tmp_path):
    task = VideoClassification(LRCN(3, readout="attention"), CLASSES)
    trainer = trainer_of(tmp_path, fast_dev_run=True)
    trainer.fit(task, batches([0, 1]), batches([-1, -1]))
    assert not list(tmp_path.rglob("*.png"))


def test_a_checkpoint_holds_plain_containers_only(tmp_path):
    task = VideoClassification(LRCN(3), CLASSES, scheduler=one_cycle)
    trainer = trainer_of(tmp_path, max_epochs=1)
    trainer.fit(task, batches([0, 1]), batches([0, 1]))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert "hyper_parameters" not in saved
    assert set(saved["state_dict"]) == set(task.state_dict())
    assert all(name.startswith("model.") for name in saved["state_dict"])


# Looking into it ----------------------------------------------------------------------------------


def test_explainable_binds_the_valid_frames():
    net = LRCN(3, readout="attention").eval()
    task = VideoClassification(net, CLASSES)
    (batch,) = batches([0, 1])
    bound, free = task.explainable(batch), task.explainable()
    assert bound.outputs == tuple(CLASSES)
    assert list(bound.layers) == ["trunk"]
    assert bound.steps is net.head
    clip, valid = batch["video"], batch["valid"]
    torch.testing.assert_close(bound.forward(clip), net(clip, valid))
    torch.testing.assert_close(free.forward(clip), net(clip))
    torch.testing.assert_close(bound.forward(clip.repeat(3, 1, 1, 1, 1))[4:], net(clip, valid))

    found = explain(bound, RecurrentGradCAM(), clip)
    assert found.heatmap.shape == (2, 4, 32, 32)
    assert found.heatmap[0, -1].eq(0).all()  # a padded frame
    assert found.attention["attention"][0, -1] == 0
    torch.testing.assert_close(found.attention["attention"].sum(1), torch.ones(2))


def test_layers_can_be_chosen():
    task = VideoClassification(LRCN(3), CLASSES, layers=["trunk.conv2", "trunk"])
    assert list(task.explainable().layers) == ["trunk.conv2", "trunk"]
    assert task.explainable().attention == {}


@pytest.mark.slow
def test_a_torchvision_network_is_a_model_too(tmp_path):
    net = torchvision.models.video.r3d_18(num_classes=3)
    task = VideoClassification(net, CLASSES, layers=["layer4"])
    trainer_of(tmp_path, fast_dev_run=True).fit(task, batches([0, 1]), batches([0, 1]))
    (batch,) = batches([0, 1])
    found = explain(task.explainable(batch), GradCAM(), batch["video"])
    assert found.heatmap.shape == (2, 4, 32, 32)
    assert task.explainable(batch).steps is None


class Wrapped(Table):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, clip):
        return self.wrap(super().forward(clip))


@pytest.mark.parametrize(
    ("wrap", "kind"), [(lambda y: {"a": y, "b": y}, "dict"), (lambda y: (y, y), "tuple")]
)
def test_a_network_that_returns_no_tensor_is_named(wrap, kind):
    task = VideoClassification(Wrapped(wrap), CLASSES)
    with pytest.raises(ConfigError, match=rf"^Wrapped returns a {kind} .*\(B, 3\); name their"):
        task.training_step(next(iter(batches([0, 1]))), 0)


# 3D networks --------------------------------------------------------------------------------------

NETWORKS_3D = {
    "inflated": partial(InflatedResNet, 3, "small"),
    "replicate": partial(InflatedResNet, 3, "small", temporal_padding="replicate"),
    "r3d": partial(ResNet3D, 3, "r3d_small"),
    "torchvision": partial(torchvision.models.video.mc3_18, num_classes=3),
}


def task_3d(name, **settings):
    torch.manual_seed(0)
    layers = ["layer4"] if name == "torchvision" else None
    return VideoClassification(NETWORKS_3D[name](), CLASSES, layers=layers, **settings)


@pytest.mark.parametrize("name", NETWORKS_3D)
def test_channels_last_changes_the_layout_and_not_the_numbers(name):
    tasks = [task_3d(name, channels_last=flag).eval() for flag in (False, True)]
    (batch,) = batches([0, 1], frames=8)
    results, seen = [], []
    for task in tasks:
        task.model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        logits = task(batch["video"], batch["valid"])
        logits.pow(2).sum().backward()
        results.append((logits, [p.grad for p in task.model.parameters()]))
    (logits, gradients), (logits2, gradients2) = results
    layout = torch.channels_last_3d
    assert [clip.is_contiguous(memory_format=layout) for clip in seen] == [False, True]
    for module in task.model.modules():
        if isinstance(module, nn.Conv3d):
            assert module.weight.is_contiguous(memory_format=layout)
    torch.testing.assert_close(logits2, logits, rtol=1e-4, atol=1e-5)
    for one, two in zip(gradients, gradients2, strict=True):
        assert (one - two).abs().max() <= 1e-3 * one.abs().max() + 1e-6
    plain, laid_out = (
        explain(task.explainable(batch), GradCAM(relu=False), batch["video"]) for task in tasks
    )
    torch.testing.assert_close(laid_out.heatmap, plain.heatmap, rtol=1e-3, atol=1e-6)


def test_channels_last_survives_a_checkpoint(tmp_path):
    task = task_3d("r3d", channels_last=True)
    layout = torch.channels_last_3d
    before = task.model.trunk.layer1[0].conv1[0].weight.stride()
    task.load_state_dict(task_3d("r3d").state_dict())
    assert task.model.trunk.layer1[0].conv1[0].weight.stride() == before
    assert task.model.trunk.layer1[0].conv1[0].weight.is_contiguous(memory_format=layout)


def test_channels_last_needs_3d_convolutions():
    with pytest.raises(ConfigError, match=r"channels_last=true.*FrameCNN does not have"):
        VideoClassification(FrameCNN(3), CLASSES, channels_last=True)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["inflated", "replicate", "r3d"])
def test_one_step_in_half_precision(tmp_path, name, channels_last, precision):
    # AdamW's first step moves a weight by the lr; bfloat16 has 2^-8 around the norms' 1.
    task = task_3d(name, channels_last=channels_last, optimizer=partial(AdamW, lr=0.03))
    before = {name: p.clone() for name, p in task.named_parameters()}
    trainer = trainer_of(tmp_path, precision=precision, max_steps=1, accumulate_grad_batches=2)
    loader = batches([0, 1, 2, -1], frames=16)
    trainer.fit(task, loader, loader)
    assert trainer.global_step == 1
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.callback_metrics["val/loss"].isfinite()
    for key, parameter in task.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[key].to(parameter.dtype)), key
    batch = next(iter(loader))
    found = explain(task.explainable(batch), GradCAM(relu=False), batch["video"])
    assert found.heatmap.dtype == torch.float32
    assert found.heatmap.isfinite().all()
    assert found.heatmap.any()


def test_checkpointing_trains_the_same_network(tmp_path):
    states = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = InflatedResNet(3, "small", checkpointing=checkpointing)
        task = VideoClassification(net, CLASSES, channels_last=True)
        trainer = trainer_of(tmp_path, max_epochs=2, accumulate_grad_batches=2)
        torch.manual_seed(1)
        trainer.fit(task, batches([0, 1, 2, 0, 1, 2]), batches([0, 1]))
        states.append(task.state_dict())
        (batch,) = batches([0, 1])
        states[-1]["heatmap"] = explain(task.explainable(batch), GradCAM(), batch["video"]).heatmap
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("wrong", [-0.1, 1.5, "abc"])
@pytest.mark.parametrize("name", ["step_loss", "label_smoothing"])
def test_shares_of_the_loss_are_checked(name: str, wrong: float | str) -> None:
    with pytest.raises(ConfigError, match=f"{name}={wrong} must lie between 0 and 1"):
        VideoClassification(FrameCNN(3), ["a", "b", "c"], **{name: wrong})
