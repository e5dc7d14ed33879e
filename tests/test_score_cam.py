"""Score-CAM, CAM, guided Grad-CAM and the published Grad-CAM of Bayer et al.: their formulas."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import captum.attr
import pytest
import torch
from nets import FoldedLSTM, Gap3d, LoopedLSTM, clip_of, describe
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.errors import UserError
from lightning_cam.models import ResNet3D
from lightning_cam.tasks import VideoClassification

BLACK = [-0.5, 0.3, -1.0]
SHAPE = (2, 3, 4, 8, 6)
TARGET = torch.tensor([1, 3])


def net3d() -> Gap3d:
    torch.manual_seed(0)
    net = Gap3d().eval()
    with torch.no_grad():
        net.fc.weight *= 5  # answers that differ
        for values in (net.conv.weight, net.conv.bias, net.norm.weight, net.norm.bias):
            values[4] = values[2]  # equal channels make equal masks
        net.norm.weight[3] = net.norm.bias[3] = 0  # a dead channel
    return net


def features(net: Gap3d, clip: Tensor) -> Tensor:
    with torch.no_grad():
        return net.relu(net.norm(net.conv(clip)))


def heat(method: lc.Attribution, model: lc.Explainable, target: Any = TARGET) -> Tensor:
    return lc.explain(model, method, clip_of(*SHAPE), target).heatmap


# Score-CAM --------------------------------------------------------------------------------------


def formula(net: nn.Module, maps: Tensor, clip: Tensor, c: int, method: lc.ScoreCAM) -> Tensor:
    """Every channel of `(D, t, h, w)` that varies a mask of its own, run by itself."""
    black = torch.tensor(BLACK).view(-1, 1, 1, 1)
    maps = torch.stack([a for a in maps if a.max() > a.min()])

    def score(shown: Tensor) -> Tensor:
        with torch.no_grad():
            y = net(shown)[0]
        return y[c] if method.raw else y.softmax(0)[c]

    scores = []
    for a in maps:
        m = resize_heatmap(a[None], clip.shape[2:])[0]
        m = (m - m.min()) / (m.max() - m.min())
        scores.append(score(clip * m + black * (1 - m)) - score(black.expand_as(clip[0])[None]))
    w = torch.stack(scores)
    w = w.softmax(0) if method.weights == "softmax" else w
    return resize_heatmap((w[:, None, None, None] * maps).sum(0)[None], clip.shape[2:])[0]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("weights", ["softmax", "score"])
def test_score_cam_is_its_formula(weights: Any, raw: bool) -> None:
    net, clip = net3d(), clip_of(*SHAPE)
    method = lc.ScoreCAM(weights=weights, raw=raw, relu=False)
    found = heat(method, describe(net, black=BLACK))
    for i in range(2):
        maps = features(net, clip[i : i + 1])[0]
        expected = formula(net, maps, clip[i : i + 1], int(TARGET[i]), method)
        assert expected.any()
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-6)
    default = lc.ScoreCAM(raw=raw, relu=False)
    same = torch.equal(heat(default, describe(net, black=BLACK)), found)
    assert same is (weights == "softmax")  # of a classifier; of other columns the score
    same = torch.equal(heat(default, describe(net, black=BLACK, probability=None)), found)
    assert same is (weights == "score" and raw)


def test_score_cam_of_frames_one_by_one() -> None:
    torch.manual_seed(0)
    folded = FoldedLSTM().eval()
    looped = describe(LoopedLSTM(folded), "relu", black=BLACK)
    method = lc.ScoreCAM(weights="score")
    expected = heat(method, describe(folded, black=BLACK))
    torch.testing.assert_close(heat(method, looped), expected, rtol=1e-4, atol=1e-6)


class Counted(nn.Module):
    """Counts the rows that the network sees."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.rows = net, 0

    def forward(self, clip: Tensor) -> Tensor:
        self.rows += len(clip)
        return self.net(clip)


@pytest.mark.parametrize(("weights", "rows"), [("softmax", 5), ("score", 6)])
def test_score_cam_leaves_out_dead_channels_and_runs_equal_ones_once(
    weights: Any, rows: int
) -> None:
    net = Counted(net3d())  # 6 channels: one dead, two alike
    model = lc.Explainable.of(net, ["net.layer"])
    lc.explain(model, lc.ScoreCAM(weights=weights), clip_of(1, *SHAPE[1:]), 1)
    assert net.rows == rows


@pytest.mark.attack
def test_score_cam_of_a_layer_that_marks_nothing_is_0_and_says_so() -> None:
    """A layer whose channels are the same everywhere, so that no mask hides or shows anything."""
    net = net3d()
    with torch.no_grad():
        net.norm.weight.zero_()
    with pytest.warns(UserWarning, match="every channel of layer 'layer' is the same everywhere"):
        assert not heat(lc.ScoreCAM(), describe(net)).any()
    with pytest.raises(ValueError, match="weights must be one of softmax, score, None, got"):
        lc.ScoreCAM(weights="max")  # type: ignore[arg-type]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="torchcam needs Python 3.11")
