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
from adaptkit.study.scores import score_table
from adaptkit.study.statistics import resample, reverse


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
    "setting",
    [((0.06, 0.06), 0.4, 0.4), ((0.0, 0.0), 0.5, 0.2), ((0.1, 0.0), 0.35, 0.0), ((0.0, 0.0), 0.0, 0.5)],
    ids=["seeds and items", "items only", "seed noise in one arm", "seeds and items only interact"],
)
def test_coverage_with_items_and_seeds_in_play(setting):
    ours, _ = coverage(*setting)
    assert 0.92 <= ours <= 0.98


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
    none = (0.0, 79.0)
    assert half_width(none, [(0.04 / 3, 2)], 0.95) > half_width(none, [(0.04 / 6, 5)], 0.95)
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


def clustered(rng: np.random.Generator, places: np.ndarray, correlation: float) -> list[ScoreTable]:
    """One arm whose items are alike within a cluster, one seed."""
    whole = rng.normal(0, math.sqrt(correlation), places.max() + 1)
    return [mean_table(whole[places] + rng.normal(0, math.sqrt(1 - correlation), len(places)))]


def test_whole_clusters_are_drawn_and_cover_where_items_do_not():
    sizes = np.array([24, 18, 15, 12, 12, 9, 9, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 1])
    places = np.repeat(np.arange(20), sizes)
    rng = np.random.default_rng(12)
    drawn = ignored = 0
    for number in range(300):
        arms = {"a": clustered(rng, places, 0.3), "b": clustered(rng, places, 0.3)}
        for labels in (places.tolist(), None):
            replicates = resample(arms, labels, num_resamples=200, seed=number)
            pair = replicates.compare("a", "b", margin=0.0, higher_is_better=True)
            holds = pair.low <= 0 <= pair.high
            drawn, ignored = drawn + (holds and bool(labels)), ignored + (holds and not labels)
    assert 0.92 <= drawn / 300 <= 0.985
    assert ignored / 300 < 0.8, "if ignoring clusters covered, they would not be needed"


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_few_clusters_one_of_them_large_cover_and_not_too_often(correlation):
    places = np.repeat(np.arange(13), [40, *[5] * 12])
    rng = np.random.default_rng(13)
    holds = 0
    for number in range(400):
        replicates = resample(
            {"a": clustered(rng, places, correlation)}, places.tolist(), num_resamples=200, seed=number
        )
        interval = replicates.interval("a")
        holds += interval.low <= 0 <= interval.high
    assert 0.92 <= holds / 400 <= 0.98


def test_repeats_within_a_cluster_tell_nothing_new():
    values = np.random.default_rng(14).normal(0, 1, 30)
    alone = resample({"a": [mean_table(values)]}, num_resamples=300)
    shuffled = np.random.default_rng(15).permutation(np.repeat(np.arange(30), 4))
    order = list(dict.fromkeys(shuffled.tolist()))
    repeated = resample({"a": [mean_table(values[shuffled])]}, shuffled.tolist(), num_resamples=300)
    in_order = resample({"a": [mean_table(values[order])]}, num_resamples=300)
    assert np.allclose(repeated.values["a"], in_order.values["a"])
    assert (repeated.num_items, repeated.num_clusters) == (120, 30)
    assert (alone.num_items, alone.num_clusters) == (30, 30)
    assert repeated.item_freedom == pytest.approx(29) and alone.item_freedom == pytest.approx(29)
    widths = [r.interval("a").high - r.interval("a").low for r in (repeated, in_order)]
    assert widths[0] == pytest.approx(widths[1])


def test_clusters_of_one_item_are_no_clusters():
    arms = draw_study(np.random.default_rng(16), 2, 50, (0.1, 0.1), 0.3, 0.1)
    labels = [f"document {i}" for i in range(50)]
    options = {"margin": 0.0, "higher_is_better": True}
    without = resample(arms, num_resamples=200).compare("a", "b", **options)
    assert resample(arms, labels, num_resamples=200).compare("a", "b", **options) == without
    assert without.num_clusters == 50 and without.item_freedom == pytest.approx(49)


def test_unequal_clusters_are_drawn_whole_and_tell_less():
    places = [0, 0, 0, 1]
    values = np.array([1.0, 2.0, 3.0, 8.0])
    replicates = resample({"a": [mean_table(values)] * 2, "b": [mean_table(np.zeros(4))]}, places)
    # Both clusters in half of all draws (3.5), else the first twice (2) or the second twice (8).
    assert sorted(set(np.round(replicates.values["a"][:, 0], 9))) == [2.0, 3.5, 8.0]
    assert replicates.num_clusters == 2 and replicates.item_freedom == pytest.approx(1.0)
    options = {"margin": 0.0, "higher_is_better": True}
    assert replicates.compare("a", "a", **options).item_variance == 0.0
    # Without the first cluster the mean is 8, without the second 2.
    expected = 0.25 * (8 - 3.5) ** 2 + 0.75 * (2 - 3.5) ** 2
    assert replicates.compare("a", "b", **options).item_variance == pytest.approx(expected)


