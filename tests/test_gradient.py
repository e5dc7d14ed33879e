"""Gradients, guided or averaged: answers on paper (G1-G5), captum's answers, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FoldedLSTM, Gap3d, clip_of
from scenes import batch_of, drive
from scenes import network as sfm_network
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution import averaged_gradients as averaged
from lightning_cam.attribution.perturbation import reference
from lightning_cam.tasks import StructureFromMotion

BLACK = [-0.5, 0.3, -1.0]


class Columns(nn.Module):
    """Columns by a function of the clip; remembers how many rows each forward had."""

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of, self.rows = of, list[int]()

    def forward(self, clip: Tensor) -> Tensor:
        self.rows.append(len(clip))
        return self.of(clip)


def plain(of: nn.Module | Callable[[Tensor], Tensor], **changes: Any) -> lc.Explainable:
    return lc.Explainable.of(of if isinstance(of, nn.Module) else Columns(of), [], **changes)


def linear(weight: Tensor) -> Columns:
    """Columns sum of weight x clip, for weights `(K, C, T, H, W)`."""
    return Columns(lambda clip: torch.einsum("bcthw,kcthw->bk", clip, weight.to(clip)))


def double(*shape: int, seed: int = 0) -> Tensor:
    return clip_of(*shape, seed=seed, dtype=torch.float64)


class Relus(nn.Module):
    """3-D convolutions with one in-place ReLU used behind each, as networks with captum need."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv3d(c, d, 3, stride, 1)
            for c, d, stride in ((channels, 5, 1), (5, 6, 2), (6, 4, 1))
        )
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, clip: Tensor) -> Tensor:
        for conv in self.convs:
            clip = self.relu(conv(clip))
        return self.fc(clip.mean((2, 3, 4)))


@pytest.fixture(scope="module")
def relus() -> Relus:
    torch.manual_seed(0)
    return Relus().double().eval()


SIZE = (2, 3, 4, 6, 5)
TARGET = torch.tensor([2, 0])

# G1: linear columns


def test_g1_the_gradient_of_linear_columns_is_their_weights() -> None:
    weight, clip = double(3, *SIZE[1:], seed=1), double(*SIZE)
    model, of_target = plain(linear(weight)), weight[TARGET]
    for reduce, expected in {
        "sum": of_target.sum(1),
        "abs_max": of_target.abs().amax(1),
        "abs_sum": of_target.abs().sum(1),
        "abs_mean": of_target.abs().mean(1),
    }.items():
        heat = lc.explain(model, lc.Gradient(reduce), clip, TARGET).heatmap  # type: ignore[arg-type]
        assert torch.equal(heat, expected), reduce
    heat = lc.explain(model, lc.GradientXInput(), clip, TARGET).heatmap
    assert torch.equal(heat, (of_target * clip).sum(1))
    smooth = lc.SmoothGrad(samples=7, reduce="sum")
    heat = lc.explain(model, smooth, clip, TARGET).heatmap
    torch.testing.assert_close(heat, of_target.sum(1), rtol=1e-14, atol=1e-14)
    still = lc.explain(model, lc.SmoothGrad(samples=7, kind="variance"), clip, TARGET).heatmap
    assert not still.any()


@pytest.mark.parametrize("kind", ["black", "mean", "blur"])
def test_g1_linear_columns_are_divided_exactly(kind: Any) -> None:
    weight, clip = double(3, *SIZE[1:], seed=1), double(*SIZE)
    model = plain(linear(weight), black=BLACK)
    hidden = reference(model, clip, kind)
    expected = (weight[TARGET] * (clip - hidden)).sum(1)
    for method in (lc.IntegratedGradients(3, reference=kind), lc.GradientXInput(reference=kind)):
        e = lc.explain(model, method, clip, TARGET)
        torch.testing.assert_close(e.heatmap, expected, rtol=1e-12, atol=1e-12)
        assert f"from {kind}" in e.caption


# G2: integrated gradients


