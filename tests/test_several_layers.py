"""Grad-CAM and its relatives at several layers: signed maps resized, summed, then the ReLU."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from nets import clip_of
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution.gradcam import GradientCAM
from lightning_cam.commands.search import composed
from lightning_cam.errors import ArgumentError, UnknownNameError, UserError
from lightning_cam.explaining.clip_explanations import check_once
from lightning_cam.training.build import build

METHODS = {
    "GradCAM": lc.GradCAM(),
    "by frames": lc.GradCAM(pool="space"),
    "published": lc.GradCAM.bayer2022(),
    "HiResCAM": lc.HiResCAM(),
    "LayerCAM": lc.LayerCAM(),
    "XGradCAM": lc.XGradCAM(),
    "GradCAM++": lc.GradCAMPlusPlus(),
}


class Paths(nn.Module):
    """A slow path that sees every other frame, a fast one, and what both have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = nn.Conv3d(3, 6, 3, 2, 1), nn.Conv3d(3, 4, 3, padding=1)
        self.late = nn.Conv3d(6, 5, 3, (1, 2, 2), 1)
        self.frames, self.unused = nn.Conv2d(3, 3, 3, 2, 1), nn.Conv3d(3, 2, 1)
        self.fc = nn.Linear(12, 3)

    def forward(self, clip: Tensor) -> Tensor:
        self.unused(clip)
        late = self.late(self.slow(clip[:, :, ::2]).relu()).relu_()
        by_frames = self.frames(clip.transpose(1, 2).flatten(0, 1)).relu().mean((2, 3))
        seen = [late.mean((2, 3, 4)), self.fast(clip).relu().square().mean((2, 3, 4))]
        return self.fc(torch.cat([*seen, by_frames.unflatten(0, (len(clip), -1)).mean(1)], 1))


@pytest.fixture
def net() -> Paths:
    torch.manual_seed(0)
    return Paths().eval()


def clips() -> Tensor:
    return clip_of(2, 3, 8, 12, 10)


def _keep(kept: list[Tensor], _module: nn.Module, _inputs: Any, output: Tensor) -> None:
    kept.append(output)


def by_hand(net: Paths, names: list[str]) -> Tensor:
    """Each layer with a forward and a backward of its own."""
    total = torch.zeros(2, 8, 12, 10)
    for name in names:
        kept: list[Tensor] = []
        hook = net.get_submodule(name).register_forward_hook(partial(_keep, kept))
        score = net(clips())[:, 1].sum()
        hook.remove()
        alpha = torch.autograd.grad(score, kept)[0].mean((2, 3, 4), keepdim=True)
        signed = (alpha * kept[0]).sum(1, keepdim=True)
        total += F.interpolate(signed, total.shape[1:], mode="trilinear")[:, 0].detach()
    return total.relu()


@pytest.mark.attack
def test_two_paths_of_different_sizes_are_summed_as_by_hand(net: Paths) -> None:
    """A slow and a fast pathway at once, of different lengths, sizes and channels."""
    model = lc.Explainable.of(net)
    e = lc.explain(model, lc.GradCAM(["slow", "fast"], "spacetime"), clips(), 1)
    torch.testing.assert_close(e.heatmap, by_hand(net, ["slow", "fast"]))
    assert e.caption == "Grad-CAM, slow + fast, gradient pooled over spacetime"
    assert e.native is None  # of two grids none is the map's


@pytest.mark.attack
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("layers", [("slow", "fast"), ("slow", "late"), ("late", "frames", "fast")])
def test_every_relative_sums_its_signed_maps(net: Paths, name: str, layers: Any) -> None:
    """Layers side by side, one behind the other, and one of frames beside 3-D ones."""
    model, method = lc.Explainable.of(net), METHODS[name]
    signed = method if method is METHODS["published"] else replace(method, relu=False)
    alone = [lc.explain(model, signed.at(layer), clips(), 2).heatmap for layer in layers]
    found = lc.explain(model, replace(method, layer=layers), clips(), 2)
    torch.testing.assert_close(found.heatmap, sum(alone).relu(), rtol=1e-4, atol=1e-7)
    assert found.heatmap.any() and " + ".join(layers) in found.caption
    both = lc.explain(model, replace(signed, layer=layers), clips(), 2)
    torch.testing.assert_close(both.heatmap, sum(alone), rtol=1e-4, atol=1e-7)
    one = lc.explain(model, replace(method, layer=[layers[0]]), clips(), 2)
    assert torch.equal(one.heatmap, lc.explain(model, method.at(layers[0]), clips(), 2).heatmap)


def test_pools_of_layers_that_differ_are_both_said(net: Paths) -> None:
    e = lc.explain(lc.Explainable.of(net), lc.GradCAM(["slow", "frames"]), clips())
    assert e.caption.endswith("gradient pooled over spacetime and gradient pooled over space")


def test_all_relatives_take_several_layers() -> None:
    own = {c for c in GradientCAM.__subclasses__() if c.__module__.startswith("lightning_cam.")}
    assert {type(method) for method in METHODS.values()} == own


def test_it_costs_one_forward_and_one_backward(net: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    count = {"forward": 0, "backward": 0}
    grad = torch.autograd.grad

    def counted(*args: Any, **more: Any) -> Any:
        count["backward"] += 1
        return grad(*args, **more)

    def forward(clip: Tensor) -> Tensor:
        count["forward"] += 1
        return net(clip)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    model, method = lc.Explainable.of(net, forward=forward), lc.GradCAM(("slow", "late", "fast"))
    lc.explain(model, method, clips())
    assert tuple(count.values()) == (1, 1) == method.cost(model, clips())


def test_settings_name_several_layers() -> None:
    chosen = composed("train", ["explain=gradcam", "explain.gradcam.layer=[slow,fast]"]).explain
    method = build(chosen.gradcam, where="explain", kind=lc.GradCAM)
    assert method == lc.GradCAM(("slow", "fast")) and method.target_layers == ("slow", "fast")


def test_all_layers_of_a_method_are_checked(net: Paths) -> None:
    found = check_once(lc.Explainable.of(net), {"a": lc.GradCAM(["slow", "fast"])}, clips())
    assert found is not None and [layer.name for layer in found.layers] == ["slow", "fast"]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("layers", "kind", "said"),
    [
        (["slow", "fats"], UnknownNameError, "no layer 'fats'; nearest: fast"),
        (["slow", "unused"], UserError, "layer 'unused' of slow \\+ unused has no gradient"),
        ([], ArgumentError, "layer must be .*different names.*, got \\[\\]"),
        (["slow", "slow"], ArgumentError, "different names"),
        ([1.5, "slow"], ArgumentError, "layer must be"),
    ],
)
def test_layers_that_cannot_be_summed_are_refused(
    net: Paths, layers: Any, kind: type[Exception], said: str
) -> None:
    """A layer of several that is not there, has no gradient, or is named twice."""
    with pytest.raises(kind, match=said):
        lc.explain(lc.Explainable.of(net), lc.GradCAM(layers), clips())


def test_methods_of_one_layer_say_so() -> None:
    for method in (lc.ScoreCAM, lc.GuidedGradCAM, lc.RegressionGradCAM, lc.CAM):
        with pytest.raises(ArgumentError, match="layer must be text or None"):
            method(layer=["slow", "fast"])
