"""`check` measures layouts, gradients and outputs: what is wrong is said, what is right is not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
import torchvision
from test_cuts import ClassToken, Cut
from test_families import REAL, swin3d
from test_layout import ByFrames
from torch import Tensor, nn
from torchvision.models.video import mc3_18, r2plus1d_18, r3d_18

import lightning_cam as lc
from lightning_cam.errors import UserError
from lightning_cam.explaining.clip_explanations import (
    explain_clip,
    network_outputs,
    probabilities,
)


class Permuted(nn.Module):
    """A convolution whose output goes through an identity in another order of axes."""

    def __init__(self, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.seen, self.head = nn.Conv3d(3, 8, 3), nn.Identity(), nn.Linear(8, 4)
        self.there, self.back = there, back

    def forward(self, clip: Tensor) -> Tensor:
        x = self.conv(clip).relu()
        return self.head(self.back(self.seen(self.there(x))).mean((2, 3, 4)))


CLIP = torch.randn(2, 3, 8, 14, 18)  # the convolution leaves 6 x 12 x 16
ORDERS = {
    "b t h w d": (
        lambda x: x.permute(0, 2, 3, 4, 1), lambda x: x.permute(0, 4, 1, 2, 3), None),
    "b t d h w": (
        lambda x: x.permute(0, 2, 1, 3, 4), lambda x: x.permute(0, 2, 1, 3, 4), None),
    "(t b) d h w": (
        lambda x: x.permute(2, 0, 1, 3, 4).flatten(0, 1),
        lambda x: x.unflatten(0, (6, 2)).permute(1, 2, 0, 3, 4), None),
    "(b t) h w d": (
        lambda x: x.permute(0, 2, 3, 4, 1).flatten(0, 1),
        lambda x: x.unflatten(0, (2, 6)).permute(0, 4, 1, 2, 3), None),
    "b (h w t) d": (
        lambda x: x.permute(0, 3, 4, 2, 1).flatten(1, 3),
        lambda x: x.unflatten(1, (12, 16, 6)).permute(0, 4, 3, 1, 2), "b (t h w) d"),
    "b (1 + w h t) d": (
        lambda x: nn.functional.pad(x.permute(0, 4, 3, 2, 1).flatten(1, 3), (0, 0, 1, 0)),
        lambda x: x[:, 1:].unflatten(1, (16, 12, 6)).permute(0, 4, 3, 2, 1), "b (1 + t h w) d"),
}  # fmt: skip


@pytest.mark.attack
@pytest.mark.parametrize("right", ORDERS)
def test_a_wrong_layout_is_found_and_the_right_one_named(right: str) -> None:
    """Layers whose axes are in another order than was said: check names the right layout."""
    there, back, said = ORDERS[right]
    net, grid = Permuted(there, back), (6, 12, 16)
    wrong = lc.Explainable.of(net, ["seen"], layout=said, grid=grid if said else None)
    found = lc.check(wrong, CLIP)
    assert len(found.findings) == 1 and f'layout="{right}"' in found.findings[0], str(found)
    mended = lc.Explainable.of(net, ["seen"], layout=right, grid=grid if said else None)
    found = lc.check(mended, CLIP)
    assert not found.findings and found.layers[0].told and found.forwards == 5
    assert found.layers[0].locality["b"] == 1
    assert min(found.layers[0].locality.values()) > 0.6


@pytest.mark.attack
def test_a_map_finer_than_the_clip_is_refused() -> None:
    """Channels taken for columns: a map wider than the clip is an error of every layer method."""
    net = nn.Sequential(nn.Conv3d(3, 64, 1), Last(), nn.Linear(64, 4), Mean())
    model, clip = lc.Explainable.of(net, ["1"]), torch.randn(1, 3, 4, 8, 8)
    for method in (lc.GradCAM(), lc.LayerCAM(), lc.ScoreCAM()):
        with pytest.raises(UserError, match=r"\(1, 4, 8, 8, 64\).*finer than the clip"):
            lc.explain(model, method, clip)
    assert 'layout="b t h w d"' in lc.check(model, clip).findings[0]
    model = lc.Explainable.of(net, ["1"], layout="b t h w d")
    assert lc.explain(model, lc.GradCAM(relu=False), clip).heatmap.any()


class Last(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 4, 1)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))


def test_no_path_is_found() -> None:
    model = lc.Explainable.of(Cut(head=torch.no_grad), ["trunk"])
    [finding] = lc.check(model, torch.randn(1, 3, 4, 6, 6)).findings
    assert "Grad-CAM at layer 'trunk' needs gradients" in finding and "in 'neck'" in finding


class SoftmaxInEval(Permuted):
    """A head as SlowFast's: probabilities in eval mode, logits in training."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(lambda x: x, lambda x: x)
        self.sizes = sizes or (4,)
        self.head = nn.Linear(8, sum(self.sizes))

    def forward(self, clip: Tensor) -> Tensor:
        parts = (5 * super().forward(clip)).split(self.sizes, 1)
        return torch.cat([x if self.training else x.softmax(1) for x in parts], 1)