def test_g2_a_quadratic_column() -> None:
    n = 3 * 2 * 4 * 4
    q = double(n, n, seed=1)
    q = q + q.T
    clip = double(2, 3, 2, 4, 4)
    model = plain(lambda x: (x.flatten(1) @ q * x.flatten(1)).sum(1, keepdim=True) / 2)
    heat = lc.explain(model, lc.IntegratedGradients(1), clip).heatmap
    expected = (clip * (clip.flatten(1) @ q).view_as(clip) / 2).sum(1)
    torch.testing.assert_close(heat, expected, rtol=1e-10, atol=1e-10)


@given(steps=st.integers(1, 6))
@settings(max_examples=6, deadline=None)
def test_g2_the_rule_is_exact_for_polynomials_of_twice_its_steps(steps: int) -> None:
    clip = double(1, 1, 2, 3, 3)
    model = plain(lambda x: (x ** (2 * steps)).flatten(1).sum(1, keepdim=True))
    e = lc.explain(model, lc.IntegratedGradients(steps), clip)
    torch.testing.assert_close(e.heatmap, clip[:, 0] ** (2 * steps), rtol=1e-9, atol=1e-12)
    assert float(e.numbers["incomplete"]) < 1e-9
    one_less = lc.explain(model, lc.IntegratedGradients(max(1, steps - 1)), clip)
    assert steps == 1 or float(one_less.numbers["incomplete"]) > 1e-9


def test_g2_the_parts_add_up() -> None:
    torch.manual_seed(0)
    net, clip = Gap3d().double().eval(), double(*SIZE)
    model = plain(net, black=BLACK)
    with torch.no_grad():
        ends = net(clip) - net(reference(model, clip, "black"))
    moved = ends[:, 3]
    for steps, close in ((50, 1e-2), (400, 2e-3)):
        e = lc.explain(model, lc.IntegratedGradients(steps), clip, 3)
        missed = (e.heatmap.sum((1, 2, 3)) - moved).abs() / moved.abs()
        assert missed.max() < close
        torch.testing.assert_close(e.numbers["incomplete"], missed, rtol=1e-6, atol=1e-9)
        assert f"{steps} steps from black, incomplete by {float(missed.max()):.1%}" in e.caption
    absolute = lc.IntegratedGradients(50, reduce="abs_sum")  # the number is of the parts themselves
    fifty = lc.explain(model, lc.IntegratedGradients(50), clip, 3).numbers["incomplete"]
    assert torch.equal(lc.explain(model, absolute, clip, 3).numbers["incomplete"], fifty)


def test_the_reference_itself_has_no_parts(relus: Relus) -> None:
    model = plain(relus, black=BLACK)
    black = reference(model, double(*SIZE), "black").contiguous()
    e = lc.explain(model, lc.IntegratedGradients(4), black, 0)
    assert not e.heatmap.any() and not e.numbers["incomplete"].any()


# SmoothGrad


def test_smoothgrad_of_a_quadratic_column_has_known_moments() -> None:
    scale = torch.linspace(0.5, 3, 64, dtype=torch.float64).view(1, 1, 1, 8, 8)
    model = plain(lambda x: (scale * x**2 / 2).flatten(1).sum(1, keepdim=True))
    clip = double(1, 1, 1, 8, 8)
    noise = (0.2 * (clip.max() - clip.min()) * scale)[0, 0] ** 2
    mean = (scale * clip)[0, 0]
    settings = {"samples": 3000, "sigma": 0.2, "batch": 100}
    for kind, expected in {"mean": mean, "square": mean**2 + noise, "variance": noise}.items():
        method = lc.SmoothGrad(**settings, kind=kind, reduce="sum")  # type: ignore[arg-type]
        heat = lc.explain(model, method, clip).heatmap[0]
        error = (heat - expected).abs() / (noise.sqrt() if kind == "mean" else expected)
        assert error.max() < 0.15, kind
    named = lc.explain(model, lc.SmoothGrad(2, kind="variance"), clip).caption
    assert named.startswith("SmoothGrad, variance of 2 samples, sigma 0.15 of the range")


