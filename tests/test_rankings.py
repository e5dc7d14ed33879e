"""Rankings of methods: closed forms, another library's numbers, how often intervals are right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lightning_cam.study.rankings import (
    agreement,
    consistency,
    draws,
    first_group,
    kendall,
    krippendorff,
    mean_ranks,
    pareto,
    ranks,
    spearman,
)

RNG = np.random.default_rng(0)


def test_tau_is_scipys_also_with_ties() -> None:
    for values in (RNG.normal(size=(2, 9)), RNG.integers(0, 3, (2, 9)).astype(float)):
        a, b = values
        assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert np.isnan(kendall(np.ones(4), np.arange(4.0)))


def test_rank_correlation_is_scipys() -> None:
    a, b = RNG.integers(0, 5, (2, 8, 3)).astype(float)
    expected = [stats.spearmanr(a[:, c], b[:, c]).statistic for c in range(3)]
    assert spearman(a, b) == pytest.approx(expected)


def test_reliability_of_alike_and_of_random_rankings() -> None:
    alike = np.repeat(np.arange(7.0)[:, None], 30, 1) + 10 * RNG.random(30)
    assert consistency(alike) == pytest.approx(1) and krippendorff(alike) == pytest.approx(1)
    for clips in (10, 40, 160):
        noise = RNG.random((7, clips))
        bound = 3 / np.sqrt(clips)
        assert abs(consistency(noise)) < bound and abs(krippendorff(noise)) < bound
    opposite = np.stack([np.arange(5.0), -np.arange(5.0)], 1)
    assert consistency(opposite) == pytest.approx(-1) and krippendorff(opposite) < 0
    a = RNG.random((6, 12))
    pairs = [stats.spearmanr(a[:, i], a[:, j]).statistic for i in range(12) for j in range(i)]
    assert consistency(a) == pytest.approx(np.mean(pairs))
    assert np.isnan(consistency(np.ones((4, 5)))) and np.isnan(krippendorff(np.ones((4, 5))))


def test_krippendorffs_alpha_by_hand() -> None:
    # Two clips rank three methods 1 2 3 and 2 1 3. Each rank occurs twice, so that neighbours are 2
    # apart and the outer ones 4. Observed: pairs (1, 2) (2, 1) (3, 3), each in both orders.
    values = -np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])
    observed, expected = 4 * 2.0**2, (2 * 2 * 2) * (2.0**2 + 2.0**2 + 4.0**2) / 5
    assert krippendorff(values) == pytest.approx(1 - observed / expected)


def test_the_best_share_a_group_if_nothing_tells_them_apart() -> None:
    clip = RNG.normal(0, 5, 40)  # common to all methods: it cancels
    noise = RNG.normal(0, 0.1, (4, 40))
    values = np.array([1.0, 1.0, 0.5, 0.0])[:, None] + clip + noise
    assert first_group(values).tolist() == [True, True, False, False]
    assert first_group(values[:, :1]).all()
    assert first_group(RNG.normal(size=(1, 10))).tolist() == [True]


@pytest.mark.parametrize(("methods", "clips"), [(5, 40), (12, 40)])
def test_equal_methods_are_one_group_as_often_as_that_says(methods: int, clips: int) -> None:
    rng = np.random.default_rng(3)
    whole = [first_group(rng.normal(size=(methods, clips))).all() for _ in range(60)]
    assert np.mean(whole) >= 0.87  # 95%, three standard errors less


def test_nobody_beats_what_is_on_the_front() -> None:
    points = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.4, 0.5], [0.5, 0.5]])
    assert pareto(points).tolist() == [True, True, True, False, True]


@pytest.mark.attack
@pytest.mark.parametrize("clips", [1, 2, 5])
def test_a_handful_of_clips_ranks_nothing(clips: int) -> None:
    """Rankings of studies of one, two and five clips, whose intervals would be wrong too often."""
    values = np.arange(5.0)[:, None] + 0.01 * RNG.random((5, clips))
    assert all(np.isnan(e.low) for e in mean_ranks(values)) and first_group(values).all()
    assert np.isnan(agreement(values, values).low) and agreement(values, values).value == 1
    more = np.tile(values, 6)
    assert mean_ranks(more)[0].low == pytest.approx(5) and first_group(more).sum() == 1


def test_draws_are_the_same_each_time() -> None:
    assert np.array_equal(draws(5), draws.__wrapped__(5)) and np.allclose(draws(5).sum(1), 1)
    e = agreement(*RNG.random((2, 6, 20)))
    assert e.low <= e.value <= e.high
    assert np.isnan(agreement(np.ones((5, 9)), RNG.random((5, 9))).value)


SIMULATIONS, CLIPS, METHODS = 500, 40, 8


@pytest.mark.slow
def test_intervals_of_mean_ranks_are_right_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    quality = np.linspace(0, 1, METHODS)[:, None]

    def table(clips: int) -> np.ndarray:
        return quality + rng.normal(0, 2, clips) + rng.normal(0, 0.7, (METHODS, clips))

    true = ranks(table(200_000)).mean(1)
    found = [mean_ranks(table(CLIPS)) for _ in range(SIMULATIONS)]
    right = [[e.low <= r <= e.high for e, r in zip(each, true, strict=True)] for each in found]
    assert 0.92 <= np.mean(right) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("gap", "order"), [(1.0, "alike"), (0.3, "alike"), (0.02, "alike"),
    (0.3, "chance"), (1.0, "four alike"), (0.02, "four alike")])  # fmt: skip
def test_intervals_of_tau_are_right_at_least_as_often_as_they_say(gap: float, order: str) -> None:
    """Also of methods that hardly differ, whose order noise makes."""
    rng = np.random.default_rng(2)
    right = []
    for _ in range(SIMULATIONS):
        first = gap * np.arange(METHODS)
        second = rng.permutation(first) if order == "chance" else first
        if order == "four alike":  # and in truth in the other order by the second measure
            first = np.r_[first[:4], 3 + np.arange(4.0)]
            second = np.r_[first[3::-1], first[4:]]
        a, b = (
            quality[:, None] + rng.normal(0, 2, CLIPS) + rng.normal(0, 1, (METHODS, CLIPS))
            for quality in (first, second)
        )
        e = agreement(a, b)
        right.append(e.low - 1e-9 <= kendall(first, second) <= e.high + 1e-9)
    assert np.mean(right) >= 0.92
