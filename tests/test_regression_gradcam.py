"""Grad-CAM for regression: RE1-RE4 in float64, the signs, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from nets import FoldedLSTM, Gap3d, clip_of, describe
from scenes import batch_of, drive, network
from test_callbacks import Recorder
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lightning_cam as lc
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.explaining.clip_drawing import draw_clip
from lightning_cam.explaining.clip_explanations import explain_clip
from lightning_cam.explaining.clip_files import write_clip
from lightning_cam.explaining.score_tables import SCORE_COLUMNS, score_rows
from lightning_cam.files import read_csv, write_csv
from lightning_cam.tasks import StructureFromMotion, ViewSynthesis
from lightning_cam.tasks.sfm.view_synthesis import Snippets


class Regressor(nn.Module):
    """Convolutions, and a linear read-out of their mean: clip -> (B, D), one map a frame."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(6, outputs)

    def forward(self, clip: Tensor) -> Tensor:
        a = self.relu(self.conv(clip.transpose(1, 2).flatten(0, 1)))  # (B*T, D, h, w)
        return self.fc(a.unflatten(0, (len(clip), -1)).mean((1, 3, 4)))


def with_loss(
    net: nn.Module, loss: Callable[[Tensor], Tensor], layer: str = "relu", **more: Any
) -> lc.Explainable:
    """Columns are the negative loss, the loss, and the network's outputs."""

    def columns(clip: Tensor) -> Tensor:
        y = net(clip)
        of = loss(y)
        return torch.stack([-of, of, *y.unbind(1)], 1)

    return lc.Explainable.of(net, [layer], forward=columns, probability=None, **more)


@pytest.fixture
def net() -> Regressor:
    torch.manual_seed(0)
    return Regressor().double()


CLIP = clip_of(2, 3, 4, 8, 6, dtype=torch.float64)
BOTH = lc.RegressionGradCAM()


def activation(net: Regressor, clip: Tensor = CLIP) -> Tensor:
    """(B, D, T, h, w)."""
    a = net.relu(net.conv(clip.transpose(1, 2).flatten(0, 1)))
    return a.detach().unflatten(0, (len(clip), -1)).transpose(1, 2)


# RE1 to RE4 ---------------------------------------------------------------------------------------


def test_re1_square_loss_behind_average_pooling(net: Regressor) -> None:
    """L = |y - y0|^2 / 2: alpha = -W^T (y - y0) / Z."""
    truth = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    model = with_loss(net, lambda y: 0.5 * (y - truth).square().sum(1))
    e = lc.explain(model, BOTH, CLIP, 0)
    a = activation(net)
    places = a[0, 0].numel()  # T h w: one read-out of the whole clip
    left = (e.outputs[:, 2:] - truth) @ net.fc.weight  # (B, D)
    expected = torch.einsum("bd,bdthw->bthw", -left / places, a)
    torch.testing.assert_close(e.heatmap, expected.detach(), rtol=1e-12, atol=1e-15)
    assert e.heatmap.dtype == torch.float64
    gradient = (left.square().sum(1) / places).sqrt()  # alpha at each of Z places
    torch.testing.assert_close(e.numbers["gradient_norm"], gradient.detach())


def test_re1_at_the_optimum_the_map_is_zero_and_flagged(net: Regressor) -> None:
    truth = net(CLIP).detach()  # one row each: black clips have other losses
    model = with_loss(net, lambda y: 0.5 * (y - truth).square().sum(1))
    e = lc.explain(model, BOTH, CLIP, 0)
    assert e.heatmap.eq(0).all()
    assert e.numbers["gradient_norm"].eq(0).all()
    assert e.numbers["pull"].eq(0).all()
    assert e.numbers["low_gradient"].all()
    assert e.numbers["blank"].eq(1).all()


