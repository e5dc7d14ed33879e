"""Excitation backprop and LRP: answers on paper (X1-X5), zennit's answers, and what is refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import zennit.composites
from nets import FoldedLSTM, LoopedLSTM, assert_same, clip_of, describe, state
from planted import CHANCE, STAGES, Planted
from test_planted_cams import precision
from torch import Tensor, nn
from torch.nn import functional as F
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.layer import Sum
from zennit.rules import ZPlus

import lightning_cam as lc
from lightning_cam.attribution.relevance import functions
from lightning_cam.errors import UserError
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


# --- recurrent layers -----------------------------------------------------------------------------


class Recurrent(nn.Module):
    """Pixels of frames in a recurrent layer, one of its steps in a linear head; no bias."""

    def __init__(self, kind: type[nn.RNNBase], step: int = -1, **more: Any) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = more.pop("first", True)
        self.rnn = kind(12, 6, batch_first=self.first, bias=False, **more)
        self.head = nn.Linear(12 if more.get("bidirectional") else 6, 3, bias=False)
        self.step = step
        self.double()

    def forward(self, clip: Tensor) -> Tensor:
        x = clip.transpose(1, 2).flatten(2)  # (B, T, 12)
        out, _ = self.rnn(x if self.first else x.transpose(0, 1))
        steps = self.head(out if self.first else out.transpose(0, 1))
        return steps[:, self.step]


KINDS = pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])


@KINDS
@pytest.mark.parametrize(
    "more", [{}, {"num_layers": 2}, {"bidirectional": True, "num_layers": 2}, {"first": False}]
)
def test_recurrent_layers_keep_the_sum(kind: Any, more: dict[str, Any]) -> None:
    net, clip = Recurrent(kind, **more), double(3, 2, 4, 2, 3)
    e = lc.explain(model_of(net), lc.LRP("epsilon"), clip, 1)
    torch.testing.assert_close(e.numbers["relevance"], e.outputs[:, 1], rtol=1e-3, atol=1e-5)
    lost = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 1).numbers["lost"]
    assert float(lost.abs().max()) < 1e-3
    torch.testing.assert_close(e.outputs, net(clip).detach())


@KINDS
def test_x5_frames_after_the_explained_step_have_exactly_nothing(kind: Any) -> None:
    net, clip = Recurrent(kind, step=1), double(3, 2, 4, 2, 3)
    for method in (lc.ExcitationBackprop(), lc.LRP(relu=False)):
        heat = lc.explain(model_of(net), method, clip, 1).heatmap
        assert not heat[:, 2:].any() and heat[:, 0].any() and heat[:, 1].any()
    heat = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 1).heatmap
    torch.testing.assert_close(heat.sum((1, 2, 3)), torch.ones(3).double(), rtol=0, atol=1e-3)
    assert lc.explain(model_of(Recurrent(kind, bidirectional=True, step=1)),
                      lc.ExcitationBackprop(), clip, 1).heatmap[:, 3].any()  # fmt: skip


def test_an_lstm_step_by_hand() -> None:
    net, clip = Recurrent(nn.LSTM, step=0), double(4, 2, 1, 2, 3)
    e = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 1)
    x = clip.transpose(1, 2).flatten(2)[:, 0]  # (B, 12)
    h = net.rnn(x[:, None])[0][:, 0]
    top = (h * net.head.weight[1]).relu()
    p = top / top.sum(1, keepdim=True)  # h, and so c, and so i g, and so g
    ways = x[:, None] * net.rnn.weight_ih_l0.chunk(4)[2]  # (B, 6, 12): what drives g up or down
    ways = (ways * ways.sum(2, keepdim=True).sign()).relu()
    expected = (p[..., None] * ways / ways.sum(2, keepdim=True)).sum(1)
    found = e.heatmap.flatten(1)
    torch.testing.assert_close(found, expected.unflatten(1, (2, 6)).sum(1).detach())


def test_two_steps_share_what_is_kept_and_what_is_new() -> None:
    """c_1 = f c_0 + i g, with gates and states above 0."""
    net = Recurrent(nn.LSTM)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
        net.rnn.weight_hh_l0.zero_()  # nothing comes back by the state
    clip = double(3, 2, 2, 2, 3).abs()
    heat = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 1).heatmap
    x = clip.transpose(1, 2).flatten(2)
    i, f, g, _ = (x @ net.rnn.weight_ih_l0.T).chunk(4, -1)
    first, second = (i.sigmoid() * g.tanh()).unbind(1)  # (B, 6)
    kept = f[:, 1].sigmoid() * first
    top = net.rnn(x)[0][:, 1] * net.head.weight[1]
    share = (top * kept / (kept + second)).sum(1) / top.sum(1)
    torch.testing.assert_close(heat[:, 0].sum((1, 2)), share.detach())


def test_relu_rnn_equals_gradient_times_input() -> None:
    net, clip = Recurrent(nn.RNN, nonlinearity="relu"), double(3, 2, 4, 2, 3)
    expected = lc.explain(model_of(net), lc.GradientXInput(), clip, 1).heatmap
    found = lc.explain(model_of(net), lc.LRP("epsilon", relu=False), clip, 1).heatmap
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


class Cells(nn.Module):
    """The first layer of `Recurrent` as a loop over a cell."""

    def __init__(self, whole: Recurrent) -> None:
        super().__init__()
        cells: dict[Any, Any] = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}
        self.cell = cells[type(whole.rnn)](12, 6, bias=False)
        for name in ("weight_ih", "weight_hh"):
            setattr(self.cell, name, getattr(whole.rnn, f"{name}_l0"))
        self.head = whole.head

    def forward(self, clip: Tensor) -> Tensor:
        state = None
        for frame in clip.unbind(2):
            state = self.cell(frame.flatten(1), state)
            y = self.head(state[0] if isinstance(state, tuple) else state)
        return y


@KINDS
def test_a_loop_over_a_cell_is_the_layer(kind: Any) -> None:
    whole, clip = Recurrent(kind), double(3, 2, 4, 2, 3)
    for method in (lc.ExcitationBackprop(), lc.LRP(relu=False)):
        maps = [lc.explain(model_of(net), method, clip, 1).heatmap for net in (whole, Cells(whole))]
        torch.testing.assert_close(*maps, rtol=1e-6, atol=1e-12)


def test_frames_one_by_one_are_frames_at_once() -> None:
    folded, clip = FoldedLSTM(), clip_of(2, 3, 4, 8, 8)
    one, other = describe(folded), describe(LoopedLSTM(folded), "conv")
    for at_once, by_one in ((None, None), ("trunk.conv", "conv")):
        maps = [
            lc.explain(model, lc.ExcitationBackprop(layer), clip, 1).heatmap
            for model, layer in ((one, at_once), (other, by_one))
        ]
        torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-6)


# --- functions and norms --------------------------------------------------------------------------


def add_to(x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


def add_as_statement(x: Tensor, y: Tensor) -> Tensor:
    x.add_(y)
    return x


def add_to_a_view(x: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x[:, :].add_(y[:, :])
    return x


JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": lambda x, y: x + y,
    "+=": add_to,
    "add_": add_as_statement,
    "add_ of a view": add_to_a_view,
    "torch.add": lambda x, y: torch.add(x, y, alpha=1),
    "sum": lambda x, y: sum([x, y]),  # type: ignore[return-value]
    "stack": lambda x, y: torch.stack([x, y]).sum(0),
    "-": lambda x, y: x - -y,
    "mean": lambda x, y: 2 * torch.stack([x, y], -1).mean(-1),
    "Sum": lambda x, y: Sum()(torch.stack([x, y], -1)),
}


@pytest.mark.parametrize("method", [lc.ExcitationBackprop(), lc.LRP(relu=False)])
@pytest.mark.parametrize("how", JOINS)
def test_branches_may_meet_in_any_way(how: str, method: lc.Attribution) -> None:
    clip = double(*SIZE)
    expected = lc.explain(model_of(Joined()), method, clip, TARGET)
    found = lc.explain(model_of(Joined(JOINS[how])), method, clip, TARGET)
    torch.testing.assert_close(found.outputs, expected.outputs)
    tolerance = 1e-6 if isinstance(method, lc.ExcitationBackprop) else 1e-3
    scale = float(expected.heatmap.abs().max())
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=0, atol=tolerance * scale)


class ByName(Joined):
    """Layers get what they see as a keyword argument."""

    def forward(self, clip: Tensor) -> Tensor:
        x = self.norm_left(input=self.left(input=clip)) + self.norm_right(self.right(input=clip))
        return self.fc(input=x.relu().mean((2, 3, 4)))


def test_layers_may_be_called_by_keywords() -> None:
    clip = double(*SIZE)
    for method in (lc.ExcitationBackprop(), lc.LRP()):
        maps = [lc.explain(model_of(net), method, clip, TARGET) for net in (Joined(), ByName())]
        assert torch.equal(maps[0].heatmap, maps[1].heatmap)


def test_what_is_multiplied_by_0_gets_exactly_nothing() -> None:
    """RG4: a network that ignores a frame."""
    net, clip = Joined(), double(*SIZE)
    seen = torch.ones(4, 1, 1).double()
    seen[2] = 0
    model = lc.Explainable.of(net.eval(), [], forward=lambda clip: net(clip * seen))
    for method in (lc.ExcitationBackprop(), lc.LRP("epsilon_plus_flat", relu=False)):
        heat = lc.explain(model, method, clip, TARGET).heatmap
        assert heat[:, [0, 1, 3]].any() and not heat[:, 2].any()


class Gated(nn.Module):
    """Channels that are weighed by what they are on average, or by attention over places."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.conv, self.gate, self.fc = nn.Conv3d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 3)
        self.how = how

    def forward(self, clip: Tensor) -> Tensor:
        x = self.conv(clip).relu()
        mean = x.mean((2, 3, 4))
        if self.how == "attention":
            places = x.flatten(2)  # (B, 4, N)
            weights = (self.gate(mean)[:, None] @ places).softmax(-1)  # (B, 1, N)
            return self.fc((places @ weights.transpose(1, 2))[..., 0])
        gate = self.gate(mean).sigmoid()[..., None, None, None]
        if self.how == "in place":
            x = x + 0.0  # a ReLU's own output could not be changed in training either
            x *= gate
        else:
            x = gate * x if self.how == "left" else x * gate
        return self.fc(x.mean((2, 3, 4)))


