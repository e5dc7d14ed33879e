"""Outputs at every step: `at` makes columns of a clip of them, for every method."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from enumerated import methods
from nets import FoldedLSTM, LoopedLSTM, clip_of, describe
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.outputs import outputs_of
from lightning_cam.errors import ArgumentError, UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore:SIDU's map is 0"),
    pytest.mark.filterwarnings("ignore:.*of area .* came out"),
]
METHODS = {name: method for name, method in methods().items() if not method.baseline}


class Dense(FoldedLSTM):
    """Outputs of every step, (B, T, K)."""

    def forward(self, clip: Tensor) -> Tensor:
        features = self.trunk(clip).mean((2, 3)).unflatten(0, (len(clip), -1))
        return self.head(self.lstm(features)[0])


def clips() -> Tensor:
    return 3 * clip_of(2, 3, 4, 8, 8)


def networks() -> tuple[Dense, dict[str, lc.Explainable]]:
    """One network whose forward returns every step, the last one, and the last one by a loop."""
    torch.manual_seed(0)
    dense, folded = Dense().eval(), FoldedLSTM().eval()
    folded.load_state_dict(dense.state_dict())
    return dense, {
        "dense": describe(dense, "trunk.relu"),
        "read out": describe(folded, "trunk.relu", steps="head"),
        "looped": describe(LoopedLSTM(folded).eval(), "relu", steps="head"),
    }


def heat(model: lc.Explainable, method: lc.Attribution) -> Tensor | str:
    try:
        return lc.explain(model, method, clips(), 1).heatmap
    except UserError as error:
        return str(error)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("order", "back"),
    [
        (lambda y: y.transpose(0, 1), "transpose(0, 1)"),
        (lambda y: y.transpose(1, 2), "transpose(1, 2)"),
        (lambda y: y.flatten(0, 1), "unflatten(0, (len(clip), -1))"),
    ],
    ids=["T B K", "B K T", "B*T K"],
)
def test_steps_in_another_order_are_named_with_the_way_back(order: Any, back: str) -> None:
    """Outputs of every frame time-major, with columns before frames, or folded into the batch."""
    net = nn.Sequential(Dense(), nn.Linear(4, 3)).eval()
    model = describe(net, "0.trunk.relu", forward=lambda clip: order(net(clip)))
    with pytest.raises(ArgumentError, match=re.escape(f"network(clip).{back})")):
        lc.explain(model.at(2), lc.GradCAM(), clips())
    given = {"clip": clips(), "network": lambda clip: order(net(clip))}
    mended = describe(net, "0.trunk.relu", forward=lambda _: eval(f"network(clip).{back}", given))
    found = lc.explain(mended.at(2), lc.GradCAM(), clips()).outputs
    torch.testing.assert_close(found, net(clips())[:, 2].detach())


@pytest.mark.attack
@pytest.mark.parametrize("name", METHODS)
def test_every_method_explains_a_step_as_if_the_network_returned_it_alone(name: str) -> None:
    """Outputs at every frame (B, T, K), step 1 of 4, by every method."""
    dense, models = networks()
    expected = heat(describe(dense, "trunk.relu", forward=lambda c: dense(c)[:, 1]), METHODS[name])
    for kind in ("dense", "read out"):
        found = heat(models[kind].at(1), METHODS[name])
        if isinstance(expected, Tensor) and isinstance(found, Tensor):
            torch.testing.assert_close(found, expected)
        else:
            assert str(found)[:40] == str(expected)[:40]


@pytest.mark.parametrize("step", [0, 2, -1, "sum", "mean"])
def test_recurrent_gradcam_of_a_step_is_that_of_the_model_at_it(step: int | str) -> None:
    _, models = networks()
    by_method = lc.explain(models["read out"], lc.RecurrentGradCAM(step=step), clips(), 1)
    for kind in ("read out", "dense", "looped"):
        at = lc.explain(models[kind].at(step), lc.RecurrentGradCAM(), clips(), 1)
        torch.testing.assert_close(at.heatmap, by_method.heatmap)
    assert by_method.heatmap.any()


def test_steps_that_are_padding_do_not_count() -> None:
    dense, models = networks()
    valid = torch.tensor([[True, True, False, False], [True] * 4])
    with torch.no_grad():
        y = dense(clips())  # (B, T, K)
    expected = {
        -1: torch.stack([y[0, 1], y[1, 3]]),
        -2: torch.stack([y[0, 0], y[1, 2]]),
        0: y[:, 0],
        "mean": torch.stack([y[0, :2].mean(0), y[1].mean(0)]),
        "sum": torch.stack([y[0, :2].sum(0), y[1].sum(0)]),
    }
    for kind, model in models.items():
        for step, columns in expected.items():
            bound = replace(model, valid=valid).at(step)
            found = lc.explain(bound, lc.Occlusion((4, 8, 8)), clips())
            torch.testing.assert_close(found.outputs, columns, msg=f"{kind} at {step}")
            twice = outputs_of(bound, clips().repeat(2, 1, 1, 1, 1), 2)
            torch.testing.assert_close(twice.detach(), columns.repeat(2, 1))


def test_fewer_steps_than_frames_are_valid_where_a_frame_of_theirs_is() -> None:
    class Halved(nn.Module):
        def forward(self, clip: Tensor) -> Tensor:
            return clip.mean((1, 3, 4)).unflatten(1, (-1, 2)).mean(2)[..., None].expand(-1, -1, 2)

    valid = torch.tensor([[True, False, False, False], [True, True, True, False]])
    model = replace(lc.Explainable.of(Halved()), valid=valid)
    y = Halved()(clips())
    assert torch.equal(outputs_of(model.at(-1), clips()), torch.stack([y[0, 0], y[1, 1]]))


def test_a_step_is_said_and_keeps_questions_and_columns() -> None:
    _, models = networks()
    model = replace(models["dense"], outputs=("a", "b", "c", "d")).at(2)
    method = lc.GradCAM(relu=False)
    e = lc.explain(model.contrast("b"), method, clips(), "a")
    assert e.caption.endswith("space, at output step 2 rather than b")
    a, b = (lc.explain(model, method, clips(), c).heatmap for c in "ab")
    torch.testing.assert_close(e.heatmap, a - b, rtol=1e-4, atol=1e-6)
    assert lc.deletion(model, clips(), e.heatmap, "a", steps=2).auc.shape == (2,)
    assert lc.check(model, clips()).layers[0].told


def test_heads_have_steps() -> None:
    dense, _ = networks()
    heads = {"verb": ["a", "b"], "noun": ["c", "d"]}

    def both(clip: Tensor) -> Any:
        return dict(zip(heads, dense(clip).chunk(2, 2), strict=True))

    model = describe(dense, "trunk.relu", forward=both, outputs=heads).at(1)
    e = lc.explain(model, lc.GradCAM(), clips(), "noun/d")
    torch.testing.assert_close(e.outputs, dense(clips())[:, 1].detach())


@pytest.mark.attack
@pytest.mark.parametrize(
    ("kind", "step", "said"),
    [
        ("dense", None, r"outputs at every step, \(B, T, K\), explain one: model.at\(3\)"),
        ("dense", 4, r"step must lie in -4..3, got 4"),
        ("read out", -5, r"step must lie in -4..3, got -5"),
        ("plain", 1, r"at\(1\) needs outputs at every step.* steps=NAME"),
        ("plain", "mean", r"at\('mean'\) needs outputs at every step"),
        ("elsewhere", 1, r"Linear, whose outputs are the steps, is not run"),
    ],
)
def test_steps_that_there_are_not_are_refused(kind: str, step: Any, said: str) -> None:
    """Outputs (B, T, K) without a step, a step beyond the last, a network without steps."""
    _, models = networks()
    models["plain"] = replace(models["read out"], steps=None)
    models["elsewhere"] = replace(models["read out"], steps=nn.Linear(1, 1))
    model = models[kind] if step is None else models[kind].at(step)
    with pytest.raises(ArgumentError, match=said):
        lc.explain(model, lc.GradCAM(), clips())


@pytest.mark.parametrize("step", [1.5, True, "last", None, [1]])
def test_a_step_is_a_number_or_two_words(step: Any) -> None:
    with pytest.raises(ArgumentError, match="a step is a number"):
        networks()[1]["dense"].at(step)


def test_a_step_is_chosen_once() -> None:
    with pytest.raises(UserError, match="no output steps, or one was chosen by `at`"):
        lc.explain(networks()[1]["read out"].at(1), lc.RecurrentGradCAM(step=2), clips())
