"""What a network's forward takes beside the clip: repeated with the rows, and checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumerated import REASONS, methods
from nets import FoldedLSTM, Frames, Gap3d, LoopedLSTM, clip_of
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import lightning_cam as lc
from lightning_cam.attribution import calls
from lightning_cam.errors import ArgumentError, UnknownNameError, UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore:SIDU's map is 0"),
    pytest.mark.filterwarnings("ignore:.*of area .* came out"),
]
METHODS = {name: method for name, method in methods().items() if not method.baseline}
LENGTHS = torch.tensor([2, 4])


class Packed(nn.Module):
    """A CNN by frames and an LSTM that reads each clip up to its length."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Frames()
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, clip: Tensor, lengths: Tensor, scale: float = 1.0) -> Tensor:
        seen = self.trunk(clip).mean((2, 3)).unflatten(0, (len(clip), -1))
        packed = pack_padded_sequence(seen, lengths, batch_first=True, enforce_sorted=False)
        return scale * self.head(self.lstm(packed)[1][0][-1])


@pytest.fixture(scope="module")
def net() -> Packed:
    torch.manual_seed(0)
    return Packed().eval()


def clips() -> Tensor:
    return 3 * clip_of(2, 3, 4, 8, 8)


@pytest.mark.attack
@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_packed_lstm_the_lengths_of_its_rows(net: Packed, name: str) -> None:
    """Lengths beside the clip (a packed LSTM), with methods that run many copies of the batch."""

    def by_hand(rows: Tensor) -> Tensor:
        return net(rows, LENGTHS.repeat(len(rows) // 2))

    def heat(**how: Any) -> Tensor | str:
        model = lc.Explainable.of(net, ["trunk.relu"], **how)
        try:
            return lc.explain(model, METHODS[name], clips(), 1).heatmap
        except UserError as error:
            assert any(reason in str(error) for reason in REASONS), error
            return str(error)

    found, expected = heat(inputs={"lengths": LENGTHS}), heat(forward=by_hand)
    if isinstance(found, Tensor) and isinstance(expected, Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def test_frames_behind_a_clip_s_length_have_no_heat(net: Packed) -> None:
    model = lc.Explainable.of(net, ["trunk.relu"], inputs={"lengths": LENGTHS})
    heat = lc.explain(model, lc.Gradient(), clips()).heatmap
    assert not heat[0, 2:].any() and heat[0, :2].any() and heat[1].amax((1, 2)).all()


def test_measures_and_layers_run_the_network_with_its_inputs(net: Packed) -> None:
    model = lc.Explainable.of(net, ["trunk.relu"], inputs={"lengths": LENGTHS})
    e = lc.explain(model, lc.GradCAM(), clips())
    assert lc.deletion(model, clips(), e.heatmap, steps=2).auc.shape == (2,)
    assert "trunk.conv" in [layer.name for layer in lc.list_layers(model, clips())]
    assert lc.check(model, clips()).layers[0].told


def test_what_has_no_axes_or_is_no_tensor_is_passed_on(net: Packed) -> None:
    outputs = [
        lc.explain(
            lc.Explainable.of(net, ["trunk.relu"], inputs={"lengths": LENGTHS, "scale": scale}),
            lc.GradCAM(), clips(),
        ).outputs
        for scale in (1.0, 2.0, torch.tensor(2.0))
    ]  # fmt: skip
    assert torch.equal(outputs[1], 2 * outputs[0]) and torch.equal(outputs[1], outputs[2])


class Greedy(Gap3d):
    """Works in place on what it is given beside the clip."""

    def forward(self, clip: Tensor, **more: Tensor) -> Tensor:
        return super().forward(clip) + more["bias"].mul_(2)


def test_inputs_stay_as_they_were() -> None:
    bias = torch.rand(2, 4, requires_grad=True)
    before = bias.detach().clone()
    model = lc.Explainable.of(Greedy(), inputs={"bias": bias}, layers=["conv"])
    first, second = (lc.explain(model, lc.Occlusion(), clips()).outputs for _ in range(2))
    assert torch.equal(first, second) and torch.equal(bias, before) and bias.grad is None


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"length": LENGTHS}, "no input of the network 'length'; nearest: lengths"),
        ({"clip": clips()}, "no input of the network 'clip'"),
    ],
)
def test_an_input_that_the_network_does_not_take_is_named(
    net: Packed, inputs: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnknownNameError, match=said):
        lc.Explainable.of(net, inputs=inputs)


class Boxes(Gap3d):
    """Looks into a part of each clip, which is said in one way or another."""

    def forward(self, clip: Tensor, boxes: Any) -> Tensor:
        parts = boxes["of"] if isinstance(boxes, dict) else boxes
        shown = [
            x[..., int(a) : int(b)].mean(3, keepdim=True)
            for x, (a, b) in zip(clip, parts, strict=True)
        ]
        return super().forward(torch.stack(shown).expand_as(clip))


@pytest.mark.attack
@pytest.mark.parametrize("form", ["list of tensors", "list", "tensor in a dict"])
def test_lists_and_dicts_beside_the_clip_follow_its_rows(form: str) -> None:
    """Boxes of each clip as a list, or within a dict, and a method that runs many copies."""
    rows = torch.tensor([[0, 3], [2, 8]])
    given = {"list of tensors": list(rows), "list": rows.tolist(), "tensor in a dict": {"of": rows}}
    net = Boxes().eval()
    model = lc.Explainable.of(net, ["conv"], inputs={"boxes": given[form]})
    by_hand = lc.Explainable.of(
        net, ["conv"], forward=lambda clip: net(clip, rows.repeat(len(clip) // 2, 1))
    )
    found, expected = (lc.explain(m, lc.Occlusion(), clips(), 1).heatmap for m in (model, by_hand))
    assert torch.equal(found, expected)
    with pytest.raises(ArgumentError, match=r"input 'boxes(\.of)?' is of 2 clips"):
        lc.explain(model, lc.Occlusion(), clips()[:1])


@pytest.mark.attack
@pytest.mark.parametrize("lengths", [torch.tensor([3]), torch.tensor([1, 2, 3, 4])])
def test_inputs_of_another_batch_are_refused(net: Packed, lengths: Tensor) -> None:
    """Lengths of one clip, or of four, beside a batch of two."""
    model = lc.Explainable.of(net, ["trunk.relu"], inputs={"lengths": lengths})
    with pytest.raises(ArgumentError, match=rf"input 'lengths' is of {len(lengths)} clips"):
        lc.explain(model, lc.GradCAM(), clips())


def test_inputs_of_each_clip_its_own_do_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "_KEPT", 2)
    net, clip = LoopedLSTM(FoldedLSTM()).eval(), clip_of(1, 3, 4, 12, 12)
    plain = lc.explain(lc.Explainable.of(net, ["conv"]), lc.GradCAM(), clip, 0).heatmap
    for scale in (1.0, 2.0, 3.0, 4.0):
        held = [scale]  # a list of its own in each forward

        def forward(clip: Tensor, held: list[float] = held) -> Tensor:
            return held[0] * net(clip)

        model = lc.Explainable.of(net, ["conv"], forward=forward)
        found = lc.explain(model, lc.GradCAM(), clip, 0).heatmap
        torch.testing.assert_close(found, scale * plain)
    assert len(calls._remembered[net.conv]) == 2