def test_without_noise_smoothgrad_is_the_gradient(relus: Relus) -> None:
    clip = double(*SIZE)
    gradient = lc.explain(plain(relus), lc.Gradient(), clip, TARGET).heatmap
    still = lc.explain(plain(relus), lc.SmoothGrad(3, sigma=0), clip, TARGET).heatmap
    torch.testing.assert_close(still, gradient)


def test_g5_noise_is_in_units_of_each_clip_s_own_range(relus: Relus) -> None:
    clip = double(*SIZE)
    clip[1] = 20 * clip[1] + 3
    model = plain(relus)
    both = lc.explain(model, lc.SmoothGrad(4), clip, TARGET).heatmap
    for b in range(2):
        alone = lc.explain(model, lc.SmoothGrad(4), clip[b : b + 1], TARGET[b : b + 1]).heatmap
        torch.testing.assert_close(both[b], alone[0])
    # a network that is homogeneous in the clip sees the same noisy clips, only larger
    square = plain(lambda x: (x**2).flatten(1).sum(1, keepdim=True))
    one, ten = (lc.explain(square, lc.SmoothGrad(4), k * clip).heatmap for k in (1, 10))
    torch.testing.assert_close(ten, 10 * one)


def test_padding_is_no_part_of_the_range() -> None:
    clip = double(2, 1, 4, 3, 3)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    model = replace(plain(lambda x: (x**2).flatten(1).sum(1, keepdim=True)), valid=valid)
    method = lc.SmoothGrad(4, reduce="sum")
    before = lc.explain(model, method, clip).heatmap
    clip[1, :, 2:] = 1000
    assert torch.equal(lc.explain(model, method, clip).heatmap, before)
    none = replace(model, valid=torch.zeros_like(valid))  # an unreadable clip
    assert torch.equal(lc.explain(none, method, clip).heatmap, torch.zeros(2, 4, 3, 3).double())


def test_the_seed_decides(relus: Relus) -> None:
    clip = double(*SIZE)

    def heat(seed: int) -> Tensor:
        return lc.explain(plain(relus), lc.SmoothGrad(3, seed=seed), clip, 0).heatmap

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = heat(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, heat(0))
    assert not torch.allclose(first, heat(1))