def test_re2_the_pose_network_s_last_layer() -> None:
    """alpha_k = 0.01 / Z sum_d W_dk (-dL/dpose_d), for the loss of view synthesis."""
    sfm = network().double().eval()
    film = drive(frames=4, height=40, width=160)
    clip = film.images[None]
    target, sources = sfm.snippets(clip)
    snippets = Snippets(target, sources, film.intrinsics.repeat(2, 1, 1))
    loss = ViewSynthesis()

    def columns(rows: Tensor) -> Tensor:
        return -loss(sfm(rows), snippets).total.sum()[None, None]

    model = lc.Explainable.of(
        sfm, ["pose.conv7"], forward=columns, probability=None, fold=sfm.explain_fold
    )
    with capture(sfm.pose.conv7) as calls:
        views = sfm(clip)
    poses = views.poses.detach().requires_grad_()
    (push,) = torch.autograd.grad(-loss(views._replace(poses=poses), snippets).total.sum(), poses)
    (a,) = calls  # (R, D, h, w)
    assert a.shape[2:] == (1, 2)
    weight = sfm.pose.pose.weight[:, :, 0, 0]  # (6 N, D)
    alpha = 0.01 / 2 * push.flatten(1) @ weight  # (R, D)
    maps = torch.einsum("rd,rdhw->rhw", alpha, a)
    expected = resize_heatmap(maps[None], (2, 40, 160))
    e = lc.explain(model, BOTH, clip, 0)
    torch.testing.assert_close(e.heatmap[:, 1:3], expected.detach(), rtol=1e-10, atol=1e-18)
    assert e.heatmap[:, 1:3].any()
    assert e.heatmap[:, [0, 3]].eq(0).all()
    # the same gradient anywhere: not pooling it changes nothing
    free = lc.explain(model, lc.RegressionGradCAM(pool="none"), clip, 0)
    torch.testing.assert_close(free.heatmap, e.heatmap, rtol=1e-10, atol=1e-18)


@pytest.mark.parametrize("pool", [None, "space", "spacetime"])
@pytest.mark.parametrize("kind", ["3d", "folded"])
def test_re3_of_a_class_it_is_grad_cam(kind: str, pool: Any) -> None:
    torch.manual_seed(0)
    model = describe((Gap3d() if kind == "3d" else FoldedLSTM()).double())
    clip, target = clip_of(2, 3, 4, 8, 8, dtype=torch.float64), torch.tensor([1, 3])
    plain, signed = (
        lc.explain(model, lc.GradCAM(pool=pool, relu=relu), clip, target).heatmap
        for relu in (True, False)
    )
    own = {
        sign: lc.explain(model, lc.RegressionGradCAM(pool=pool, sign=sign), clip, target).heatmap
        for sign in ("pos", "neg", "both")
    }
    assert torch.equal(own["pos"], plain)
    assert torch.equal(own["both"], signed)
    torch.testing.assert_close(own["pos"] - own["neg"], own["both"])
    # without a target as well, which is the highest logit
    methods = lc.GradCAM(pool=pool), lc.RegressionGradCAM(pool=pool, sign="pos")
    highest = [lc.explain(model, method, clip).heatmap for method in methods]
    assert torch.equal(*highest)


def test_re4_the_loss_s_sign_swaps_the_maps(net: Regressor) -> None:
    model = with_loss(net, lambda y: (y - 0.5).abs().sum(1))
    found = {
        (column, sign): lc.explain(model, lc.RegressionGradCAM(sign=sign), CLIP, column)
        for column in (0, 1)
        for sign in ("pos", "neg", "both")
    }
    heat = {key: e.heatmap for key, e in found.items()}
    assert torch.equal(heat[0, "both"], -heat[1, "both"])
    assert torch.equal(heat[0, "pos"], heat[1, "neg"])
    assert torch.equal(heat[0, "neg"], heat[1, "pos"])
    for column in (0, 1):
        assert (heat[column, "pos"] >= 0).all() and (heat[column, "neg"] >= 0).all()
        assert torch.equal(heat[column, "both"], heat[column, "pos"] - heat[column, "neg"])
    assert heat[0, "pos"].any() or heat[0, "neg"].any()
    assert found[0, "both"].numbers["pull"].equal(found[1, "both"].numbers["pull"])
    against = lc.explain(model.counterfactual(), BOTH, CLIP, 0).heatmap
    assert torch.equal(against, heat[1, "both"])


# Options ------------------------------------------------------------------------------------------


