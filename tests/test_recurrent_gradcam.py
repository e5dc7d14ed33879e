"""Recurrent Grad-CAM: answers known on paper (RG1-RG7), and what integration adds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FoldedLSTM, LinearRNN, LoopedLSTM, clip_of, describe
from torch import Tensor, nn

import lightning_cam as lc


def folded(seed: int = 0, **kwargs: bool) -> FoldedLSTM:
    torch.manual_seed(seed)
    return FoldedLSTM(**kwargs).double().eval()


CLIP = clip_of(2, 3, 5, 8, 8, dtype=torch.float64)
SIGNED = lc.RecurrentGradCAM(relu=False)


def test_rg1_frames_after_the_output_step_get_exactly_zero() -> None:
    model = describe(folded(), steps="head")
    maps = lc.step_maps(model, CLIP, 1)  # (B, T', t, h, w)
    later = torch.ones(5, 5).triu(1).bool()
    assert (maps[:, later] == 0.0).all()
    assert (maps[:, ~later].abs().amax((-1, -2)) > 0).all()
    assert (lc.step_energy(model, CLIP, 1)[:, later] == 0.0).all()


def test_rg2_a_bidirectional_lstm_looks_ahead() -> None:
    model = describe(folded(bidirectional=True), steps="head")
    maps = lc.step_maps(model, CLIP, 1)
    assert (maps.abs().amax((-1, -2)) > 0).all()


@settings(max_examples=10, deadline=None)
@given(decay=st.floats(0.1, 1.2), step=st.integers(0, 4))
def test_rg3_linear_recurrence_gives_powers_of_the_decay(decay: float, step: int) -> None:
    torch.manual_seed(0)
    net = LinearRNN(decay).double()
    model = describe(net, steps="head")
    heat = lc.step_maps(model, CLIP, 1)[:, step]
    activation = net.trunk(CLIP).unflatten(0, (2, 5))  # (B, T, D, h, w)
    weight = net.head.weight[1, 0] * net.u / activation[0, 0, 0].numel()
    power = CLIP.new_tensor([decay ** (step - t) if t <= step else 0.0 for t in range(5)])
    expected = torch.einsum("t,d,btdhw->bthw", power, weight, activation)
    torch.testing.assert_close(heat, expected.detach(), rtol=1e-10, atol=1e-14)


def test_rg4_an_ignored_frame_gets_exactly_zero() -> None:
    class Blink(FoldedLSTM):
        def forward(self, clip: Tensor) -> Tensor:
            features = self.trunk(clip).mean((2, 3)).unflatten(0, (len(clip), -1))
            seen = torch.tensor([1.0, 1, 0, 1, 1], dtype=clip.dtype)[:, None]
            return self.head(self.lstm(features * seen)[0])[:, -1]

    torch.manual_seed(0)
    heat = lc.explain(describe(Blink().double()), SIGNED, CLIP, 0).heatmap
    assert (heat[:, 2] == 0.0).all()
    assert (heat[:, [0, 1, 3, 4]].abs().amax((-1, -2)) > 0).all()


def test_rg5_frozen_attention_scales_frames_by_their_weight() -> None:
    class Attentive(nn.Module):
        def __init__(self, weights: Tensor) -> None:
            super().__init__()
            self.trunk = LinearRNN().trunk
            self.u = nn.Parameter(torch.randn(6))
            self.weights = weights

        def forward(self, clip: Tensor) -> Tensor:
            z = (self.trunk(clip).mean((2, 3)) @ self.u).unflatten(0, (len(clip), -1))
            y = (self.weights * z).sum(1)
            return torch.stack([y, -y], 1)

    torch.manual_seed(0)
    weights = torch.tensor([0.5, 0.25, 0.15, 0.1, 0.0], dtype=torch.float64)
    net = Attentive(weights).double()
    heat = lc.explain(describe(net), SIGNED, CLIP, 0).heatmap
    activation = net.trunk(CLIP).unflatten(0, (2, 5))
    pixels = activation[0, 0, 0].numel()
    maps = torch.einsum("t,d,btdhw->bthw", weights, net.u / pixels, activation)
    from lightning_cam.attribution.tensors import resize_heatmap

    torch.testing.assert_close(heat, resize_heatmap(maps, (5, 8, 8)).detach())


def test_rg6_sum_over_steps_is_the_sum_of_signed_maps() -> None:
    net = folded()
    model = describe(net, steps="head")
    maps = lc.step_maps(model, CLIP, torch.tensor([1, 3]))
    total = lc.RecurrentGradCAM(step="sum", relu=False)
    heat = lc.explain(model, total, CLIP, torch.tensor([1, 3])).heatmap
    small = nn.functional.interpolate(maps.sum(1)[:, None], size=(5, 8, 8), mode="trilinear")[:, 0]
    torch.testing.assert_close(heat, small)


@pytest.mark.parametrize("step", [0, 2, -1])
def test_any_output_step_equals_its_row_of_all_steps(step: int) -> None:
    model = describe(folded(), steps="head")
    maps = lc.step_maps(model, CLIP, 2)[:, step].relu()
    heat = lc.explain(model, lc.RecurrentGradCAM(step=step), CLIP, 2).heatmap
    small = nn.functional.interpolate(maps[:, None], size=(5, 8, 8), mode="trilinear")[:, 0]
    torch.testing.assert_close(heat, small)


def test_rg7_one_frame_is_plain_grad_cam() -> None:
    model = describe(folded(), steps="head")
    clip = CLIP[:, :, :1]
    plain = lc.explain(model, lc.GradCAM(pool="spacetime"), clip, 1).heatmap
    for step in (None, 0, -1, "sum"):
        heat = lc.explain(model, lc.RecurrentGradCAM(step=step), clip, 1).heatmap
        torch.testing.assert_close(heat, plain)


def test_the_looped_layout_agrees_with_the_folded_one() -> None:
    net = folded()
    looped = describe(LoopedLSTM(net).double().eval(), "conv", steps="head")
    model = describe(net, "trunk.conv", steps="head")
    torch.testing.assert_close(lc.step_maps(looped, CLIP, 1), lc.step_maps(model, CLIP, 1))
    for method in (lc.RecurrentGradCAM(step=2), lc.IntegratedRecurrentGradCAM(step=2)):
        a, b = (lc.explain(m, method, CLIP, 1).heatmap for m in (looped, model))
        torch.testing.assert_close(a, b)


def test_integration_changes_nothing_for_a_linear_head() -> None:
    torch.manual_seed(0)
    model = describe(LinearRNN().double(), steps="head")
    plain = lc.explain(model, SIGNED, CLIP).heatmap
    heat = lc.explain(model, lc.IntegratedRecurrentGradCAM(relu=False), CLIP).heatmap
    torch.testing.assert_close(heat, plain)


def test_integrated_energies_add_up_to_the_decision() -> None:
    """Completeness: behind average pooling the signed map sums to y(A) - y(0)."""
    net = folded()
    with torch.no_grad():
        net.lstm.weight_ih_l0.mul_(4)  # far from linear
    model = describe(net)
    method = lc.IntegratedRecurrentGradCAM(nodes=12, relu=False)
    signed = lc.explain(model, method, CLIP, 1).heatmap
    scale = (8 * 8) / (4 * 4)  # the map is four times as large as the layer
    zero = net.head(net.lstm(torch.zeros(2, 5, 6, dtype=torch.float64))[0])[:, -1, 1]
    decision = net(CLIP)[:, 1] - zero
    torch.testing.assert_close(signed.sum((1, 2, 3)) / scale, decision.detach(), rtol=1e-6, atol=0)
    plain = lc.explain(model, SIGNED, CLIP, 1).heatmap.sum((1, 2, 3)) / scale
    assert ((plain - decision).abs() > 0.02 * decision.abs()).all()


def test_integration_equals_explicit_quadrature_for_every_target() -> None:
    net = folded()
    target = torch.tensor([0, 3])
    heat = lc.explain(
        describe(net, steps="head"), lc.IntegratedRecurrentGradCAM(step=3, nodes=3, relu=False),
        CLIP, target,
    ).heatmap  # fmt: skip
    activation = net.trunk(CLIP).detach()
    gradient = torch.zeros_like(activation)
    for node, weight in ((-(0.6**0.5), 5 / 9), (0.0, 8 / 9), (0.6**0.5, 5 / 9)):
        scaled = ((node + 1) / 2 * activation).requires_grad_()
        steps = net.head(net.lstm(scaled.mean((2, 3)).unflatten(0, (2, 5)))[0])
        score = steps[:, 3].gather(1, target[:, None]).sum()
        gradient += weight / 2 * torch.autograd.grad(score, scaled)[0]
    maps = (gradient.mean((2, 3), keepdim=True) * activation).sum(1).unflatten(0, (2, 5))
    expected = nn.functional.interpolate(maps[:, None], size=(5, 8, 8), mode="trilinear")[:, 0]
    torch.testing.assert_close(heat, expected)


def test_wrong_settings_are_named() -> None:
    model = describe(folded(), steps="head")
    with pytest.raises(ValueError, match=r"step must lie in -5\.\.4, got 5"):
        lc.explain(model, lc.RecurrentGradCAM(step=5), CLIP)
    with pytest.raises(lc.errors.UserError, match="no output steps"):
        lc.explain(describe(folded()), lc.RecurrentGradCAM(step=-1), CLIP)
    with pytest.raises(ValueError, match="nodes must be a whole number from 1 on, got 0"):
        lc.IntegratedRecurrentGradCAM(nodes=0)


@pytest.mark.parametrize("step", [None, -1, -2, "sum"])
def test_padding_takes_no_part(step: int | str | None) -> None:
    """A padded clip is explained as the clip that it is without its padding."""
    from lightning_cam.models import LRCN
    from lightning_cam.tasks import VideoClassification

    torch.manual_seed(0)
    task = VideoClassification(LRCN(3, hidden=8, readout="last"), ["a", "b", "c"]).double().eval()
    clip = clip_of(2, 3, 6, 16, 16, dtype=torch.float64)
    valid = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    model = task.explainable({"valid": valid})
    for method in (
        lc.RecurrentGradCAM(step=step),  # type: ignore[arg-type]
        lc.IntegratedRecurrentGradCAM(step=step),  # type: ignore[arg-type]
    ):
        heat = lc.explain(model, method, clip, 1).heatmap
        assert (heat[0, 4:] == 0).all()
        for row, length in ((0, 4), (1, 6)):
            alone = lc.explain(task.explainable(), method, clip[row : row + 1, :, :length], 1)
            torch.testing.assert_close(heat[row, :length], alone.heatmap[0])


def test_a_layer_that_never_runs_is_named() -> None:
    net = folded()
    net.unused = nn.Conv2d(3, 3, 1)
    model = describe(net, "unused", steps="head")
    for method in (lc.GradCAM(), lc.RecurrentGradCAM(), lc.IntegratedRecurrentGradCAM()):
        with pytest.raises(lc.errors.UserError, match="layer 'unused' is not run"):
            lc.explain(model, method, CLIP)
    with pytest.raises(lc.errors.UserError, match="layer 'unused' is not run"):
        lc.step_maps(model, CLIP)
