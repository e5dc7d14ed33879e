"""Laws that a family of methods obeys (U1-U7), and how `explain` runs.

What every method promises is in test_contracts.py. A law holds for a family by its mathematics, so
here the methods that obey it are named.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from nets import FoldedLSTM, Gap3d, LoopedLSTM, Touchy, assert_same, clip_of, describe, state
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.explainable import Forward
from lightning_cam.errors import UserError

OF_GRADIENTS = [
    lc.GradCAM(),
    lc.GradCAM(pool="space"),
    lc.GradCAM(pool="spacetime"),
    lc.RecurrentGradCAM(),
    lc.IntegratedRecurrentGradCAM(),
]
OF_VOXELS = [
    lc.Gradient(),
    lc.GradientXInput(),
    lc.SmoothGrad(samples=3),
    lc.IntegratedGradients(steps=3),
    lc.GuidedBackprop(),
]
OF_PERTURBATIONS = [
    lc.RISE(masks=12, cells=(2, 3, 3)),
    lc.RISE(masks=12, cells=(2, 3, 3), norm="center"),
    lc.SIDU(threshold="quantile:0.5"),
    lc.Occlusion(window=(2, 4, 4)),
]
SIGNED = (lc.GradientXInput, lc.IntegratedGradients, lc.Occlusion)
OF_THE_MODEL = [*OF_GRADIENTS, *OF_VOXELS, *OF_PERTURBATIONS]
each_of_gradients = pytest.mark.parametrize("method", [*OF_GRADIENTS, *OF_VOXELS], ids=repr)
each_of_the_model = pytest.mark.parametrize("method", OF_THE_MODEL, ids=repr)


def network(kind: str, channels: int = 3) -> lc.Explainable:
    torch.manual_seed(0)
    if kind == "3d":
        return describe(Gap3d(channels))
    folded = FoldedLSTM(channels)
    if kind == "folded":
        return describe(folded, steps="head")
    return describe(LoopedLSTM(folded), "conv", steps="head")


each_network = pytest.mark.parametrize("kind", ["3d", "folded", "looped"])


@pytest.mark.parametrize("method", [m for m in OF_THE_MODEL if not isinstance(m, SIGNED)], ids=repr)
@each_network
@pytest.mark.parametrize("shape", [(1, 1, 4, 8, 8), (2, 2, 1, 9, 7), (2, 4, 3, 7, 12)])
def test_u1_non_negative(method: lc.Attribution, kind: str, shape: tuple[int, ...]) -> None:
    assert (lc.explain(network(kind, shape[1]), method, clip_of(*shape)).heatmap >= 0).all()


def test_u1_frames_that_do_not_divide_by_the_layer_s() -> None:
    class Strided(Gap3d):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 6, 3, stride=(3, 2, 2), padding=1)

    heat = lc.explain(describe(Strided()), lc.GradCAM(), clip_of(2, 3, 7, 10, 6)).heatmap
    assert heat.shape == (2, 7, 10, 6)


def test_u3_a_graph_that_waits_for_its_backward_is_not_disturbed() -> None:
    torch.manual_seed(0)
    net = Touchy()
    clip = clip_of(2, 3, 4, 8, 8)
    twin = copy.deepcopy(net)
    for one, explained in ((net, True), (twin, False)):
        torch.manual_seed(1)
        loss = one(clip).square().sum()
        if explained:
            lc.explain(describe(one), lc.GradCAM(), clip)
        loss.backward()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
    assert_same(state(twin), state(net))


def test_u4_a_seed_chooses_the_noise() -> None:
    model, clip = network("folded"), clip_of(2, 3, 4, 8, 8)
    assert not torch.equal(
        lc.explain(model, lc.RandomMap(seed=1), clip).heatmap,
        lc.explain(model, lc.RandomMap(seed=2), clip).heatmap,
    )


@each_of_the_model
@pytest.mark.filterwarnings("ignore:SIDU's map is 0")
def test_u5_a_constant_model_gives_a_constant_map(method: lc.Attribution) -> None:
    class Constant(FoldedLSTM):
        def forward(self, clip: Tensor) -> Tensor:
            return 0 * super().forward(clip) + torch.arange(4.0)

    e = lc.explain(describe(Constant()), method, clip_of(2, 3, 4, 8, 8))
    counts = isinstance(method, lc.RISE) and method.norm is None  # the score where a voxel is seen
    expected = torch.arange(4.0).softmax(0)[3] if counts else torch.tensor(0.0)
    assert torch.equal(e.heatmap, expected.expand(2, 4, 8, 8))
    assert e.target.tolist() == [3, 3]


@each_of_gradients
@each_network
def test_u6_scaling_logits_scales_the_map_and_a_constant_changes_nothing(
    method: lc.Attribution, kind: str
) -> None:
    model, clip = network(kind), clip_of(2, 3, 4, 8, 8)
    plain = lc.explain(model, method, clip, 1).heatmap
    head = model.module.fc if kind == "3d" else model.module.head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.bias += 7
        torch.testing.assert_close(lc.explain(model, method, clip, 1).heatmap, plain)
        head.weight *= 3
        head.bias *= 3
    torch.testing.assert_close(lc.explain(model, method, clip, 1).heatmap, 3 * plain)
    with torch.no_grad():  # a loss's tiny gradient keeps its shape
        head.weight *= 1e-6 / 3
    torch.testing.assert_close(lc.explain(model, method, clip, 1).heatmap * 1e6, plain)


@pytest.mark.parametrize("method", OF_GRADIENTS, ids=repr)
def test_u7_opposite_classes_have_opposite_maps(method: lc.Attribution) -> None:
    class Antisymmetric(FoldedLSTM):
        def forward(self, clip: Tensor) -> Tensor:
            y = super().forward(clip)[:, :1]
            return torch.cat([y, -y], 1)

    torch.manual_seed(0)
    model, clip = describe(Antisymmetric()), clip_of(2, 3, 4, 8, 8)
    signed = type(method)(**{**vars(method), "relu": False})
    a, b = (lc.explain(model, signed, clip, c).heatmap for c in (0, 1))
    torch.testing.assert_close(a, -b)
    # Disjoint at the layer's own resolution: upsampling blurs across borders.
    small = clip_of(2, 3, 4, 8, 8)
    p, n = (lc.explain(model, method, small, c).heatmap[:, :, ::7, ::7] for c in (0, 1))
    assert (p * n == 0).all()
    assert p.any()


@pytest.mark.parametrize("method", OF_PERTURBATIONS, ids=repr)
@each_network
def test_u6_a_constant_on_all_logits_changes_nothing(method: lc.Attribution, kind: str) -> None:
    model, clip = network(kind), clip_of(2, 3, 4, 8, 8)
    plain = lc.explain(model, method, clip, 1).heatmap
    with torch.no_grad():
        (model.module.fc if kind == "3d" else model.module.head).bias += 7  # type: ignore[union-attr,operator]
    heat = lc.explain(model, method, clip, 1).heatmap
    torch.testing.assert_close(heat, plain, rtol=1e-3, atol=1e-5)


def test_u7_two_classes_share_what_can_be_seen() -> None:
    model, clip = network("folded"), clip_of(2, 3, 4, 8, 8)
    two = replace(model, forward=lambda c: model.forward(c)[:, :2])
    counted = [lc.explain(two, lc.RISE(masks=20), clip, c).heatmap for c in (0, 1)]
    torch.testing.assert_close(counted[0] + counted[1], torch.ones(2, 4, 8, 8))
    signed = lc.RISE(masks=20, norm="center", relu=False)
    a, b = (lc.explain(two, signed, clip, c).heatmap for c in (0, 1))
    torch.testing.assert_close(a, -b, rtol=1e-3, atol=1e-7)


def test_evidence_counts_from_the_lowest_heat_where_0_means_nothing() -> None:
    model, clip = network("folded"), clip_of(2, 3, 4, 8, 8)
    cam = lc.explain(model, lc.GradCAM(), clip)
    assert cam.evidence is cam.heatmap and cam.level is None
    valid = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    padded = replace(model, valid=valid)
    e = lc.explain(padded, lc.RISE(masks=20), clip, 1)
    for row, frames in ((0, 4), (1, 2)):
        heat = e.heatmap[row, :frames]
        assert float(heat.min()) > 0.05
        torch.testing.assert_close(e.evidence[row, :frames], heat - heat.min())
    assert not e.evidence[1, 2:].any()
    signed = lc.explain(model, lc.RISE(masks=20, norm="center", relu=False), clip, 1)
    assert signed.evidence is signed.heatmap
    both = lc.explain_contrast(model, lc.RISE(masks=20), clip, 1, 2)
    assert torch.equal(both.difference, both.evidence - both.against.evidence)
    assert both.level is not None


def test_train_mode_gives_the_eval_mode_map_and_keeps_cudnn_s_rule() -> None:
    """Dropout and batch norm are off, but recurrent modules train, with dropout 0."""
    torch.manual_seed(0)
    net = Touchy()
    seen = []
    net.lstm.register_forward_pre_hook(lambda m, _: seen.append((m.training, m.dropout)))
    clip = clip_of(2, 3, 4, 8, 8)
    trained = lc.explain(describe(net.train()), lc.GradCAM(), clip, 1)
    evaluated = lc.explain(describe(net.eval()), lc.GradCAM(), clip, 1)
    assert seen == [(True, 0.0), (True, 0.0)]
    torch.testing.assert_close(trained.heatmap, evaluated.heatmap, rtol=1e-6, atol=0)
    torch.testing.assert_close(trained.outputs, net(clip).detach())


@pytest.mark.attack
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_a_map_of_whole_numbers_or_of_truth_values_is_a_map(dtype: torch.dtype) -> None:
    """A method that returns a mask, or counts: all measures read its map as numbers."""
    shown = clip_of(2, 3, 4, 8, 8)
    e = lc.explain(network("3d"), lambda model, clip, target: (clip[:, 0] > 0).to(dtype), shown)
    assert e.heatmap.dtype == torch.float32
    assert torch.equal(e.heatmap, (shown[:, 0] > 0).float())


def test_bfloat16_weights_are_explained_close_to_float32() -> None:
    model = network("folded")
    clip = clip_of(2, 3, 4, 8, 8)
    expected = lc.explain(model, lc.GradCAM(), clip, 1)
    model.module.bfloat16()
    e = lc.explain(model, lc.GradCAM(), clip, 1)
    assert e.heatmap.dtype == e.outputs.dtype == torch.float32
    assert (e.heatmap - expected.heatmap).norm() < 0.05 * expected.heatmap.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch._dynamo's own
def test_a_compiled_network_is_explained_as_the_plain_one() -> None:
    model = network("folded")
    clip = clip_of(2, 3, 4, 8, 8)
    expected = lc.explain(model, lc.GradCAM(), clip, 1).heatmap
    whole = torch.compile(model.module, backend="eager")
    whole(clip)
    assert torch.equal(lc.explain(describe(whole), lc.GradCAM(), clip, 1).heatmap, expected)
    model.module.compile(backend="eager")
    model.module(clip)
    assert torch.equal(lc.explain(model, lc.GradCAM(), clip, 1).heatmap, expected)


def test_attention_and_outputs_come_from_the_one_forward_the_method_runs() -> None:
    class Attentive(FoldedLSTM):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Linear(8, 1)
            self.attention = nn.Softmax(dim=1)
            self.runs = 0

        def forward(self, clip: Tensor) -> Tensor:
            self.runs += 1
            features = self.trunk(clip).mean((2, 3)).unflatten(0, (len(clip), -1))
            states = self.lstm(features)[0]
            weights = self.attention(self.energy(states)[..., 0])
            return (weights[..., None] * self.head(states)).sum(1)

    torch.manual_seed(0)
    net = Attentive().eval()
    model = describe(net, attention=["attention"], steps="head")
    clip = clip_of(2, 3, 4, 8, 8)
    e = lc.explain(model, lc.GradCAM(), clip)
    assert net.runs == 1
    torch.testing.assert_close(e.outputs, net(clip).detach())
    assert e.attention["attention"].shape == (2, 4)
    torch.testing.assert_close(e.attention["attention"].sum(1), torch.ones(2))
    assert e.caption == "Grad-CAM, trunk, gradient pooled over space"
    for method in (lc.RandomMap(), lc.RecurrentGradCAM(step=1)):
        other = lc.explain(model, method, clip)
        torch.testing.assert_close(other.outputs, e.outputs)
        torch.testing.assert_close(other.attention["attention"], e.attention["attention"])


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize(
    "method",
    [
        *OF_GRADIENTS,
        lc.RecurrentGradCAM(step=-1),
        lc.RegressionGradCAM(low=0),
        lc.Gradient(),
        lc.GradientXInput(),
        lc.GuidedBackprop(),
    ],
    ids=repr,
)
def test_one_forward_of_the_layers_up_to_the_target_layer(
    method: lc.Attribution, target: int | None
) -> None:
    model, runs = network("folded"), []
    model.module.trunk.conv.register_forward_hook(lambda *_: runs.append(1))  # type: ignore[union-attr,operator]
    lc.explain(model, method, clip_of(2, 3, 4, 8, 8), target)
    assert len(runs) == 1


def test_a_function_is_a_method() -> None:
    model, clip = network("folded"), clip_of(2, 3, 4, 8, 8)
    model = replace(model, default=2)
    seen = []

    def brightness(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return clip.mean(1) * model.score(model.forward(clip), target)[:, None, None, None]

    e = lc.explain(model, brightness, clip)
    assert torch.equal(seen[0], torch.tensor([2, 2])) and torch.equal(e.target, seen[0])
    score = model.module(clip)[:, 2].detach()
    torch.testing.assert_close(e.heatmap, clip.mean(1) * score[:, None, None, None])
    assert e.caption == e.method.title == "brightness"
    with pytest.raises(UserError, match=r"pass GradCAM\(\) in place of the class"):
        lc.explain(model, lc.GradCAM, clip)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected a method such as GradCAM"):
        lc.explain(model, "gradcam", clip)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"returned a map \(2, 3, 4, 8, 8\), expected"):
        lc.explain(model, lambda model, clip, target: clip, clip)


def test_methods_that_call_other_methods_do_not_get_each_other_s_first_run() -> None:
    """Guided Grad-CAM, and Grad-CAM of another clip than the one that is explained."""
    model, clip = network("folded"), clip_of(2, 3, 4, 8, 8)
    cam, guided, mirror = lc.GradCAM(), lc.GuidedBackprop(), clip.flip(-1)

    @dataclass(frozen=True)
    class Both(lc.Attribution):
        def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
            return cam(model, clip, target) * guided(model, clip, target)

    class Mirrored(lc.GradCAM):
        def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
            return super().__call__(model, mirror, target)

    one, other = (lc.explain(model, method, clip, 1).heatmap for method in (cam, guided))
    assert torch.equal(lc.explain(model, Both(), clip, 1).heatmap, one * other)
    expected = lc.explain(model, cam, mirror, 1).heatmap
    assert torch.equal(lc.explain(model, Mirrored(), clip, 1).heatmap, expected)
    assert not torch.equal(expected, one)


@pytest.mark.slow
def test_memory_does_not_grow_over_many_calls() -> None:
    import gc

    model, clip = network("folded"), clip_of(1, 3, 4, 8, 8)

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(o, Tensor) for o in gc.get_objects())

    lc.explain(model, lc.IntegratedRecurrentGradCAM(), clip)
    before = tensors()
    for _ in range(50):
        lc.explain(model, lc.IntegratedRecurrentGradCAM(), clip)
    assert tensors() <= before


def test_list_layers_names_what_can_be_chosen() -> None:
    clip = clip_of(2, 3, 4, 8, 6)
    found = {layer.name: layer for layer in lc.list_layers(network("3d"), clip)}
    assert found["conv"].shape == (2, 6, 4, 4, 3)
    assert found["conv"].stride == (1, 2, 2)
    assert "fc" not in found
    looped = {layer.name: layer for layer in lc.list_layers(network("looped"), clip)}
    assert looped["conv"].shape == (2, 6, 4, 4, 3)
    assert looped["conv"].calls == 4
    for name in looped:
        lc.explain(network("looped"), lc.GradCAM(name), clip)


def test_names_with_braces_and_targets_beyond_the_columns() -> None:
    model = describe(Gap3d(), outputs=["a{b}", "{}", "c", "d"])
    clip = clip_of(1, 3, 2, 8, 8)
    e = lc.explain(model.contrast("a{b}"), lc.GradCAM(), clip, "{}")
    assert e.caption.endswith("rather than a{b}")
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.3"):
        lc.explain(model, lc.RandomMap(), clip, torch.tensor([9]))


def test_outputs_that_are_not_columns_are_refused() -> None:
    class Tuple(Gap3d):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip)[:, :, None]

    with pytest.raises(ValueError, match=r"expected outputs \(B, K\).*forward="):
        lc.explain(describe(Tuple()), lc.GradCAM(), clip_of(2, 3, 4, 8, 8))


def _zero(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
    return clip.zero_().mean(1)


def _first_column(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
    return clip.mean(1) * model.score(model.forward(clip), target.fill_(0))[:, None, None, None]


@pytest.mark.parametrize(("method", "what"), [(_zero, "clip"), (_first_column, "target")])
def test_a_method_that_works_in_place_is_named_and_changes_nothing_of_the_caller_s(
    method: Callable[[lc.Explainable, Tensor, Tensor], Tensor], what: str
) -> None:
    clip, target = clip_of(2, 3, 4, 8, 8), torch.tensor([1, 2])
    given = clip.clone(), target.clone()
    match = rf"{method.__name__} changed the {what} .* in place.*{what}\.clone\(\)"
    with pytest.raises(UserError, match=match):
        lc.explain(network("3d"), method, clip, target)
    assert torch.equal(clip, given[0])
    assert torch.equal(target, given[1])


@pytest.mark.parametrize("method", [*OF_THE_MODEL, None], ids=repr)
def test_a_first_layer_that_works_in_place_changes_no_clip_and_no_map(
    method: lc.Attribution | None,
) -> None:
    """Not the caller's clip, nor what the next forward sees."""

    class Shifted(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net, self.in_place = Gap3d(), in_place

        def forward(self, clip: Tensor) -> Tensor:
            return self.net(clip.mul_(1.5).add_(0.5) if self.in_place else clip * 1.5 + 0.5)

    def forwards(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        twice = model.forward(clip) + model.forward(clip)
        return clip.mean(1) * model.score(twice, target)[:, None, None, None]

    clip = clip_of(1, 3, 4, 8, 8)
    given = clip.clone()
    found = []
    for in_place in (True, False):
        net = Shifted(in_place).eval()
        steps = net.net.fc if isinstance(method, lc.RecurrentGradCAM) else None
        model = replace(describe(net, "net.conv"), steps=steps)
        e = lc.explain(model, method or forwards, clip, 1)
        found.append([e.heatmap, e.outputs, lc.deletion(model, clip, e.heatmap, 1, steps=4).score])
        assert torch.equal(clip, given)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(
    ("target", "match"),
    [
        (2.5, "target 2.5 is of type float"),
        (True, "target True is of type bool"),
        (np.bool_(True), "of type bool"),
        (np.float32(1), "of type float32"),
        ([1, 2.5], "target 2.5 is of type float"),
        (np.array([1.0, 2.0]), "target 1.0 is of type float"),
        ([[1], [2]], r"target \[1\] is of type list"),
        ([1], "a target for each of 2 clips, got 1"),
        ({1, 2}, "of type set"),
        (torch.tensor([True, False]), r"an integer tensor \(2,\), got torch.bool"),
        (torch.tensor([1.0, 2.0]), r"an integer tensor \(2,\), got torch.float32"),
        (torch.tensor(1), r"an integer tensor \(2,\), got torch.int64 \(\)"),
        ("wave", r"no target 'wave': the outputs of this model have no names"),
    ],
)
def test_targets_of_a_wrong_kind_are_refused(target: Any, match: str) -> None:
    model = replace(network("3d"), outputs=())
    with pytest.raises((UserError, ValueError), match=match):
        lc.explain(model, lc.GradCAM(), clip_of(2, 3, 4, 8, 8), target)


@pytest.mark.parametrize("default", [True, 1.0, torch.tensor([1, 2])])
def test_a_default_is_one_column(default: Any) -> None:
    with pytest.raises(UserError, match="is of type"):
        lc.explain(replace(network("3d"), default=default), lc.GradCAM(), clip_of(2, 3, 4, 8, 8))


def test_a_target_for_each_clip() -> None:
    model = describe(Gap3d(), outputs=["a", "b", "c", "d"])
    clip = clip_of(2, 3, 4, 8, 8)
    expected = lc.explain(model, lc.GradCAM(), clip, torch.tensor([1, 2]))
    for target in ([1, 2], ("b", "c"), np.array([1, 2]), np.array(["b", "c"]), ["b", np.int64(2)]):
        found = lc.explain(model, lc.GradCAM(), clip, target)
        assert torch.equal(found.target, torch.tensor([1, 2]))
        assert torch.equal(found.heatmap, expected.heatmap)
    for one in (1, np.int64(1), "b"):
        assert lc.explain(model, lc.GradCAM(), clip, one).target.tolist() == [1, 1]


class _Odd(lc.Attribution):
    def __init__(self, given: Any, heatmap: Any = None, number: Any = None) -> None:
        self.given, self.heatmap, self.number = given, heatmap, number

    def run(self, model: lc.Explainable, clip: Tensor) -> Any:
        return super().run(model, clip) if isinstance(self.given, str) else self.given

    def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Any:
        if self.number is not None:
            model.numbers["x"] = self.number
        return clip.mean(1) if isinstance(self.heatmap, str) else self.heatmap


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (_Odd(None), r"^_Odd\.run returned NoneType, expected Forward"),
        (_Odd(torch.zeros(2, 4)), r"^_Odd\.run returned Tensor, expected Forward"),
        (_Odd(Forward(None)), r"^expected outputs \(B, K\) with B=2, got NoneType"),  # type: ignore[arg-type]
        (
            _Odd("run"),
            r"^_Odd returned NoneType, expected a tensor .* = \(2, 4, 8, 8\)",
        ),
        (_Odd("run", np.zeros((2, 4, 8, 8))), "^_Odd returned ndarray, expected a tensor"),
        (
            _Odd("run", torch.ones(2, 4, 8, 8) * 1j),
            "^_Odd returned torch.complex64, .* real numbers",
        ),
        (_Odd("run", torch.ones(2, 4, 8, 8).to_sparse()), "^_Odd returned .*sparse.*, .* dense"),
        (_Odd("run", torch.ones(2, 4, 8, 8, device="meta")), "^_Odd returned .* on meta, expected"),
        (_Odd("run", "map", 1.5), r"^_Odd gave model.numbers\['x'\] = 1.5, expected .* = \(2,\)"),
        (_Odd("run", "map", torch.tensor(1.5)), r"numbers\['x'\] = \(\), expected .* = \(2,\)"),
        (_Odd("run", "map", torch.zeros(3)), r"numbers\['x'\] = \(3,\), expected"),
    ],
)
def test_what_a_method_returns_is_checked(method: lc.Attribution, match: str) -> None:
    with pytest.raises(UserError, match=match):
        lc.explain(network("3d"), method, clip_of(2, 3, 4, 8, 8))