def test_signs_hold_at_a_coarse_layer_and_captions_say_them(net: Regressor) -> None:
    """The parts are taken at the layer: resized, their difference is still the signed map."""
    torch.manual_seed(1)
    net.conv = nn.Conv2d(3, 6, 3, stride=3, padding=1).double()
    net.relu = nn.Tanh()
    model = with_loss(net, lambda y: (y - 0.5).square().sum(1))
    pos, neg, both = (
        lc.explain(model, lc.RegressionGradCAM(sign=sign), CLIP, 0)
        for sign in ("pos", "neg", "both")
    )
    torch.testing.assert_close(pos.heatmap - neg.heatmap, both.heatmap, rtol=1e-12, atol=1e-15)
    overlap = (pos.heatmap > 0) & (neg.heatmap > 0)
    assert overlap.any()  # not clipped after resizing
    for e, part in ((pos, "positive part"), (neg, "negative part")):
        assert e.caption == f"Regression Grad-CAM, relu, gradient pooled over space, {part}"
        assert e.numbers.keys() == both.numbers.keys()
        assert all(torch.equal(e.numbers[n], both.numbers[n]) for n in e.numbers)
    assert both.caption == "Regression Grad-CAM, relu, gradient pooled over space"


def test_not_pooled_is_hirescam(net: Regressor) -> None:
    """sum_k g_k A_k, with a read-out by place that average pooling does not know."""
    torch.manual_seed(2)
    weight = torch.randn(4, 6, 8, 6, dtype=torch.float64)  # T, D, h, w

    def columns(clip: Tensor) -> Tensor:
        a = net.relu(net.conv(clip.transpose(1, 2).flatten(0, 1)))
        each = (a.unflatten(0, (len(clip), -1)) * weight).square()
        return -each.sum((1, 2, 3, 4))[:, None]

    model = lc.Explainable.of(net, ["relu"], forward=columns, probability=None)
    e = lc.explain(model, lc.RegressionGradCAM(pool="none"), CLIP)
    a = activation(net)
    w = weight.transpose(0, 1)
    expected = (-2 * w.square() * a * a).sum(1)
    torch.testing.assert_close(e.heatmap, expected, rtol=1e-12, atol=1e-15)
    assert e.caption == "Regression Grad-CAM, relu, gradient not pooled"
    pooled = lc.explain(model, BOTH, CLIP).heatmap
    assert not torch.allclose(pooled, expected, rtol=0.1)
    # complete: a quadratic column is half the sum of its map
    torch.testing.assert_close(e.heatmap.sum((1, 2, 3)), 2 * e.outputs[:, 0])


