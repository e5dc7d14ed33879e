"""What networks return, as columns: several heads, and what makes probabilities of them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import Gap3d, Heads, clip_of, describe
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.outputs import outputs_of
from lightning_cam.errors import ArgumentError, UnknownNameError, UserError
from lightning_cam.explaining.clip_explanations import probabilities

HEADS = {"verb": ["open", "close"], "noun": ["door", "open", "box"]}
NAMES = ("verb/open", "verb/close", "noun/door", "noun/open", "noun/box")
Pair = namedtuple("Pair", "verb noun")


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "dict": lambda verb, noun: {"loss": None, "noun": noun, "verb": verb},
    "tuple": lambda verb, noun: (verb, noun),
    "list": lambda verb, noun: [verb, noun],
    "named tuple": Pair,
    "tensor": lambda verb, noun: torch.cat([verb, noun], 1),
}


def clips() -> Tensor:
    return clip_of(2, 3, 4, 8, 8)


@pytest.mark.attack
@pytest.mark.parametrize("form", FORMS)
def test_heads_are_columns_side_by_side(form: str) -> None:
    """A network with two heads, as a dict, tuple, list or named tuple."""
    net = Heads(FORMS[form]).eval()
    model = describe(net, outputs=HEADS)
    assert model.outputs == NAMES
    assert torch.equal(outputs_of(model, clips()), Gap3d.forward(net, clips()))


def test_each_head_has_a_softmax_of_its_own() -> None:
    net = Heads(FORMS["dict"]).eval()
    model = describe(net, outputs=HEADS)
    alone = describe(net, outputs=HEADS["noun"], forward=lambda c: Gap3d.forward(net, c)[:, 2:])
    few = lc.TemporalMask(iterations=2), lc.RISE(8), lc.Occlusion(window=(2, 4, 4)), lc.GradCAM()
    for method in few:
        expected = lc.explain(alone, method, clips(), "box")
        found = lc.explain(model, method, clips(), "noun/box")
        torch.testing.assert_close(found.heatmap, expected.heatmap)
    p = model.probabilities(found.outputs)
    torch.testing.assert_close(p[:, :2].sum(1), torch.ones(2))
    assert torch.equal(p[:, 2:], expected.outputs.softmax(1))
    assert [name for name, _ in probabilities(model, found.outputs[:1])] == list(NAMES)


def test_columns_of_heads_are_named_whole_or_where_they_are_alone() -> None:
    model = describe(Heads(FORMS["dict"]), outputs=HEADS)
    assert [model.column(name) for name in ("noun/box", "box", "close", "verb/open")] == [
        4,
        4,
        1,
        0,
    ]
    with pytest.raises(ArgumentError, match=r"'open' names 2 columns.* such as 'verb/open'"):
        model.column("open")
    with pytest.raises(UnknownNameError, match="no target 'verb/box'"):
        model.column("verb/box")


def test_where_none_is_asked_for_the_first_head_is_explained() -> None:
    net = Heads(FORMS["dict"])
    nn.init.constant_(net.fc.bias, 0)
    net.fc.bias.data[2:] = 9.0
    e = lc.explain(describe(net, outputs=HEADS), lc.GradCAM(), clips())
    assert torch.equal(e.target, e.outputs[:, :2].argmax(1))


def test_one_head_of_several_is_chosen_by_naming_it() -> None:
    net = Heads(FORMS["dict"])
    e = lc.explain(describe(net, outputs={"noun": HEADS["noun"]}), lc.GradCAM(), clips(), "box")
    assert e.outputs.shape == (2, 3) and e.target.tolist() == [2, 2]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("form", "outputs", "said"),
    [
        ("dict", None, r"dict with 'loss', 'noun' \(2, 3\), 'verb' \(2, 2\) from.*\['verb'\]"),
        ("tuple", None, r"got tuple of tensors \(2, 2\), \(2, 3\) from Heads; unpack it"),
        ("dict", HEADS | {"tool": ["a"]}, r"no tensor under 'tool', but 'loss', 'noun', 'verb'"),
        ("tuple", HEADS | {"tool": ["a"]}, r"tuple of 2 tensors, and 3 heads are named"),
        ("dict", {"verb": ["open"]}, r"head 'verb' has outputs \(2, 2\), and 1 columns are named"),
        ("tensor", {"verb": ["open"]}, r"the model names 1 outputs, the network has 5"),
    ],
)
def test_heads_that_are_not_there_are_named(form: str, outputs: Any, said: str) -> None:
    """Heads named otherwise than the network returns them."""
    with pytest.raises(ArgumentError, match=said):
        lc.explain(describe(Heads(FORMS[form]), outputs=outputs), lc.GradCAM(), clips())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"logits": y, "features": y.sum()},
        lambda y: {"scores": y},
        lambda y: (y, None),
        lambda y: [y],
    ],
    ids=["logits", "one in a dict", "one in a tuple", "one in a list"],
)
def test_what_is_around_one_tensor_is_taken_off(wrap: Callable[[Tensor], Any]) -> None:
    net = Gap3d().eval()
    model = describe(net, forward=lambda clip: wrap(net(clip)))
    assert torch.equal(outputs_of(model, clips()), net(clips()))


# --- probabilities ---------------------------------------------------------------------------


class Two(nn.Module):
    """Columns that are the mean brightness of the left and of the right half, each by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        left, right = self.layer(clip).mean((1, 2, 3)).chunk(2, 1)
        return 4 * torch.stack([left.mean(1), right.mean(1)], 1)


