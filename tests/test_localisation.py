"""Localisation measures against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_cam.metrics import (
    EnergyPointingGame,
    PointingGame,
    TemporalIoU,
    energy_inside,
    pointing_hits,
    temporal_iou,
)


def test_a_map_equal_to_the_mask_is_perfect() -> None:
    mask = torch.zeros(1, 3, 8, 12, dtype=torch.bool)
    mask[0, 1, 2:4, 9:11] = True
    assert pointing_hits(mask.float(), mask).tolist() == [1.0]
    assert energy_inside(mask.float(), mask).tolist() == [1.0]


def test_a_uniform_map_scores_the_mask_s_share() -> None:
    mask = torch.zeros(1, 2, 4, 5, dtype=torch.bool)
    mask[0, 0, :2] = True
    heat = torch.ones(1, 2, 4, 5)
    assert energy_inside(heat, mask).item() == pytest.approx(10 / 40)
    assert pointing_hits(heat, mask).item() == pytest.approx(10 / 40)  # all voxels tie
    assert pointing_hits(heat, mask, per="frame").item() == pytest.approx(10 / 20)


def test_rows_are_rows_and_columns_are_columns() -> None:
    mask = torch.zeros(1, 1, 6, 20, dtype=torch.bool)
    mask[0, 0, 0:2, 15:20] = True  # a corner that swapped axes would miss
    heat = torch.zeros(1, 1, 6, 20)
    heat[0, 0, 1, 16] = 1
    assert pointing_hits(heat, mask).item() == 1
    heat = torch.zeros(1, 1, 6, 20)
    heat[0, 0, 5, 1] = 1
    assert pointing_hits(heat, mask).item() == 0


@pytest.mark.parametrize(("distance", "hit"), [(3, 1.0), (4, 0.0)])
def test_tolerance_grows_the_mask(distance: int, hit: float) -> None:
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[0, 0, 5, 5] = True
    heat = torch.zeros(1, 1, 16, 16)
    heat[0, 0, 5, 5 + distance] = 1
    assert pointing_hits(heat, mask, tolerance=3).item() == hit


def test_frame_pointing_skips_frames_without_mask_or_heat() -> None:
    mask = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    mask[0, :3, 0, 0] = True
    heat = torch.zeros(1, 4, 4, 4)
    heat[0, 0, 0, 0] = heat[0, 1, 2, 2] = heat[0, 3, 0, 0] = 1  # hit, miss, (cold), (no mask)
    assert pointing_hits(heat, mask, per="frame").item() == 0.5


def test_temporal_values_of_the_specification() -> None:
    energy = torch.tensor([0, 0, 0.2, 0.9, 1, 0.8, 0.1, 0])
    heat = energy[None, :, None, None].expand(1, 8, 2, 2) / 4
    action = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0]]).bool()
    assert temporal_iou(heat, action).item() == pytest.approx(2 / 3)
    assert energy_inside(heat, action).item() == pytest.approx(1.9 / 3)


def test_maps_without_heat_are_counted_not_scored() -> None:
    heat = torch.zeros(3, 2, 4, 4)
    heat[1, 0, 0, 0] = 1
    mask = torch.ones(3, 2, 4, 4, dtype=torch.bool)
    for metric in (PointingGame(), EnergyPointingGame()):
        metric.update(heat, mask)
        assert metric.compute().item() == 1.0
        assert metric.unscored.item() == 2
    iou = TemporalIoU()
    iou.update(heat, torch.tensor([[True, True]] * 3))
    assert iou.compute().item() == 0.5
    assert math.isnan(energy_inside(heat, mask)[0].item())
    assert math.isnan(temporal_iou(heat, mask[:, :, 0, 0])[0].item())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), splits=st.integers(1, 5))
def test_batches_do_not_matter(seed: int, splits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    heat = torch.rand(6, 3, 5, 4, generator=generator)
    mask = torch.rand(6, 3, 5, 4, generator=generator) < 0.3
    whole, parts = EnergyPointingGame(), EnergyPointingGame()
    whole.update(heat, mask)
    for a, b in zip(heat.split(splits), mask.split(splits), strict=True):
        parts.update(a, b)
    torch.testing.assert_close(whole.compute(), parts.compute())
    torch.testing.assert_close(whole.compute(), energy_inside(heat, mask).mean())


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"expected heatmap and mask of one shape"):
        pointing_hits(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4).bool())


def test_heat_in_other_frames_than_the_mask_is_a_miss() -> None:
    mask = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    mask[0, 0, 1, 1] = True
    heat = torch.zeros(1, 2, 4, 4)
    heat[0, 1, 1, 1] = 1
    assert pointing_hits(heat, mask).tolist() == [0.0]
    assert pointing_hits(heat, mask, per="frame").isnan().all()


def test_clips_without_ground_truth_have_no_score() -> None:
    heat, empty = torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    assert pointing_hits(heat, empty).isnan().all()
    assert energy_inside(heat, empty).isnan().all()
    assert temporal_iou(heat, empty[:, :, 0, 0]).isnan().all()
