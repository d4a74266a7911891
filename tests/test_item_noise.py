"""Item variance by leaving clusters out: against textbook formulas, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from adaptkit.data.score_table import macro_f1_table, mean_table
from adaptkit.study import item_noise

UNEQUAL = np.array([80, *[4] * 30])


def test_items_alone_give_the_variance_of_a_mean():
    values = np.random.default_rng(0).normal(0, 2, 50)
    influences = item_noise.influence([mean_table(values)], np.arange(50))
    assert (influences**2).sum() == pytest.approx(values.var(ddof=1) / 50)
    assert item_noise.freedom(np.ones(50)) == pytest.approx(49)


def test_equal_clusters_give_the_variance_of_their_means():
    places = np.repeat(np.arange(8), 25)
    values = np.random.default_rng(1).normal(0, 1, 200)
    means = values.reshape(8, 25).mean(axis=1)
    influences = item_noise.influence([mean_table(values)], places)
    assert (influences**2).sum() == pytest.approx(means.var(ddof=1) / 8)
    assert item_noise.freedom(np.full(8, 25)) == pytest.approx(7)


def test_unequal_clusters_give_the_cr2_estimate_and_its_freedom():
    """Bell and McCaffrey's matrices, written out for items that are not alike within a cluster."""
    places = np.repeat(np.arange(len(UNEQUAL)), UNEQUAL)
    values = np.random.default_rng(2).normal(0, 1, 200)
    shares = UNEQUAL / 200
    residuals = np.bincount(places, values - values.mean()) / 200
    influences = item_noise.influence([mean_table(values)], places)
    assert (influences**2).sum() == pytest.approx((residuals**2 / (1 - shares)).sum())
    residual_maker = np.eye(31) - shares
    weights = np.diag(shares / np.sqrt(1 - shares))
    matrix = weights @ residual_maker @ np.diag(1 / UNEQUAL) @ residual_maker.T @ weights
    expected = np.trace(matrix) ** 2 / (matrix**2).sum()
    assert item_noise.freedom(UNEQUAL) == pytest.approx(expected) and 5 < expected < 6


def test_any_function_of_sums_has_influences():
    answers = ["a"] * 6 + ["b"] * 4, ["a"] * 5 + ["b"] * 5
    table = macro_f1_table(*answers)
    without = [macro_f1_table(*(side[:i] + side[i + 1 :] for side in answers)).value for i in range(10)]
    expected = np.sqrt(0.9) * (np.array(without) - table.value)
    assert item_noise.influence([table], np.arange(10))[:, 0] == pytest.approx(expected)


def test_what_is_hard_for_one_seed_only_is_the_interaction_of_an_analysis_of_variance():
    noise = np.random.default_rng(3).normal(0, 1, (3, 40)) + np.random.default_rng(4).normal(0, 3, 40)
    influences = item_noise.influence([mean_table(row) for row in noise], np.arange(40))
    residuals = noise - noise.mean(axis=0) - noise.mean(axis=1, keepdims=True) + noise.mean()
    mean_square = (residuals**2).sum() / (2 * 39)
    assert item_noise.interaction(influences) == pytest.approx(mean_square / (3 * 40))
    assert item_noise.interaction(influences[:, :1]) == 0.0


def test_one_item_tells_nothing():
    assert item_noise.influence([mean_table([1.0])] * 2, np.zeros(1, dtype=int)).tolist() == [[0.0, 0.0]]
    assert item_noise.freedom(np.ones(1)) == 0.0
