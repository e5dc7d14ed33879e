"""HiResCAM, Layer-CAM, XGrad-CAM, Grad-CAM++: answers on paper, and those of other libraries."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from captum.attr import LayerGradientXActivation
from nets import FoldedLSTM, Gap3d, LoopedLSTM, clip_of, describe
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.gradcam import GradientCAM, LayerMap, in_time, weighted_sum
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.tensors import resize_heatmap

SHAPE = (2, 3, 4, 8, 6)
TARGET = torch.tensor([1, 3])
FAMILY = [lc.HiResCAM, lc.LayerCAM, lc.XGradCAM, lc.GradCAMPlusPlus]
each_method = pytest.mark.parametrize("method", FAMILY)


def net_of(flatten: int = 0) -> Gap3d:
    torch.manual_seed(0)
    return Gap3d(flatten=flatten).double().eval()


def clip() -> Tensor:
    return clip_of(*SHAPE, dtype=torch.float64)


def features(net: Gap3d, layer: str = "layer") -> Tensor:
    with torch.no_grad(), capture(net.get_submodule(layer)) as calls:
        net(clip())
    return calls[0]


def heat(method: lc.Attribution, model: lc.Explainable, target: Any = TARGET) -> Tensor:
    return lc.explain(model, method, clip(), target).heatmap


def resized(weights: Tensor, maps: Tensor) -> Tensor:
    """The map of channel weights (B, D), before a ReLU, at the clip's size."""
    return resize_heatmap(torch.einsum("bd,bdthw->bthw", weights, maps), SHAPE[2:]).detach()


# behind average pooling and a linear head -------------------------------------------------------


def test_hirescam_and_xgradcam_are_gradcam_behind_average_pooling() -> None:
    model = describe(net_of())
    expected = heat(lc.GradCAM(relu=False), model)
    for method in (lc.HiResCAM(relu=False), lc.XGradCAM(relu=False)):
        torch.testing.assert_close(heat(method, model), expected, rtol=1e-10, atol=1e-14)
    assert (expected < 0).any() and (expected > 0).any()


def test_layercam_and_gradcam_plus_plus_have_their_closed_forms_behind_average_pooling() -> None:
    net = net_of()
    maps, weights = features(net), net.fc.weight[TARGET]
    layercam = resized(weights.relu() / maps[0, 0].numel(), maps)
    torch.testing.assert_close(heat(lc.LayerCAM(), describe(net)), layercam)
    plus = resized(weights.relu() / (2 + weights * maps.mean((2, 3, 4))), maps)
    torch.testing.assert_close(heat(lc.GradCAMPlusPlus(), describe(net)), plus)


@pytest.mark.parametrize("flatten", [0, 6 * 4 * 4 * 3])
def test_hirescam_sums_to_the_column_less_its_bias(flatten: int) -> None:
    net = net_of(flatten)
    signed = heat(lc.HiResCAM(relu=False), describe(net))
    with torch.no_grad():
        expected = net(clip()).gather(1, TARGET[:, None])[:, 0] - net.fc.bias[TARGET]
    # Every number of the map has become four pixels.
    torch.testing.assert_close(signed.sum((1, 2, 3)) / 4, expected)


def test_poolings_of_a_flatten_head_differ() -> None:
    model = describe(net_of(6 * 4 * 4 * 3))
    for method in (lc.XGradCAM, lc.GradCAMPlusPlus):
        space, both = (heat(method(pool=p), model) for p in ("space", "spacetime"))
        assert not torch.allclose(space, both, rtol=1e-3)
        assert torch.equal(heat(method(), model), both)


# where formulas have no answer ------------------------------------------------------------------


def test_a_meaningless_weight_of_gradcam_plus_plus_is_0_and_does_not_change_its_sign() -> None:
    """Before the ReLU features are negative; 2 + W mean A is 0 or below for two channels."""
    net = net_of()
    maps = features(net, "conv")
    mean = maps.mean((2, 3, 4))[0]
    weights = torch.tensor([3.0, 1, 5, 4, -1, -2], dtype=torch.float64) / mean.abs()
    weights[0] = 2 / mean[0].abs()  # exactly 0, where the mean is negative
    net = Linear(weights)
    below = 2 + weights * mean
    assert (below[:4] < 1e-9).any() and (below[:4] > 0).any()
    model = lc.Explainable.of(Shown(net, maps[:1]), ["layer"])
    e = lc.explain(model, lc.GradCAMPlusPlus(relu=False), clip()[:1], 0)
    expected = torch.where(below > 1e-6, weights.relu() / below, 0)
    assert (expected >= 0).all()
    torch.testing.assert_close(e.heatmap, resized(expected[None], maps[:1]))