@pytest.mark.parametrize("how", ["left", "right", "in place", "attention"])
def test_gates_are_constants(how: str) -> None:
    net, clip = Gated(how), clip_of(2, 3, 4, 6, 5)
    found = mass(model_of(net), None, clip)
    torch.testing.assert_close(found, torch.ones(2), rtol=0, atol=1e-2)
    with torch.no_grad():  # the values, not where they come from, are what counts
        lc_map = lc.explain(model_of(net), lc.ExcitationBackprop(), clip, 1).heatmap
        assert torch.equal(net(clip), lc.explain(model_of(net), lc.LRP(), clip, 1).outputs)
    assert (lc_map >= 0).all()


def test_a_norm_that_belongs_to_no_layer_is_passed_over_and_said() -> None:
    net = nn.Sequential(
        nn.Conv3d(3, 4, 3), nn.ReLU(), nn.BatchNorm3d(4), nn.Conv3d(4, 2, (2, 4, 4))
    )
    net = nn.Sequential(net, nn.Flatten())
    e = lc.explain(model_of(net), lc.ExcitationBackprop(), clip_of(2, 3, 4, 6, 6), 0)
    assert e.caption == "Excitation backprop, 1 batch norm passed over"


def test_a_norm_without_weights_is_taken_in() -> None:
    clip, maps = double(*SIZE), []
    for affine in (True, False):
        net = Joined()
        for norm in (net.norm_left, net.norm_right):
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)
            if not affine:
                norm.weight = norm.bias = None  # type: ignore[assignment]
        maps.append(lc.explain(model_of(net), lc.LRP(relu=False), clip, TARGET).heatmap)
    assert torch.equal(*maps)