@pytest.mark.parametrize("method", [BOTH, lc.RegressionGradCAM(pool="none", sign="pos")])
def test_rows_do_not_mix(net: Regressor, method: Any) -> None:
    model = with_loss(net, lambda y: (y - 0.5).square().sum(1))
    whole = lc.explain(model, method, CLIP, 0)
    for b in range(2):
        alone = lc.explain(model, method, CLIP[b : b + 1], 0)
        torch.testing.assert_close(whole.heatmap[b : b + 1], alone.heatmap, rtol=1e-10, atol=0)
        for name, value in alone.numbers.items():
            assert value.shape == (1,)
            torch.testing.assert_close(whole.numbers[name][b : b + 1], value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pool": "time"}, "pool must be one of space, spacetime, none, None, got 'time'"),
        ({"sign": "negative"}, "sign must be one of pos, neg, both, got"),
        ({"low": -0.1}, "low must be a finite number, 0 or more, got -0.1"),
        ({"low": float("nan")}, "low must be a finite number, 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lc.RegressionGradCAM(**settings)


# Blank maps ---------------------------------------------------------------------------------------


def signs(values: list[list[float]], valid: Tensor | None = None) -> lc.Explainable:
    """A column sum_t s_t mean(frame t): each frame's map is the frame times its sign."""
    weights = torch.tensor(values, dtype=torch.float64)
    net = nn.Sequential(nn.Identity())

    def columns(clip: Tensor) -> Tensor:
        a = net(clip.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(clip), -1))
        return (a.mean((2, 3, 4)) * weights).sum(1)[:, None]

    model = lc.Explainable.of(net, ["0"], forward=columns, probability=None)
    return model if valid is None else lc.Explainable(**{**model.__dict__, "valid": valid})


def test_the_share_of_blank_frames_is_that_by_construction() -> None:
    clip = torch.rand(4, 2, 5, 6, 8, dtype=torch.float64) + 0.1
    clip[2, :, 1:3] = 0  # the layer does not respond
    values = [[1, 2, 3, 4, 5], [-1, 1, -1, 1, -1], [1, 1, -1, -1, 1], [-1, -1, -1, -2, -1]]
    e = lc.explain(signs(values), BOTH, clip)
    torch.testing.assert_close(
        e.numbers["blank"], torch.tensor([0, 3 / 5, 1 / 3, 1.0]), check_dtype=False
    )
    positive = lc.explain(signs(values), lc.RegressionGradCAM(sign="pos"), clip).heatmap
    dark = positive.eq(0).flatten(2).all(-1)
    assert dark.tolist()[1] == [True, False, True, False, True]
    assert dark[3].all()


def test_frames_that_are_not_asked_are_not_blank() -> None:
    """Padding, and its neighbours that are not targets, have no gradient."""
    clip = torch.rand(2, 2, 5, 6, 8, dtype=torch.float64) + 0.1
    values = [[0.0, 1, 1, 0, 0], [0, -1, 1, -1, 0]]
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[0, 4] = False
    e = lc.explain(signs(values, valid), BOTH, clip)
    torch.testing.assert_close(e.numbers["blank"], torch.tensor([0, 2 / 3]), check_dtype=False)


def test_padding_does_not_make_clips_of_depth_and_motion_blank() -> None:
    task = StructureFromMotion(network())
    whole = batch_of(drive(5))
    batch = batch_of(drive(9))
    batch["video"][:, :, 5:] = batch["video"][:, :, 4:5]
    batch["video"][:, :, :5] = whole["video"]
    batch["valid"][:, 5:] = False
    for layer in ("depth.iconv4", "depth.conv5", "pose.conv4"):
        method = lc.RegressionGradCAM(layer)
        short, long = (lc.explain(task.explainable(b), method, b["video"]) for b in (whole, batch))
        torch.testing.assert_close(long.outputs, short.outputs, rtol=1e-4, atol=1e-6)
        for name in short.numbers:
            torch.testing.assert_close(
                long.numbers[name], short.numbers[name], rtol=1e-3, atol=1e-6
            )
        assert long.heatmap[:, 5:].eq(0).all()


# Low gradients ------------------------------------------------------------------------------------


def mean_of(clip: Tensor, loss: Callable[[Tensor], Tensor], **more: Any) -> lc.Explainable:
    """A column -loss(mean of the clip), seen from a layer that is the clip."""
    net = nn.Sequential(nn.Identity())

    def columns(rows: Tensor) -> Tensor:
        a = net(rows.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(rows), -1))
        return -loss(a.mean((1, 2, 3, 4)))[:, None]

    return lc.Explainable.of(net, ["0"], forward=columns, probability=None, **more)


@pytest.mark.parametrize("apart", [0.1, 0.01, 0.002])
def test_a_square_loss_near_its_optimum_is_flagged_and_an_l1_loss_is_not(apart: float) -> None:
    """Of y = 1: sum |g A| = |y - y0| and 1; a black clip has y = 0."""
    clip = 2 * torch.rand(1, 3, 2, 4, 4, dtype=torch.float64)
    clip /= clip.mean()
    optimum = 1 + apart
    square = lc.explain(mean_of(clip, lambda y: 0.5 * (y - optimum) ** 2), BOTH, clip).numbers
    pull = apart / (0.5 * (optimum**2 - apart**2))
    assert float(square["pull"]) == pytest.approx(pull, rel=1e-9)
    assert bool(square["low_gradient"]) is (pull < 0.01)
    assert bool(square["low_gradient"]) is (apart < 0.005)
    linear = lc.explain(mean_of(clip, lambda y: (y - optimum).abs()), BOTH, clip).numbers
    assert float(linear["pull"]) == pytest.approx(1 / (optimum - apart), rel=1e-9)
    assert not linear["low_gradient"]


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_the_unit_of_a_column_does_not_matter(unit: float) -> None:
    clip = torch.rand(1, 3, 2, 4, 4, dtype=torch.float64)
    for loss in (lambda y: 0.5 * (y - 0.6) ** 2, lambda y: (y - 0.6).abs()):
        one = lc.explain(mean_of(clip, loss), BOTH, clip)
        other = lc.explain(mean_of(clip, lambda y, of=loss: unit * of(y)), BOTH, clip)
        torch.testing.assert_close(one.numbers["pull"], other.numbers["pull"])
        torch.testing.assert_close(unit * one.heatmap, other.heatmap, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("slope", "flagged"), [(1.0, False), (1e-5, True)])