def test_score_cam_equals_torchcam() -> None:
    """At a layer of the clip's size: torchcam stretches masks before it resizes them.

    It counts channels that are the same everywhere; there are none here.
    """
    import torchcam.methods

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 5, 3, padding=1), nn.Softplus(), Head(5)).eval()
    clip = clip_of(*SHAPE)
    with torchcam.methods.ScoreCAM(net, "1", input_shape=SHAPE[1:]) as extractor:
        [theirs] = extractor(TARGET.tolist(), net(clip), normalized=False)
    ours = lc.explain(lc.Explainable.of(net, ["1"]), lc.ScoreCAM(), clip, TARGET).heatmap
    torch.testing.assert_close(ours, theirs.relu().detach(), rtol=1e-4, atol=1e-6)


class Head(nn.Module):
    def __init__(self, channels: int, outputs: int = 4) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        return 20 * self.fc(maps.tanh().mean((2, 3, 4)))


# CAM --------------------------------------------------------------------------------------------


class Pointwise(nn.Module):
    """Ends in a 1 x 1 x 1 convolution, and then the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(6, 4)  # of the right size, and never run
        self.conv = nn.Conv3d(3, 6, 3, padding=1)
        self.head = nn.Conv3d(6, 4, 1)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.conv(clip)).mean((2, 3, 4))


class Frames(nn.Module):
    """Every frame by itself; the mean over frames of its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4, bias=False)

    def forward(self, clip: Tensor) -> Tensor:
        maps = self.conv(clip.transpose(1, 2).flatten(0, 1))
        return self.fc(maps.mean((2, 3))).unflatten(0, (len(clip), -1)).mean(1)


def cases() -> dict[str, tuple[lc.Explainable, nn.Module, Callable[[], Tensor]]]:
    torch.manual_seed(0)
    gap, pointwise, frames = Gap3d().eval(), Pointwise().eval(), Frames().eval()
    clip = clip_of(*SHAPE)
    return {
        "linear": (describe(gap), gap.fc, lambda: features(gap, clip)),
        "pointwise": (describe(pointwise, "conv"), pointwise.head, lambda: pointwise.conv(clip)),
        "frames": (
            describe(frames, "conv"),
            frames.fc,
            lambda: torch.stack([frames.conv(x) for x in clip.unbind(2)], 2),
        ),
    }


@pytest.mark.parametrize("name", ["linear", "pointwise", "frames"])
def test_cam_is_the_classifiers_weights_on_the_features(name: str) -> None:
    model, head, maps = cases()[name]
    weights = head.weight.flatten(1)[TARGET]  # type: ignore[operator,union-attr]
    expected = resize_heatmap(torch.einsum("bd,bdthw->bthw", weights, maps()), SHAPE[2:]).detach()
    found = heat(lc.CAM(relu=False), model)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(heat(lc.CAM(), model), heat_of_relu(weights, maps()))
    # HiResCAM is CAM over the number of places, and so is Grad-CAM.
    places = maps()[0, 0].numel()
    torch.testing.assert_close(found / places, heat(lc.HiResCAM(relu=False), model))


def heat_of_relu(weights: Tensor, maps: Tensor) -> Tensor:
    signed = torch.einsum("bd,bdthw->bthw", weights, maps)
    return resize_heatmap(signed.relu(), SHAPE[2:]).detach()


def test_cam_of_a_contrast_is_that_of_the_weights_difference() -> None:
    model = describe(net3d(), outputs=["a", "b", "c", "d"])
    a, b = (heat(lc.CAM(relu=False), model, name) for name in "ab")
    torch.testing.assert_close(heat(lc.CAM(relu=False), model.contrast("b"), "a"), a - b)


def test_cam_of_padded_clips_weighs_steps_as_the_network_does() -> None:
    torch.manual_seed(0)
    net = ResNet3D(4, "r3d_small").eval()
    valid = torch.arange(8) < torch.tensor([[5], [8]])
    model = VideoClassification(net, ["a", "b", "c", "d"]).eval().explainable({"valid": valid})
    clip = clip_of(2, 3, 8, 32, 32)
    found = lc.explain(model, lc.CAM(), clip, 1).heatmap
    plain = lc.explain(replace(model, valid=None, forward=net), lc.CAM(), clip, 1).heatmap
    torch.testing.assert_close(found[1], plain[1])
    torch.testing.assert_close(found[0, :5], plain[0, :5])
    assert not found[0, 5:].any()


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore:.*not finite")
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "nan"])
def test_cam_knows_its_head_by_rounded_outputs_and_by_those_of_a_broken_network(kind: str) -> None:
    """Networks in half precision or with a weight of NaN: their outputs are not W mean(A) + b."""
    net = net3d()
    if kind == "nan":
        with torch.no_grad():
            net.fc.weight[0, 0] = torch.nan
    else:
        net = net.to(getattr(torch, kind))
    found, plain = (lc.explain(describe(n), lc.CAM(), clip_of(*SHAPE), 1) for n in (net, net3d()))
    torch.testing.assert_close(found.heatmap, plain.heatmap, rtol=0.05, atol=0.05)
    assert all(found.doubts) is (kind == "nan")