# Guided backpropagation

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu by name": lambda x: F.relu(input=x),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": lambda x: x.relu_(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_guided_by_hand(name: str) -> None:
    """h = (3, -1, 2), y = h1 + h2 - h3: the first passes, x forbids the second, R the third."""
    first = torch.tensor([[1.0, 1.0], [1.0, -3.0], [1.0, 0.0]])
    second = torch.tensor([[1.0, 1.0, -1.0]])
    clip = torch.tensor([2.0, 1.0]).view(1, 1, 1, 1, 2)
    model = plain(lambda x: FUNCTIONS[name](x.flatten(1) @ first.T) @ second.T)
    guided = lc.explain(model, lc.GuidedBackprop("sum"), clip)
    assert guided.heatmap.flatten().tolist() == [1, 1]
    assert guided.caption == "Guided backpropagation, 1 ReLU, signed sum over channels"
    assert guided.outputs.tolist() == [[1]]
    gradient = lc.explain(model, lc.Gradient("sum"), clip).heatmap
    assert gradient.flatten().tolist() == [0, 1]  # an ordinary one again


def test_one_relu_used_three_times_guides_three_times(relus: Relus) -> None:
    clip = double(*SIZE)
    e = lc.explain(plain(relus), lc.GuidedBackprop("sum"), clip, TARGET)
    features = [clip]
    with torch.no_grad():
        for conv in relus.convs:
            features.append(conv(features[-1]).relu())
        size = features[-1][0, 0].numel()
        r = (relus.fc.weight[TARGET] / size)[..., None, None, None].expand_as(features[-1])
        for n in (2, 1, 0):
            conv, below = relus.convs[n], features[n]
            r = r.clamp(min=0) * (features[n + 1] > 0)
            r = torch.nn.grad.conv3d_input(
                below.shape,
                conv.weight,
                r,
                conv.stride,
                conv.padding,  # type: ignore[arg-type]
            )
    torch.testing.assert_close(e.heatmap, r.sum(1))
    assert "3 ReLUs" in e.caption


def test_a_skip_connection_keeps_its_own_gradient() -> None:
    """relu(h) - 2 h, the pre-activation of a residual network: the skip is not clamped."""
    clip = torch.tensor([3.0, -3.0]).view(1, 1, 1, 1, 2)
    model = plain(lambda x: (torch.relu(2 * x) - 2 * (2 * x)).flatten(1).sum(1, keepdim=True))
    shared = plain(lambda x: _preactivated(2 * x).flatten(1).sum(1, keepdim=True))
    for one in (model, shared):
        heat = lc.explain(one, lc.GuidedBackprop("sum"), clip).heatmap
        assert heat.flatten().tolist() == [-2, -4]


def _preactivated(h: Tensor) -> Tensor:
    return F.relu(h) - 2 * h


def test_a_part_of_a_tensor_in_place() -> None:
    def net(x: Tensor) -> Tensor:
        h = x.flatten(1) * 1
        h[:, :2].relu_()
        return (h * torch.tensor([-1.0, 1.0, -1.0])).sum(1, keepdim=True)

    heat = lc.explain(plain(net), lc.GuidedBackprop("sum"), torch.ones(1, 1, 1, 1, 3)).heatmap
    assert heat.flatten().tolist() == [0, 1, -1]


def test_g3_with_positive_weights_nothing_is_held_back(relus: Relus) -> None:
    torch.manual_seed(0)
    net = Relus().double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    clip = double(*SIZE)
    guided, plain_ = (
        lc.explain(plain(net), method, clip, 1).heatmap
        for method in (lc.GuidedBackprop(), lc.Gradient())
    )
    assert torch.equal(guided, plain_)


def test_a_network_without_relus_says_so() -> None:
    model, clip = plain(linear(double(3, *SIZE[1:]))), double(*SIZE)
    e = lc.explain(model, lc.GuidedBackprop(), clip, 0)
    assert "no ReLU: the plain gradient" in e.caption
    assert torch.equal(e.heatmap, lc.explain(model, lc.Gradient(), clip, 0).heatmap)


def test_nothing_is_guided_any_more_after_a_failure() -> None:
    class Failing(Relus):
        def forward(self, clip: Tensor) -> Tensor:
            super().forward(clip)
            raise RuntimeError("as asked")

    torch.manual_seed(0)
    net = Failing()
    hooks = [(m._forward_hooks, m._forward_pre_hooks, m._backward_hooks) for m in net.modules()]
    with pytest.raises(RuntimeError, match="as asked"):
        lc.explain(plain(net), lc.GuidedBackprop(), clip_of(*SIZE))
    assert torch._C._len_torch_function_stack() == 0
    assert not any(any(of_one) for of_one in hooks)
    x = torch.ones(1, requires_grad=True)
    (-F.relu(x)).sum().backward()
    assert x.grad is not None and float(x.grad) == -1


# captum


@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor")
@pytest.mark.parametrize("net", ["relus", "gap", "frames"])
def test_equals_captum(net: str, relus: Relus) -> None:
    torch.manual_seed(0)
    nets = {"relus": relus, "gap": Gap3d(), "frames": FoldedLSTM()}
    module = nets[net].double().eval()
    clip, model = double(*SIZE), plain(module, black=BLACK)
    black = reference(model, clip, "black").contiguous()

    def captums(method: Any, **options: Any) -> Tensor:
        return method.attribute(clip.clone().requires_grad_(), target=TARGET, **options).detach()

    ig = captum.attr.IntegratedGradients(module)
    for ours, theirs in (
        (lc.Gradient("sum"), captums(captum.attr.Saliency(module), abs=False).sum(1)),
        (lc.Gradient(), captums(captum.attr.Saliency(module)).amax(1)),
        (lc.GradientXInput(), captums(captum.attr.InputXGradient(module)).sum(1)),
        (
            lc.IntegratedGradients(20),
            captums(ig, baselines=black, n_steps=20, internal_batch_size=4).sum(1),
        ),
        (lc.GuidedBackprop("sum"), captums(captum.attr.GuidedBackprop(module)).sum(1)),
    ):
        heat = lc.explain(model, ours, clip, TARGET).heatmap
        torch.testing.assert_close(heat, theirs, rtol=1e-6, atol=1e-12)  # its weights are float32


# What all of them have in common

EACH = [
    lc.Gradient(),
    lc.GradientXInput(),
    lc.SmoothGrad(samples=6),
    lc.SmoothGrad(samples=6, kind="variance"),
    lc.IntegratedGradients(steps=6),
    lc.GuidedBackprop(),
]
each = pytest.mark.parametrize("method", EACH, ids=repr)
each_of_many = pytest.mark.parametrize("method", EACH[2:5], ids=repr)


@each_of_many
def test_the_batch_size_changes_nothing(method: Any, relus: Relus) -> None:
    clip = double(*SIZE)
    expected = lc.explain(plain(relus), method, clip, TARGET)
    for batch in (1, 2, 5, 8, 100):
        e = lc.explain(plain(relus), replace(method, batch=batch), clip, TARGET)
        torch.testing.assert_close(e.heatmap, expected.heatmap, rtol=1e-10, atol=1e-15)
        assert e.caption == expected.caption


@pytest.mark.parametrize("count", [5, 60])
def test_memory_does_not_grow_with_the_number_of_passes(count: int) -> None:
    """Rows at once are what a graph holds; their sum is what the method costs."""
    for method, more in ((lc.SmoothGrad(count), 1), (lc.IntegratedGradients(count), 2)):
        net = linear(clip_of(2, 3, 16, 32, 32))
        lc.explain(plain(net), replace(method, batch=4), clip_of(2, 3, 16, 32, 32))
        assert max(net.rows) == 4
        assert sum(net.rows) == 2 * (count + more)
        net.rows.clear()
        lc.explain(plain(net), method, clip_of(2, 3, 16, 32, 32))
        assert max(net.rows) == 2 * min(count, 10)  # as many as the rule for processors allows
    for method in (lc.Gradient(), lc.GradientXInput(), lc.GuidedBackprop()):
        net.rows.clear()
        lc.explain(plain(net), method, clip_of(2, 3, 16, 32, 32))
        assert net.rows == [2]


def test_rows_are_halved_where_memory_does_not_suffice(relus: Relus) -> None:
    seen: list[int] = []

    def scarce(rows: Tensor) -> Tensor:
        seen.append(len(rows))
        if len(rows) > 6:
            raise torch.OutOfMemoryError("as asked")
        return relus(rows)

    clip = double(*SIZE)
    for method in EACH[2:5]:
        model = replace(plain(relus), forward=scarce)
        found = lc.explain(model, replace(method, batch=20), clip, TARGET).heatmap
        expected = lc.explain(plain(relus), method, clip, TARGET).heatmap
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-15)
    assert max(seen) > 6