class Linear(nn.Module):
    """One column: given weights of the channels' means."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, maps: Tensor) -> Tensor:
        return (maps.mean((2, 3, 4)) @ self.weights)[:, None]


class Shown(nn.Module):
    """Hands given features to a head, whatever the clip."""

    def __init__(self, head: nn.Module, maps: Tensor) -> None:
        super().__init__()
        self.layer, self.head, self.maps = nn.Identity(), head, maps

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.layer(self.maps.expand(len(clip), -1, -1, -1, -1)))


@each_method
@pytest.mark.parametrize("kind", ["dead", "cancelling"])
def test_a_channel_that_is_0_or_cancels_out_leaves_the_map_finite(
    kind: str, method: type[GradientCAM]
) -> None:
    maps = clip_of(1, 6, 4, 4, 3, dtype=torch.float64).relu()
    maps[:, 2] = 0
    if kind == "cancelling":
        maps[:, 2, :2] = 0.1 + torch.rand(2, 4, 3, dtype=torch.float64)
        maps[:, 2, 2:] = -maps[:, 2, :2]
    weights = torch.ones(6, dtype=torch.float64)
    model = lc.Explainable.of(Shown(Linear(weights), maps), ["layer"])
    found = lc.explain(model, method(relu=False), clip()[:1], 0).heatmap
    assert found.isfinite().all() and found.any()
    if method is lc.XGradCAM:
        weights = weights / maps[0, 0].numel()
        weights[2] = 0
        torch.testing.assert_close(found, resized(weights[None], maps))


@each_method
def test_what_lowers_the_column_is_asked_for_by_its_counterfactual(
    method: type[GradientCAM],
) -> None:
    net = net_of(6 * 4 * 4 * 3)
    model = describe(net)
    a, b = (heat(method(relu=False), m) for m in (model, model.counterfactual()))
    signed = method in (lc.HiResCAM, lc.XGradCAM)
    assert torch.allclose(a, -b) is signed
    if method is lc.LayerCAM:
        torch.testing.assert_close(a - b, heat(lc.HiResCAM(relu=False), model))


# padding, recurrent networks --------------------------------------------------------------------


@pytest.mark.parametrize("method", [lc.XGradCAM, lc.GradCAMPlusPlus])
def test_padded_steps_do_not_count(method: type[GradientCAM]) -> None:
    """The same weights as if the clip ended with its last valid frame."""
    maps = clip_of(2, 6, 4, 4, 3, dtype=torch.float64).relu()
    weights = clip_of(6, dtype=torch.float64)
    valid = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])

    class Valid(Shown):
        def forward(self, clip: Tensor) -> Tensor:
            kept = self.layer(self.maps) * valid[:, None, :, None, None]
            return (kept.sum((2, 3, 4)) / valid.sum(1)[:, None] @ weights)[:, None]

    model = replace(lc.Explainable.of(Valid(nn.Identity(), maps), ["layer"]), valid=valid)
    whole = lc.explain(model, method("layer", "spacetime", relu=False), clip(), 0).heatmap
    cut = lc.Explainable.of(Shown(Linear(12 * weights), maps[1:, :, :2]), ["layer"])
    short = lc.explain(cut, method("layer", "spacetime", relu=False), clip()[1:, :, :2], 0).heatmap
    scale = whole[1, 0].norm() / short[0, 0].norm()  # Z of the two means differs
    torch.testing.assert_close(whole[1, :2], scale * short[0])
    assert (whole[1, 2:] == 0).all()


@each_method
def test_frames_one_by_one_are_frames_in_the_batch(method: type[GradientCAM]) -> None:
    torch.manual_seed(0)
    folded = FoldedLSTM().double().eval()
    expected = heat(method(relu=False), describe(folded, "trunk.conv"))
    found = heat(method(relu=False), describe(LoopedLSTM(folded), "conv"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)
    assert expected.any()


# other libraries --------------------------------------------------------------------------------


class Deep(nn.Module):
    """Two 3-D convolutions at the clip's size, so that nothing is resized, and a nonlinear tail."""

    def __init__(self, scale: float = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv3d(3, 5, 3, padding=1), nn.Softplus())
        self.second = nn.Conv3d(5, 4, 3, padding=1)
        self.fc = nn.Linear(4, 4)
        self.scale = scale

    def forward(self, clip: Tensor) -> Tensor:
        return self.scale * self.fc(self.second(self.layer(clip)).relu().mean((2, 3, 4)))