@pytest.mark.attack
@pytest.mark.parametrize("heads", [{}, {"verb": "ab", "noun": "cd"}], ids=["one head", "two"])
@pytest.mark.parametrize("training", [True, False])
def test_probabilities_are_those_of_the_network(training: bool, heads: dict[str, str]) -> None:
    """A head that takes a softmax in eval mode alone: its own probabilities are shown."""
    net = SoftmaxInEval(*map(len, heads.values())).train(training)
    names = {head: list(own) for head, own in heads.items()} or list("abcd")
    model = lc.Explainable.of(net, ["seen"], names)
    found = lc.check(model, CLIP)
    assert not found.findings and "their logarithm is explained" in str(found)
    own = copy.deepcopy(net).eval()(CLIP[:1])
    [e] = explain_clip(model, {"gradcam": lc.GradCAM()}, CLIP[:1], 1).values()
    shown = [value for _, value in probabilities(model, e.outputs)]
    torch.testing.assert_close(torch.tensor(shown), own[0])
    assert e.caption.startswith("Grad-CAM, logarithm of probabilities, seen")
    if not training:
        torch.testing.assert_close(network_outputs(model, CLIP[:1]), e.outputs)
    # The map is that of the probability itself, but for its size.
    bare = lc.Explainable.of(net, ["seen"], names, probability=None)
    plain = lc.explain(bare, lc.GradCAM(), CLIP[:1], 1).heatmap
    torch.testing.assert_close(e.heatmap * own[0, 1], plain)
    score = lc.explain(model, lc.Occlusion((4, 7, 9)), CLIP[:1], 1).heatmap
    none = lc.explain(bare, lc.Occlusion((4, 7, 9)), CLIP[:1], 1)
    torch.testing.assert_close(score, none.heatmap)


def test_what_cannot_be_told_is_said_to_be_so() -> None:
    layouts = {"before": "b (t h w) d", "after": "b (1 + t h w) d"}
    model = lc.Explainable.of(ClassToken(), ["before"], layout=layouts, grid=(4, 6, 6))
    assert lc.check(model, torch.randn(2, 3, 4, 6, 6)).layers[0].told

    class Mixes(ClassToken):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(torch.ones_like(clip) * clip.mean((1, 2, 3, 4), keepdim=True))

    found = lc.check(lc.Explainable.of(Mixes(), ["before"], layout=layouts, grid=(4, 6, 6)), CLIP_6)
    assert not found.findings and not found.layers[0].told
    assert "cannot be told" in str(found)


CLIP_6 = torch.randn(2, 3, 4, 6, 6)