# --- what is left behind, and what is refused -----------------------------------------------------


def test_outputs_are_the_network_s_and_no_weight_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    net = ResNet3D(3, "r3d_small").eval()
    clip, before = clip_of(2, 3, 4, 16, 16), state(net)
    parameters = dict(net.named_parameters())
    e = lc.explain(model_of(net, "trunk"), lc.LRP(), clip)
    with torch.no_grad():
        assert torch.equal(e.outputs, net(clip))
    assert_same(before, state(net))
    apply = ZPlus.backward

    def fails(self: ZPlus, module: nn.Module, *args: Any) -> Any:
        assert module not in set(net.modules())
        if module.in_channels == 3:  # type: ignore[comparison-overlap]
            raise RuntimeError("as asked")
        return apply(self, module, *args)

    monkeypatch.setattr(ZPlus, "backward", fails)
    with pytest.raises(RuntimeError, match="as asked"):
        lc.explain(model_of(net, "trunk"), lc.LRP(), clip)
    assert_same(before, state(net))
    assert all(p is parameters[name] for name, p in net.named_parameters())


@pytest.mark.parametrize("method", [lc.ExcitationBackprop(), lc.LRP()])
def test_other_threads_may_run_the_network_meanwhile(
    method: lc.Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, found, apply = double(*SIZE), [], ZPlus.backward
    expected = lc.explain(model_of(Joined()), method, clip, TARGET)

    def run_elsewhere() -> None:
        def run() -> None:
            with torch.no_grad():
                found.append(net(clip))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    def join(x: Tensor, y: Tensor) -> Tensor:
        if threading.current_thread() is threading.main_thread():
            run_elsewhere()
        return x + y

    def backward(*args: Any) -> Any:
        run_elsewhere()
        with torch.no_grad():
            return apply(*args)

    net = Joined(join).eval()
    monkeypatch.setattr(ZPlus, "backward", backward)
    e = lc.explain(model_of(net), method, clip, TARGET)
    assert torch.equal(e.heatmap, expected.heatmap) and torch.equal(e.outputs, expected.outputs)
    assert len(found) == 3 and all(torch.equal(x, e.outputs) for x in found)


class Odd(nn.Module):
    """A convolution, something that has no rule, and a head."""

    def __init__(self, odd: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.conv, self.odd, self.fc = nn.Conv3d(3, 4, 3), odd, nn.Linear(4, 3)

    def forward(self, clip: Tensor) -> Tensor:
        return self.fc(self.odd(self.conv(clip).flatten(2).transpose(1, 2)).mean(1))


class Attended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x)[0]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = nn.utils.rnn.pack_padded_sequence(x, [x.shape[1]] * len(x), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.lstm(rows)[0], batch_first=True)[0]


class Twice(torch.autograd.Function):
    """A function of one's own, which PyTorch does not show to anybody."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


WEIGHT = torch.ones(4, 4)
ODD: dict[str, tuple[Any, str]] = {
    "layer norm": (nn.LayerNorm(4), "layer_norm"),
    "a layer by its function": (lambda x: F.linear(x, WEIGHT), "linear"),
    "two activations multiplied": (lambda x: x * x.flip(1), "mul"),
    "divided by its own size": (lambda x: x / x.norm(dim=-1, keepdim=True), "div"),
    "attention": (Attended(), "multi_head_attention_forward"),
    "a product of activations": (lambda x: x @ (x.transpose(1, 2) @ x), "matmul"),
    "packed sequences": (Packed(), "pad_packed_sequence"),
    "a projected LSTM": (nn.LSTM(4, 6, proj_size=4, batch_first=True), "LSTM"),
    "a function of one's own": (Twice.apply, "Twice"),
    "a scripted layer": (torch.jit.script(nn.Linear(4, 4)), "torch.jit.script"),
    "computed weights": (
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "whose weights are computed"
    ),
}  # fmt: skip


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("method", [lc.ExcitationBackprop(), lc.LRP()])
def test_what_has_no_rule_is_named_and_no_gradient_takes_its_place(
    what: str, method: lc.Attribution
) -> None:
    """LRP and excitation backprop through layers and functions that have no rule"""
    odd, name = ODD[what]
    inner = (lambda x: odd(x)[0]) if isinstance(odd, nn.LSTM) else odd
    net = Odd(inner)
    if isinstance(odd, nn.LSTM):
        net.lstm = odd
    model, clip = model_of(net, "conv"), clip_of(2, 3, 4, 5, 5)
    with pytest.raises(UserError, match=rf"has no rule for .*({name}).*; .*or take explain="):
        lc.explain(model, method, clip, 1)


def test_what_has_no_rule_may_lie_above_or_below() -> None:
    """Scores of any kind can be asked for, and a layer behind it can be explained."""
    net = nn.Sequential(
        nn.GroupNorm(1, 3), nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)
    )
    clip = clip_of(2, 3, 4, 5, 5)
    model = model_of(net, "2")
    with pytest.raises(UserError, match="group_norm"):
        lc.explain(model, lc.LRP(), clip, 1)
    e = lc.explain(model, lc.ExcitationBackprop(layer="2"), clip, 1)
    torch.testing.assert_close(e.numbers["lost"], torch.zeros(2), rtol=0, atol=1e-5)
    model = replace(model_of(net[1:], "2"), score=lambda y, target: y.exp().cumsum(1)[:, 1])
    assert lc.explain(model, lc.ExcitationBackprop(), clip, 1).heatmap.any()


def test_a_network_without_layers_with_weights_is_refused() -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
    for method in (lc.LRP(), lc.ExcitationBackprop()):
        with pytest.raises(UserError, match="nothing to start from"):
            lc.explain(model_of(net), method, clip_of(2, 3, 4, 5, 5), 1)


@pytest.mark.parametrize("method", [lc.LRP(), lc.ExcitationBackprop()])
def test_without_zennit_one_line_says_what_to_install(
    method: lc.Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "zennit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zennit", None)
    with pytest.raises(UserError, match=r"takes its rules from zennit: pip install zennit"):
        lc.explain(model_of(Joined()), method, double(*SIZE), 1)
    assert method.cost(model_of(Joined()), double(*SIZE)) == lc.Cost(1, 1)


def test_a_composite_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="epsilon_plus_flat"):
        lc.LRP("zplus")  # type: ignore[arg-type]
