"""Depth and motion as a task: its loss and metrics by hand, its columns, and the two commands."""

from __future__ import annotations

import copy
import math
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from commands import run as command
from scenes import Drive, KnownDepth, KnownPose, batch_of, drive, motions, network
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import lightning_cam as lc
from lightning_cam.commands.trainer import looks_first
from lightning_cam.errors import ConfigError, UnknownNameError, UserError
from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.files import read_csv
from lightning_cam.geometry import inverse_warp, invert, pose_matrix, pose_vector
from lightning_cam.metrics import depth_errors, snippet_errors
from lightning_cam.models import SfMLearner
from lightning_cam.models.sfm import Views
from lightning_cam.tasks import StructureFromMotion, ViewSynthesis
from lightning_cam.tasks.sfm.task import _mean
from lightning_cam.tasks.sfm.view_synthesis import Losses, Snippets
from lightning_cam.training.saving import BestCheckpoint, MetricError

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16.*")


def task_of(snippet: int = 3, masks: bool = False, seed: int = 0, **more: Any) -> Any:
    settings: dict[str, Any] = {"optimizer": partial(torch.optim.Adam, lr=1e-3), **more}
    return StructureFromMotion(network(snippet, masks, seed=seed), depth_crop=None, **settings)


def padded(batch: dict[str, Any], clip: int, count: int) -> dict[str, Any]:
    """The batch with the last `count` frames of a clip as padding: its last frame repeated."""
    batch = copy.deepcopy(batch)
    last = batch["video"].shape[2] - count
    batch["valid"][clip, last:] = False
    batch["video"][clip, :, last:] = batch["video"][clip, :, last - 1 : last]
    return batch


