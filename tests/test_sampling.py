"""Index arithmetic of lightning_cam.data.video.sampling: tables, then properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_cam.data.video.sampling import (
    resample_indices,
    resample_times,
    temporal_window,
    uniform_segments,
)

lengths = st.integers(1, 1000)
rates = st.floats(1.5, 240)
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("num_frames", "source_fps", "fps", "expected"),
    [
        (16, 30, 7.5, [0, 4, 8, 12]),
        (17, 30, 7.5, [0, 4, 8, 12, 16]),
        (17, 29.97, 7.5, [0, 4, 8, 12, 16]),
        (1, 30, 7.5, [0]),
        (3, 30, 7.5, [0]),
        (12, 25, 7.5, [0, 3, 7, 10]),
        (7, 12, 4, [0, 3, 6]),
        (4, 30, 20, [0, 2, 3]),  # 1.5 goes up; step 2 is exactly the last frame
        (3, 10, 20, [0, 1, 1, 2, 2]),  # above the source's rate: steps repeat
        (5, 30, 30, [0, 1, 2, 3, 4]),
    ],
)
def test_resampling_table(num_frames, source_fps, fps, expected):
    assert resample_indices(num_frames, source_fps, fps).tolist() == expected
    assert resample_times(np.arange(num_frames) / source_fps, fps).tolist() == expected


def test_rounding_each_step_does_not_drift():
    steps = resample_indices(2000, 30000 / 1001, 7.5)
    assert steps[250] == 999  # a constant stride of 4 would be at 1000
    np.testing.assert_allclose(steps / (30000 / 1001), np.arange(len(steps)) / 7.5, atol=0.017)


def test_variable_rate_takes_the_nearest_instant():
    times = [5.0, 5.1, 5.15, 5.9, 6.0, 6.4]  # the clock may start anywhere
    assert resample_times(times, 5).tolist() == [0, 2, 2, 3, 3, 4, 5, 5]


def test_millisecond_clocks_change_nothing():
    """Matroska rounds 1/30 s to milliseconds; the step on the very last frame must survive."""
    times = np.round(np.arange(5) / 30, 3)
    assert resample_times(times, 7.5).tolist() == [0, 4]
    assert resample_times(times, 20).tolist() == resample_indices(5, 30, 20).tolist()


@given(lengths, rates, rates)
def test_resampling_properties(num_frames, source_fps, fps):
    steps = resample_indices(num_frames, source_fps, fps)
    assert steps[0] == 0
    assert (np.diff(steps) >= 0).all()
    assert steps[-1] < num_frames
    if fps <= source_fps:
        assert (np.diff(steps) > 0).all()
    ideal = np.arange(len(steps)) * source_fps / fps
    assert (np.abs(steps - np.minimum(ideal, num_frames - 1)) <= 0.5 + 1e-6).all()
    # One more step would lie behind the last frame.
    assert len(steps) * source_fps / fps > num_frames - 1 - 1e-6 * num_frames


@given(lengths, st.sampled_from([10, 12, 24, 25, 29.97, 30, 50, 60]), st.floats(1.5, 60))
def test_both_rules_agree_on_constant_rates(num_frames, source_fps, fps):
    by_rate = resample_indices(num_frames, source_fps, fps)
    by_time = resample_times(np.arange(num_frames) / source_fps, fps)
    shared = min(len(by_rate), len(by_time))
    assert abs(len(by_rate) - len(by_time)) <= 1  # an end within a millisecond
    clear = np.abs(np.arange(shared) * source_fps / fps % 1 - 0.5) > 1.1e-3 * source_fps
    np.testing.assert_array_equal(by_rate[:shared][clear], by_time[:shared][clear])


@given(st.lists(st.floats(0.005, 2), max_size=60), st.floats(0.5, 60))
def test_times_properties(gaps, fps):
    times = np.concatenate([[3.0], 3.0 + np.cumsum(gaps)])
    steps = resample_times(times, fps)
    assert steps[0] == 0
    assert (np.diff(steps) >= 0).all()
    assert steps[-1] < len(times)
    at = np.arange(len(steps)) / fps
    distance = np.abs((times - 3.0)[:, None] - at)
    assert (distance[steps, np.arange(len(steps))] <= distance.min(axis=0) + 1.001e-3).all()


@pytest.mark.parametrize(
    ("num_steps", "length", "stride", "positions", "num_valid"),
    [
        (16, 16, 1, list(range(16)), 16),
        (10, 4, 1, [3, 4, 5, 6], 4),
        (11, 4, 1, [3, 4, 5, 6], 4),  # floor
        (10, 3, 3, [1, 4, 7], 3),
        (3, 5, 1, [0, 1, 2, 2, 2], 3),
        (1, 4, 1, [0, 0, 0, 0], 1),
        (4, 4, 2, [0, 2, 2, 2], 2),  # too few: from the start, at the stride
        (5, 1, 7, [2], 1),
    ],
)
def test_window_table(num_steps, length, stride, positions, num_valid):
    got, valid = temporal_window(num_steps, length, stride=stride)
    assert got.tolist() == positions
    assert valid.tolist() == [True] * num_valid + [False] * (length - num_valid)


@given(lengths, st.integers(1, 64), st.integers(1, 8), st.none() | seeds)
def test_window_properties(num_steps, length, stride, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    positions, valid = temporal_window(num_steps, length, stride=stride, rng=rng)
    assert positions.shape == valid.shape == (length,)
    assert 0 <= positions.min() <= positions.max() < num_steps
    assert (np.diff(positions) >= 0).all()
    assert valid[0]
    assert (np.diff(valid.astype(int)) <= 0).all()  # padding is at the end only
    assert valid.all() == (num_steps >= (length - 1) * stride + 1)
    assert (np.diff(positions[valid]) == stride).all()
    assert (positions[~valid] == positions[valid][-1]).all()


def test_training_window_reaches_every_start_and_repeats_with_its_seed():
    rng = np.random.default_rng(0)
    starts = {int(temporal_window(8, 5, rng=rng)[0][0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3}
    first, again = (temporal_window(99, 5, rng=np.random.default_rng(7))[0] for _ in range(2))
    assert first.tolist() == again.tolist()


@pytest.mark.parametrize(
    ("num_frames", "segments", "expected"),
    [
        (8, 4, [1, 3, 5, 7]),
        (16, 4, [2, 6, 10, 14]),
        (10, 4, [1, 3, 6, 8]),
        (5, 5, [0, 1, 2, 3, 4]),
        (3, 6, [0, 0, 1, 1, 2, 2]),
        (1, 3, [0, 0, 0]),
        (9, 1, [4]),
    ],
)
def test_segment_table(num_frames, segments, expected):
    indices, valid = uniform_segments(num_frames, segments)
    assert indices.tolist() == expected
    assert valid.all()


@given(lengths, st.integers(1, 64), st.none() | seeds)
def test_segment_properties(num_frames, segments, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    indices, valid = uniform_segments(num_frames, segments, rng=rng)
    assert indices.shape == valid.shape == (segments,)
    assert valid.all()
    assert 0 <= indices.min() <= indices.max() < num_frames
    assert (np.diff(indices) >= 0).all()
    edges = np.arange(segments + 1) * num_frames / segments
    assert (indices >= np.floor(edges[:-1] + 1e-9)).all()
    assert (indices <= np.ceil(edges[1:] - 1e-9)).all()


def test_training_segments_reach_every_frame():
    rng = np.random.default_rng(0)
    seen = {int(i) for _ in range(300) for i in uniform_segments(10, 4, rng=rng)[0]}
    assert seen == set(range(10))


@pytest.mark.parametrize(
    "call",
    [
        lambda: resample_indices(0, 30, 7.5),
        lambda: resample_indices(5, float("nan"), 7.5),
        lambda: resample_indices(5, 30, 0),
        lambda: resample_times([], 7.5),
        lambda: resample_times([0.0], float("inf")),
        lambda: temporal_window(0, 4),
        lambda: temporal_window(4, 0),
        lambda: temporal_window(4, 4, stride=0),
        lambda: uniform_segments(0, 4),
        lambda: uniform_segments(4, 0),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ValueError, match="must be"):
        call()
