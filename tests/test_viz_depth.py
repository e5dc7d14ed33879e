"""Depth and errors as colours, depth beside its truth, and ways seen from above."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from readable import assert_readable, keep_canvases, said

from lightning_cam.viz import (
    UNKNOWN,
    ClipFigure,
    colour_depth,
    colour_error,
    depth_range,
    depth_scale,
    draw_depths,
    draw_trajectory,
    draw_video,
    error_range,
    error_scale,
)
from lightning_cam.viz.curve_styles import COLORS
from lightning_cam.viz.depth import DEPTH_LUT, ERROR_LUT
from lightning_cam.viz.drawing import Canvas

LONG = "a trajectory with a name so long that it can hardly be read, let alone be remembered " * 2


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    return keep_canvases(monkeypatch)


def ground(t: int = 2, h: int = 64, w: int = 208) -> np.ndarray:
    """A plane below the camera, and a sky that nobody measured."""
    y = np.arange(h)[:, None].repeat(w, 1)
    depth = np.where(y > h // 2, 60.0 / np.maximum(y - h / 2, 1), 0)
    return np.repeat(depth[None], t, 0).astype(np.float32)


def frame(h: int = 64, w: int = 208) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)


# --- colours ---------------------------------------------------------------------------------


def test_depth_is_coloured_by_its_inverse():
    depth = np.array([[[2.0, 8.0, 3.2, 1.0, 100.0]]])  # 1 / 3.2 lies in the middle of 1/2 and 1/8
    (colors,) = colour_depth(depth, 2, 8)[0]
    np.testing.assert_array_equal(colors, DEPTH_LUT[[255, 0, 128, 255, 0]])
    assert colors[0].sum() > colors[2].sum() > colors[1].sum()  # near is bright


def test_unknown_depth_is_gray():
    depth = np.array([[[0, np.nan, np.inf, -1, 5]]])
    (colors,) = colour_depth(depth, 2, 8)[0]
    assert (colors[:4] == UNKNOWN).all() and (colors[4] != UNKNOWN).any()
    assert (colour_depth(np.zeros((2, 3, 4))) == UNKNOWN).all()
    gaps = np.abs(np.concatenate([DEPTH_LUT, ERROR_LUT]).astype(int) - UNKNOWN).max(1)
    assert gaps.min() > 20  # no colour of a scale looks like it


def test_one_scale_serves_the_whole_clip():
    depth = np.full((3, 8, 8), 10.0)
    depth[0, 0, 0], depth[2] = 2, 40
    together = colour_depth(depth)
    np.testing.assert_array_equal(together[0, 1:], together[1, 1:])
    assert (together[2] != together[1]).any()


@given(st.floats(1e-3, 1e3))
def test_the_unit_of_depth_does_not_matter(unit):
    depth = ground()
    plain, scaled = colour_depth(depth), colour_depth(depth * np.float64(unit))
    assert np.abs(plain.astype(int) - scaled).max() <= 12  # a rounding, one step of the table
    near, far = depth_range(depth)
    assert depth_range(depth * np.float64(unit)) == pytest.approx((near * unit, far * unit))


def test_the_range_leaves_single_pixels_aside():
    depth = np.linspace(5, 50, 10_000).reshape(1, 100, 100)
    depth[0, 0, :20], depth[0, 1, :20] = 1e-3, 1e6
    near, far = depth_range(depth)
    assert 4.9 < near < 6 and 49 < far < 51
    assert np.isnan(depth_range(np.zeros((1, 2, 2)))).all()
    near, far = depth_range(np.full((1, 2, 2), 7.0))
    assert near < 7 < far  # a wall is a depth as well
    assert (colour_depth(np.full((1, 2, 2), 7.0)) != UNKNOWN).any(-1).all()


def test_errors_grow_brighter():
    error = np.array([[[0, 0.5, 1, 3, np.nan]]])
    (colors,) = colour_error(error, 1)[0]
    np.testing.assert_array_equal(colors[:4], ERROR_LUT[[0, 128, 255, 255]])
    assert (colors[4] == UNKNOWN).all()
    assert (colour_error(np.zeros((2, 3, 4))) == ERROR_LUT[0]).all()
    assert (colour_error(np.full((2, 3, 4), np.nan)) == UNKNOWN).all()
    assert error_range(np.arange(101.0)) == pytest.approx(99) and np.isnan(
        error_range(error[:, :0])
    )


def test_scales_say_what_the_ends_are():
    near = depth_scale(2.13, 79.6)
    assert (near.low, near.high) == ("2.1 m", "80 m")
    np.testing.assert_array_equal(near.colors[[0, -1]], DEPTH_LUT[[255, 0]])
    much = error_scale(0.123)
    assert (much.low, much.high) == ("0", "0.12")
    np.testing.assert_array_equal(much.colors, ERROR_LUT)
    assert "unknown" in depth_scale(np.nan, np.nan).low and "unknown" in error_scale(np.nan).low


@pytest.mark.parametrize("name", ["depth", "error"])
def test_what_has_no_colours_is_refused(name):
    colour = {"depth": colour_depth, "error": colour_error}[name]
    with pytest.raises(ValueError, match=rf"{name}: expected the shape \(T, h, w\), got \(3, 4\)"):
        colour(np.ones((3, 4)))
    with pytest.raises(ValueError, match="0 < near < far, got 8 and 2"):
        colour_depth(np.ones((1, 3, 4)), 8, 2)


def test_depth_is_a_panel_with_its_metres(canvases):
    depth, error = ground(4), np.full((4, 64, 208), np.nan)
    clip = ClipFigure(
        np.stack([frame()] * 4), {}, "depth/mean",
        panels={"depth": colour_depth(depth, 2, 40), "error": colour_error(error)},
        scales={"depth": depth_scale(2, 40), "error": error_scale(error_range(error))},
    )  # fmt: skip
    draw_video(clip)
    assert_readable(canvases)
    assert {"2 m", "40 m (by 1/depth)", "error unknown"} <= {*said(canvases)}


# --- depth beside its truth ------------------------------------------------------------------


def test_depths_stand_beside_their_truth_on_one_scale(canvases):
    depth = ground(1)[0]
    image = draw_depths([(frame(), depth, depth), (frame(), 2 * depth, depth)], "epoch 3")
    assert_readable(canvases)
    assert [t for t in said(canvases) if t in ("frame", "prediction", "truth")] == [
        "frame", "prediction", "truth",
    ]  # fmt: skip
    near, _ = depth_range(depth)
    assert f"{near:.2g} m" in said(canvases)
    top = next(y for y in range(len(image)) if (image[y, -30] == UNKNOWN).all())
    rows = [image[top + 136 * n : top + 136 * n + 128] for n in range(2)]
    first, second = ([row[:, x : x + 416] for x in (440, 864)] for row in rows)
    np.testing.assert_array_equal(*first)
    np.testing.assert_array_equal(first[1], second[1])
    assert second[0][-20:].sum() < second[1][-20:].sum()  # farther, so darker


def test_points_of_a_sparse_truth_do_not_drown():
    depth = ground(1, 376, 1241)[0]
    sparse = np.where(np.random.default_rng(0).random(depth.shape) < 0.05, depth, 0)
    rows = [(frame(376, 1241), depth, sparse)]
    image = draw_depths(rows)
    truth = image[160:195, -480:-30]
    colored = (np.abs(truth.astype(int) - UNKNOWN).max(-1) > 5).mean()
    assert 0.2 < colored < 0.7


def test_depths_without_a_truth(canvases):
    depth = ground(1, 48, 48)[0]
    draw_depths([(frame(48, 48), depth, None), (frame(48, 48), depth * 0, None)], LONG)
    assert_readable(canvases)
    assert "truth" not in said(canvases)
    canvases.clear()
    draw_depths([(frame(48, 48), depth, None), (frame(64, 208), ground(1)[0], ground(1)[0])])
    draw_depths([(frame(), np.zeros((5, 5)), None)])
    assert_readable(canvases)
    assert said(canvases).count("no ground truth") == 1
    assert "depth unknown" in said(canvases)
    with pytest.raises(ValueError, match="no depth"):
        draw_depths([])
    with pytest.raises(ValueError, match="prediction"):
        draw_depths([(frame(), np.ones(3), None)])


# --- trajectories ----------------------------------------------------------------------------


def box_of(image: np.ndarray, color: tuple[int, int, int], above: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around a colour on the map, which ends at `above`."""
    y, x = np.nonzero((image[:above] == color).all(-1))
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())