def with_unreadable(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch and behind it a clip of zeros, as readers give for files they cannot read."""
    batch = copy.deepcopy(batch)
    for key, value in batch.items():
        if isinstance(value, Tensor):
            none = torch.zeros_like(value[:1])
            none = none.fill_(torch.nan) if key == "poses" else none
            none = value[:1].clone() if key == "intrinsics" else none
            batch[key] = torch.cat([value, none])
    batch["depth"].append(np.zeros((0, 0, 0), np.float32))
    for key in ("sequence", "clip_id", "path"):
        batch[key].append("lost")
    batch["error"].append("cannot be read")
    return batch


# PyTorch 2.15 on CPUs: bfloat16 convolutions of stride 2 have random weight gradients for maps one
# pixel wide, as those of images of 64 pixels are before the last one. So these are wider.
WIDE = 96


def films(frames: int = 6, count: int = 2, width: int = 64) -> dict[str, Any]:
    return batch_of(*(drive(frames, width=width, tilt=0.1 + 0.1 * n) for n in range(count)))


def step(task: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
    """The training loss, and what was logged."""
    logged: dict[str, float] = {}
    task.log = lambda name, value, **_: logged.update({name: float(value)})
    return task.training_step(batch, 0), logged


def each_target(task: Any, batch: dict[str, Any]) -> list[list[tuple[Views, Snippets]]]:
    """Clip -> target -> the views and the snippet of that target alone; those that count."""
    m, found = task.model.margin, []
    for b in range(len(batch["video"])):
        clip = batch["video"][b]  # (3, T, H, W), of mean and std 0.5: images in [-1, 1]
        rows = []
        for t in range(m, clip.shape[1] - m):
            around = [s for s in range(t - m, t + m + 1) if s != t]
            if not batch["valid"][b, t - m : t + m + 1].all():
                continue
            views = task.model(clip[None, :, t - m : t + m + 1])
            snippets = Snippets(
                clip[None, :, t],
                clip[:, around].transpose(0, 1)[None],
                batch["intrinsics"][b : b + 1],
            )
            rows.append((views, snippets))
        found.append(rows)
    return found


def validated(task: Any, *batches: dict[str, Any], stage: str = "validate") -> dict[str, float]:
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        fast_dev_run=len(batches),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]
    (found,) = getattr(trainer, stage)(task, loader, verbose=False)
    return found


# The loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("snippet", "masks"), [(3, False), (3, True), (5, False)])
def test_the_training_loss_is_the_mean_over_whole_snippets(snippet: int, masks: bool) -> None:
    loss = ViewSynthesis(smooth_weight=0.3, mask_weight=0.4)
    task = task_of(snippet, masks, loss=loss)
    batch = padded(films(7), clip=1, count=2)
    found, logged = step(task, batch)
    rows = [loss(*target) for clip in each_target(task, batch) for target in clip]
    assert len(rows) == {3: 5 + 3, 5: 3 + 1}[snippet]
    means = {
        name: torch.stack([getattr(r, name).detach() for r in rows]).mean()
        for name in Losses._fields
    }
    torch.testing.assert_close(found.detach(), means["total"])
    assert logged.keys() == {
        "train/loss", "train/view_synthesis", "train/mask", "train/smooth", "train/geometry"
    }  # fmt: skip
    assert logged["train/loss"] == pytest.approx(found.item(), rel=1e-6)
    for name in ("view_synthesis", "mask", "smooth", "geometry"):
        assert logged[f"train/{name}"] == pytest.approx(float(means[name]), rel=1e-4, abs=1e-7)


def test_mean_and_std_are_undone() -> None:
    """However the data are normalised, views are judged in [-1, 1]."""
    batch, mean, std = films(3), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    other = copy.deepcopy(batch)
    for c in range(3):
        other["video"][:, c] = ((batch["video"][:, c] + 1) / 2 - mean[c]) / std[c]
    plain = task_of().snippets(batch)
    for a, b in zip(plain, task_of(mean=mean, std=std).snippets(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain.target, batch["video"][:, :, 1])
    jittered = {**batch, "video": 3 * batch["video"]}  # beyond black and white
    assert task_of().snippets(jittered).target.abs().max() == 1


def test_geometry_consistency_is_asked_for() -> None:
    loss = ViewSynthesis(geometry_weight=0.5)
    task = task_of(loss=loss)
    found, logged = step(task, films(4))
    assert logged["train/geometry"] > 1e-3
    assert found.item() == pytest.approx(
        logged["train/view_synthesis"]
        + 0.1 * logged["train/smooth"]
        + 0.5 * logged["train/geometry"],
        rel=1e-5,
    )


def gradients(task: Any) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in task.model.parameters()]


def test_an_unreadable_clip_changes_nothing() -> None:
    results = []
    for batch in (films(), with_unreadable(films())):
        task = task_of(masks=True, loss=ViewSynthesis(geometry_weight=0.1))
        loss, logged = step(task, batch)
        loss.backward()
        results.append((loss.detach(), logged, gradients(task)))
    (one, logged_one, grads_one), (two, logged_two, grads_two) = results
    torch.testing.assert_close(one, two)
    assert logged_one == pytest.approx(logged_two, rel=1e-5)
    for a, b in zip(grads_one, grads_two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-7)
    found = [validated(task_of(), b) for b in (films(), with_unreadable(films()))]
    assert found[0] == pytest.approx(found[1], rel=1e-5, nan_ok=True)


def test_a_batch_of_unreadable_clips_trains_nothing() -> None:
    batch = with_unreadable(films())
    for key, value in batch.items():
        batch[key] = value[2:]
    task = task_of(masks=True)
    loss, logged = step(task, batch)
    loss.backward()
    assert loss.item() == 0
    assert all(g is not None and g.eq(0).all() for g in gradients(task))
    assert set(logged.values()) == {0}
    found = validated(task_of(), films(), batch)
    assert found == pytest.approx(validated(task_of(), films()), rel=1e-6)
    # a monitor that is missing would end the training
    assert np.isnan(validated(task_of(), batch)["val/loss"])


# Metrics ------------------------------------------------------------------------------------------


def perfect(drives: list[Drive], snippet: int, factor: float = 1.0) -> Any:
    """A network that knows the truth, but not its scale."""
    m = snippet // 2
    depth = torch.cat([d.depth[m : len(d.poses) - m] for d in drives])
    vectors = torch.cat([pose_vector(motions(d.poses, snippet)) for d in drives])
    vectors[..., :3] *= factor
    net = SfMLearner(KnownDepth(depth, factor), KnownPose(vectors), snippet)
    return StructureFromMotion(net, layers=["depth"], depth_crop=None)


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize(("snippet", "snippets"), [(3, 3), (5, 3)])
@pytest.mark.parametrize("factor", [1.0, 0.4])
def test_a_network_that_knows_the_truth_makes_no_error(
    snippet: int, snippets: int, factor: float, stage: str
) -> None:
    drives = [drive(7, height=64, width=96), drive(7, height=64, width=96, tilt=0.2)]
    found = validated(perfect(drives, snippet, factor), batch_of(*drives), stage=stage)
    at = {"validate": "val", "test": "test"}[stage]
    named = perfect(drives, snippet, factor).metric_names
    assert {name.replace("test/", "val/") for name in found} <= set(named)
    for name in ("pose/ate", "pose/re", "trajectory/rmse", "depth/abs_rel", "depth/rmse_log"):
        assert found[f"{at}/{name}"] == pytest.approx(0, abs=2e-5), name
    assert found[f"{at}/pose/zero/ate"] > 0.1
    assert found[f"{at}/depth/constant/abs_rel"] > 0.02
    assert found[f"{at}/depth/a1"] == 1
    # of five frames, one network chains motions, the other knows them
    assert found[f"{at}/pose/snippets"] == 2 * snippets
    assert found[f"{at}/depth/images"] == 2 * (7 - 2 * (snippet // 2))
    assert found[f"{at}/trajectory/frames"] == 2 * (7 if snippet == 3 else 5)
    assert found[f"{at}/warp_error"] < found[f"{at}/identity_error"] / 5


def test_motion_the_other_way_round_is_an_error() -> None:
    drives = [drive(7)]
    task = perfect(drives, 3)
    task.model.pose.vectors = pose_vector(invert(pose_matrix(task.model.pose.vectors)))
    found = validated(task, batch_of(*drives))
    assert found["val/pose/re"] > 0.02
    assert found["val/warp_error"] > found["val/identity_error"]


def directly(task: Any, *batches: dict[str, Any]) -> dict[str, float]:
    """The metrics, target by target and snippet by snippet."""
    snippet, m = task.model.snippet, task.model.margin
    rows: dict[str, list[float]] = {}

    def add(name: str, value: Any) -> None:
        rows.setdefault(f"val/{name}", []).append(float(value))

    for batch in batches:
        for b, targets in enumerate(each_target(task, batch)):
            to: list[Tensor] = []  # target -> (N, 4, 4)
            for n, (views, snippets) in enumerate(targets):
                losses = task.view_synthesis(views, snippets)
                add("loss", losses.total)
                add("view_synthesis", losses.view_synthesis)
                depth = 1 / views.disparities[0][:, 0]
                steps = pose_matrix(views.poses)[0]
                apart, still, shown = 0.0, 0.0, 0
                for s, motion in enumerate(steps):
                    source = snippets.sources[:, s]
                    warp = inverse_warp(source, depth, motion[None], snippets.intrinsics)
                    valid = warp.valid
                    apart += float((snippets.target - warp.image).abs().mean(1)[valid].sum()) / 2
                    still += float((snippets.target - source).abs().mean(1)[valid].sum()) / 2
                    shown += int(valid.sum())
                add("warp_error", apart / shown)
                add("identity_error", still / shown)
                truth = torch.from_numpy(batch["depth"][b][n + m])
                for name, value in depth_errors(depth[0], truth, crop=None).items():
                    add(f"depth/{name}", value)
                to.append(steps.double())
            poses = batch["poses"][b].double()
            still_there = torch.eye(4, dtype=torch.float64)
            if snippet == 5:
                snippets = [
                    (torch.stack([s[0] @ invert(x) for x in (*s[:2], still_there, *s[2:])]), n)
                    for n, s in enumerate(to)
                ]
            else:
                # frame n's motion to the next, the first by the first target's look back
                ahead = [invert(to[0][0]), *(s[1] for s in to)] if to else []
                snippets = []
                for n in range(len(ahead) - 3):
                    camera = [still_there]
                    for motion in ahead[n : n + 4]:
                        camera.append(camera[-1] @ invert(motion))
                    snippets.append((torch.stack(camera), n))
            for predicted, n in snippets:
                ate, re = snippet_errors(predicted.double(), poses[n : n + 5])
                add("pose/ate", ate)
                add("pose/re", re)
    return {name: float(np.mean(values)) for name, values in rows.items()}


@pytest.mark.parametrize("snippet", [3, 5])
def test_metrics_equal_those_by_hand(snippet: int) -> None:
    task = task_of(snippet)
    batches = padded(films(8), clip=0, count=1), {**films(8, count=1), "sequence": ["02"]}
    with torch.no_grad():
        expected = directly(task, *batches)
    found = validated(task, *batches)
    assert expected.keys() <= found.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert found["val/pose/unscored"] == found["val/depth/unscored"] == 0


def test_targets_that_come_twice_count_once() -> None:
    """Films of one sequence overlap where its length is not a multiple of theirs."""
    whole = drive(10)
    parts = [
        Drive(whole.images[:, at], whole.depth[at], whole.poses[at], whole.intrinsics)
        for at in (slice(0, 7), slice(3, 10))
    ]
    target = torch.zeros(2, 7, dtype=torch.bool)
    target[0, 1:6] = True  # frames 1 to 5
    target[1, 3:6] = True  # frames 6 to 8
    numbers = torch.stack([torch.arange(7), torch.arange(3, 10)])
    batch = batch_of(*parts, target=target, frame_idx=numbers, sequence=["09", "09"])
    task = task_of()
    found = validated(task, batch)
    assert found["val/depth/images"] == 8
    assert found["val/pose/snippets"] == 6  # of five of ten frames, across the films
    assert found["val/trajectory/frames"] == 10
    assert found["val/trajectory/left_out"] == 0
    with torch.no_grad():
        rows = each_target(task, batch)
        once = [task.view_synthesis(*row).total for row in [*rows[0], *rows[1][2:]]]
        expected = float(torch.stack(once).mean())
    assert found["val/loss"] == pytest.approx(expected, rel=1e-5)
    free = {key: value for key, value in batch.items() if key != "target"}
    assert validated(task, free)["val/depth/images"] == 10


def test_targets_with_a_hole_between_them_are_not_joined() -> None:
    drives = [drive(12)]
    target = torch.ones(1, 12, dtype=torch.bool)
    target[0, 5] = False
    task = perfect(drives, 3)
    task.model.pose.vectors[4] = 1  # of that target
    found = validated(task, batch_of(*drives, target=target))
    assert found["val/depth/images"] == 9
    assert found["val/trajectory/frames"] == 12  # its neighbours see the motions to it and from it
    assert found["val/pose/ate"] == pytest.approx(0, abs=2e-5)
    assert found["val/trajectory/rmse"] == pytest.approx(0, abs=2e-5)


@pytest.mark.parametrize("clips", [1, 3, 6, 7, 13, 40])
def test_depth_images_are_of_clips_spread_evenly(clips: int) -> None:
    scores = task_of().val_scores
    batch = films(3, count=1)
    views = Views([torch.ones(1, 1, 32, 64)], torch.zeros(1, 2, 6), None)
    steps = pose_matrix(views.poses)
    for n in range(clips):
        named = {**batch, "clip_id": [f"{n}"]}
        scores.update(named, torch.ones(1, 1, dtype=torch.bool), views.disparities[0], steps)
    numbers = [int(e.name.split(",")[0]) for e in scores.examples]
    step = 1
    while len(range(0, clips, step)) > 6:
        step *= 2
    assert numbers == list(range(0, clips, step))
    scores.reset()
    assert scores.examples == []


def test_without_ground_truth_there_are_losses_alone() -> None:
    batch = films(5)
    bare = {key: batch[key] for key in ("video", "intrinsics", "clip_id", "frame_idx", "sequence")}
    unknown = {**batch, "poses": torch.full_like(batch["poses"], torch.nan)}
    unknown["depth"] = [np.zeros((0, 0, 0), np.float32)] * 2
    losses = {"val/loss", "val/view_synthesis", "val/warp_error", "val/identity_error"}
    known = validated(task_of(), batch)
    for without in (bare, unknown):
        found = validated(task_of(), without)
        assert found.keys() == losses
        assert found == {name: pytest.approx(known[name], rel=1e-6) for name in losses}


# Precision ----------------------------------------------------------------------------------------


def test_autocast_keeps_the_loss_in_float32() -> None:
    task = task_of(masks=True, loss=ViewSynthesis(geometry_weight=0.1))
    batch = films(4)
    snippets = task.snippets(batch)
    with torch.autocast("cpu", torch.bfloat16):
        views = task(batch["video"])
        assert views.disparities[0].dtype == torch.bfloat16
        found = task.losses(views, snippets)
    exact = Views(
        [d.float() for d in views.disparities],
        views.poses.float(),
        [m.float() for m in views.masks],
        [d.float() for d in views.source_disparities],
    )
    for a, b in zip(found, task.view_synthesis(exact, snippets), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_warps_of_the_evaluation_are_exact_under_autocast() -> None:
    """bfloat16 counts pixels to 256 in steps of one or two."""
    drives = [drive(5, height=64, width=96)]
    task, batch = perfect(drives, 3), batch_of(*drives)
    logged: dict[str, float] = {}
    task.log = lambda name, value, **_: logged.update({name: float(value)})
    for precise in (True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            task.validation_step(batch, 0)
        if precise:
            expected = dict(logged)
    assert logged == expected


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fit(tmp_path: Path, precision: Any) -> None:
    task = task_of(masks=True)
    before = {name: p.clone() for name, p in task.named_parameters()}
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=2,
        precision=precision,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
    )
    snippets = [films(3, width=WIDE), with_unreadable(films(3, width=WIDE))]
    trainer.fit(
        task,
        DataLoader(snippets, batch_size=None),  # type: ignore[arg-type]
        DataLoader([films(7, width=WIDE)], batch_size=None),  # type: ignore[arg-type]
    )
    assert trainer.global_step == 2
    for name in ("train/loss", "train/mask", "val/loss", "val/pose/ate", "val/depth/abs_rel"):
        assert trainer.callback_metrics[name].isfinite(), name
    for name, parameter in task.named_parameters():
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), name
    names = {p.name for p in (tmp_path / "odometry").iterdir()}
    assert names == {
        f"val_epoch_{epoch:03d}_{what}.png" for epoch in (0, 1) for what in ("depth", "00", "01")
    }


# Columns ------------------------------------------------------------------------------------------

NAMES = (
    "-view_synthesis_loss", "-photometric/source_0", "-photometric/source_1", "-loss",
    "pose/tx", "pose/ty", "pose/tz", "pose/rx", "pose/ry", "pose/rz", "depth/mean", "depth/box",
)  # fmt: skip


@pytest.mark.parametrize("snippet", [3, 5])
def test_columns_equal_those_by_hand(snippet: int) -> None:
    task = task_of(snippet, masks=True, box=(0.25, 0.5, 0.75, 1.0)).eval()
    batch = padded(films(7), clip=1, count=1)
    model = task.explainable(batch)
    with torch.no_grad():
        found = model.forward(batch["video"])
        expected = []
        for targets in each_target(task, batch):
            rows = []
            for views, snippets in targets:
                losses = task.view_synthesis(views, snippets)
                depth = 1 / views.disparities[0][0, 0]
                pose = views.poses[0, snippet // 2]  # of the sources, the next frame
                rows.append(
                    [
                        -losses.view_synthesis[0],
                        *(-losses.photometric[0]),
                        -losses.total[0],
                        *pose,
                        depth.mean(),
                        depth[8:24, 32:].mean(),
                    ]
                )
            expected.append(torch.tensor(rows).mean(0))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-6)
    assert found.shape[1] == len(model.outputs)
    assert model.probability is None
    if snippet == 3:
        assert model.outputs == NAMES
    both = found[:, 1:snippet].sum(1)  # over scales and sources
    torch.testing.assert_close(found[:, 0], both)
    pose = found[0, model.outputs.index("pose/tx") :][:6]
    assert pose.unique().numel() == 6


@pytest.mark.parametrize("geometry_weight", [0.0, 0.3])
def test_rows_may_be_copies_of_the_batch(geometry_weight: float) -> None:
    task = task_of(loss=ViewSynthesis(geometry_weight=geometry_weight)).eval()
    batch = padded(films(5), clip=1, count=1)
    model, clip = task.explainable(batch), batch["video"]
    with torch.no_grad():
        once = model.forward(clip)
        assert ((once[0] / once[1] - 1).abs() > 3e-5).all()  # swapped clips would show
        torch.testing.assert_close(model.forward(clip.repeat(3, 1, 1, 1, 1)), once.repeat(3, 1))
        black = torch.full_like(clip, -1)
        mixed = model.forward(torch.cat([clip, black]))
        torch.testing.assert_close(mixed[:2], once)
        torch.testing.assert_close(mixed[2:], model.forward(black))


def test_views_are_judged_by_the_batch_s_own_images() -> None:
    """Hiding everything is not a perfect synthesis of nothing."""
    drives = [drive(3)]
    task, batch = perfect(drives, 3), batch_of(*drives)
    model = task.explainable(batch)
    hidden = torch.full_like(batch["video"], -1)
    with torch.no_grad():  # this network does not look at its input at all
        assert torch.equal(model.forward(hidden), model.forward(batch["video"]))


def test_a_clip_without_a_valid_snippet_has_columns_of_zeros() -> None:
    batch = with_unreadable(films(4, count=1))
    found = task_of().explainable(batch).forward(batch["video"])
    assert found[1].eq(0).all()
    assert found[0].ne(0).all()


def test_names_resolve_and_the_loss_is_the_default() -> None:
    task, batch = task_of(), films(3)
    model = task.explainable(batch)
    assert model.default == 0
    assert [model.column(name) for name in NAMES] == list(range(12))
    assert list(model.layers)[:2] == ["depth.iconv4", "depth.iconv1"]
    assert {"pose.conv4", "pose.conv7"} <= model.layers.keys()
    clip = batch["video"]
    method = lc.RegressionGradCAM()
    plain, named = (lc.explain(model, method, clip, t) for t in (None, "-view_synthesis_loss"))
    assert plain.target.tolist() == [0, 0]
    assert not plain.outputs.argmax(1).eq(0).any()  # no argmax over losses and metres
    assert torch.equal(plain.heatmap, named.heatmap)
    with pytest.raises(UnknownNameError, match="pose/tz"):
        lc.explain(model, method, clip, "pose/tw")
    with pytest.raises(UserError, match=r"pass it to task.explainable\(batch\)"):
        lc.explain(task.explainable(), method, clip)
    chosen = task_of(layers=["pose.conv3", "depth.iconv1"]).explainable(batch)
    assert list(chosen.layers) == ["pose.conv3", "depth.iconv1"]


KINDS = [
    "-view_synthesis_loss", "-photometric/source_1", "-loss", "pose/tz", "depth/mean", "depth/box",
]  # fmt: skip
METHODS = {
    "gradcam": lc.GradCAM(),
    "gradcam pose": lc.GradCAM("pose.conv3", pool="spacetime", relu=False),
    "regression": lc.RegressionGradCAM(),
    "regression pose": lc.RegressionGradCAM("pose.conv4", pool="none", sign="pos"),
    "rise": lc.RISE(masks=6, cells=(2, 3, 3)),
    "sidu": lc.SIDU("pose.conv4", threshold="quantile:0.5"),
    "gradient": lc.Gradient(),
    "gradient x input": lc.GradientXInput(),
    "smoothgrad": lc.SmoothGrad(samples=2),
    "integrated gradients": lc.IntegratedGradients(steps=2),
    "guided backprop": lc.GuidedBackprop(),
    "occlusion": lc.Occlusion(window=(5, 16, 32), stride=(5, 16, 32)),
    "step": lc.ExtremalPerturbation(iterations=2),
    "3d": lc.ExtremalPerturbation(variant="3d", iterations=2),
    "2d": lc.ExtremalPerturbation(variant="2d", iterations=2),
}
AT_LAYERS = ("gradcam", "gradcam pose", "regression", "regression pose")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*area.*:UserWarning")  # two iterations do not find a mask
@pytest.mark.parametrize("column", KINDS)
def test_all_methods_explain_all_columns(column: str) -> None:
    task = task_of(masks=True)
    batch = padded(films(5), clip=1, count=1)
    model, clip = task.explainable(batch), batch["video"]
    for name, method in METHODS.items():
        e = lc.explain(model, method, clip, column)
        assert e.heatmap.shape == (2, 5, 32, 64), name
        assert e.heatmap.isfinite().all(), name
        assert e.heatmap[1, -1].eq(0).all(), name  # padding
        assert e.target.tolist() == [model.column(column)] * 2
        layer = getattr(method, "layer", None) or "depth.iconv4"
        if name not in AT_LAYERS:  # these look at or change the clip itself
            assert e.heatmap.any(), name
        elif column.startswith(("pose/", "depth/")) and column[:4] != layer[:4]:
            assert e.heatmap.eq(0).all(), name  # depth and motion are two networks
        else:
            assert e.heatmap.any(), name
            assert e.heatmap[:, 0].eq(0).all(), name  # the first frame is not a target
    heat = lc.explain(model, lc.RandomMap(), clip).heatmap
    with torch.no_grad():
        outputs = model.forward(clip)[:, model.column(column)]
    for measure, end in ((lc.deletion, 0), (lc.insertion, -1)):
        curve = measure(model, clip, heat, column, steps=3)
        torch.testing.assert_close(curve.score[:, end], outputs, rtol=1e-4, atol=1e-6)
        assert curve.score.isfinite().all()
        assert curve.score.std(1).gt(0).all()


def test_rise_centres_columns_that_are_no_probabilities() -> None:
    task, batch = task_of(), films(3)
    model, clip = task.explainable(batch), batch["video"]
    plain, centred, counted = (
        lc.explain(model, lc.RISE(masks=12, cells=(1, 3, 3), norm=norm), clip, "-loss").heatmap
        for norm in (None, "center", "count")
    )
    assert torch.equal(plain, centred)
    assert not torch.equal(plain, counted)


def test_black_is_what_hides() -> None:
    task, batch = task_of(), films(3)
    model, clip = task.explainable(batch), batch["video"]
    curve = lc.deletion(model, clip, torch.rand(clip[:, 0].shape), "depth/mean", steps=2)
    with torch.no_grad():
        black = model.forward(torch.full_like(clip, -1))[:, NAMES.index("depth/mean")]
    torch.testing.assert_close(curve.score[:, -1], black)


# In training --------------------------------------------------------------------------------------


class Films(Dataset):
    """One film each, which draws from the global generator, as careless data sets do."""

    def __init__(self, count: int, frames: int) -> None:
        self.count, self.frames = count, frames

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        torch.rand(1)
        film = drive(self.frames, width=WIDE, tilt=0.05 * int(index))
        return batch_of(film, clip_id=[f"clip {index}"])


def one(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return samples[0]


def fitted(folder: Path, *callbacks: Any, **more: Any) -> dict[str, Any]:
    pl.seed_everything(3, verbose=False)
    task = task_of(masks=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=2,
        callbacks=list(callbacks),
        **more,
    )
    train = DataLoader(Films(2, 3), batch_size=1, shuffle=True, collate_fn=one)
    trainer.fit(task, train, DataLoader(Films(2, 5), batch_size=1, collate_fn=one))
    return {
        **{name: p.detach().clone() for name, p in task.named_parameters()},
        **{
            f"{n}/{name}": value
            for n, state in trainer.optimizers[0].state_dict()["state"].items()
            for name, value in state.items()
        },
        **{
            name: value.clone()
            for name, value in trainer.callback_metrics.items()
            if not name.startswith("explain/")
        },
        "rng": torch.get_rng_state(),
        "modes": torch.tensor([m.training for m in task.modules()]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_explaining_leaves_training_bit_for_bit_alone(tmp_path: Path, precision: Any) -> None:
    methods = {
        "depth": lc.RegressionGradCAM(),
        "pose": lc.RegressionGradCAM("pose.conv4"),
        "rise": lc.RISE(masks=4, cells=(1, 2, 2)),
    }
    watcher = ExplainCallback(methods, clips=[1])
    without = fitted(tmp_path / "a", precision=precision)
    with_it = fitted(tmp_path / "b", watcher, precision=precision)
    assert without.keys() == with_it.keys()
    for name, value in without.items():
        assert torch.equal(value, with_it[name]), name
    files = {p.name for p in (tmp_path / "b/explain/epoch_001").iterdir()}
    assert files == {"clip_1.mp4", "clip_1.png", "clip_1.npz"}
    with np.load(tmp_path / "b/explain/epoch_001/clip_1.npz") as arrays:
        for name in methods:
            assert arrays[f"heatmap/{name}"].shape == (5, 32, WIDE)
        assert {"blank/depth", "low_gradient/pose", "pull/pose"} <= {*arrays}
        assert arrays["outputs"].shape == (12,)
        assert int(arrays["target"]) == 0


def test_what_there_is_to_see() -> None:
    """Depth, warped view and error of the truth; curves are the true motion."""
    drives = [drive(5, height=64, width=96)]
    task, batch = perfect(drives, 3), batch_of(*drives)
    extras = task.extras(batch)
    for name, panel in extras.panels.items():
        assert panel.shape == (5, 64, 96, 3), name
        assert panel.dtype == np.uint8, name
        assert len(np.unique(panel[0].reshape(-1, 3), axis=0)) == 1, name  # no target
        assert len(np.unique(panel[2].reshape(-1, 3), axis=0)) > 10, name
    assert extras.scales.keys() <= extras.panels.keys()
    truth = pose_vector(motions(drives[0].poses)[:, 1])  # (S, 6), to the next frame
    translation, rotation = extras.lines.values()
    for n, axis in enumerate("xyz"):
        for line, values in (
            (translation[f"t{axis}"], truth[:, n]),
            (rotation[f"r{axis}"], truth[:, 3 + n].rad2deg()),
        ):
            assert np.isnan(line[[0, -1]]).all()
            np.testing.assert_allclose(line[1:-1], values.numpy(), atol=1e-4)
    last = copy.deepcopy(batch)
    last["valid"][:, 4] = False  # so frame 3 is not a target
    extras_less = task.extras(last)
    for name, panel in extras_less.panels.items():
        assert np.array_equal(panel[3], panel[0]), name
        assert len(np.unique(panel[2].reshape(-1, 3), axis=0)) > 10, name
    assert np.isnan(extras_less.lines["rotation to the next frame (degrees)"]["ry"][3])
    frame = ((drives[0].images[:, 2] + 1) * 127.5).permute(1, 2, 0).numpy()  # (H, W, 3)
    view = extras.panels["next frame, warped"][2].astype(float)
    shown = (view != view[0, 0]).any(-1)
    assert shown.mean() > 0.7
    assert np.abs(view - frame)[shown].mean() < 2
    image = task.image(batch["video"][0, :, 2])
    np.testing.assert_allclose(image, frame, atol=0.51)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("metric", "lacks", "steps"),
    [
        ("val/depth/abs_rel", "depth", 0),
        ("val/trajectory/rmse", "poses", 0),
        ("val/depth/abs_rel", "poses", 1),
    ],
)
def test_an_error_without_ground_truth_is_found_before_training(
    tmp_path: Path, metric: str, lacks: str, steps: int
) -> None:
    """`monitor=` an error of depth or motion where clips have no truth: no step is made."""
    task = task_of()
    assert looks_first(task, metric) and not looks_first(task, "val/loss")
    batch = {key: value for key, value in films(5, count=1).items() if key != lacks}
    loader = DataLoader([batch], batch_size=None)  # type: ignore[arg-type,var-annotated]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, num_sanity_val_steps=-1, logger=False,
        callbacks=[BestCheckpoint(tmp_path, metric, "min")], default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    lost = pytest.raises(MetricError, match=f"no logged metric '{metric}'")
    with nullcontext() if steps else lost:
        trainer.fit(task, loader, loader)
    assert trainer.global_step == steps
    assert len(list(tmp_path.glob("*.ckpt"))) == steps


# Settings -----------------------------------------------------------------------------------------


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError, match=r"min_reprojection=true cannot go .*pose.masks=false"):
        task_of(masks=True, loss=ViewSynthesis(min_reprojection=True))
    for box in ([0.5, 0, 0.5, 1], [0, 0, 1, 1.1], [0, 0, 1], [-0.1, 0, 1, 1]):
        with pytest.raises(ConfigError, match=r"box=.*top, left, bottom, right"):
            task_of(box=box)
    with pytest.raises(UserError, match=r"depth.iconv9.*depth.iconv"):
        task_of(layers=["depth.iconv9"])
    trainer = pl.Trainer(accelerator="cpu", precision="bf16-true", logger=False, fast_dev_run=True)
    with pytest.raises(ConfigError, match=r"precision=bf16-true cannot .* use bf16-mixed"):
        loader = DataLoader([films(3)], batch_size=None)  # type: ignore[arg-type,var-annotated]
        trainer.fit(task_of(), loader, loader)
    with pytest.raises(ConfigError, match=r"set data.snippet and the network's snippet"):
        bad = SfMLearner(network(3).depth, network(3).pose)
        bad.margin, bad.snippet = 2, 5
        bad(torch.zeros(1, 3, 5, 32, 32))


# The two commands ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sfm")


@pytest.fixture(scope="module")
def checkpoint(place: Path) -> Path:
    done = command(
        "train",
        "experiment=sfm_tiny",
        f"data.root={place / 'data'}",
        "data.frames=8",
        "data.eval_length=8",
        "data.eval_frames=6",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "videos.clips=1",
        "logger=none",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "best val/loss" in done.stdout
    assert "val/pose/ate" in done.stdout
    (folder,) = (place / "runs" / "sfm_tiny").iterdir()
    names = {p.name for p in (folder / "odometry").iterdir()}
    assert names == {"val_epoch_000_depth.png", "val_epoch_000_09.png"}
    assert len(list((folder / "explain/epoch_000").glob("*.mp4"))) == 1
    return folder / "checkpoints" / "last.ckpt"


def rows_of(page: Path) -> list[dict[str, str]]:
    return read_csv(page / "scores.csv")


@pytest.mark.slow
def test_explain_a_sequence_with_ground_truth(checkpoint: Path, place: Path) -> None:
    out = place / "parts"
    done = command(
        "explain", f"ckpt={checkpoint}", "data.split=11", "clips=2", f"out={out}", cwd=place
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = rows_of(out)
    methods = {row["method"] for row in rows}
    assert methods >= {"regression_depth", "regression_pose"}
    assert len(rows) == 2 * len(methods)
    for row in rows:
        assert row["target"] == "-view_synthesis_loss"
        assert float(row["value"]) < 0
        assert 0 <= float(row["blank"]) <= 1
        assert row["low_gradient"] in ("0", "1")
        assert row["path"]
        assert row["prediction"] == row["label"] == ""
        if row["peak_frame"]:
            parts = ("flat", "moving", "rich")
            energies = [float(row[f"energy_actor_{part}"]) for part in parts]
            assert max(energies) > 0
            assert all(0 <= energy <= 1 for energy in energies)
    assert (out / "index.html").is_file()
    assert len(list(out.glob("*.mp4"))) == 2


@pytest.mark.slow
def test_explain_images_of_one_s_own(checkpoint: Path, place: Path) -> None:
    images = place / "my_drive"
    shutil.copytree(place / "data/sequences/10/image_2", images)
    call = partial(command, "explain", f"ckpt={checkpoint}", f"video={images}", cwd=place)
    refused = call()
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "data.intrinsics=[FX,FY,CX,CY]" in refused.stderr
    out = place / "own"
    done = call(
        "data.intrinsics=[125,125,103.5,31.5]", "target=pose/tz", "explain=[regression_pose,rise]",
        "explain.rise.masks=20", "measure=[deletion,insertion]", "measure.deletion.steps=4",
        f"out={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert {"regression_pose", "rise", "random", "centre"} <= {row["method"] for row in rows}
    for row in rows:
        assert row["target"] == "pose/tz"
        assert row["deletion"]
        assert not row["label"]


@pytest.mark.slow
def test_layers_of_both_networks_are_listed(checkpoint: Path, place: Path) -> None:
    done = command("explain", f"ckpt={checkpoint}", "layers=list", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not list(checkpoint.parents[1].glob("explain_*"))
    lines = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if "│" in line}
    assert "default" in lines["depth.iconv4"]
    assert "32 x 6 x 8 x 26" in lines["depth.iconv4"]
    assert "128 x 6 x 4 x 13" in lines["pose.conv4"]
    wrong = command("explain", f"ckpt={checkpoint}", "layer=pose.conv9", cwd=place)
    assert wrong.returncode == 2
    assert "pose.conv" in wrong.stderr


# What is not finite ---------------------------------------------------------------------------


@pytest.mark.attack
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("snippet", [3, 5])
@pytest.mark.parametrize("where", ["all poses", "one pose", "depth"])
def test_what_is_no_depth_or_motion_is_said_and_never_best(
    where: str, snippet: int, bad: float
) -> None:
    """Networks that predict NaN, inf and -inf for depth or motion: all of it, or one value."""
    drives = [drive(7, height=64, width=96), drive(7, height=64, width=96, tilt=0.2)]
    task = perfect(drives, snippet, 1.0)
    if where == "depth":
        task.model.depth.disparity[0, 0, 3, 4] = bad
    else:
        count = len(task.model.pose.vectors) if where == "all poses" else 1
        task.model.pose.vectors[:count, snippet // 2 :, 0] = bad
    with pytest.warns(UserWarning, match=r"^val: .*[0-9] (images have|snippets|motions).*NaN"):
        found = validated(task, batch_of(*drives))
    # What a perfect synthesis of no pixel would be, 0, chooses no checkpoint.
    for name in ("loss", "view_synthesis"):
        assert not math.isfinite(found[f"val/{name}"]), name
    kinds = ("depth",) if where == "depth" else ("pose", "trajectory")
    for kind in kinds:
        for name in ("ate", "re", "rmse", "abs_rel", "a1"):
            assert math.isnan(found.get(f"val/{kind}/{name}", math.nan)), (kind, name)
    loss, _ = step(task, batch_of(*drives))
    assert not loss.isfinite()


def test_a_target_that_does_not_count_may_be_anything() -> None:
    values = torch.tensor([1.0, math.nan, 3.0])
    assert float(_mean(values, torch.tensor([True, False, True]))) == 2
