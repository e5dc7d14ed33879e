"""Sufficient share and average drop against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nets import clip_of
from planted import Planted
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.metrics import (
    AverageDrop,
    Curve,
    DeletionArea,
    Explained,
    InsertionArea,
    SufficientShare,
    average_drop,
    insertion,
    measure,
    sufficient_share,
)


def curve_of(*scores: list[float], clip_first: bool = False) -> Curve:
    score = torch.tensor(scores)
    return Curve(torch.linspace(0, 1, score.shape[1]), score, torch.zeros(len(score)), clip_first)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ([0, 0, 0.2, 0.6, 0.8], 0.5 + 0.25 * 0.5),  # 0.4 lies in the middle of the third quarter
        ([0.0, 0.4, 0.1, 0.5, 0.8], 0.25),  # the first time counts
        ([0.5, 0, 0, 0, 0.8], 0),  # what it starts from suffices
        ([0, 0, 0, 0, 0.8], 0.875),
        ([0, -1, -3, -2, -4], 0.375),  # a column that is below 0
        ([0.1, 0.3, 0.2, 0.1, 0], torch.nan),
    ],
)
def test_the_first_share_that_suffices_in_closed_form(score: list[float], expected: float) -> None:
    found = sufficient_share(curve_of(score, [0.0, 0, 0, 0, 1]))
    assert found.tolist() == pytest.approx([expected, 0.875], nan_ok=True)


def test_other_shares_and_other_curves() -> None:
    curve = curve_of([0, 0.2, 0.4, 0.6, 0.8])
    for share in (0.1, 0.5, 0.9, 1):
        assert sufficient_share(curve, share).item() == pytest.approx(share)
    with pytest.raises(ValueError, match=r"pass insertion\(\.\.\.\)"):
        sufficient_share(curve_of([1, 0], clip_first=True))
    for wrong in ({"share": 0}, {"share": 1.5}, {"order": "least"}, {"normalised": True}):
        with pytest.raises(ValueError, match="share"):
            SufficientShare(**wrong)  # type: ignore[arg-type]


class Counted(nn.Module):
    """A linear network that counts the rows it sees; column k weighs frame k."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, clip: Tensor) -> Tensor:
        self.rows += len(clip)
        return clip.mean((1, 3, 4))


def test_set_alike_the_share_is_read_off_insertion_s_curve() -> None:
    net = Counted()
    model = lc.Explainable.of(net, [], probability=None)
    clip = clip_of(2, 3, 4, 8, 8).abs()
    e = lc.explain(model, lc.CentreMap(), clip, 1)
    explained = Explained(model, clip, e)
    names = {"insertion": InsertionArea(steps=8), "share": SufficientShare(steps=8)}
    alone = {name: measure({name: each}, replace(explained, shared={})).values[name]
             for name, each in names.items()}  # fmt: skip
    net.rows = 0
    measure({"insertion": names["insertion"]}, replace(explained, shared={}))
    once, net.rows = net.rows, 0
    both = measure(names, replace(explained, shared={}))
    assert net.rows == once
    for name, value in both.values.items():
        assert torch.equal(value, alone[name]), name
    assert torch.equal(alone["share"], sufficient_share(insertion(model, clip, e.heatmap, 1, 8)))
    # Another map, another setting and the other curve are others.
    measure(names, explained)
    other = replace(explained, explanation=replace(e, heatmap=e.heatmap.flip(3) ** 2))
    others = (SufficientShare(steps=4), DeletionArea(steps=8))
    for each, of in ((names["share"], other), *((each, explained) for each in others)):
        net.rows = 0
        measure({"it": each}, of)
        assert net.rows > 0


@pytest.mark.parametrize(
    ("heat", "drop", "increase", "mean"),
    [
        ([1, 0], 0, 0, 0.5),  # frame 0 alone is kept, and it is all that column 0 weighs
        ([0, 1], 100, 0, 0.5),
        ([2, 6], 100, 0, 0.5),  # 0 to 1 over each clip
        ([1, 1], torch.nan, torch.nan, torch.nan),
        ([torch.nan, 1], torch.nan, torch.nan, torch.nan),
    ],
)
def test_drop_in_closed_form(heat: list[float], drop: float, increase: float, mean: float) -> None:
    model = lc.Explainable.of(Counted(), [], probability=None)
    clip = torch.ones(1, 3, 2, 4, 4)
    heatmap = torch.tensor(heat)[None, :, None, None].expand(1, 2, 4, 4)
    found = average_drop(model, clip, heatmap, 0)
    expected = pytest.approx([drop, increase, mean], nan_ok=True)
    assert [found.drop.item(), found.increase.item(), found.heat.item()] == expected
    # What speaks against the column is better hidden: a column that is below 0 rises.
    less = average_drop(model, -clip, heatmap, 0)
    assert less.increase.item() == pytest.approx(float(drop > 0) + 0 * drop, nan_ok=True)
    assert less.drop.item() == pytest.approx(0 * drop, nan_ok=True)


def test_padding_is_no_part_of_the_map() -> None:
    clip = torch.ones(1, 3, 4, 4, 4)
    model = lc.Explainable.of(Counted(), [], probability=None)
    model = replace(model, valid=torch.tensor([[True, True, False, False]]))
    heatmap = torch.tensor([5, 3, 0, 0.0])[None, :, None, None].expand(1, 4, 4, 4)
    found = average_drop(model, clip, heatmap, 1)
    assert found.heat.item() == 0.5 and found.drop.item() == 100


def test_a_probability_is_what_a_classifier_loses(planted: Planted) -> None:
    """Seen through its truth a clip keeps its class, through the rest of it it does not."""
    model, clips = planted.model, planted.clips
    inside = average_drop(model, clips, planted.mask.float(), planted.labels)
    outside = average_drop(model, clips, 1 - planted.mask.float(), planted.labels)
    assert inside.drop.mean() < 5 and outside.drop.mean() > 60
    assert inside.heat.mean() < 0.05 < 0.95 < outside.heat.mean()
    e = lc.explain(model, lc.GradCAM(layer="layer2"), clips, planted.labels)
    measures = {"drop": AverageDrop(), "share": SufficientShare(steps=20)}
    found = measure(measures, Explained(model, clips, e, planted.batch))
    assert {*found.beside} >= {"drop_increase", "drop_heat"}
    with torch.no_grad():
        low = e.heatmap.amin((1, 2, 3), keepdim=True)
        heat = (e.heatmap - low) / (e.heatmap - low).amax((1, 2, 3), keepdim=True)
        p, p_h = (planted.net(x).softmax(1)[range(8), planted.labels]
                  for x in (clips, clips * heat[:, None]))  # fmt: skip
    expected = 100 * ((p - p_h) / p).clamp(min=0)
    torch.testing.assert_close(found.values["drop"], expected, rtol=1e-3, atol=1e-3)
    assert found.values["share"].mean() < 0.2


def test_what_hides_can_be_chosen() -> None:
    model = lc.Explainable.of(Counted(), [], probability=None, black=[-2, -2, -2])
    heatmap = torch.tensor([1, 0.0])[None, :, None, None].expand(1, 2, 4, 4)
    clip = torch.ones(1, 3, 2, 4, 4)
    for hidden, drop in (("black", 300), ("mean", 100), ("blur", 0)):
        found = average_drop(model, clip, heatmap, 1, hidden=hidden)  # type: ignore[arg-type]
        assert found.drop.item() == pytest.approx(drop, abs=1e-3)