def test_an_interval_is_as_wide_as_its_t_interval_and_as_skewed_as_its_items():
    arms = draw_study(np.random.default_rng(22), 3, 60, (0.1, 0.2), 0.3, 0.2)
    pair = resample(arms, num_resamples=300).compare("a", "b", margin=0.0, higher_is_better=True)
    items = (pair.item_variance, pair.item_freedom)
    parts = [(variance / 3, 2) for variance in pair.seed_variances]
    assert (pair.high - pair.low) / 2 == pytest.approx(half_width(items, parts, 0.95))


def test_what_seeds_and_items_share_counts_once():
    arms = draw_study(np.random.default_rng(23), 3, 60, (0.2, 0.2), 0.3, 0.5)
    pair = resample(arms, num_resamples=200).compare("a", "b", margin=0.0, higher_is_better=True)
    raw = [np.var([table.value for table in arms[arm]], ddof=1) for arm in "ab"]
    assert sum(raw) - sum(pair.seed_variances) == pytest.approx(3 * pair.interaction)
    assert pair.interaction == pytest.approx(2 * 0.5**2 / 60 / 3, rel=0.25)


def test_one_cluster_or_too_few_labels_are_refused():
    with pytest.raises(DataError, match="all 3 test items belong to one group"):
        resample({"a": [mean_table(np.arange(3.0))]}, ["x"] * 3)
    with pytest.raises(ValueError, match="2 cluster labels for 3 items"):
        resample({"a": [mean_table(np.arange(3.0))]}, ["x", "y"])


def equal_arms(rng: np.random.Generator, num_arms: int, num_items: int) -> dict[str, list[ScoreTable]]:
    return {f"arm{i}": [mean_table(rng.normal(0, 1, num_items))] for i in range(num_arms)}


def test_intervals_of_many_arms_hold_together():
    rng = np.random.default_rng(17)
    together = one_by_one = 0
    for number in range(200):
        arms = equal_arms(rng, 7, 60)
        replicates = resample(arms, num_resamples=200, seed=number)
        others = [arm for arm in arms if arm != "arm0"]
        seen = replicates.versus("arm0", others, margin=0.0, higher_is_better=True)
        together += all(pair.low <= 0 <= pair.high for pair in seen.values())
        alone = [replicates.compare(arm, "arm0", margin=0.0, higher_is_better=True) for arm in others]
        one_by_one += all(pair.low <= 0 <= pair.high for pair in alone)
    assert 0.905 <= together / 200 <= 0.99
    assert one_by_one / 200 < 0.87, "if each alone covered, the common level would not be needed"


def test_many_arms_beside_a_baseline_hold_together_where_seeds_dominate():
    rng = np.random.default_rng(18)
    covered = 0
    for number in range(200):
        arms = {"baseline": [mean_table(rng.normal(0, 0.5, 60))]}
        for i in range(8):
            own = rng.normal(0, 0.5, 60)
            arms[f"arm{i}"] = [mean_table(own + luck) for luck in rng.normal(0, 0.3, 3)]
        replicates = resample(arms, num_resamples=150, seed=number)
        seen = replicates.versus("baseline", list(arms)[1:], margin=0.0, higher_is_better=True)
        covered += all(pair.low <= 0 <= pair.high for pair in seen.values())
    assert covered / 200 >= 0.92


def test_versus_is_compare_for_two_arms_and_minds_no_order():
    arms = draw_study(np.random.default_rng(19), 3, 50, (0.1, 0.2), 0.3, 0.1)
    options = {"margin": 0.01, "higher_is_better": False}
    replicates = resample(arms, num_resamples=300)
    assert replicates.versus("b", ["a"], **options) == {"a": replicates.compare("a", "b", **options)}
    rng = np.random.default_rng(20)
    more = arms | {"c": [mean_table(rng.normal(0, 2, 50))] * 3, "d": [mean_table(rng.normal(0, 1, 50))]}
    ahead = resample(more, num_resamples=300).versus("c", ["a", "b", "d"], **options)
    turned = resample(dict(reversed(more.items())), num_resamples=300).versus("c", ["d", "a", "b"], **options)
    assert turned == ahead and list(turned) == ["d", "a", "b"]
    assert 1 - 0.05 / 3 > ahead["a"].confidence == ahead["d"].confidence > 0.95


def test_a_comparison_turned_round():
    arms = draw_study(np.random.default_rng(21), 3, 50, (0.1, 0.0), 0.3, 0.0)
    pair = resample(arms | {"b": arms["b"][:2]}).compare("a", "b", margin=0.1, higher_is_better=True)
    back = reverse(pair)
    assert (back.difference, back.low, back.high) == (-pair.difference, -pair.high, -pair.low)
    assert back.seed_variances == pair.seed_variances[::-1] and pair.seed_variances[0] > 0
    assert (pair.num_seeds, back.num_seeds, back.seed_freedom) == ((3, 2), (2, 3), (1, 2))
    assert reverse(back) == pair


def test_different_or_no_items_are_refused():
    with pytest.raises(DataError, match="items"):
        resample({"a": [mean_table(np.zeros(3))], "b": [mean_table(np.zeros(4))]})
    with pytest.raises(DataError, match="items"):
        resample({"a": [mean_table(np.zeros(0))]})
