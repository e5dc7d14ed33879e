"""Depth errors against values worked out by hand, and what must not change them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_cam.metrics import DepthErrors, depth_errors

PLAIN: dict[str, Any] = {"crop": None, "scaling": None}
PERFECT = {"abs_rel": 0, "sq_rel": 0, "rmse": 0, "rmse_log": 0, "a1": 1, "a2": 1, "a3": 1}


def depths(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1 + 40 * torch.rand(*shape, generator=generator, dtype=torch.float64)


def floats(errors: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in errors.items()}


def test_four_pixels_by_hand() -> None:
    truth = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    prediction = torch.tensor([[1.0, 4.0], [5.0, 5.0]])  # ratios 1, 2, 1.25, 1.6
    errors = floats(depth_errors(prediction, truth, **PLAIN))
    logs = math.log(2) ** 2 + math.log(1.25) ** 2 + math.log(1.6) ** 2
    assert errors == pytest.approx(
        {
            "abs_rel": (1 + 1 / 4 + 3 / 8) / 4,
            "sq_rel": (4 / 2 + 1 / 4 + 9 / 8) / 4,
            "rmse": math.sqrt((4 + 1 + 9) / 4),
            "rmse_log": math.sqrt(logs / 4),
            "a1": 0.25,  # 1.25 is not below 1.25
            "a2": 0.5,
            "a3": 0.75,
        },
        abs=1e-12,
    )


def test_the_same_pixels_scaled_by_medians() -> None:
    truth = torch.tensor([[1.0, 2.0], [4.0, 8.0]])  # median 3, not 2 as torch has it
    prediction = torch.tensor([[2.0, 8.0], [10.0, 10.0]])  # median 9
    scaled = depth_errors(prediction, truth, crop=None)
    by_hand = depth_errors(prediction.double() / 3, truth, **PLAIN)
    assert floats(scaled) == pytest.approx(floats(by_hand), abs=1e-12)


def test_a_perfect_prediction_has_no_errors() -> None:
    truth = depths(30, 40)
    assert floats(depth_errors(truth, truth)) == PERFECT
    metric = DepthErrors()
    metric.update(truth, truth)
    found = floats(metric.compute())
    assert found.pop("constant/abs_rel") > 0.1
    assert found == PERFECT | {"images": 1, "unscored": 0}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_the_scale_of_a_prediction_does_not_matter(seed: int, scale: float) -> None:
    truth, prediction = depths(12, 20, seed=seed), depths(6, 10, seed=seed + 1)
    for resize in ("depth", "disparity"):
        one = depth_errors(prediction, truth, resize=resize)
        other = depth_errors(scale * prediction, truth, resize=resize)
        assert floats(one) == pytest.approx(floats(other), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_unit_of_both_does_not_matter_to_relative_errors(seed: int) -> None:
    truth, prediction = depths(12, 20, seed=seed), depths(12, 20, seed=seed + 1)
    metres = floats(depth_errors(prediction, truth, **PLAIN))
    feet = floats(depth_errors(3 * prediction, 3 * truth, cap=240, **PLAIN))
    for name in ("abs_rel", "rmse_log", "a1", "a2", "a3"):
        assert feet[name] == pytest.approx(metres[name], abs=1e-12)
    for name in ("sq_rel", "rmse"):
        assert feet[name] == pytest.approx(3 * metres[name], abs=1e-9)


def test_a_prediction_off_by_a_factor() -> None:
    truth = depths(5, 5)
    errors = floats(depth_errors(1.1 * truth, truth, **PLAIN))
    assert errors["abs_rel"] == pytest.approx(0.1, abs=1e-12)
    assert errors["rmse_log"] == pytest.approx(math.log(1.1), abs=1e-12)
    assert errors["a1"] == 1


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((375, 1242), (153, 371), (44, 1197)), ((64, 208), (26, 63), (7, 200))],
)
def test_the_crop_of_garg(
    size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    (top, bottom), (left, right) = rows, columns
    prediction = torch.full(size, 10.0)
    truth = torch.full(size, 20.0)
    truth[top:bottom, left:right] = 10  # wrong everywhere outside
    assert depth_errors(prediction, truth, scaling=None)["abs_rel"] == 0
    assert depth_errors(prediction, truth, **PLAIN)["abs_rel"] > 0
    for corner in ((top, left), (bottom - 1, right - 1)):
        truth[corner] = 20
        one = depth_errors(prediction, truth, scaling=None)["abs_rel"].item()
        assert one == pytest.approx(0.5 / (bottom - top) / (right - left))
        truth[corner] = 10


@pytest.mark.parametrize(("cap", "expected"), [(80, 0.5), (50, 0.0)])
def test_pixels_beyond_the_cap_do_not_count(cap: float, expected: float) -> None:
    truth = torch.tensor([[10.0, 60.0, 0.0, 90.0, torch.nan, torch.inf, 5e-4]])
    prediction = torch.tensor([[10.0, 120.0, 7.0, 7.0, 7.0, 7.0, 7.0]])  # 120 is clipped to 80
    errors = depth_errors(prediction, truth, cap=cap, **PLAIN)
    assert errors["abs_rel"].item() == pytest.approx(expected * 20 / 60)


def test_scaled_predictions_are_clipped() -> None:
    truth = torch.tensor([[10.0, 10.0, 10.0, 70.0]])
    prediction = torch.tensor([[1.0, 1.0, 1.0, 9.0]])  # 90 after scaling
    assert depth_errors(prediction, truth, crop=None)["rmse"].item() == pytest.approx(5)
    near = depth_errors(torch.full((1, 1), 1e-9), torch.ones(1, 1), floor=0.5, **PLAIN)
    assert near["abs_rel"].item() == 0.5


def test_the_median_is_taken_where_pixels_count() -> None:
    truth = torch.tensor([[2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]])
    prediction = torch.tensor([[1.0, 1.0, 1.0, 50.0, 50.0, 50.0, 50.0]])
    assert floats(depth_errors(prediction, truth, crop=None)) == PERFECT


def test_what_is_interpolated() -> None:
    prediction, truth = torch.tensor([[1.0, 4.0]]), torch.ones(1, 4)
    # sampled at -1/4 (the rim), 1/4, 3/4, 5/4 of the two pixels' centres
    by_depth = depth_errors(prediction, truth, **PLAIN)["abs_rel"].item()
    assert by_depth == pytest.approx((0 + 0.75 + 2.25 + 3) / 4)
    by_disparity = depth_errors(prediction, truth, resize="disparity", **PLAIN)["abs_rel"].item()
    assert by_disparity == pytest.approx((0 + 3 / 13 + 9 / 7 + 3) / 4)


def test_a_plane_stays_one_when_resized() -> None:
    """Pixel centres (c + 0.5) s - 0.5: a ramp of depth is the same ramp in a larger image."""
    small, large = torch.arange(8.0) + 0.5, (torch.arange(32.0) + 0.5) / 4
    truth = (10 + large).expand(6, 32).clone()
    truth[:, :2] = truth[:, -2:] = 0  # the rim repeats its last pixel
    errors = depth_errors((10 + small).expand(3, 8), truth, **PLAIN)
    assert errors["rmse"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf, 0.0, -1.0])
def test_what_is_no_depth_is_counted(wrong: float) -> None:
    truth, prediction = depths(12, 20), depths(12, 20, seed=1)
    broken = prediction.clone()
    broken[0, 0] = wrong  # outside of the crop: still no depth
    assert all(math.isnan(value) for value in floats(depth_errors(broken, truth)).values())
    metric, alone = DepthErrors(), DepthErrors()
    alone.update(prediction, truth)
    for image in (prediction, broken):
        metric.update(image, truth)
    found, expected = floats(metric.compute()), floats(alone.compute())
    assert found == expected | {"unscored": 1}


def test_without_truth_there_are_no_errors() -> None:
    truth = torch.zeros(12, 20)
    assert depth_errors(depths(12, 20), truth)["a1"].isnan()
    assert depth_errors(depths(12, 20), torch.zeros(0, 0))["rmse"].isnan()
    metric = DepthErrors()
    metric.update(depths(12, 20), truth)
    metric.update(torch.full((12, 20), torch.nan), truth)
    found = floats(metric.compute())
    assert (found.pop("images"), found.pop("unscored")) == (0, 0)
    assert len(found) == 8 and all(map(math.isnan, found.values()))


def test_the_baseline_knows_the_median_alone() -> None:
    truth = torch.tensor([[1.0, 2.0, 6.0]])
    metric = DepthErrors(crop=None)
    metric.update(torch.rand(1, 3) + 1, truth)
    assert metric.compute()["constant/abs_rel"].item() == pytest.approx((1 + 0 + 4 / 6) / 3)
    flat = DepthErrors(crop=None)
    flat.update(torch.full((2, 2), 5.0), truth)
    found = flat.compute()
    assert found["abs_rel"] == found["constant/abs_rel"]


def test_images_count_alike_whatever_their_size() -> None:
    metric = DepthErrors(**PLAIN)
    metric.update(torch.full((2, 2), 1.1), torch.ones(2, 2))
    metric.update(torch.full((10, 10), 1.3), torch.ones(10, 10))
    assert metric.compute()["abs_rel"].item() == pytest.approx(0.2)
    assert metric.compute()["a1"].item() == 0.5
    assert metric.compute()["abs_rel"].dtype == torch.float32


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)))
def test_the_order_of_images_does_not_matter(order: list[int]) -> None:
    metric, other = DepthErrors(), DepthErrors()
    for i, j in enumerate(order):
        metric.update(depths(6, 9, seed=i), depths(12, 20, seed=10 + i))
        other.update(depths(6, 9, seed=j), depths(12, 20, seed=10 + j))
    assert floats(metric.compute()) == pytest.approx(floats(other.compute()), rel=1e-6)


@pytest.mark.parametrize("option", ["crop", "scaling", "resize"])
def test_options_are_checked(option: str) -> None:
    options: dict[str, Any] = {option: "eigen"}
    with pytest.raises(ValueError, match=rf"{option} must be one of .*, got 'eigen'"):
        depth_errors(torch.ones(2, 2), torch.ones(2, 2), **options)


def test_one_image_at_a_time() -> None:
    with pytest.raises(ValueError, match=r"one image \(h, w\) each, got \(1, 2, 2\)"):
        depth_errors(torch.ones(1, 2, 2), torch.ones(2, 2))


def test_errors_can_be_explained() -> None:
    """`-abs_rel` may be a column: gradients reach the depth, also through the scaling."""
    prediction = depths(6, 9).requires_grad_()
    depth_errors(prediction, depths(12, 20, seed=1))["abs_rel"].backward()
    assert prediction.grad is not None and prediction.grad.isfinite().all()
    assert prediction.grad.abs().sum() > 0


def test_ranks_add_up() -> None:
    """Rank 1 has a broken prediction, and an image without truth that counts nowhere."""

    def gather(state: Tensor, group: object) -> list[Tensor]:
        """What torchmetrics would get from both ranks."""
        own = next(rank for rank in ranks if any(getattr(rank, n) is state for n in names))
        name = next(name for name in names if getattr(own, name) is state)
        return [state if rank is own else getattr(rank, name) for rank in ranks]

    rank: dict[str, Any] = {"dist_sync_fn": gather, "distributed_available_fn": lambda: True}
    ranks, alone = (DepthErrors(**rank), DepthErrors(**rank)), DepthErrors()
    names = list(alone.metric_state)
    for seed in range(3):
        image = depths(6, 9, seed=seed), depths(12, 20, seed=10 + seed)
        ranks[0].update(*image)
        alone.update(*image)
    ranks[1].update(torch.full((6, 9), torch.nan), depths(12, 20))
    ranks[1].update(depths(6, 9), torch.zeros(12, 20))
    for metric in ranks:
        assert floats(metric.compute()) == floats(alone.compute()) | {"unscored": 1}
    assert ranks[1].images == 0 and ranks[0].images == 3  # given back