def test_columns_by_themselves_have_sigmoids_and_do_not_compete() -> None:
    """Brightening the right half lowers the softmax of the left, and leaves its sigmoid alone."""
    clip = torch.ones(1, 3, 4, 8, 8)
    window = {"window": (4, 8, 4), "stride": (4, 8, 4)}
    heat = {
        kind: lc.explain(
            lc.Explainable.of(Two(), ["layer"], ["left", "right"], probability=kind),
            lc.Occlusion(**window), clip, "left",
        ).heatmap[0, 0, 0]
        for kind in ("softmax", "sigmoid", None)
    }  # fmt: skip
    sigmoid, hidden = torch.tensor(4.0).sigmoid(), torch.tensor(0.5)
    torch.testing.assert_close(heat["sigmoid"], torch.tensor([sigmoid - hidden] * 4 + [0.0] * 4))
    assert heat["softmax"][0] > 0 > heat["softmax"][7]
    torch.testing.assert_close(heat[None], torch.tensor([4.0] * 4 + [0.0] * 4))


ASKING = {
    "occlusion": lc.Occlusion(window=(2, 4, 4)),
    "first order": lc.Occlusion(approximate=True),
    "rise": lc.RISE(8),
    "frames": lc.TemporalMask(iterations=2),
    "extremal": lc.ExtremalPerturbation(iterations=3, areas=(0.3,)),
    "supervoxels": lc.Supervoxels(),
}


@pytest.mark.filterwarnings("ignore:.*of area .* came out")
@pytest.mark.parametrize("name", ASKING)
def test_the_sigmoid_of_a_column_is_the_softmax_of_it_and_0(name: str) -> None:
    net = Gap3d(outputs=1)

    def yes_or_no(clip: Tensor) -> Tensor:
        yes = net(clip)
        return torch.cat([yes, torch.zeros_like(yes)], 1)

    by_itself, against = describe(net, probability="sigmoid"), describe(net, forward=yes_or_no)
    found, expected = (lc.explain(m, ASKING[name], clips(), 0) for m in (by_itself, against))
    assert expected.heatmap.any()
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=1e-4, atol=1e-6)
    curves = [lc.deletion(m, clips(), found.heatmap, 0, steps=4).auc for m in (by_itself, against)]
    torch.testing.assert_close(*curves)


def test_one_column_with_a_softmax_is_refused_where_it_would_always_be_1() -> None:
    net = Gap3d(outputs=1)
    assert lc.explain(describe(net), lc.GradCAM(), clips()).heatmap.any()
    with pytest.raises(ArgumentError, match="softmax of one column is 1 whatever"):
        lc.explain(describe(net), lc.Occlusion(), clips())
    for kind in ("sigmoid", None):
        assert lc.explain(describe(net, probability=kind), lc.Occlusion(), clips()).heatmap.any()


@pytest.mark.parametrize("given", [True, False, "Softmax", "log"])
def test_what_makes_probabilities_is_one_of_three(given: object) -> None:
    with pytest.raises(ArgumentError, match='must be "softmax"'):
        describe(Gap3d(), probability=given)


