"""Excitation backprop and LRP: answers on paper (X1-X5), zennit's answers, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import zennit.composites
from nets import clip_of
from planted import CHANCE, STAGES, Planted
from test_planted_cams import precision
from torch import Tensor, nn
from torch.nn import functional as F
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.layer import Sum

import lightning_cam as lc
from lightning_cam.attribution.relevance import functions
from lightning_cam.models.inflated_resnet import InflatedResNet
from lightning_cam.models.lrcn import LRCN
from lightning_cam.models.pan import PAN
from lightning_cam.models.resnet3d import ResNet3D

SIZE = (2, 3, 4, 8, 6)
TARGET = torch.tensor([2, 0])


def double(*shape: int, seed: int = 0) -> Tensor:
    return clip_of(*shape, seed=seed, dtype=torch.float64)


def model_of(net: nn.Module, *layers: str, **more: Any) -> lc.Explainable:
    return lc.Explainable.of(net.eval(), layers, **more)


class Joined(nn.Module):
    """Two 3-D convolutions of the clip, batch norms behind them, joined, and a linear head."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor] = torch.add) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.right, self.left = (nn.Conv3d(3, 5, 3, padding=1) for _ in range(2))
        self.norm_left, self.norm_right = (nn.BatchNorm3d(5) for _ in range(2))  # not in this order
        self.fc = nn.Linear(5, 3)
        self.join = join
        for norm in (self.norm_left, self.norm_right):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        self.double()

    def forward(self, clip: Tensor) -> Tensor:
        x = self.join(self.norm_left(self.left(clip)), self.norm_right(self.right(clip)))
        return self.fc(x.relu().mean((2, 3, 4)))


# --- excitation backprop on paper -----------------------------------------------------------------


class TwoLayers(nn.Module):
    """Of a clip's four voxels in one frame: 4 -> 3, ReLU, 3 -> 2."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, clip: Tensor) -> Tensor:
        return self.two(self.one(clip.flatten(1)).relu())


def test_x2_two_layers_by_hand() -> None:
    torch.manual_seed(3)
    net, clip = TwoLayers().double(), double(5, 1, 1, 2, 2).abs()
    net.one.bias.data.zero_()
    net.two.weight.data[1].abs_()
    e = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 1)
    x, a = clip.flatten(1), net.one(clip.flatten(1)).relu()
    top = a * net.two.weight[1].clamp(min=0)
    p = top / top.sum(1, keepdim=True)  # (B, 3)
    ways = x[:, None] * net.one.weight.clamp(min=0)  # (B, 3, 4)
    shares = (ways / ways.sum(2, keepdim=True)).nan_to_num()  # of a unit that is 0
    expected = (p[..., None] * shares).sum(1)
    torch.testing.assert_close(e.heatmap.flatten(1), expected.detach(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(e.heatmap.sum((1, 2, 3)), torch.ones(5).double(), rtol=0, atol=1e-4)
    assert float(e.numbers["lost"].abs().max()) < 1e-4 and e.doubts == ("",) * 5


def test_small_activations_lose_nothing() -> None:
    """As a deep network with random weights has them: no constant may be added to their sums."""
    net, clip = Joined(), double(*SIZE)
    e = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, TARGET)
    for norm in (net.norm_left, net.norm_right):
        norm.weight.data *= 1e-12
        norm.bias.data *= 1e-12
    small = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, TARGET)
    torch.testing.assert_close(small.heatmap, e.heatmap, rtol=1e-5, atol=1e-12)
    assert e.heatmap.any()
    assert float(small.numbers["lost"].abs().max()) < 1e-6


def test_nothing_excites_and_the_map_is_doubtful() -> None:
    net = TwoLayers()
    with torch.no_grad():
        net.two.weight.fill_(-1)
    e = lc.explain(model_of(net), lc.ExcitationBackprop(), clip_of(1, 1, 1, 2, 2).abs() + 9, 1)
    assert not e.heatmap.any() and e.numbers["lost"].tolist() == [1]
    assert e.doubts == ("100% of what was passed down got lost on the way",)


class Weighed(nn.Module):
    """Frames in a linear layer, averaged with fixed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("weights", torch.tensor([0.5, 0.0, 0.2, 0.3]))

    def forward(self, clip: Tensor) -> Tensor:
        steps = self.head(clip.transpose(1, 2).flatten(2))  # (B, T, K)
        return (self.weights[:, None] * steps).sum(1)


def test_steps_share_by_their_weight_and_by_what_excites_them() -> None:
    """Not by their outputs, which a bias moves: as one linear layer of all steps."""
    net, clip = Weighed(), clip_of(2, 1, 4, 2, 3)
    heat = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 1).heatmap
    parts = net.weights[:, None] * (clip.flatten(3)[:, 0] * net.head.weight[1]).relu()
    expected = parts / parts.sum((1, 2), keepdim=True)
    torch.testing.assert_close(heat.flatten(2), expected.detach())
    assert not heat[:, 1].any()


