"""Maps that know nothing of the network: what they are on paper, and of what grain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import FoldedLSTM, Gap3d, clip_of, describe
from torch import Tensor

import lightning_cam as lc
from lightning_cam.attribution.perturbation import blurred
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.errors import UserError
from lightning_cam.tasks import VideoClassification

SHAPE = (2, 3, 4, 8, 12)


def model() -> lc.Explainable:
    torch.manual_seed(0)
    return describe(Gap3d())


def heat(method: lc.Attribution, clip: Tensor, **known: Any) -> Tensor:
    return lc.explain(replace(model(), **known), method, clip, 0).heatmap


# random -----------------------------------------------------------------------------------------


def test_random_voxels_are_what_they_were() -> None:
    generator = torch.Generator().manual_seed(3)
    expected = torch.rand(2, 4, 8, 12, generator=generator)
    assert torch.equal(heat(lc.RandomMap(3), clip_of(*SHAPE)), expected)
    # As many cells as voxels, or more, are the voxels.
    for cells in ((4, 8, 12), (9, 8, 99)):
        assert torch.equal(heat(lc.RandomMap(3, cells), clip_of(*SHAPE)), expected)


def test_random_cells_are_blocks_or_resized_as_other_maps_are() -> None:
    grid = torch.rand(2, 2, 4, 3, generator=torch.Generator().manual_seed(5))
    block, smooth = (
        heat(lc.RandomMap(5, (2, 4, 3), mode), clip_of(*SHAPE))  # type: ignore[arg-type]
        for mode in ("block", "smooth")
    )
    for axis, n in enumerate((2, 2, 4), 1):
        grid = grid.repeat_interleave(n, axis)
    assert torch.equal(block, grid)
    cells = torch.rand(2, 2, 4, 3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(smooth, resize_heatmap(cells, (4, 8, 12)))


def test_a_random_map_has_the_grain_of_the_map_it_stands_beside() -> None:
    clip = 3 * clip_of(*SHAPE)
    voxels = (4, 8, 12)
    for method, grain in (
        (lc.GradCAM(), (4, 4, 6)),  # of the layer
        (lc.SIDU(), (4, 4, 6)),
        (lc.HiResCAM(), (4, 4, 6)),
        (lc.RISE(masks=2), (2, 8, 8)),
        (lc.RISE(masks=2, cells=(1, 3, 20)), (1, 3, 12)),
        (lc.Occlusion((3, 8, 5), (3, 8, 5)), (2, 1, 3)),  # windows side by side
        (lc.Gradient(), voxels),
        (lc.CentreMap(), (4, 8, 8)),  # smooth, of no grid
        (lc.RandomMap(), voxels),
        (lc.RandomMap(cells=(2, 3, 4), mode="block"), (2, 3, 4)),
    ):
        e = lc.explain(model(), method, clip, 0)
        assert e.grain == grain, method
        assert e.native == (grain if isinstance(method, lc.LayerAttribution) else None)
        beside = lc.explain(model(), lc.RandomMap(cells=e.grain), clip, 0)
        assert beside.grain == beside.native == grain
    recurrent = lc.explain(describe(FoldedLSTM()), lc.RecurrentGradCAM(), clip, 0)
    assert recurrent.native == (4, 4, 6)


def test_a_map_is_its_native_grid_resized() -> None:
    """Storing that many numbers is enough."""
    e = lc.explain(model(), lc.RandomMap(cells=(2, 3, 4)), clip_of(*SHAPE), 0)
    cells = torch.rand(2, *e.native, generator=torch.Generator().manual_seed(0))  # type: ignore[misc]
    assert torch.equal(e.heatmap, resize_heatmap(cells, SHAPE[2:]))


@pytest.mark.parametrize("cells", [(1, 2), (0, 1, 1), (1, 1, 1.5), (1, 2, 3, 4)])
def test_cells_are_three_numbers(cells: Any) -> None:
    with pytest.raises(ValueError, match="cells must be three whole numbers"):
        lc.RandomMap(cells=cells)
    with pytest.raises(ValueError, match="mode must be one of smooth, block, got"):
        lc.RandomMap(mode="cubic")  # type: ignore[arg-type]


# motion and edges -------------------------------------------------------------------------------


def test_motion_is_the_absolute_difference_summed_over_channels() -> None:
    clip = torch.zeros(1, 2, 4, 5, 5)
    clip[0, 0, 2, 1, 1] = 3  # comes with frame 2, goes with frame 3
    clip[0, 1, 2, 1, 1] = -1
    clip[0, 0, 1:, 4, 4] = 2  # comes with frame 1 and stays
    expected = torch.zeros(1, 4, 5, 5)
    expected[0, 2:, 1, 1] = 4
    expected[0, :2, 4, 4] = 2  # frame 0 as frame 1
    assert torch.equal(heat(lc.MotionMap(), clip.expand(-1, -1, -1, -1, -1), **BLIND), expected)
    soft = heat(lc.MotionMap(blur=0.2), clip, **BLIND)
    torch.testing.assert_close(soft, blurred(expected, 1.0))
    assert not heat(lc.MotionMap(), clip[:, :, :1], **BLIND).any()


BLIND = {"forward": lambda clip: clip.mean((2, 3, 4))}  # any clip will do


def test_motion_into_padding_does_not_count() -> None:
    clip = clip_of(1, 3, 4, 5, 5)
    clip[:, :, 2:] = 0
    valid = torch.tensor([[True, True, False, False]])
    found = heat(lc.MotionMap(), clip, valid=valid)
    assert found[:, :2].any() and not found[:, 2:].any()


def test_edges_are_sobels_gradient() -> None:
    """Of a ramp its slope, also at the border; of a step half of it on both sides."""
    ramp = torch.arange(6.0).expand(1, 1, 1, 5, 6)
    assert torch.equal(
        heat(lc.EdgeMap(), 3 * ramp, **BLIND)[..., 1:-1], torch.full((1, 1, 5, 4), 3.0)
    )
    both = 3 * ramp + 4 * torch.arange(5.0).view(5, 1)
    assert torch.equal(
        heat(lc.EdgeMap(), both, **BLIND)[..., 1:-1, 1:-1], torch.full((1, 1, 3, 4), 5.0)
    )
    step = (torch.arange(6) >= 3).float().expand(1, 2, 1, 5, 6)
    expected = torch.tensor([0, 0, 1.0, 1, 0, 0]).expand(1, 1, 5, 6)  # of two channels
    assert torch.equal(heat(lc.EdgeMap(), step, **BLIND), expected)


@pytest.mark.parametrize("method", [lc.MotionMap(), lc.EdgeMap(0.1), lc.CentreMap()])
def test_a_batch_equals_its_clips(method: lc.Attribution) -> None:
    clip = clip_of(*SHAPE)
    rows = torch.cat([heat(method, clip[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(heat(method, clip), rows)


# ground truth -----------------------------------------------------------------------------------


def mask() -> Tensor:
    found = torch.zeros(2, 4, 8, 12, dtype=torch.bool)
    found[0, 1:3, 2:6, 3:9] = True  # the second clip has none
    return found


def test_the_truth_is_hotter_inside_than_outside_and_hottest_in_the_middle() -> None:
    found = heat(lc.TruthMap(), clip_of(*SHAPE), truth=mask())
    assert found[mask()].min() > 0.5 >= found[~mask()].max()
    assert found[0, 1].argmax() in (3 * 12 + 5, 3 * 12 + 6, 4 * 12 + 5, 4 * 12 + 6)
    assert not found[1].any() and not found[0, [0, 3]].any()
    assert torch.equal(heat(lc.TruthMap(0), clip_of(*SHAPE), truth=mask()), mask().float())


def test_a_task_binds_the_truth_of_its_batch() -> None:
    task = VideoClassification(Gap3d(), ["a", "b", "c", "d"], layers=["layer"]).eval()
    clip = clip_of(*SHAPE)
    e = lc.explain(task.explainable({"video": clip, "mask": mask()}), lc.TruthMap(0), clip)
    assert torch.equal(e.heatmap, mask().float())


@pytest.mark.attack
@pytest.mark.parametrize("shape", [(1, 3, 1, 1, 1), (2, 1, 1, 7, 1), (1, 4, 9, 1, 2)])
def test_clips_of_one_pixel_and_one_frame_have_baselines(shape: tuple[int, ...]) -> None:
    """Clips of one frame, of one row and of one pixel, where there is no motion and no edge."""
    truth = torch.ones(shape[0], *shape[2:], dtype=torch.bool)
    known = replace(model(), truth=truth, **BLIND)
    for method in (
        *(lc.RandomMap(cells=(4, 8, 8), mode=mode) for mode in ("smooth", "block")),  # type: ignore[arg-type]
        *(kind(blur=blur) for kind in (lc.MotionMap, lc.EdgeMap, lc.TruthMap) for blur in (0, 0.3)),
        lc.CentreMap(),
    ):
        e = lc.explain(known, method, clip_of(*shape), 0)
        assert e.heatmap.isfinite().all() and (e.heatmap >= 0).all()
        assert all(cells <= n for cells, n in zip(e.grain, shape[2:], strict=True))


@pytest.mark.parametrize("truth", [None, torch.zeros(2, 4, 8, 12, dtype=torch.bool)])
def test_without_ground_truth_there_is_no_map_of_it(truth: Tensor | None) -> None:
    with pytest.raises(UserError, match="not known, so there is no map of it; take data with mas"):
        heat(lc.TruthMap(), clip_of(*SHAPE), truth=truth)


@pytest.mark.parametrize("sigma", [0, -1, float("nan")])
def test_a_centre_of_no_width_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be a finite number above 0"):
        lc.CentreMap(sigma)


@pytest.mark.parametrize("method", [lc.MotionMap, lc.EdgeMap, lc.TruthMap])
def test_a_blur_below_0_is_refused(method: Any) -> None:
    with pytest.raises(ValueError, match="blur must be a finite number, 0 or more, got -1"):
        method(blur=-1)
