"""Intervals: coverage where the truth is known, agreement with scipy, pairing, and the rules for win, tie and
loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from adaptkit.data.score_table import ScoreTable
from adaptkit.errors import DataError
from adaptkit.study.intervals import decide, half_width
from adaptkit.study.power import items_too_few, seeds_to_settle
from adaptkit.study.scores import score_table
from adaptkit.study.statistics import Comparison, resample


def mean_table(values: np.ndarray) -> ScoreTable:
    return ScoreTable(
        np.stack([values, np.ones_like(values)], axis=1), lambda totals: totals[..., 0] / totals[..., 1]
    )


def draw_study(
    rng: np.random.Generator,
    num_seeds: int,
    num_items: int,
    seed_sd: tuple[float, float],
    item_sd: float,
    mixed_sd: float,
) -> dict[str, list[ScoreTable]]:
    """Two arms without a true difference: items shared, seeds independent, plus noise of seed and item
    together."""
    shared, own = rng.normal(0, 1.0, num_items), rng.normal(0, item_sd, num_items)
    arms = {}
    for arm, sd, offset in (("a", seed_sd[0], own), ("b", seed_sd[1], 0.0)):
        luck, noise = rng.normal(0, sd, num_seeds), rng.normal(0, mixed_sd, (num_seeds, num_items))
        arms[arm] = [mean_table(shared + offset + luck[k] + noise[k]) for k in range(num_seeds)]
    return arms


def coverage(
    seed_sd: tuple[float, float], item_sd: float, mixed_sd: float, studies: int = 300
) -> tuple[float, float]:
    """Share of studies whose interval holds the truth: ours, and the plain percentile bootstrap."""
    rng = np.random.default_rng(7)
    ours = plain = 0
    for i in range(studies):
        replicates = resample(draw_study(rng, 3, 100, seed_sd, item_sd, mixed_sd), num_resamples=250, seed=i)
        pair = replicates.compare("a", "b", margin=0.0, higher_is_better=True)
        ours += pair.low <= 0 <= pair.high
        low, high = np.quantile(replicates.drawn("a") - replicates.drawn("b"), [0.025, 0.975])
        plain += low <= 0 <= high
    return ours / studies, plain / studies


def test_three_seeds_cover_where_the_plain_bootstrap_does_not():
    ours, plain = coverage((0.3, 0.3), 0.3, 0.3)
    assert ours >= 0.925
    assert plain < 0.87, "if the plain bootstrap covered, the correction would not be needed"


@pytest.mark.parametrize(
    "setting", [((0.06, 0.06), 0.4, 0.4), ((0.0, 0.0), 0.5, 0.2), ((0.1, 0.0), 0.4, 0.2)]
)
def test_coverage_with_items_and_seeds_in_play(setting):
    ours, _ = coverage(*setting)
    assert 0.905 <= ours <= 0.995


def test_many_items_and_equal_seeds_give_the_paired_t_interval():
    rng = np.random.default_rng(3)
    left, right = rng.normal(0, 1, 800), rng.normal(0, 1, 800)
    replicates = resample({"a": [mean_table(left)] * 3, "b": [mean_table(right)] * 3})
    pair = replicates.compare("a", "b", margin=0.0, higher_is_better=True)
    low, high = stats.ttest_rel(left, right).confidence_interval(0.95)
    assert (pair.low, pair.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))
    assert pair.seed_variances == (0.0, 0.0)


def test_items_only_agrees_with_scipy_bootstrap_of_bits_per_byte():
    rng = np.random.default_rng(4)
    nats, sizes = rng.gamma(4, 300, 300), rng.integers(300, 3000, 300)
    rows = [{"nats": float(n), "num_bytes": int(b)} for n, b in zip(nats, sizes, strict=True)]
    interval = resample({"a": [score_table("bits_per_byte", rows)]}).interval("a")

    def ratio(n, b, axis=-1):
        return n.sum(axis=axis) / b.sum(axis=axis) / math.log(2)

    oracle = stats.bootstrap(
        (nats, sizes),
        ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = oracle.high - oracle.low
    assert interval.low == pytest.approx(oracle.low, abs=0.08 * width)
    assert interval.high == pytest.approx(oracle.high, abs=0.08 * width)


def test_intervals_that_exclude_zero_agree_with_a_permutation_test():
    rng = np.random.default_rng(6)
    agreed = 0
    for shift in np.linspace(0, 0.4, 20):
        left = rng.normal(shift, 1, 120)
        right = rng.normal(0, 1, 120)
        oracle = stats.permutation_test(
            (left, right),
            lambda a, b, axis=-1: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=999,
            rng=1,
        )
        replicates = resample({"a": [mean_table(left)], "b": [mean_table(right)]}, num_resamples=500)
        pair = replicates.compare("a", "b", margin=0.0, higher_is_better=True)
        agreed += (pair.outcome != "tie") == (oracle.pvalue < 0.05)
    assert agreed >= 18


def test_pairing_on_items_removes_what_the_arms_share():
    rng = np.random.default_rng(8)
    hard = rng.normal(0, 5, 400)
    replicates = resample({"a": [mean_table(hard + 0.1)] * 2, "b": [mean_table(hard)] * 2})
    pair = replicates.compare("a", "b", margin=0.05, higher_is_better=True)
    assert pair.low == pytest.approx(0.1) and pair.high == pytest.approx(0.1)
    assert pair.outcome == "win"
    interval = replicates.interval("a")
    assert interval.high - interval.low > 0.5


def test_an_interval_does_not_depend_on_other_arms_and_is_repeatable():
    arms = draw_study(np.random.default_rng(9), 3, 80, (0.1, 0.1), 0.3, 0.1)
    alone = resample({"a": arms["a"]}, seed=1).interval("a")
    assert resample(arms, seed=1).interval("a") == alone
    assert resample(arms, seed=2).interval("a") != alone


def test_the_skew_of_three_seeds_is_not_believed_but_that_of_items_is():
    lopsided = [mean_table(np.full(40, value)) for value in (-1.0, -1.0, 2.0)]
    interval = resample({"a": lopsided}).interval("a")
    assert interval.high == pytest.approx(-interval.low, rel=0.05)
    skewed = resample({"a": [mean_table(np.random.default_rng(0).lognormal(0, 1.5, 60))] * 3}).interval("a")
    assert skewed.high - skewed.mean > 1.15 * (skewed.mean - skewed.low)


def test_chunks_of_replicates_give_the_same_draws(monkeypatch):
    import adaptkit.study.statistics as module

    arms = draw_study(np.random.default_rng(10), 2, 50, (0.1, 0.1), 0.3, 0.1)
    whole = resample(arms, num_resamples=300).values["a"]
    monkeypatch.setattr(module, "_CHUNK_WEIGHTS", 50 * 7)
    assert np.allclose(resample(arms, num_resamples=300).values["a"], whole)


def test_confidence_and_seeds_move_the_width():
    arms = draw_study(np.random.default_rng(11), 6, 80, (0.2, 0.2), 0.3, 0.1)
    few = resample({name: tables[:3] for name, tables in arms.items()})
    many = resample(arms)

    def width(replicates, confidence):
        pair = replicates.compare("a", "b", margin=0.0, higher_is_better=True, confidence=confidence)
        return pair.high - pair.low

    assert width(many, 0.99) > width(many, 0.95) > width(many, 0.8)
    assert half_width(0.0, [(0.04 / 3, 2)], 80, 0.95) > half_width(0.0, [(0.04 / 6, 5)], 80, 0.95)
    assert width(few, 0.95) > 0


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (0.02, 0.05, True, "win"),
        (0.005, 0.05, True, "tie"),
        (-0.05, -0.02, True, "loss"),
        (-0.05, -0.02, False, "win"),
        (0.02, 0.05, False, "loss"),
        (-0.005, 0.005, False, "tie"),
        (-0.05, 0.005, False, "tie"),
        (-0.005, 0.05, False, "tie"),
        (0.01, 0.05, True, "tie"),
    ],
)
def test_win_tie_loss(low, high, higher, expected):
    assert decide(low, high, 0.01, higher) == expected


def comparison(
    difference: float, item_variance: float, seed_variance: float, num_seeds: int = 3
) -> Comparison:
    half = half_width(item_variance, [(seed_variance / num_seeds, num_seeds - 1)] * 2, 1000, 0.95)
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
        effective_clusters=1000,
        confidence=0.95,
    )


def test_seeds_to_settle():
    noisy = comparison(0.03, 1e-6, 4e-4)
    needed = seeds_to_settle(noisy)
    assert needed is not None and 3 < needed < 20
    assert half_width(1e-6, [(4e-4 / needed, needed - 1)] * 2, 1000, 0.95) < 0.02
    assert half_width(1e-6, [(4e-4 / (needed - 1), needed - 2)] * 2, 1000, 0.95) >= 0.02
    assert seeds_to_settle(comparison(0.03, 4e-4, 1e-6)) is None
    assert items_too_few(comparison(0.03, 4e-4, 1e-6)) and not items_too_few(noisy)


def test_different_or_no_items_are_refused():
    with pytest.raises(DataError, match="items"):
        resample({"a": [mean_table(np.zeros(3))], "b": [mean_table(np.zeros(4))]})
    with pytest.raises(DataError, match="items"):
        resample({"a": [mean_table(np.zeros(0))]})