class Attending(nn.Module):
    """Frames weighed by attention, before or after the linear head."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.head, self.score, self.before = nn.Linear(6, 3), nn.Linear(6, 1), before

    def forward(self, clip: Tensor) -> Tensor:
        x = clip.transpose(1, 2).flatten(2)  # (B, T, 6)
        weights = self.score(x).tanh().softmax(1)
        return self.head((weights * x).sum(1)) if self.before else (weights * self.head(x)).sum(1)


def test_attention_weights_are_constants_that_weigh_the_steps() -> None:
    clip = clip_of(2, 1, 4, 2, 3)
    for before in (False, True):
        net = Attending(before)
        heat = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 1).heatmap.flatten(2)
        x = clip[:, 0].flatten(2)
        seen = net.score(x).tanh().softmax(1) * x
        parts = (seen * net.head.weight[1]).relu()
        if before:  # first among the units of the sum, then of each among the steps
            whole = seen.sum(1, keepdim=True)
            ways = (seen * whole.sign()).relu()
            parts = (whole * net.head.weight[1]).relu() * ways / ways.sum(1, keepdim=True)
        expected = parts / parts.sum((1, 2), keepdim=True)
        torch.testing.assert_close(heat, expected.detach())


def test_x3_contrastive_is_two_passes_subtracted() -> None:
    net, clip = Joined(), double(*SIZE)
    model = model_of(net)
    maps = [
        lc.explain(asked, lc.ExcitationBackprop(), clip, TARGET)
        for asked in (model, model.counterfactual())
    ]
    both = lc.explain(model, lc.ExcitationBackprop(contrastive=True), clip, TARGET)
    expected = (maps[0].heatmap - maps[1].heatmap).relu()
    torch.testing.assert_close(both.heatmap, expected, rtol=1e-9, atol=1e-12)
    assert expected.any() and both.caption == "Contrastive excitation backprop"
    # Both start with 1, and lose nothing: what they differ by sums to 0 before the clamp.
    totals = [m.heatmap.sum((1, 2, 3)) for m in maps]
    torch.testing.assert_close(totals[0], totals[1], rtol=0, atol=1e-3)


# --- mass through the stages of whole networks ----------------------------------------------------


def settled(net: nn.Module, frames: int = 8) -> nn.Module:
    """The network with batch norms that know what they see."""
    generator = torch.Generator().manual_seed(0)
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(torch.randn(3, 3, frames, 32, 32, generator=generator))
    return net.eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "r3d": (lambda: ResNet3D(3, "r3d_small"), ["stem", "layer1", "layer2", "layer3", "layer4"]),
    "r2plus1d": (
        lambda: ResNet3D(3, "r2plus1d_small"),
        ["stem", "layer1", "layer2", "layer3", "layer4"],
    ),
    "inflated": (
        lambda: InflatedResNet(3, "small"),
        ["relu", "maxpool", "layer1", "layer2", "layer3", "layer4"],
    ),
    "lrcn": (lambda: LRCN(3), ["relu1", "relu2", "relu3"]),
    "lrcn, last": (lambda: LRCN(3, readout="last"), ["relu1", "relu2", "relu3"]),
    "lrcn, attention": (lambda: LRCN(3, readout="attention"), ["relu1", "relu2", "relu3"]),
    "lrcn, resnet18": (lambda: LRCN(3, "resnet18"), ["layer1", "layer2", "layer3", "layer4"]),
    "pan": (lambda: PAN(3, "lite", "small", 4, 2), ["relu", "layer1", "layer2", "layer4"]),
}


def slow_where_large(*names: str) -> list[Any]:
    return [
        pytest.param(name, marks=[pytest.mark.slow] * ("resnet18" in name))
        for name in names or NETWORKS
    ]


def mass(model: lc.Explainable, layer: str | None, clip: Tensor, target: Any = 1) -> Tensor:
    found = lc.explain(model, lc.ExcitationBackprop(layer), clip, target)
    return 1 - found.numbers["lost"]


@pytest.mark.parametrize("name", slow_where_large())
def test_mass_through_every_stage(name: str) -> None:
    build, stages = NETWORKS[name]
    torch.manual_seed(0)
    model = model_of(settled(build()), "trunk")
    clip = clip_of(2, 3, 8, 32, 32)
    for layer in (None, *(f"trunk.{stage}" for stage in stages)):
        found = mass(model, layer, clip)
        assert (found >= 0.8).all() and (found <= 1.05).all(), (layer, found)


def test_without_the_rule_for_sums_it_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """X4: the rule is what holds the mass, in blocks of a library that knows nothing of it."""
    torch.manual_seed(0)
    model = model_of(settled(ResNet3D(3, "r3d_small")), "trunk")
    clip = clip_of(2, 3, 8, 32, 32)
    for name in ("add", "iadd"):
        monkeypatch.setitem(functions._RULES, name, lambda rules, func, out, args, kwargs: sum(
            x.expand_as(out) for x in args if isinstance(x, Tensor)))  # fmt: skip
    found = [float(mass(model, layer, clip).min()) for layer in ("trunk.layer3", "trunk.stem")]
    assert found[0] > 1.5 and found[1] > 8  # less than 2 and 16: what a ReLU stops is gone


@pytest.mark.slow
def test_mass_and_precision_on_the_planted_network(planted: Planted) -> None:
    layers = [*reversed(STAGES[:-1]), None]
    masses = [float(mass(planted.model, x, planted.clips, planted.labels).mean()) for x in layers]
    print("\nmass at", ", ".join(f"{x}: {m:.3f}" for x, m in zip(layers, masses, strict=True)))
    assert all(0.8 <= m <= 1.05 for m in masses)
    methods = {
        "excitation backprop": lc.ExcitationBackprop(),
        "contrastive": lc.ExcitationBackprop(contrastive=True),
        "LRP, epsilon": lc.LRP("epsilon"),
        "LRP, epsilon plus": lc.LRP(),
        "LRP, epsilon plus flat": lc.LRP("epsilon_plus_flat"),
        "LRP, epsilon gamma box": lc.LRP("epsilon_gamma_box"),
        "LRP, alpha2 beta1": lc.LRP("epsilon_alpha2_beta1"),
    }
    print("| method | average precision | of another class | at layer2 | of another class |")
    for name, method in methods.items():
        found = [precision(planted, m, shift)
                 for m in (method, replace(method, layer="layer2")) for shift in (0, 1)]  # type: ignore[type-var]  # fmt: skip
        e = lc.explain(planted.model, method, planted.clips, planted.labels)
        if isinstance(method, lc.LRP):
            score = e.outputs.gather(1, planted.labels[:, None])[:, 0]
            kept = float((e.numbers["relevance"] / score).mean())
            assert (1 if "alpha2" in name else 0.8) < kept < (4 if "alpha2" in name else 1.2), name
        print(f"| {name} | {' | '.join(f'{float(x.mean()):.2f}' for x in found)} |")
        assert float(found[0].mean()) > 3 * CHANCE, name


def test_alpha2_beta1_doubles_in_each_convolution_where_nothing_speaks_against() -> None:
    net = TwoConvolutions()
    double_sum = lc.explain(model_of(net), lc.LRP("epsilon_alpha2_beta1"), clip_of(*SIZE).abs(), 1)
    plain_sum = lc.explain(model_of(net), lc.LRP("epsilon_plus"), clip_of(*SIZE).abs(), 1)
    ratio = double_sum.numbers["relevance"] / plain_sum.numbers["relevance"]
    torch.testing.assert_close(ratio, torch.full((2,), 4.0), rtol=1e-3, atol=0)


class TwoConvolutions(nn.Module):
    """Two convolutions without weights below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, (1, 3, 3), bias=False)
        )
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.1, 1)
        self.layers[0].bias.data.zero_()  # type: ignore[union-attr]
        self.fc = nn.Linear(2, 3)

    def forward(self, clip: Tensor) -> Tensor:
        return self.fc(self.layers(clip).relu().mean((2, 3, 4)))


