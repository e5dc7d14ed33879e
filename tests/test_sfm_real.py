"""The five real frames of KITTI odometry through the whole path."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

import lightning_cam as lc
from lightning_cam.data.core.clips import finished
from lightning_cam.data.core.loading import collate
from lightning_cam.data.drives.kitti_odometry import KittiOdometry
from lightning_cam.models import DispNet, PoseNet, SfMLearner
from lightning_cam.tasks import StructureFromMotion

CAMERA = [718.856, 718.856, 607.1928, 185.2157]  # fx, fy, cx, cy of the pictures on disk


class Losses(pl.Callback):
    """What the training loss was at each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, *args) -> None:  # type: ignore[no-untyped-def]
        self.seen.append(float(outputs["loss"]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:sequences .0. are for training and for validation")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_real_frames_train_fifty_steps_and_both_networks_are_explained(
    real: Path, tmp_path: Path
) -> None:
    pl.seed_everything(0, verbose=False)
    data = KittiOdometry(
        str(real / "kitti"), camera="image_0", train=[0], val=[0], test=[0], intrinsics=CAMERA,
        eval_frames=5, height=64, width=208, batch_size=3, num_workers=0, cache=True,
    )  # fmt: skip
    net = SfMLearner(DispNet(8), PoseNet(3, 16))
    task = StructureFromMotion(net, optimizer=partial(torch.optim.Adam, lr=1e-3))
    losses = Losses()
    trainer = pl.Trainer(
        max_steps=50, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        check_val_every_n_epoch=50, callbacks=[losses], default_root_dir=str(tmp_path),
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(task, data)
    assert len(losses.seen) == 50 and all(map(math.isfinite, losses.seen))
    assert sum(losses.seen[-10:]) < sum(losses.seen[:10])
    # Five frames at 10 Hz: KITTI's car drove 3.5 m, and a monocular network has no metres.
    metrics = trainer.callback_metrics
    assert float(metrics["val/warp_error"]) < float(metrics["val/identity_error"])
    assert float(metrics["val/pose/zero/ate"]) == pytest.approx(0.93, abs=0.05)
    assert {path.name for path in (tmp_path / "odometry").iterdir()} == {
        "val_epoch_049_00.png", "val_epoch_049_depth.png",
    }  # fmt: skip

    task.eval()
    batch = finished(collate([data.evaluation("val")[0]]))
    model = task.explainable(batch)
    for layer in ("depth.iconv4", "pose.conv4"):
        found = lc.explain(model, lc.RegressionGradCAM(layer, pool="none"), batch["video"])
        heat = found.heatmap[0]
        assert heat.isfinite().all() and heat[1:4].abs().amax((1, 2)).min() > 0
        assert not heat[0].any() and not heat[4].any()  # no targets