def way(*corners: tuple[float, float]) -> np.ndarray:
    """Positions along straight lines from corner to corner (x, z)."""
    x, z = np.array(corners, float).T
    at = np.linspace(0, len(x) - 1, 60)
    return np.stack([np.interp(at, range(len(x)), v) for v in (x, 0 * x, z)], 1)


@pytest.mark.parametrize("size", [0.03, 1, 700])
def test_metres_are_as_long_across_as_along(size):
    image = draw_trajectory({"a": way((0, 0), (0, size), (size / 2, size))})
    x0, y0, x1, y1 = box_of(image, COLORS[0], len(image) - 90)
    assert (y1 - y0) / (x1 - x0) == pytest.approx(2, rel=0.05)
    right = box_of(image[:, (x0 + x1) // 2 :], COLORS[0], len(image) - 90)
    assert right[3] < y0 + 14  # it turns right at the far end: forward is up


def test_every_way_has_a_start_and_a_name(canvases):
    paths = {"truth": way((0, 0), (0, 10)), "prediction": way((0, 0), (3, 9)), LONG: way((0, 1))}
    paths["truth"][20:30] = np.nan
    image = draw_trajectory(paths, LONG)
    assert_readable(canvases)
    assert {"truth", "prediction", "start", "x (m)", "z (m), forward"} <= {*said(canvases)}
    for color in COLORS[:2]:
        assert (image == color).all(-1).sum() > 500
    shorter = draw_trajectory({"truth": paths["truth"]})
    whole = draw_trajectory({"truth": way((0, 0), (0, 10))})
    blue = [(i[:-90] == COLORS[0]).all(-1).sum() for i in (shorter, whole)]
    assert blue[0] < 0.95 * blue[1]  # the gap is not bridged


def test_no_motion_and_no_positions_are_drawn(canvases):
    draw_trajectory({"zero motion": np.zeros((5, 3)), "none": np.zeros((0, 3))})
    assert "no positions" not in said(canvases)
    draw_trajectory({"unknown": np.full((4, 3), np.nan)})
    assert "no positions" in said(canvases)
    draw_trajectory({"far away": way((1e5, -2e6), (1e5 + 3, -2e6 + 1))})
    assert_readable(canvases)
    assert "-0" not in said(canvases)


def test_what_is_no_way_is_named():
    with pytest.raises(ValueError, match="no trajectory"):
        draw_trajectory({})
    with pytest.raises(
        ValueError, match=r"paths\['a'\]: expected the shape \(n, 3\), got \(4, 4\)"
    ):
        draw_trajectory({"a": np.zeros((4, 4))})