@each
def test_rows_are_copies_of_the_batch(method: Any) -> None:
    """A forward that knows its batch: each clip has a weight of its own."""
    weight, clip = double(*SIZE, seed=1), double(*SIZE)

    def bound(rows: Tensor) -> Tensor:
        of_row = weight.repeat(len(rows) // len(weight), 1, 1, 1, 1)
        return (rows * of_row).flatten(1).sum(1, keepdim=True)

    heat = lc.explain(plain(bound, probability=None), method, clip).heatmap
    size = weight.abs().amax(1)
    if getattr(method, "kind", "") == "variance":
        size = torch.zeros_like(size)
    if isinstance(method, lc.GradientXInput | lc.IntegratedGradients):
        size = (weight * clip).sum(1)
    torch.testing.assert_close(heat, size)


@each
def test_padded_frames_are_zero_and_frames_that_do_not_matter_too(method: Any) -> None:
    torch.manual_seed(0)
    net, valid = FoldedLSTM().eval(), torch.tensor([[True] * 4, [True] * 3 + [False]])
    e = lc.explain(replace(plain(net), valid=valid), method, clip_of(2, 3, 4, 8, 8), 1)
    assert torch.equal(e.heatmap.flatten(2).any(-1), valid)
    deaf = replace(plain(net), forward=lambda rows: net(rows[:, :, :2]))
    heat = lc.explain(deaf, method, clip_of(2, 3, 4, 8, 8), 1).heatmap
    assert heat[:, :2].any() and not heat[:, 2:].any()


@each
def test_the_logit_is_explained_and_other_questions_are_answered(method: Any) -> None:
    weight, clip = double(3, *SIZE[1:], seed=1), double(*SIZE)
    method = replace(method, reduce="sum")
    if getattr(method, "kind", "") == "variance":
        return
    model = plain(linear(weight), outputs=["a", "b", "c"])

    def heat(asked: lc.Explainable, target: Any) -> Tensor:
        return lc.explain(asked, method, clip, target).heatmap

    a, b = heat(model, "a"), heat(model, "b")  # linear in the weights: no softmax in between
    torch.testing.assert_close(heat(model.contrast("b"), "a"), a - b)
    torch.testing.assert_close(heat(model.counterfactual(), "a"), -a)
    highest = model.forward(clip).argmax(1)
    torch.testing.assert_close(heat(model, None), heat(model, highest))
    torch.testing.assert_close(heat(replace(model, default=1), None), b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lc.Gradient("mean"), "reduce must be one of abs_max, abs_sum, abs_mean, sum"),
        (lambda: lc.SmoothGrad(0), "samples must be a whole number from 1 on, got 0"),
        (lambda: lc.SmoothGrad(sigma=-1), "sigma must be a finite number, 0 or more"),
        (lambda: lc.SmoothGrad(kind="median"), "kind must be one of mean, square, variance"),
        (lambda: lc.IntegratedGradients(2.5), "steps must be a whole number"),
        (lambda: lc.IntegratedGradients(reference="grey"), "reference must be one of black, mean"),
        (lambda: lc.GuidedBackprop("max"), "reduce must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_long_loops_tell_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[list[Any]] = []

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        bars.append([what, total])
        yield lambda n: bars[-1].append(n)

    monkeypatch.setattr(averaged, "progress", progress)
    for method in (lc.SmoothGrad(7, batch=3), lc.IntegratedGradients(7, batch=3)):
        lc.explain(plain(linear(clip_of(2, 1, 2, 3, 3))), method, clip_of(1, 1, 2, 3, 3))
    assert bars == [["SmoothGrad", 7, 3, 3, 1], ["Integrated gradients", 7, 3, 3, 1]]


# Columns that are not classes


def sfm() -> tuple[lc.Explainable, dict[str, Any]]:
    batch = batch_of(drive(5), drive(5, tilt=0.2))
    batch["valid"][1, -1] = False
    return StructureFromMotion(sfm_network()).explainable(batch), batch


@each
@pytest.mark.parametrize("column", ["-view_synthesis_loss", "pose/ry", "depth/box"])
def test_depth_and_motion(method: Any, column: str) -> None:
    model, batch = sfm()
    e = lc.explain(model, method, batch["video"], column)
    assert e.heatmap.shape == (2, 5, 32, 64)
    assert e.heatmap.isfinite().all()
    assert e.heatmap[0].any()
    assert not e.heatmap[1, -1].any()
    if column.startswith("depth"):  # the first and the last frame are not targets
        assert not e.heatmap[:, [0, -1]].any()


def test_the_gradient_of_a_loss_is_autograd_s_own() -> None:
    model, batch = sfm()
    clip = batch["video"].clone().requires_grad_()
    [expected] = torch.autograd.grad(model.forward(clip)[:, 0].sum(), clip)
    heat = lc.explain(model, lc.Gradient("sum"), batch["video"]).heatmap
    torch.testing.assert_close(heat[0], expected[0].sum(0), rtol=1e-4, atol=1e-9)


def test_the_depth_of_a_network_is_divided_among_its_voxels() -> None:
    model, batch = sfm()
    e = lc.explain(model, lc.IntegratedGradients(10), batch["video"], "depth/mean")
    assert e.numbers["incomplete"].max() < 0.02