def test_commands_and_callback_say_it_once() -> None:
    """What both draw clips with warns at a network's first clip."""
    there, back, said = ORDERS["b (h w t) d"]
    model = lc.Explainable.of(Permuted(there, back), ["seen"], layout=said, grid=(6, 12, 16))
    with pytest.warns(UserWarning, match=r'read as "b \(h w t\) d"'):
        explain_clip(model, {"gradcam": lc.GradCAM()}, CLIP[:1])
    assert explain_clip(model, {"gradcam": lc.GradCAM()}, CLIP[:1])  # warnings are errors here


def test_it_disturbs_nothing() -> None:
    net = swin3d().train()
    clip = torch.randn(2, 3, 4, 16, 16)
    kept, state = clip.clone(), {k: v.clone() for k, v in net.state_dict().items()}
    lc.check(lc.Explainable.of(net), clip)
    assert torch.equal(clip, kept) and net.training
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


OWN = {
    "r3d_18": lambda: r3d_18(),
    "mc3_18": lambda: mc3_18(),
    "r2plus1d_18": lambda: r2plus1d_18(),
    "by frames, looped": lambda: ByFrames(torchvision.models.resnet18(), looped=True),
    "by frames, folded": lambda: ByFrames(torchvision.models.mobilenet_v3_small(), looped=False),
}


_LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in (*OWN, "torchvision R3D")]


