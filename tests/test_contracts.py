"""What every method promises on every kind of network; methods are found, not listed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import enumerated
import pytest
import torch
from enumerated import REASONS, configured_methods, method_classes, methods, variants
from nets import (
    Attends,
    FoldedLSTM,
    Gap3d,
    LoopedLSTM,
    Touchy,
    assert_same,
    clip_of,
    describe,
    state,
)
from torch import Tensor, nn

import lightning_cam as lc
import lightning_cam.attribution
from lightning_cam.errors import UserError

METHODS, VARIANTS = methods(), variants()
BASELINES = {n for n, m in METHODS.items() if m.baseline}
KINDS = ("classifier", "folded", "looped", "regressor")
SHAPE = (2, 3, 4, 8, 8)
DEFAULT = 2  # the regressor's column

pytestmark = [
    pytest.mark.filterwarnings("ignore:SIDU's map is 0"),
    pytest.mark.filterwarnings("ignore:.*of area .* came out"),
]
each_method = pytest.mark.parametrize("name", METHODS)
each_kind = pytest.mark.parametrize("kind", KINDS)


def network(kind: str, shape: tuple[int, ...] = SHAPE, name: str = "") -> lc.Explainable:
    """Layer names are left to the network; "folded" and "looped" are the same network."""
    torch.manual_seed(0)
    if kind == "classifier":
        model = described(name, shape)
    elif kind == "regressor":
        model = described(name, shape, probability=None, outputs=["a", "b", "loss", "d"])
        model = replace(model, default=DEFAULT)
    else:
        folded = FoldedLSTM(shape[1])
        looped = (LoopedLSTM(folded), "conv")
        model = describe(*((folded,) if kind == "folded" else looped), steps="head")
    return bound(model, shape)


def described(name: str, shape: tuple[int, ...] = SHAPE, **more: Any) -> lc.Explainable:
    """A network without memory that a method is for: with attention for methods of attention."""
    if not isinstance(METHODS.get(name), lc.AttentionRollout | lc.AttentionRelevance):
        return describe(Gap3d(shape[1]), **more)
    return describe(Attends(shape[1]), **more, layout="b (t h w) d", grid=shape[2:])


def bound(model: lc.Explainable, shape: tuple[int, ...] = SHAPE) -> lc.Explainable:
    """The model with ground truth of clips of a shape: a corner."""
    truth = torch.zeros(shape[0], *shape[2:], dtype=torch.bool)
    truth[:, :, :3, :4] = True
    return replace(model, truth=truth)


def clip() -> Tensor:
    return 3 * clip_of(*SHAPE)  # features beyond SIDU's threshold


# Why a method may refuse a network: it has not the part that the method is about.
@cache
def refusal(name: str, kind: str) -> str:
    """Why a method cannot explain a kind of network; "" where it can."""
    try:
        lc.explain(network(kind, name=name), METHODS[name], clip())
    except UserError as error:
        if not any(reason in str(error) for reason in REASONS):
            raise
        return str(error)
    return ""


def applied(name: str, kind: str) -> tuple[lc.Explainable, lc.Attribution]:
    if why := refusal(name, kind):
        pytest.skip(why)
    return network(kind, name=name), METHODS[name]


@each_method
def test_a_method_explains_some_network_and_says_in_one_line_why_not_others(name: str) -> None:
    refused = [why for kind in KINDS if (why := refusal(name, kind))]
    assert len(refused) < len(KINDS), refused
    assert all("\n" not in why and len(why) > 20 for why in refused)


def test_every_method_and_its_file_can_be_read() -> None:
    assert not enumerated.FAILED, enumerated.FAILED


def test_a_broken_file_is_named_and_the_others_are_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "explain").mkdir()
    method = "_target_: lightning_cam.GradCAM\n"
    broken = {
        "no_yaml.yaml": f"{method}[",
        "empty.yaml": "",
        "misspelt.yaml": "_target_: lightning_cam.GradCAN",
        "setting.yaml": f"{method}layerz: conv",
        "a_network.yaml": "_target_: torch.nn.ReLU",
    }
    for name, text in {**broken, "sound.yaml": f"{method}relu: false"}.items():
        (folder / name).write_text(text)
    (tmp_path / "half_written.py").write_text("import")
    monkeypatch.setattr(enumerated, "configs", lambda: tmp_path)
    monkeypatch.setattr(enumerated, "FAILED", {})
    package = lightning_cam.attribution
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    found = methods()
    assert set(enumerated.FAILED) == {*broken, f"{package.__name__}.half_written"}
    assert found.keys() == {cls.__name__ for cls in method_classes()} | {"sound"}


def test_every_public_method_is_found_and_has_a_yaml() -> None:
    classes = method_classes()
    public = [getattr(lc, name) for name in lc.__all__]
    of_methods = [p for p in public if isinstance(p, type) and issubclass(p, lc.Attribution)]
    assert {cls for cls in of_methods if not cls.__abstractmethods__} <= set(classes)
    assert {type(method) for method in configured_methods().values()} == set(classes)
    for cls in classes:
        assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]


@each_method
def test_only_baselines_ignore_the_network(name: str) -> None:
    one, other = bound(described(name)), bound(described(name))
    maps = [lc.explain(model, METHODS[name], clip(), 1).heatmap for model in (one, other)]
    ignored = torch.equal(*maps)
    if name in BASELINES:
        assert ignored, f"{name} is a baseline, but its map depends on the network"
    else:
        assert not ignored, (
            f"the map of {name} is the same for two networks, so it ignores them; a method that is "
            "meant to returns True as `baseline`"
        )


def check(e: lc.Explanation, shape: tuple[int, ...]) -> None:
    """What an explanation is, whatever the method."""
    assert e.heatmap.shape == (shape[0], *shape[2:])
    assert e.heatmap.dtype == e.outputs.dtype == torch.float32
    assert e.heatmap.isfinite().all()
    assert e.outputs.shape == (shape[0], 4) and e.target.shape == (shape[0],)
    assert e.target.dtype == torch.int64
    tensors = [e.heatmap, e.outputs, *e.numbers.values()]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert all(value.shape == (shape[0],) for value in e.numbers.values())
    assert e.numbers.keys() <= {*e.method.finds}, "a method names all that it finds"
    assert all(isinstance(text, str) and "\n" not in text for text in e.notes.values())
    assert e.caption == ", ".join([e.method.title, *e.notes.values()])
    if e.level is None:
        assert e.evidence is e.heatmap
    else:
        assert e.method.floating and (e.evidence >= 0).all()


@each_method
@each_kind
@pytest.mark.parametrize("shape", [(1, 1, 4, 8, 8), (2, 2, 1, 9, 7), (2, 4, 3, 7, 12)])
def test_shapes_types_and_words(name: str, kind: str, shape: tuple[int, ...]) -> None:
    _, method = applied(name, kind)
    e = lc.explain(network(kind, shape, name), method, clip_of(*shape))
    check(e, shape)
    assert e.method == method


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("kind", ["folded", "regressor"])
def test_every_choice_of_a_setting(name: str, kind: str) -> None:
    model = network(kind)
    try:
        e = lc.explain(model, VARIANTS[name], clip())
    except UserError as error:
        if not any(reason in str(error) for reason in REASONS):
            raise
        pytest.skip(str(error))
    check(e, SHAPE)
    assert torch.equal(lc.explain(model, VARIANTS[name], clip(), e.target).heatmap, e.heatmap)


@each_method
@each_kind
def test_without_a_target_the_map_is_that_of_the_default_target(name: str, kind: str) -> None:
    model, method = applied(name, kind)
    e = lc.explain(model, method, clip())
    with torch.no_grad():
        outputs = model.module.eval()(clip())
    expected = torch.full((2,), DEFAULT) if kind == "regressor" else outputs.argmax(1)
    assert torch.equal(e.target, expected)
    asked = lc.explain(model, method, clip(), expected)
    assert torch.equal(e.heatmap, asked.heatmap)
    assert torch.equal(e.outputs, asked.outputs) and e.caption == asked.caption
    if kind == "regressor":
        assert torch.equal(lc.explain(model, method, clip(), "loss").heatmap, e.heatmap)
        assert not torch.equal(outputs.argmax(1), expected)  # else it would say nothing
        if name not in BASELINES and not isinstance(method, lc.AttentionRollout):
            assert not torch.equal(lc.explain(model, method, clip(), 0).heatmap, e.heatmap)


@each_method
@each_kind
def test_a_target_that_is_not_given_costs_no_forward(name: str, kind: str) -> None:
    model, method = applied(name, kind)
    runs = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal runs
        runs += 1

    conv = next(m for m in model.module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
    if kind == "looped":
        lc.list_layers(model, clip())  # what each run has seen is measured once
    conv.register_forward_hook(count)
    counts = []
    for target in (None, 1):
        runs = 0
        lc.explain(model, method, clip(), target)
        counts.append(runs)
    assert counts[0] == counts[1] > 0


@each_method
@each_kind
def test_a_batch_equals_its_clips_one_by_one(name: str, kind: str) -> None:
    model, method = applied(name, kind)
    if isinstance(method, lc.RandomMap):
        pytest.skip("clips of one batch get different noise")
    target = torch.tensor([2, 0])
    both = lc.explain(model, method, clip(), target)
    batch, rows = both.heatmap, []
    for row in (slice(0, 1), slice(1, 2)):
        alone = replace(model, truth=model.truth[row])  # type: ignore[index]
        rows.append(lc.explain(alone, method, clip()[row], target[row]).heatmap)
    single = torch.cat(rows)
    # Where a map is a difference of outputs, it is as exact as they are.
    rounding = 1e-6 * float(both.outputs.abs().max())
    atol = 1e-5 * float(batch.abs().max()) + rounding
    torch.testing.assert_close(batch, single, rtol=1e-5, atol=atol)


@each_method
@each_kind
def test_padded_frames_are_0(name: str, kind: str) -> None:
    model, method = applied(name, kind)
    valid = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    e = lc.explain(replace(model, valid=valid), method, clip(), 1)
    assert e.heatmap.isfinite().all()
    assert (e.heatmap[1, 2:] == 0).all()


@each_method
@pytest.mark.parametrize("fail", [False, True])
def test_nothing_is_left_behind(name: str, fail: bool) -> None:
    torch.manual_seed(0)
    net, method = Touchy(), METHODS[name]
    net.norm.eval()  # a mixed network: flags are restored one by one
    net.conv.weight.requires_grad_(False)
    shown = clip().requires_grad_()
    net(shown).sum().backward()
    grad = shown.grad.clone()  # type: ignore[union-attr]
    net.fail = fail
    before, model = state(net), bound(describe(net))
    if fail:
        with pytest.raises(RuntimeError, match="as asked"):
            lc.explain(model, method, shown)
    else:
        try:
            lc.explain(model, method, shown)
        except UserError as error:  # nothing is left behind then, either
            assert any(reason in str(error) for reason in REASONS)
    assert_same(before, state(net))
    assert torch.equal(shown.grad, grad)  # type: ignore[arg-type]
    assert torch.equal(shown.detach(), clip())
    assert not model.notes and not model.numbers and not model.native
    assert model.first_run is None


@each_method
def test_the_global_generator_plays_no_part(name: str) -> None:
    kind = "classifier" if refusal(name, "folded") else "folded"
    model, method = network(kind, name=name), METHODS[name]
    maps = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        maps.append(lc.explain(model, method, clip(), 1).heatmap)
    assert torch.equal(*maps)


CONTEXTS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@each_method
@each_kind
def test_every_context_gives_the_same_map(name: str, kind: str) -> None:
    model, method = applied(name, kind)
    model.module.train()
    expected = lc.explain(model, method, clip(), torch.tensor([1, 2])).heatmap
    for said, context in CONTEXTS.items():
        with context():
            shown, target = clip(), torch.tensor([1, 2])  # born in the context
            heat = lc.explain(model, method, shown, target).heatmap
        assert torch.equal(heat, expected), said
    for parameter in model.module.parameters():
        parameter.requires_grad_(False)
    frozen = lc.explain(model, method, clip(), torch.tensor([1, 2])).heatmap
    assert torch.equal(frozen, expected)
