"""Level of intervals that hold together, and what seeds of several arms lend each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from adaptkit.study.intervals import SeedNoise, borrow_between_arms, half_width, simultaneous_level


def dunnett_level(num_others: int, confidence: float) -> float:
    """The same level for equally noisy arms, by integration over the reference's own noise."""
    own = np.linspace(-8, 8, 2001)
    weights = np.exp(-(own**2) / 2) / np.exp(-(own**2) / 2).sum()
    low, high = 1.0, 5.0
    for _ in range(50):
        z = (low + high) / 2
        inside = special.ndtr(z * 2**0.5 + own) - special.ndtr(-z * 2**0.5 + own)
        low, high = (z, high) if (weights * inside**num_others).sum() < confidence else (low, z)
    return float(2 * special.ndtr(low) - 1)


@pytest.mark.parametrize(("num_others", "confidence"), [(2, 0.95), (6, 0.95), (11, 0.95), (6, 0.8)])
def test_the_level_for_equal_arms_is_dunnetts(num_others, confidence):
    level = simultaneous_level(np.eye(num_others + 1), 0, confidence)
    expected = dunnett_level(num_others, confidence)
    assert 1 - level == pytest.approx(1 - expected, rel=0.08)
    assert 1 - (1 - confidence) / num_others >= level > confidence


def test_a_copy_of_an_arm_costs_nothing_and_an_arm_alone_neither():
    two = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    assert simultaneous_level(two, 0, 0.95) == pytest.approx(0.95, abs=0.003)
    assert simultaneous_level(np.eye(2), 0, 0.95) == 0.95
    assert simultaneous_level(np.zeros((4, 4)), 0, 0.95) == 0.95


def test_every_reference_has_its_own_level():
    # All others share the noise of a noisy reference, so one interval stands for all.
    noisy = np.diag([100.0, 1.0, 1.0, 1.0, 1.0])
    assert simultaneous_level(noisy, 0, 0.95) < 0.965 < 0.975 < simultaneous_level(noisy, 1, 0.95)


def test_seeds_of_all_arms_say_how_much_one_varies():
    own = {"a": SeedNoise(1.0, 3, 2), "b": SeedNoise(1.0, 3, 2), "c": SeedNoise(4.0, 3, 2)}
    lent = borrow_between_arms(own | {"baseline": SeedNoise(0.0, 1, 0), "probe": SeedNoise(0.0, 3, 2)})
    assert lent["a"] == SeedNoise(pytest.approx((2 * 1 + 4 * 2) / 6), 3, 6)
    assert lent["c"] == SeedNoise(4.0, 3, 6), "never below its own"
    assert lent["baseline"] == SeedNoise(0.0, 1, 0) and lent["probe"] == SeedNoise(0.0, 3, 2)
    assert lent["a"].part == (pytest.approx(10 / 18), 6)


def test_two_arms_lend_each_other_nothing_and_few_seeds_little():
    pair = {"a": SeedNoise(1.0, 3, 2), "b": SeedNoise(4.0, 3, 2)}
    assert borrow_between_arms(pair) == pair
    one_lender = pair | {"b": SeedNoise(0.0, 1, 0), "c": SeedNoise(0.0, 1, 0)}
    assert borrow_between_arms(one_lender) == one_lender
    twice = {name: SeedNoise(1.0, 2, 1) for name in "abc"}
    assert borrow_between_arms(twice)["a"].freedom == 1 + 2, "two others have one degree each"


def test_noise_of_scores():
    assert SeedNoise.of(np.array([1.0, 2.0, 3.0])) == SeedNoise(1.0, 3, 2)
    assert SeedNoise.of(np.array([1.0])) == SeedNoise(0.0, 1, 0)


def test_width_without_noise_and_with_one_source():
    none = (0.0, 99.0)
    assert half_width(none, [(0.0, 2)], 0.95) == 0.0
    assert half_width((0.04, 9), [], 0.95) == pytest.approx(0.2 * stats.t.ppf(0.975, 9))
    assert half_width(none, [(0.04, 2)], 0.9) == pytest.approx(0.2 * stats.t.ppf(0.95, 2))
    assert half_width((0.04, 9), [(9.0, 0)], 0.95) == half_width((0.04, 9), [], 0.95)
    assert half_width((9.0, 0), [(0.04, 2)], 0.95) == half_width(none, [(0.04, 2)], 0.95)
    two = half_width(none, [(0.04, 2), (0.04, 2)], 0.95)
    assert two == pytest.approx(math.sqrt(0.08) * stats.t.ppf(0.975, 4)), "Welch and Satterthwaite"


@pytest.mark.parametrize("freedom", [1, 2, 6])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_a_vanishing_part_leaves_the_other_ones_t(freedom, confidence):
    for items, seeds in (((1e-12, 50), (1.0, freedom)), ((1.0, freedom), (1e-12, 2))):
        width = half_width(items, [seeds], confidence)
        assert width == pytest.approx(stats.t.ppf(0.5 + confidence / 2, freedom), rel=0.03)


def test_either_part_keeps_its_t_and_lends_the_other_two_degrees():
    rng = np.random.default_rng(0)
    seeds, items, number = (0.7, 2), (0.3, 7), 200_000

    def drawn(own, lender):
        scale = math.sqrt(lender[0] * lender[1] / (lender[1] + 2))
        first = math.sqrt(own[0]) * rng.standard_t(own[1], number)
        return np.abs(first + scale * rng.standard_t(lender[1] + 2, number))

    width = half_width(items, [seeds], 0.95)
    outside = 0.7 * (drawn(seeds, items) > width).mean() + 0.3 * (drawn(items, seeds) > width).mean()
    assert outside == pytest.approx(0.05, abs=0.0015)


def test_three_seeds_of_one_arm_beside_many_items_are_covered():
    """Variances of a seed part with 2 and an item part with 99 degrees of freedom are drawn; the chance that
    the interval of each draw holds the truth is exact."""
    rng = np.random.default_rng(1)
    covered, welch = [], []
    for _ in range(400):
        seeds, items = 0.73 * rng.chisquare(2) / 2, 0.27 * rng.chisquare(99) / 99
        covered.append(2 * special.ndtr(half_width((items, 99), [(seeds, 2)], 0.95)) - 1)
        freedom = (seeds + items) ** 2 / (seeds**2 / 2 + items**2 / 99)
        welch.append(2 * special.ndtr(math.sqrt(seeds + items) * stats.t.ppf(0.975, freedom)) - 1)
    assert 0.935 < np.mean(covered) < 0.955
    assert np.mean(welch) < np.mean(covered) - 0.005, "else the plain formula would do"


def test_what_the_items_explain_is_no_noise_of_seeds():
    noise = SeedNoise.of(np.array([1.0, 2.0, 3.0]), 0.2)
    assert noise.part == (pytest.approx(1 / 3 - 0.2), 2)
    assert noise.own_variance == pytest.approx(3 * (1 / 3 - 0.2))
    assert SeedNoise(1.0, 3, 2, 0.5).part == (0.0, 2)
    lent = borrow_between_arms({name: SeedNoise(1.0, 3, 2, 0.1) for name in "abc"})
    assert lent["a"].interaction == 0.1