def test_a_column_that_hardly_depends_on_the_clip_is_flagged(slope: float, flagged: bool) -> None:
    """slope y + 7, of y = 1: what a layer does to it is compared with a hundredth of it at least"""
    clip = torch.rand(1, 3, 2, 4, 4, dtype=torch.float64)
    clip /= clip.mean()
    numbers = lc.explain(mean_of(clip, lambda y: slope * y + 7), BOTH, clip).numbers
    pull = slope / max(slope, 0.01 * (7 + slope))
    assert float(numbers["pull"]) == pytest.approx(pull, rel=1e-6)
    assert bool(numbers["low_gradient"]) is flagged


def test_what_there_is_to_change_is_the_way_to_black() -> None:
    clip = torch.rand(1, 3, 2, 4, 4, dtype=torch.float64)
    for black in (None, (-1.0, -1.0, -1.0)):
        model = mean_of(clip, lambda y: 3 * y, black=black)
        mean = float(clip.mean())
        (pull,) = lc.explain(model, BOTH, clip).numbers["pull"]
        assert float(pull) == pytest.approx(mean / (mean - (0 if black is None else -1)), rel=1e-6)


def test_low_is_the_threshold_and_0_asks_for_nothing() -> None:
    clip = torch.rand(1, 3, 2, 4, 4, dtype=torch.float64)
    runs = []

    def loss(y: Tensor) -> Tensor:
        runs.append(len(y))
        return (y - 0.9).square()

    model = mean_of(clip, loss)
    pull = float(lc.explain(model, BOTH, clip).numbers["pull"])
    assert len(runs) == 2
    for low, flagged in ((pull * 1.01, True), (pull * 0.99, False)):
        numbers = lc.explain(model, lc.RegressionGradCAM(low=low), clip).numbers
        assert bool(numbers["low_gradient"]) is flagged
    runs.clear()
    numbers = lc.explain(model, lc.RegressionGradCAM(low=0), clip).numbers
    assert numbers.keys() == {"blank", "gradient_norm"}
    assert len(runs) == 1  # and no forward for it


def test_a_column_that_does_not_depend_on_the_layer_is_flagged() -> None:
    task = StructureFromMotion(network())
    batch = batch_of(drive(4))
    model, clip = task.explainable(batch), batch["video"]
    for layer, column in (("depth.iconv4", "pose/tz"), ("pose.conv4", "depth/box")):
        e = lc.explain(model, lc.RegressionGradCAM(layer), clip, column)
        assert e.heatmap.eq(0).all()
        assert {name: float(value) for name, value in e.numbers.items()} == {
            "blank": 1, "gradient_norm": 0, "pull": 0, "low_gradient": 1
        }  # fmt: skip
        assert e.numbers["low_gradient"].dtype == torch.bool


def test_other_methods_find_no_numbers() -> None:
    task, batch = StructureFromMotion(network()), batch_of(drive(3))
    model, clip = task.explainable(batch), batch["video"]
    assert lc.explain(model, BOTH, clip).numbers
    assert lc.explain(model, lc.GradCAM(), clip).numbers == {}
    assert model.numbers == {}  # the description stays as it was


# Where the numbers go -----------------------------------------------------------------------------


def explained(
    loss: Callable[[Tensor], Tensor], methods: dict[str, Any]
) -> tuple[lc.Explainable, dict[str, Any], dict[str, Any]]:
    clip = 1 + torch.rand(1, 3, 4, 16, 24)
    batch = {
        "video": clip,
        "valid": torch.ones(1, 4, dtype=torch.bool),
        "frame_idx": torch.arange(4)[None],
        "time_s": torch.arange(4)[None] / 8,
        "clip_id": ["a clip"],
        "path": ["a"],
        "error": [""],
    }
    model = mean_of(clip, loss, outputs=["-loss"])
    return model, batch, explain_clip(model, methods, clip)


METHODS = {"both": BOTH, "pos": lc.RegressionGradCAM(sign="pos"), "cam": lc.GradCAM()}


