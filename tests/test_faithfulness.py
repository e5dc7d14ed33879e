"""Infidelity, sensitivity-n and max-sensitivity: closed forms of linear networks, and captum's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max as captum_sensitivity
from nets import Gap3d, clip_of, describe
from planted import Planted
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.metrics import (
    Explained,
    Infidelity,
    MaxSensitivity,
    SensitivityN,
    infidelity,
    max_sensitivity,
    measure,
    sensitivity_n,
)
from lightning_cam.metrics.faithfulness import _boxes, _labels, _subsets

SIZE = (4, 8, 10)


class Linear(nn.Module):
    """Columns w_k . x + b of one channel."""

    def __init__(self, columns: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(columns, 1, *SIZE, generator=generator))
        self.bias = nn.Parameter(torch.randn(columns, generator=generator))

    def forward(self, clip: Tensor) -> Tensor:
        return clip.flatten(1) @ self.weight.flatten(1).T + self.bias


CLIP, TARGET = clip_of(2, 1, *SIZE), torch.tensor([2, 0])
NET = Linear()
MODEL = lc.Explainable.of(NET, [], black=[-0.5])
WEIGHT = NET.weight.detach()[TARGET, 0]  # (B, T, H, W), the gradient
ADDITIVE = WEIGHT * (CLIP[:, 0] + 0.5)  # gradient x (input - black): adds up to the fall


def test_a_linear_network_s_gradient_has_no_infidelity() -> None:
    found = infidelity(MODEL, CLIP, WEIGHT, TARGET, normalised=False)
    torch.testing.assert_close(found, torch.zeros(2), atol=1e-9, rtol=0)
    half = infidelity(MODEL, CLIP, WEIGHT / 2, TARGET, normalised=False)
    nothing = infidelity(MODEL, CLIP, 0 * WEIGHT, TARGET, normalised=False)
    torch.testing.assert_close(half, nothing / 4)
    assert infidelity(MODEL, CLIP, 0 * WEIGHT, TARGET).isnan().all()


def test_scaled_as_fits_best_no_scale_matters() -> None:
    torch.testing.assert_close(
        infidelity(MODEL, CLIP, -7 * WEIGHT, TARGET), torch.zeros(2), atol=1e-9, rtol=0
    )
    other = clip_of(2, *SIZE, seed=4)
    found = infidelity(MODEL, CLIP, other, TARGET)
    torch.testing.assert_close(infidelity(MODEL, CLIP, 100 * other, TARGET), found)
    assert (found <= infidelity(MODEL, CLIP, other, TARGET, normalised=False)).all()
    assert (found <= infidelity(MODEL, CLIP, 0 * other, TARGET, normalised=False)).all()


@pytest.mark.parametrize("normalised", [False, True])
def test_infidelity_is_captum_s_of_the_same_boxes(normalised: bool) -> None:
    torch.manual_seed(0)
    net = Gap3d(channels=2).eval()
    model, clip = describe(net), clip_of(3, 2, *SIZE)
    target, heat, samples = torch.tensor([1, 0, 3]), clip_of(3, *SIZE, seed=2), 20
    boxes = _boxes(samples, torch.Size(SIZE), 0)

    def perturb(rows: Tensor) -> tuple[Tensor, Tensor]:
        taken = rows * boxes.repeat(len(rows) // samples, 1, 1, 1)[:, None]  # each clip's in turn
        return taken, rows - taken

    spread = heat[:, None].expand(-1, 2, -1, -1, -1) / 2
    with torch.no_grad():
        theirs = captum_infidelity(
            net, perturb, clip, spread, target=target, n_perturb_samples=samples,
            normalize=normalised,
        )  # fmt: skip
    ours = infidelity(model, clip, heat, target, samples=samples, normalised=normalised)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-6)


def test_boxes_lie_in_the_clip_and_differ() -> None:
    boxes = _boxes(200, torch.Size((5, 9, 1)), 0)
    for axis, most in ((1, 2), (2, 4), (3, 1)):
        others = tuple({1, 2, 3} - {axis})
        length = boxes.any(others[1]).any(min(others[0], 2)).sum(1)
        assert length.min() == 1 and length.max() == most
    volume = boxes.flatten(1).sum(1)
    assert boxes.any(0).all() and len(volume.unique()) > 3


@pytest.mark.parametrize("unit", [None, (1, 1, 1), (2, 3, 3), (4, 4, 5)])
def test_a_linear_network_adds_up_for_every_n(unit: Any) -> None:
    shares = (0.01, 0.1, 0.5, 0.8)
    found = sensitivity_n(MODEL, CLIP, ADDITIVE, TARGET, shares=shares, subsets=40, unit=unit)
    torch.testing.assert_close(found, torch.ones(2, 4))
    found = sensitivity_n(MODEL, CLIP, -3 * ADDITIVE, TARGET, shares=shares, subsets=40, unit=unit)
    torch.testing.assert_close(found, -torch.ones(2, 4))
    other = sensitivity_n(MODEL, CLIP, clip_of(2, *SIZE, seed=9), TARGET, unit=(1, 2, 2))
    assert other.shape == (2, 5) and other.abs().max() < 0.5
    assert sensitivity_n(MODEL, CLIP, torch.zeros(2, *SIZE), TARGET).isnan().all()


def test_subsets_are_of_a_clip_s_own_blocks() -> None:
    whole = torch.ones(2, 40, dtype=torch.bool)
    whole[1, 20:] = False
    found = _subsets(whole, 0.25, 30, seed=0)
    assert found.sum(2).tolist() == [[10, 5]] * 30
    assert not found[:, 1, 20:].any() and found[:, 0].any(0).all()
    assert _subsets(whole, 0.001, 3, seed=0).sum(2).tolist() == [[1, 1]] * 3
    alone = _subsets(whole[1:], 0.25, 30, seed=0)
    assert torch.equal(alone, found[:, 1:])
    labels = _labels(torch.Size((5, 17, 16)), None)
    assert labels.unique().tolist() == list(range(3 * 9 * 8))
    assert labels[0, 0, 0] == labels[1, 1, 1] == 0 and labels[2, 0, 0] == 9 * 8


def test_padding_is_neither_hidden_nor_counted() -> None:
    model = replace(MODEL, valid=torch.tensor([[True, True, False, False]] * 2))
    heat = ADDITIVE.clone()
    heat[:, 2:] = 100
    found = sensitivity_n(model, CLIP, heat, TARGET, subsets=30, unit=(1, 2, 2))
    torch.testing.assert_close(found, torch.ones_like(found))


def test_a_map_that_ignores_the_clip_is_not_sensitive() -> None:
    def gradient(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        return WEIGHT

    method = lc.attribution.method.as_attribution(gradient)
    assert max_sensitivity(MODEL, method, CLIP, TARGET).tolist() == [0, 0]
    assert max_sensitivity(MODEL, lc.CentreMap(), CLIP, TARGET).tolist() == [0, 0]


def test_max_sensitivity_is_captum_s_of_the_same_noise() -> None:
    torch.manual_seed(0)
    net = Gap3d(channels=2).eval()
    model, clip, target = describe(net), clip_of(2, 2, *SIZE), torch.tensor([1, 3])
    reach = 0.3 * (clip.amax((1, 2, 3, 4)) - clip.amin((1, 2, 3, 4)))
    generator = torch.Generator().manual_seed(0)
    noise = torch.stack([2 * torch.rand(2, *SIZE, generator=generator) - 1 for _ in range(5)])

    def maps(rows: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        rows = rows[0] if isinstance(rows, tuple) else rows
        columns = target.repeat_interleave(len(rows) // 2)
        return (lc.explain(model, lc.GradientXInput(), rows, columns).heatmap,)

    def perturb(rows: Tensor, _radius: float) -> Tensor:
        rows = rows.unflatten(0, (2, -1))  # (B, n, ...): each clip's in turn
        return (rows + reach.view(2, 1, 1, 1, 1, 1) * noise[: rows.shape[1]]).flatten(0, 1)

    theirs = captum_sensitivity(maps, clip, perturb, n_perturb_samples=5)
    ours = max_sensitivity(model, lc.GradientXInput(), clip, target, radius=0.3)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)
    more = max_sensitivity(model, lc.GradientXInput(), clip, target, radius=0.3, samples=9)
    assert (more >= ours).all() and (ours > 0.1).all()
    small = max_sensitivity(model, lc.GradientXInput(), clip, target, radius=1e-4)
    assert (small < 0.01).all()


def test_methods_that_take_long_are_not_explained_again() -> None:
    e = replace(lc.explain(MODEL, lc.CentreMap(), CLIP, TARGET), method=lc.RISE(masks=300))
    with pytest.warns(
        UserWarning, match=r"RISE runs .* 50 times .*measure\.max_sensitivity\.limit=null"
    ):
        found = measure({"it": MaxSensitivity()}, Explained(MODEL, CLIP, e))
    assert not found.failed and found.values["it"].isnan().all()


def test_settings_are_checked_and_lists_are_taken() -> None:
    assert SensitivityN(shares=[0.1], unit=[1, 2, 2]) == SensitivityN((0.1,), unit=(1, 2, 2))  # type: ignore[arg-type]
    for shares in ((), (0,), (0.5, 1.5)):
        with pytest.raises(ValueError, match="shares must be "):
            SensitivityN(shares)


@pytest.mark.slow
def test_what_was_planted_is_told_from_random_maps(planted: Planted) -> None:
    clips, labels = planted.clips[::2], planted.labels[::2]
    methods = {"Grad-CAM": lc.GradCAM(layer="layer2"), "random": lc.RandomMap()}
    measures = {"infidelity": Infidelity(), "n": SensitivityN(subsets=30)}
    found = {}
    for name, method in methods.items():
        e = lc.explain(planted.model, method, clips, labels)
        found[name] = measure(measures, Explained(planted.model, clips, e)).values
    assert (found["Grad-CAM"]["n"] > found["random"]["n"] + 0.1).all()
    assert found["Grad-CAM"]["infidelity"].mean() < found["random"]["infidelity"].mean()
