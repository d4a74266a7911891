"""How many seeds or items would settle a comparison, and which difference a study can settle at all."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from adaptkit.data.score_table import mean_table
from adaptkit.study.intervals import half_width
from adaptkit.study.power import items_to_settle, seeds_to_settle, smallest_difference
from adaptkit.study.statistics import Comparison, resample

END = 0.01
"""The end of the margin that decides."""


def comparison(
    difference: float, item_variance: float, seed_variance: float, num_seeds: int = 3
) -> Comparison:
    half = half_width((item_variance, 999), [(seed_variance / num_seeds, num_seeds - 1)] * 2, 0.95)
    return Comparison(
        difference=difference,
        low=difference - half,
        high=difference + half,
        margin=0.01,
        outcome="tie",
        item_variance=item_variance,
        seed_variances=(seed_variance, seed_variance),
        seed_freedom=(num_seeds - 1, num_seeds - 1),
        num_seeds=(num_seeds, num_seeds),
        num_items=1000,
        num_clusters=1000,
        item_freedom=999,
        interaction=0.0,
        confidence=0.95,
    )


def test_seeds_to_settle():
    noisy = comparison(0.03, 1e-6, 4e-4)
    needed = seeds_to_settle(noisy, END)
    assert needed is not None and 3 < needed < 20
    assert half_width((1e-6, 999), [(4e-4 / needed, needed - 1)] * 2, 0.95) < 0.02
    assert half_width((1e-6, 999), [(4e-4 / (needed - 1), needed - 2)] * 2, 0.95) >= 0.02
    assert seeds_to_settle(comparison(0.03, 4e-4, 1e-6), END) is None


def test_what_decides_is_the_end_of_the_margin_that_is_named():
    noisy = comparison(0.03, 1e-6, 4e-4)
    far, near = seeds_to_settle(noisy, -0.01), seeds_to_settle(noisy, 0.01)
    assert far is not None and near is not None and far < near, "the far end is cleared sooner"


def test_more_seeds_leave_a_baseline_as_it_is():
    baseline = dataclasses.replace(
        comparison(0.03, 1e-6, 4e-4), seed_variances=(4e-4, 0.0), seed_freedom=(2, 0), num_seeds=(3, 1)
    )
    needed = seeds_to_settle(baseline, END)
    assert needed is not None and needed > 3
    assert half_width((1e-6, 999), [(4e-4 / needed, needed - 1)], 0.95) < 0.02
    assert half_width((1e-6, 999), [(4e-4 / (needed - 1), needed - 2)], 0.95) >= 0.02
    assert seeds_to_settle(dataclasses.replace(baseline, num_seeds=(1, 1), seed_freedom=(0, 0)), END) is None


def test_items_to_settle():
    few = comparison(0.03, 4e-4, 1e-6)
    needed = items_to_settle(few, END)
    parts = [(1e-6 / 3, 2)] * 2
    assert half_width((4e-4 * 1000 / needed, needed), parts, 0.95) < 0.02
    assert half_width((4e-4 * 1010 / needed, needed / 1.01), parts, 0.95) >= 0.02
    assert needed == pytest.approx((1.96 * 0.02 / 0.02) ** 2 * 1000, rel=0.05)
    assert items_to_settle(few, END, most=2000) is None
    assert items_to_settle(comparison(0.03, 1e-6, 4e-4), END) is None, (
        "no number of items makes up for the seeds"
    )
    assert items_to_settle(comparison(0.03, 1e-6, 1e-6), END) == 1000, "settled already"


def test_clusters_are_what_counts():
    alone = comparison(0.03, 4e-4, 0.0)
    few = dataclasses.replace(alone, num_clusters=4, item_freedom=3.0)
    assert items_to_settle(few, END) > 1.02 * items_to_settle(alone, END)


def test_lent_freedom_still_counts_with_more_seeds():
    own = comparison(0.03, 1e-6, 4e-4)
    lent = dataclasses.replace(own, seed_freedom=(6, 6))
    assert seeds_to_settle(lent, END) < seeds_to_settle(own, END)
    needed = seeds_to_settle(lent, END)
    assert half_width((1e-6, 999), [(4e-4 / needed, needed + 3)] * 2, 0.95) < 0.02
    assert half_width((1e-6, 999), [(4e-4 / (needed - 1), needed + 2)] * 2, 0.95) >= 0.02


def test_more_seeds_average_out_what_is_hard_for_one_seed_only():
    shared = comparison(0.03, 2e-4, 0.0)
    most_of_it = dataclasses.replace(shared, interaction=1.5e-4)
    assert seeds_to_settle(shared, END) is None
    needed = seeds_to_settle(most_of_it, END)
    assert needed is not None and half_width((5e-5 + 4.5e-4 / needed, 999), [], 0.95) < 0.02
    assert half_width((5e-5 + 4.5e-4 / (needed - 1), 999), [], 0.95) >= 0.02


def test_power_reads_the_interval_that_it_is_about():
    rng = np.random.default_rng(5)
    arms = {name: [mean_table(rng.normal(luck, 1, 300)) for luck in rng.normal(0, 0.2, 3)] for name in "abcd"}
    pair = resample(arms, num_resamples=500).versus("a", list("bcd"), margin=0.0, higher_is_better=True)["b"]
    width = (pair.high - pair.low) / 2
    just_settled = dataclasses.replace(pair, difference=1.08 * width)
    assert seeds_to_settle(just_settled, 0.0) == 3 and items_to_settle(just_settled, 0.0) == 300
    not_yet = dataclasses.replace(pair, difference=0.92 * width)
    assert seeds_to_settle(not_yet, 0.0) > 3


def test_smallest_difference_by_hand():
    assert smallest_difference(1000, 3, item_sd=0.45, seed_sd=0.0) == pytest.approx(
        1.962 * 0.45 / math.sqrt(1000), rel=1e-3
    )
    many = smallest_difference(1000, 3, item_sd=0.45, seed_sd=0.0, num_arms=12)
    assert many == pytest.approx(2.76 * 0.45 / math.sqrt(1000), rel=0.02)
    assert smallest_difference(1000, 1, item_sd=0.45, seed_sd=9.0) == pytest.approx(0.0279, abs=2e-4)
    with_seeds = half_width((0.45**2 / 1000, 999), [(0.01**2 / 3, 2)] * 2, 0.9)
    assert smallest_difference(1000, 3, item_sd=0.45, seed_sd=0.01, confidence=0.9) == with_seeds


def test_half_of_all_studies_settle_the_smallest_difference():
    rng = np.random.default_rng(2)
    true = smallest_difference(150, 3, item_sd=0.5, seed_sd=0.05)
    settled = 0
    for number in range(300):
        hard = rng.normal(0, 0.5, 150)
        better = [mean_table(hard + true + rng.normal(0, 0.05)) for _ in range(3)]
        other = [mean_table(np.zeros(150) + rng.normal(0, 0.05)) for _ in range(3)]
        pair = resample({"a": better, "b": other}, num_resamples=200, seed=number).compare(
            "a", "b", margin=0.0, higher_is_better=True
        )
        settled += pair.low > 0
    assert 0.42 <= settled / 300 <= 0.58