def test_the_check_says_where_probabilities_would_be_made_twice() -> None:
    net, many = Gap3d().eval(), clip_of(4, 3, 4, 8, 8)
    forms = {
        "sigmoid": lambda clip: 1 / (1 + (-net(clip)).exp()),  # by hand, which nobody can know
        "softmax": lambda clip: net(clip).softmax(1),
    }
    for kind, forward in forms.items():
        for made in ("softmax", "sigmoid", None):
            model = describe(net, forward=forward, probability=made)
            found = lc.check(model, many, [])
            assert bool(found.outputs) == (made == "sigmoid"), (kind, made, found)
            assert bool(found.notes) == (made == kind == "softmax"), (kind, made, found)
    assert not lc.check(describe(net, probability="sigmoid"), many, []).outputs
    heads = Heads(lambda verb, noun: (verb, noun.softmax(1)))
    assert "their logarithm" in lc.check(describe(heads, outputs=HEADS), many, []).notes[0]


@pytest.mark.attack
@pytest.mark.parametrize(
    "made", [nn.Sigmoid(), torch.sigmoid, Tensor.sigmoid, lambda y: y.sigmoid()[:, :4]]
)
def test_a_sigmoid_within_the_network_is_not_taken_twice(made: Callable[[Tensor], Tensor]) -> None:
    """A network of several labels that ends in a sigmoid already, by any method."""
    net = Gap3d(outputs=4).eval()
    inside = describe(net, forward=lambda clip: made(net(clip)), probability="sigmoid")
    outside = describe(net, probability="sigmoid")
    for method in (lc.Occlusion(window=(2, 4, 4)), lc.GradCAM(), lc.RISE(8)):
        found, expected = (lc.explain(m, method, clips(), 1) for m in (inside, outside))
        torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.outputs, expected.outputs)
        assert found.notes["outputs"] == "logit of probabilities"


KINDS = {"verb": "softmax", "noun": "sigmoid", "speed": None}


def mixed() -> tuple[Gap3d, lc.Explainable]:
    """A network of three heads, each of another kind."""
    torch.manual_seed(0)
    net = Gap3d(outputs=6).eval()
    names = {"verb": ["open", "close"], "noun": ["door", "lid", "box"], "speed": ["speed"]}
    forward = lambda clip: net(clip).split([2, 3, 1], 1)  # noqa: E731
    return net, describe(net, forward=forward, outputs=names, probability=KINDS)


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore:.*of area .* came out")
@pytest.mark.parametrize("name", ASKING)
def test_heads_of_several_kinds_are_scored_each_by_its_own(name: str) -> None:
    """One head of classes, one of labels that are true or not, and one of a number."""
    net, model = mixed()
    for (head, kind), columns in zip(KINDS.items(), ([0, 1], [2, 3, 4], [5]), strict=True):
        alone = describe(net, forward=lambda c, k=columns: net(c)[:, k], probability=kind)
        found = lc.explain(model, ASKING[name], clips(), columns[-1])
        expected = lc.explain(alone, ASKING[name], clips(), len(columns) - 1)
        torch.testing.assert_close(found.heatmap, expected.heatmap, msg=head)


def test_heads_of_several_kinds_in_tables_and_figures() -> None:
    net, model = mixed()
    y = net(clips())
    p = model.probabilities(y)
    assert torch.equal(p, torch.cat([y[:, :2].softmax(1), y[:, 2:5].sigmoid(), y[:, 5:]], 1))
    assert [name for name, _ in probabilities(model, y[:1])] == list(model.outputs[:-1])
    assert [model.kind(k) for k in (1, 2, 5)] == list(KINDS.values())
    with pytest.raises(ArgumentError, match=r"verb/close, speed/speed are of heads of several"):
        lc.explain(model, lc.Occlusion(), clips(), [1, 5])
    with pytest.raises(UnknownNameError, match="no head 'nuon'; nearest: noun"):
        describe(net, outputs=HEADS, probability={"nuon": None})
    with pytest.raises(ArgumentError, match=r"must be.*or one of these for each head"):
        describe(net, probability={"noun": None})


@pytest.mark.parametrize(
    "outputs", [{"verb": []}, {"verb": "open"}, {"verb": [1.5]}], ids=["none", "text", "number"]
)
def test_names_of_heads_come_as_lists(outputs: Any) -> None:
    with pytest.raises(UserError, match="verb"):
        describe(Heads(FORMS["dict"]), outputs=outputs)
