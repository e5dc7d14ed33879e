"""Gain over random maps, span, and whether a measure can tell: values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_cam.metrics import class_mean, gain_over_random, span_share, telling


def test_classes_count_alike_however_many_clips_they_have() -> None:
    hits, labels = [1, 1, 1, 0, 0, math.nan], ["a", "a", "a", "a", "b", "b"]
    assert class_mean(hits, labels) == pytest.approx((3 / 4 + 0) / 2)
    assert class_mean([math.nan, 1], [3, 7]) == 1  # a class without values is none
    assert math.isnan(class_mean([math.nan], [0])) and math.isnan(class_mean([], []))
    with pytest.raises(ValueError, match=r"values \(2,\) and labels \(1,\)"):
        class_mean([1, 2], [0])


def test_gain_is_paired_per_clip_and_points_the_measure_s_way() -> None:
    values, seeds = [0.3, 0.5, math.nan], [[0.2, 0.4], [0.7, 0.9], [0.1, 0.1]]
    np.testing.assert_allclose(
        gain_over_random(values, seeds, "lower"), [0, 0.3, math.nan], atol=1e-9
    )
    np.testing.assert_allclose(
        gain_over_random(values, seeds, "higher"), [0, -0.3, math.nan], atol=1e-9
    )
    with pytest.raises(ValueError, match="a number per clip"):
        gain_over_random([1, 2], [[1, 2, 3]], "lower")


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_span_is_0_of_random_maps_and_1_of_the_truth(better: str) -> None:
    sign = 1 if better == "higher" else -1
    random, truth = sign * np.array([0.2, 0.4, 0.5]), sign * np.array([0.9, 0.6, 0.5])

    def share(values: np.ndarray) -> np.ndarray:
        return span_share(values, random, truth, better)  # type: ignore[arg-type]

    np.testing.assert_allclose(share(random)[:2], 0, atol=1e-9)
    np.testing.assert_allclose(share(truth)[:2], 1)
    np.testing.assert_allclose(share((random + truth) / 2)[:2], 0.5)
    assert np.isnan(share(truth)[2])  # the truth is no better than random maps


def test_a_measure_whose_span_is_within_twice_its_error_cannot_tell() -> None:
    """Gains 1, 2, 3: mean 2, error 1 / sqrt(3); the same moved to a mean of 1 and of 1.2."""
    random = np.zeros(3)
    for mean, tells in ((2, True), (1.2, True), (1.1, False), (0, False), (-2, False)):
        found = telling(random + mean + [-1, 0, 1], random, "higher")
        assert found.span == pytest.approx(mean) and found.clips == 3
        assert found.error == pytest.approx(1 / math.sqrt(3)) and found.tells is tells
        assert telling(random - mean + [-1, 0, 1], random, "lower").tells is tells
    for few in ([], [5], [5, math.nan]):
        assert not telling(few, [0] * len(few), "higher").tells


def test_pairs_are_what_decides() -> None:
    """Clips differ far more than maps do, and the difference is there in each of them."""
    clips = np.linspace(0, 1, 40)
    random = np.stack([clips, clips + 0.01, clips - 0.01], 1)
    assert telling(clips + 0.02, random, "higher").tells
    assert telling(clips[::-1] + 0.02, random, "higher").tells is False