@pytest.mark.parametrize("name", [*_LARGE, *(name for name in REAL if name != "torchvision R3D")])
def test_no_false_alarm(name: str) -> None:
    """Networks with their right layouts: every layer that has a map, and nothing is found."""
    torch.manual_seed(0)
    net = (OWN[name] if name in OWN else REAL[name].net)().eval()
    size = REAL[name].clip if name in REAL else (4, 40, 40)
    model, clip = lc.Explainable.of(net, []), torch.randn(2, 3, *size)
    layers = [layer.name for layer in lc.list_layers(model, clip)]
    known = [layer for layer in layers if name in OWN or model.laid_out(layer) is not None]
    found = lc.check(model, clip, (known or layers)[:: max(1, len(known or layers) // 12)])
    behind = "only the class token"  # a layer that has no map, and that is true
    assert [each for each in found.findings if behind not in each] == []
    assert any(layer.told for layer in found.layers)


class Remembers(nn.Module):
    """Adds to its outputs what it has seen before, or random numbers, or those of other clips."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.net, self.what, self.before = Cut(), what, torch.zeros(3)

    def forward(self, clip: Tensor) -> Tensor:
        y = self.net(clip)
        if self.what == "memory":
            self.before = self.before + y.detach().sum(0)
            return y + self.before
        return y + (torch.rand_like(y) if self.what == "dice" else clip.roll(1, 0)[:, :, 0, 0, 0])


@pytest.mark.attack
@pytest.mark.parametrize(
    ("what", "clips"), [("memory", 1), ("memory", 2), ("dice", 1), ("dice", 2), ("others", 2)]
)
def test_outputs_that_are_of_more_than_the_clip(what: str, clips: int) -> None:
    """A network that remembers earlier runs, throws dice in eval mode, or mixes its clips."""
    model = lc.Explainable.of(Remembers(what), ["net.trunk"])
    found = lc.check(model, CLIP[:clips])
    assert found.forwards == 5 and "outputs of Remembers of the same clip change" in str(found)


@pytest.mark.attack
def test_a_layer_that_only_the_class_token_leaves_is_found_before_it_is_explained() -> None:
    """check on a norm behind the last attention, of which the class token alone is read out."""
    layouts = {"before": "b (t h w) d", "after": "b (1 + t h w) d"}
    model = lc.Explainable.of(ClassToken(), ["before"], layout=layouts, grid=(4, 6, 6))
    found = lc.check(model, torch.randn(2, 3, 4, 6, 6), ["before", "after"])
    assert len(found.findings) == 1 and "of layer 'after' only the class" in found.findings[0]


class Asks(nn.Module):
    """Wants its clip under a name, with frames before channels, or with something beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Cut()


class ByName(Asks):
    def forward(self, *, pixels: Tensor) -> Tensor:
        return self.net(pixels)


class FramesFirst(Asks):
    def forward(self, clip: Tensor) -> Tensor:
        return self.net(clip.transpose(1, 2))


class Beside(Asks):
    def forward(self, clip: Tensor, speed: Tensor) -> Tensor:
        return self.net(clip) * speed


@pytest.mark.attack
@pytest.mark.parametrize(
    ("net", "way"),
    [
        (ByName(), "forward=lambda clip: network(pixels=clip)"),
        (FramesFirst(), "forward=lambda clip: network(clip.transpose(1, 2))"),
        (Beside(), "inputs={'speed': speed}"),
    ],
)
def test_a_network_that_fails_on_the_clip_is_told_how_to_be_called(net: Asks, way: str) -> None:
    """Networks that want frames before channels, the clip by name, or something beside it."""
    with pytest.raises(UserError, match=f"fails on clips .*{re.escape(way)}") as refused:
        lc.explain(lc.Explainable.of(net, ["net.trunk"]), lc.GradCAM(), CLIP)
    assert refused.value.__cause__ is not None
    given = {"network": net, "layers": ["net.trunk"], "speed": torch.ones(2, 1)}
    of = eval(f"Explainable.of(network, layers, {way})", given | {"Explainable": lc.Explainable})
    assert lc.explain(of, lc.GradCAM(relu=False), CLIP).heatmap.any()


def behind(clip: Tensor) -> Tensor:
    return nn.functional.pad(clip, (0, 0, 0, 0, 0, 8))


@pytest.mark.attack
@pytest.mark.parametrize(
    ("before", "back", "said"),
    [
        (behind, lambda x: x[:, :, :4], "frames changes, 1 of the first 4 steps"),
        (lambda x: behind(x.flip(2)).flip(2), lambda x: x[:, :, 4:], "4 of the first 4 steps"),
        (lambda x: x.flip(4), lambda x: x.flip(4), r"columns changes, 4 of the first 4 columns"),
    ],
    ids=["padded behind", "padded in front", "mirrored"],
)
def test_a_layer_that_lies_elsewhere_than_the_clip_is_found(
    before: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor], said: str
) -> None:
    """A network that pads its clip with frames, or mirrors it, in front of the layer."""
    net = nn.Sequential(
        nn.Conv3d(3, 6, (3, 1, 2), 2, (1, 0, 0)), nn.AdaptiveAvgPool3d(1), nn.Flatten()
    )
    clip = torch.randn(2, 3, 8, 12, 16)
    way = {"layers": ["0"], "forward": lambda rows: net(before(rows))}
    [found] = lc.check(lc.Explainable.of(net, **way), clip).findings
    assert re.search(f"lies elsewhere than the clip.*{said}", found)
    mended = lc.Explainable.of(net, **way, fold=lambda x, _batch: back(x))
    assert lc.check(mended, clip).findings == ()


@pytest.mark.attack
@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize(
    ("part", "said"),
    [
        (lambda x: x[:, :, :4], "frames 0 to 3 of 8"),
        (lambda x: x[..., 2:14], "columns 2 to 13 of 16"),
        (lambda x: x[:, :, 1::2], ""),
        (lambda x: nn.functional.interpolate(x, scale_factor=0.5), ""),
    ],
    ids=["first frames", "crop", "every other frame", "resized"],
)
def test_a_layer_that_sees_a_part_of_the_clip_is_found(
    part: Callable[[Tensor], Tensor], said: str, clips: int
) -> None:
    """A network that crops its clip or leaves frames out, in front of the layer."""
    net = nn.Sequential(nn.Conv3d(3, 6, 3, 1, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    model = lc.Explainable.of(net, ["0"], forward=lambda clip: net(part(clip)))
    found = lc.check(model, torch.randn(clips, 3, 8, 12, 16))
    assert bool(found.findings) == bool(said) and said in str(found)
