"""Relevance through what is no layer with weights, what is refused, and what is left behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import assert_same, clip_of, state
from test_relevance import SIZE, TARGET, Joined, double, mass, model_of
from torch import Tensor, nn
from torch.nn import functional as F
from zennit.layer import Sum
from zennit.rules import ZPlus

import lightning_cam as lc
from lightning_cam.errors import UserError
from lightning_cam.models.resnet3d import ResNet3D


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