@pytest.mark.attack
@pytest.mark.parametrize(
    "kind", ["recurrent", "flattened", "nonlinear", "early", "biased", "softmax"]
)
def test_cam_is_refused_where_the_head_is_another(kind: str) -> None:
    """CAM of networks whose linear layer has the right size, and does something else."""
    torch.manual_seed(0)
    layer = "layer"
    if kind == "recurrent":
        net: nn.Module = FoldedLSTM()
        layer = "trunk"
    elif kind == "flattened":
        net = Gap3d(flatten=6 * 4 * 4 * 3)
    elif kind == "nonlinear":
        net, layer = nn.Sequential(nn.Conv3d(3, 6, 1), Head(6)), "0"
    elif kind in ("early", "biased"):
        net, layer = Gap3d(), "norm"  # before the ReLU
        with torch.no_grad():
            net.fc.bias += 1e4 * (kind == "biased")
    else:
        net, layer = nn.Sequential(Gap3d(), nn.Softmax(1)), "0.layer"
    model = lc.Explainable.of(net, [layer])
    with pytest.raises(UserError, match=r"none of .* makes the outputs of these means; choose"):
        heat(lc.CAM(), model)


# guided Grad-CAM --------------------------------------------------------------------------------


class Relus(nn.Module):
    """With a module for each ReLU, as captum needs it, and a layer of the clip's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv3d(3, 5, 3, padding=1), nn.ReLU()
        self.second, self.last = nn.Conv3d(5, 4, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(4, 4)

    def forward(self, clip: Tensor) -> Tensor:
        return self.fc(self.last(self.second(self.relu(self.conv(clip)))).mean((2, 3, 4)))


@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks on ReLU")
def test_guided_gradcam_is_the_product_and_equals_captum() -> None:
    torch.manual_seed(0)
    net, clip = Relus().eval(), clip_of(*SHAPE)
    model = lc.Explainable.of(net, ["relu"])
    found = heat(lc.GuidedGradCAM(reduce="sum"), model)
    parts = [heat(method, model) for method in (lc.GuidedBackprop("sum"), lc.GradCAM())]
    torch.testing.assert_close(found, parts[0] * parts[1])
    theirs = (
        captum.attr.GuidedGradCam(net, net.relu).attribute(clip.requires_grad_(), TARGET).sum(1)
    )
    torch.testing.assert_close(found, theirs.detach(), rtol=1e-4, atol=1e-9)
    assert not torch.equal(found, heat(lc.GuidedGradCAM(), model))


# the published Grad-CAM -------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["layer", "conv"])
def test_bayer2022_takes_the_positive_part_of_each_channel(layer: str) -> None:
    """Every channel resized by itself with aligned corners; weights are sums of the gradient."""
    net, clip = net3d(), clip_of(*SHAPE)
    leaf = next(m for n, m in net.named_modules() if n == layer)
    kept: list[Tensor] = []
    with leaf.register_forward_hook(lambda _m, _i, out: kept.append(out) or out.clone()):
        y = net(clip)
    (gradient,) = torch.autograd.grad(y.gather(1, TARGET[:, None]).sum(), kept)
    expected = torch.zeros(2, *SHAPE[2:])
    for k in range(6):
        weight = gradient[:, k].sum((1, 2, 3))[:, None, None, None]
        channel = (weight * kept[0][:, k])[:, None]
        large = F.interpolate(channel, SHAPE[2:], mode="trilinear", align_corners=True)
        expected += large[:, 0].relu()
    found = heat(lc.GradCAM.bayer2022(layer), describe(net))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, heat(lc.GradCAM(layer), describe(net)), rtol=0.1)


def test_bayer2022_is_layercam_with_other_corners_behind_average_pooling() -> None:
    """Times the number of places, whose sum the weights are."""
    net = net3d()
    model = describe(net)
    maps, weights = features(net, clip_of(*SHAPE)), net.fc.weight[TARGET].relu()
    layercam = torch.einsum("bd,bdthw->bthw", weights, maps)[:, None]
    expected = F.interpolate(layercam, SHAPE[2:], mode="trilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(heat(lc.GradCAM.bayer2022(), model), expected.detach())
    signed = heat(lc.GradCAM(published=True, relu=False), model)
    assert (signed < 0).any()