def deep(scale: float = 1) -> Deep:
    torch.manual_seed(0)
    return Deep(scale).eval()


def alike(found: Tensor, expected: Tensor) -> bool:
    """After division of each clip's map by its highest value."""
    found, expected = (
        x.double() / x.flatten(1).amax(1)[:, None, None, None] for x in (found, expected)
    )
    return torch.allclose(found, expected, rtol=0, atol=1e-4)


def test_hirescam_equals_captum() -> None:
    net, shown = deep(), clip().float()
    theirs = LayerGradientXActivation(net, net.layer).attribute(shown, TARGET).sum(1)
    ours = lc.explain(describe(net, "layer"), lc.HiResCAM(relu=False), shown, TARGET).heatmap
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-9)


class Cubes(GradientCAM):
    """What torchcam 0.5 makes of Grad-CAM++: w_k = sum_q g_q^2 relu(g_q).

    It divides a copy of g^2 (an indexed tensor, in place), so that its a_q stays g_q^2.
    """

    relu, layer = True, None

    def signed(self, model: lc.Explainable, found: LayerMap) -> Tensor:
        weights = found.gradient.relu().pow(3).sum((3, 4)).sum(2, keepdim=True)
        return weighted_sum(found.activation, weights.expand(-1, -1, found.activation.shape[2]))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="torchcam needs Python 3.11")
@pytest.mark.parametrize(
    ("method", "name"),
    [(lc.LayerCAM, "LayerCAM"), (lc.XGradCAM, "XGradCAM"), (Cubes, "GradCAMpp")],
)
def test_equals_torchcam(method: type[GradientCAM], name: str) -> None:
    import torchcam.methods

    net, shown = deep(1e3), clip().float()
    model = describe(net, "layer")
    with getattr(torchcam.methods, name)(net, "layer") as extractor:
        [theirs] = extractor(TARGET.tolist(), net(shown), normalized=False)
    found = lc.explain(model, method(), shown, TARGET).heatmap
    assert alike(found, theirs.relu().detach())
    others = {m: lc.explain(model, m(), shown, TARGET).heatmap for m in FAMILY if m is not method}
    assert not any(alike(other, theirs.relu().detach()) for other in others.values())


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (lc.HiResCAM, "HiResCAM"),
        (lc.LayerCAM, "LayerCAM"),
        (lc.XGradCAM, "XGradCAM"),
        (lc.GradCAMPlusPlus, "GradCAMPlusPlus"),
    ],
)
def test_equals_pytorch_grad_cam(method: type[GradientCAM], name: str) -> None:
    """Of Grad-CAM++ where its 1e-6 is small beside g^2, which it is not of a mean over a clip."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def both(net: Deep) -> tuple[Tensor, Tensor]:
        shown = clip().float()
        extractor = getattr(pytorch_grad_cam, name)(net, [net.layer])
        targets = [ClassifierOutputTarget(int(t)) for t in TARGET]
        theirs = torch.from_numpy(extractor(shown, targets))
        ours = lc.explain(describe(net, "layer"), method(), shown, TARGET).heatmap
        return ours - ours.amin((1, 2, 3), keepdim=True), theirs

    assert alike(*both(deep(1e4)))
    assert alike(*both(deep())) is (method is not lc.GradCAMPlusPlus)


def test_at_early_layers_each_is_a_map_of_its_own() -> None:
    model = describe(deep(), "layer")
    shown = clip().float()
    maps = [lc.explain(model, m(), shown, TARGET).heatmap for m in (lc.GradCAM, *FAMILY)]
    for i, one in enumerate(maps):
        assert not any(alike(one, other) for other in maps[:i])


def test_in_time_gives_one_map_of_frames_one_by_one() -> None:
    model = describe(net_of())
    calls = [clip_of(2, 5, 3, 3, seed=i) for i in range(4)]
    assert torch.equal(in_time(model, calls, 2), torch.stack(calls, 2))
