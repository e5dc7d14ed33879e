"""Relevance through LSTMs, GRUs and plain RNNs, as layers and as cells: answers on paper (X5)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import FoldedLSTM, LoopedLSTM, clip_of, describe
from test_relevance import double, model_of
from torch import Tensor, nn

import lightning_cam as lc


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