@pytest.mark.parametrize("low", [True, False])
def test_numbers_reach_the_files_and_doubt_the_image(tmp_path: Path, low: bool) -> None:
    def loss(y: Tensor) -> Tensor:  # rises with y: positive maps are blank
        return (y - 1.4999).square() * 1e-3 if low else y

    model, batch, found = explained(loss, METHODS)
    frames = np.zeros((4, 32, 48, 3), np.uint8)
    image = draw_clip(model, found, frames, batch, "a clip")
    captions = {name: e.caption for name, e in found.items()}
    flagged = {captions["both"] if low else captions["cam"], captions["pos"]}
    if low:
        assert float(found["both"].numbers["pull"]) < 0.01
    assert set(image.doubts) == flagged
    for why in image.doubts.values():
        low_gradient = "low gradient: the layer moves the column by 0.00"
        assert why.startswith(low_gradient if low else "the map is zero everywhere")
    assert image.value == pytest.approx(float(found["both"].outputs[0, 0]))
    assert (captions["both"] in image.signed) is bool((found["both"].heatmap < 0).any())

    files = write_clip(tmp_path, image, found, batch, fps=8)
    rows = list(score_rows(model, found, batch))
    table = write_csv(tmp_path / "scores.csv", rows, SCORE_COLUMNS)
    read = {row["method"]: row for row in read_csv(table)}
    with np.load(files.arrays) as arrays:
        for name in ("both", "pos"):
            for what, value in found[name].numbers.items():
                assert arrays[f"{what}/{name}"].shape == ()
                assert float(arrays[f"{what}/{name}"]) == pytest.approx(float(value), rel=1e-6)
                assert float(read[name][what]) == pytest.approx(float(value), rel=1e-3)
            assert float(arrays[f"low_gradient/{name}"]) == low
            assert float(read[name]["value"]) == pytest.approx(image.value, rel=1e-5)
        assert not [key for key in arrays if key.endswith("/cam") and "blank" in key]
    assert read["cam"]["blank"] == read["cam"]["low_gradient"] == ""
    assert read["both"]["prediction"] == read["both"]["label"] == ""
    assert read["both"]["target"] == "-loss"
    if not low:  # y - 0 falls with every voxel
        assert float(read["both"]["blank"]) == 1
        assert read["pos"]["peak_frame"] == ""
    assert files.sheet.is_file()


def test_both_classes_of_a_contrast_have_their_numbers(net: Regressor) -> None:
    clip = CLIP[:1].float()
    model = with_loss(net.float(), lambda y: y.square().sum(1), outputs=["-l", "l", "a", "b", "c"])
    found = lc.explain_contrast(model, BOTH, clip, "a", "b")
    for e, column in ((found, "a"), (found.against, "b")):
        alone = lc.explain(model, BOTH, clip, column)
        for name, value in alone.numbers.items():
            torch.testing.assert_close(e.numbers[name], value)


def test_the_callback_logs_the_means_of_the_numbers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = StructureFromMotion(network(), depth_crop=None)
    films = [batch_of(drive(5, tilt=0.1 * n), clip_id=[f"clip {n}"]) for n in range(3)]
    recorder = Recorder()
    methods = {"depth": lc.RegressionGradCAM(), "pose": lc.RegressionGradCAM("pose.conv4", low=0)}
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=recorder,
        default_root_dir=tmp_path,
        callbacks=[ExplainCallback(methods, clips=[0, 2])],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
        limit_train_batches=1,
    )
    loader = DataLoader(films, batch_size=1, collate_fn=lambda samples: samples[0])  # type: ignore[arg-type,var-annotated]
    trainer.fit(task, loader, loader)
    (logged,) = [m for m, _ in recorder.metrics if "explain/depth/blank" in m]
    found = []
    for n in (0, 2):  # the weights are those of the end
        model, clip = task.explainable(films[n]), films[n]["video"]
        found.append({name: lc.explain(model, m, clip).numbers for name, m in methods.items()})
    names = {"depth": ("blank", "gradient_norm", "pull", "low_gradient")}
    names["pose"] = ("blank", "gradient_norm")
    assert {key for key in logged if key.startswith("explain/")} == {
        f"explain/{method}/{what}" for method, these in names.items() for what in these
    }
    for method, these in names.items():
        for what in these:
            mean = np.mean([float(each[method][what]) for each in found])
            assert logged[f"explain/{method}/{what}"] == pytest.approx(mean, rel=1e-4)
