"""What methods say that they run is what they run, and what the documentation says."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
import torch
from enumerated import method_classes, methods
from nets import Gap3d, clip_of, describe
from pages import pages, python
from test_contracts import KINDS, applied, clip, each_kind, network
from torch import Tensor, nn

import lightning_cam as lc

METHODS = methods()
pytestmark = pytest.mark.filterwarnings("ignore:SIDU's map is 0", "ignore:.*of area .* came out")
OTHERS = {  # settings that cost, beside the defaults
    "RISE(tol)": lc.RISE(masks=200, tol=1e-9),
    "RISE(tol), early": lc.RISE(masks=400, cells=(1, 1, 1), tol=0.9),
    "RegressionGradCAM(low=0)": lc.RegressionGradCAM(low=0),
    "dual": lc.ExtremalPerturbation("3d", (0.2, 0.4), iterations=2, game="dual"),
    "ScoreCAM(score)": lc.ScoreCAM(weights="score"),
    "Occlusion": lc.Occlusion((2, 5, 3), (1, 5, 2)),
    "Occlusion(approximate)": lc.Occlusion((2, 5, 3), (1, 5, 2), approximate=True),
    "Supervoxels(all)": lc.Supervoxels(cells=(2, 2, 1), masks=14),
    "Supervoxels(all), Banzhaf": lc.Supervoxels("banzhaf", cells=(2, 2, 1), masks=16),
    "SIDU(few)": lc.SIDU(threshold=-1.0),  # all masks are the same
}


def ran(model: lc.Explainable, method: lc.Attribution, shown: Tensor) -> tuple[float, float]:
    """Forwards and backwards of each clip, counted in rows."""
    rows = {"forward": 0, "backward": 0}

    def backward(gradient: Tensor) -> None:
        rows["backward"] += len(gradient)

    def forward(_: nn.Module, given: tuple[Tensor, ...], outputs: Tensor) -> None:
        rows["forward"] += len(given[0])
        if outputs.requires_grad:
            outputs.register_hook(backward)

    # Not another `forward=`: what is known of a network's runs is remembered for each.
    hook = model.module.register_forward_hook(forward)
    try:
        lc.explain(model, method, shown)
    finally:
        hook.remove()
    return rows["forward"] / len(shown), rows["backward"] / len(shown)


def know_runs(model: lc.Explainable, kind: str) -> None:
    """What each run of a layer has seen is measured once for each forward of a network."""
    if kind == "looped":
        lc.list_layers(model, clip())


@each_kind
@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_what_it_says(name: str, kind: str) -> None:
    model, method = applied(name, kind)
    know_runs(model, kind)
    cost = method.cost(model, clip())
    assert cost is not None, f"{type(method).__name__}.cost says nothing"
    assert ran(model, method, clip()) == cost
    assert not model.notes and not model.native and not model.numbers


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_cost(name: str, kind: str) -> None:
    method, model = OTHERS[name], network(kind)
    know_runs(model, kind)
    cost = method.cost(model, clip())
    assert cost is not None
    if name == "RISE(tol), early":
        assert ran(model, method, clip()) < cost  # how many masks it takes shows on the way
    else:
        assert ran(model, method, clip()) == cost


def test_a_function_or_a_class_that_says_nothing_has_no_cost() -> None:
    class Silent(lc.Attribution):
        def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
            return clip[:, 0]

    assert Silent().cost(network("classifier"), clip()) is None
    e = lc.explain(network("classifier"), lambda model, clip, target: clip[:, 0], clip())
    assert e.method.cost(network("classifier"), clip()) is None


@each_kind
def test_the_method_that_the_documentation_adds_runs_what_it_says(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = (code for _, code in python() if "class FrameAblation" in code)
    monkeypatch.setitem(sys.modules, "my_module", module := ModuleType("my_module"))
    exec(code, vars(module))
    method, model = module.FrameAblation(), network(kind)
    assert ran(model, method, clip()) == method.cost(model, clip())


@pytest.mark.parametrize("name", sorted(c.__name__ for c in method_classes()))
def test_the_documentation_shows_every_method_and_says_what_it_costs(name: str) -> None:
    told = [
        text
        for page, text in pages().items()
        if re.fullmatch(r"docs/methods/(?!index|measures|deletion)\w+\.md", page)
        and re.search(rf"\b{name}\b", text)
    ]
    assert any("![" in text and re.search(r"\bcosts?\b", text, re.I) for text in told)


def test_the_documentation_has_the_defaults_of_every_method_at_the_top() -> None:
    """Of a clip of 16 frames of 112 x 112; D is the number of the layer's channels."""
    table = pages()["docs/methods/index.md"].partition("## What the defaults run")[2]
    rows = re.findall(r"^\| (`.*`) \| (at most )?([\dD +]+) \| (\d+) \|$", table, re.MULTILINE)
    said = {name: row[1:] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    classes = {cls.__name__: cls for cls in method_classes()}
    assert set(said) == {name for name in classes if name in lc.__all__}
    torch.manual_seed(0)
    model, shown = describe(Gap3d()), clip_of(1, 3, 16, 112, 112)
    for name, (most, forwards, backwards) in said.items():
        cost = classes[name]().cost(model, shown)
        assert cost is not None
        found = sum(6 if term == "D" else int(term) for term in forwards.split(" + "))
        assert int(backwards) == cost.backwards, (name, cost)
        assert cost.forwards <= found if most else cost.forwards == found, (name, cost)