# --- LRP on paper ---------------------------------------------------------------------------------


class Pooled(nn.Module):
    """A residual network of ReLUs, a maximum, shifts, a product of matrices and a mean, no norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 4, 3, padding=1)
        self.conv = nn.Conv3d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.register_buffer("mix", torch.randn(12, 5))
        self.fc = nn.Linear(5, 3)

    def forward(self, clip: Tensor) -> Tensor:
        x = F.relu(self.stem(clip), inplace=True)
        y = self.conv(x)
        y -= 0.5 * x
        y = torch.cat([y[:, :2], F.pad(y[:, 2:], (0, 0, 0, 0, 0, 1))[:, :, 1:]], 1)
        y = self.pool(torch.relu_(y + x))  # (B, 4, T, 4, 3)
        return self.fc(F.avg_pool3d(y, (1, 4, 1)).flatten(1, 2).flatten(2).mean(1) @ self.mix[:3])


@pytest.mark.parametrize("name", ["joined", "pooled", "r3d"])
def test_lrp_epsilon_of_relu_networks_is_gradient_times_input(name: str) -> None:
    """Known of LRP with a small epsilon; batch norms, biases and residual sums included."""
    torch.manual_seed(2)
    nets = {"joined": Joined, "pooled": Pooled, "r3d": lambda: ResNet3D(3, "r3d_small")}
    net = nets[name]().double()
    model, clip = model_of(net), double(*SIZE)
    expected = lc.explain(model, lc.GradientXInput(), clip, TARGET).heatmap
    found = lc.explain(model, lc.LRP("epsilon", relu=False), clip, TARGET).heatmap
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * scale)
    assert float((found - expected).abs().mean()) < 1e-3 * scale


@pytest.mark.parametrize("name", slow_where_large("r3d", "inflated", "lrcn, resnet18", "pan"))
def test_lrp_sums_to_the_score_where_there_is_no_bias(name: str) -> None:
    build, stages = NETWORKS[name]
    torch.manual_seed(0)
    net = settled(build()).double()
    for key, tensor in net.state_dict().items():
        if "bias" in key or "running_mean" in key:
            tensor.zero_()
    clip, model = clip_of(2, 3, 8, 32, 32).double(), model_of(net, "trunk")
    for layer in (f"trunk.{stages[-1]}", f"trunk.{stages[1]}", None):
        e = lc.explain(model, lc.LRP(layer=layer), clip, 0)
        torch.testing.assert_close(e.numbers["relevance"], e.outputs[:, 0], rtol=5e-3, atol=0)


def test_the_positive_part_is_shown_and_the_sign_is_kept_on_request() -> None:
    net, clip = Joined(), double(*SIZE)
    e = lc.explain(model_of(net), lc.LRP().both_signs, clip, TARGET)
    assert (e.heatmap < 0).any()
    torch.testing.assert_close(e.heatmap.sum((1, 2, 3)), e.numbers["relevance"])
    assert torch.equal(lc.explain(model_of(net), lc.LRP(), clip, TARGET).heatmap, e.heatmap.relu())


def test_differences_of_columns_split_into_both_starts() -> None:
    net, clip = Joined(), double(*SIZE)
    model, method = model_of(net), lc.LRP(relu=False)
    one, other = (lc.explain(model, method, clip, column).heatmap for column in (2, 1))
    found = lc.explain(model.contrast(1), method, clip, 2).heatmap
    torch.testing.assert_close(found, one - other, rtol=1e-9, atol=1e-12)


# --- zennit ---------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """A residual network made of modules alone, as zennit needs it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.stem = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv3d(6, 6, 3, padding=1, bias=False), nn.BatchNorm3d(6), nn.ReLU()
        )
        self.sum = Sum()
        self.down = nn.Sequential(nn.Conv3d(6, 8, (1, 3, 3), (1, 2, 2)), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                nn.init.normal_(module.bias)
        self.double()

    def forward(self, clip: Tensor) -> Tensor:
        x = self.stem(clip)
        x = self.sum(torch.stack([x, self.branch(x)], -1))
        return self.fc(self.pool(self.down(x)).flatten(1))


def by_zennit(net: nn.Module, composite: Any, clip: Tensor, start: Callable[[Tensor], Tensor]):  # type: ignore[no-untyped-def]
    x = clip.clone().requires_grad_()
    with composite.context(net) as ruled:
        outputs = ruled(x)
        (found,) = torch.autograd.grad(outputs, x, start(outputs.detach()))
    return found.sum(1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("epsilon_plus", "EpsilonPlus"),
        ("epsilon_plus_flat", "EpsilonPlusFlat"),
        ("epsilon_gamma_box", "EpsilonGammaBox"),
        ("epsilon_alpha2_beta1", "EpsilonAlpha2Beta1"),
    ],
)
def test_lrp_equals_zennit_where_all_are_modules(ours: Any, theirs: str) -> None:
    net, clip = Blocks().eval(), double(1, *SIZE[1:])
    box = {}
    if "box" in ours:
        box = {"low": clip.amin((2, 3, 4), True), "high": clip.amax((2, 3, 4), True)}
    composite = getattr(zennit.composites, theirs)(canonizers=[SequentialMergeBatchNorm()], **box)
    expected = by_zennit(net, composite, clip, lambda y: y * F.one_hot(torch.tensor([2]), 3))
    found = lc.explain(model_of(net), lc.LRP(ours, relu=False), clip, 2).heatmap
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * scale)
    assert "passed over" not in lc.explain(model_of(net), lc.LRP(ours), clip, 2).caption


def test_excitation_backprop_equals_zennit_where_sums_have_nothing_below_0() -> None:
    net, clip = Blocks().eval(), double(1, *SIZE[1:])
    composite = zennit.composites.ExcitationBackprop(
        zero_params=["bias"], canonizers=[SequentialMergeBatchNorm()]
    )
    expected = by_zennit(net, composite, clip, lambda y: F.one_hot(torch.tensor([2]), 3).double())
    found = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 2).heatmap
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
