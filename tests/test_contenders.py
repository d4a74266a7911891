"""Which arms can still be the best, by hand and on simulated studies whose truth is set."""

from __future__ import annotations

import numpy as np
import pytest

from adaptkit.data.score_table import mean_table
from adaptkit.study.contenders import Field, field, holm
from adaptkit.study.intervals import decide
from adaptkit.study.statistics import Comparison, resample

MARGIN = 0.01


def pair(difference: float, half: float, higher_is_better: bool) -> Comparison:
    low, high = difference - half, difference + half
    return Comparison(
        difference=difference,
        low=low,
        high=high,
        margin=MARGIN,
        outcome=decide(low, high, MARGIN, higher_is_better),
        item_variance=1e-4,
        seed_variances=(0.0, 0.0),
        seed_freedom=(2, 2),
        num_seeds=(3, 3),
        num_items=100,
        num_clusters=100,
        item_freedom=99.0,
        interaction=0.0,
        confidence=0.98,
    )


def field_of(
    scores: dict[str, float], half: float | dict[str, float], higher_is_better: bool = True
) -> Field:
    """Every interval has the same half width, or that of its reference."""
    widths = half if isinstance(half, dict) else dict.fromkeys(scores, half)
    seen_from = {
        reference: {
            arm: pair(scores[arm] - scores[reference], widths[reference], higher_is_better)
            for arm in scores
            if arm != reference
        }
        for reference in scores
    }
    return Field(tuple(scores), dict(scores), seen_from, MARGIN, higher_is_better)


def test_arms_beaten_by_more_than_the_margin_are_out():
    standing = field_of({"tfidf": 0.800, "lora": 0.785, "full": 0.760}, half=0.006)
    assert standing.best == "tfidf"
    assert standing.contenders == ("tfidf", "lora"), "lora is behind by .009 at least, full by .034"
    assert standing.enough == ("tfidf",), "lora may be behind by .021"
    assert standing.beats("tfidf", ["full"]) and not standing.beats("tfidf", ["lora", "full"])
    assert standing.shortfall("full").high == pytest.approx(-0.034) and standing.shortfall("tfidf") is None
    assert standing.most_worse("lora", "tfidf") == pytest.approx(0.021)
    assert standing.best_of(["full", "lora"]) == "lora"


def test_lower_is_better_mirrors_it():
    scores = {"tfidf": -0.800, "lora": -0.785, "full": -0.760}
    standing = field_of(scores, half=0.006, higher_is_better=False)
    assert (standing.best, standing.contenders, standing.enough) == ("tfidf", ("tfidf", "lora"), ("tfidf",))
    assert standing.beats("tfidf", ["full"]) and not standing.beats("full", ["tfidf"])
    assert standing.most_worse("lora", "tfidf") == pytest.approx(0.021)


def test_several_arms_are_enough_when_shown_to_be_close():
    standing = field_of({"a": 0.800, "b": 0.797, "c": 0.794}, half=0.005)
    assert standing.contenders == ("a", "b", "c")
    assert standing.enough == ("a", "b"), "c may be behind a by .011"


def test_wide_intervals_leave_everyone_in_and_nobody_enough():
    standing = field_of({"a": 0.80, "b": 0.79}, half=0.05)
    assert standing.contenders == ("a", "b") and standing.enough == ()


def test_only_contenders_must_be_shown_to_be_close():
    # Seen from c, `a` beats it and nothing else is sure: by how much it may be ahead of b matters no more.
    standing = field_of({"a": 0.800, "b": 0.798, "c": 0.780}, half={"a": 0.004, "b": 0.004, "c": 0.009})
    wide = standing.seen_from["c"] | {"b": pair(0.018, 0.05, True)}
    standing = Field(
        standing.arms, standing.scores, standing.seen_from | {"c": wide}, MARGIN, higher_is_better=True
    )
    assert standing.contenders == ("a", "b")
    assert standing.most_worse("b", "c") > MARGIN
    assert standing.enough == ("a", "b")


def test_of_equal_arms_the_first_is_called_best():
    standing = field_of({"a": 0.8, "b": 0.8}, half=0.0)
    assert standing.best == "a" and standing.enough == ("a", "b")
    assert field_of({"alone": 0.8}, half=0.0).enough == ("alone",)


def tables(rng: np.random.Generator, truth: dict[str, float], num_items: int = 80, num_seeds: int = 2):
    """Arms whose scores vary with items and seeds; the first arm is a baseline."""
    arms = {}
    for arm, score in truth.items():
        own = score + rng.normal(0, 0.4, num_items)
        count = 1 if arm == "baseline" else num_seeds
        arms[arm] = [mean_table(own + rng.normal(0, 0.02, 1)) for _ in range(count)]
    return arms


def test_the_order_of_arms_changes_nothing():
    arms = tables(np.random.default_rng(1), {"baseline": 0.8, "a": 0.75, "b": 0.9, "c": 0.81})
    options = {"margin": 0.05, "higher_is_better": True, "confidence": 0.9}
    ahead = field(resample(arms, num_resamples=300), list(arms), **options)
    turned = dict(reversed(arms.items()))
    behind = field(resample(turned, num_resamples=300), list(turned), **options)
    assert behind.seen_from == ahead.seen_from and set(behind.contenders) == set(ahead.contenders)
    assert ahead.seen_from["a"]["b"].margin == 0.05 and ahead.arms == tuple(arms)
    assert 0.9 < ahead.seen_from["a"]["b"].confidence < 1 - 0.1 / 3 + 1e-9


@pytest.mark.parametrize(("higher_is_better", "lead"), [(True, 1.0), (False, 1.0), (True, 0.0)])
def test_the_truly_best_arm_is_a_contender_and_enough_lies_within_the_margin(higher_is_better, lead):
    sign = 1.0 if higher_is_better else -1.0
    margin = 0.15
    truth = {"baseline": 0.5, "a": 0.5 + sign * lead * margin, "b": 0.5, "c": 0.5}
    best = "a" if lead else "baseline"
    rng = np.random.default_rng(4)
    missed = wrong = some = 0
    for number in range(150):
        replicates = resample(tables(rng, truth), num_resamples=150, seed=number)
        standing = field(replicates, list(truth), margin=margin, higher_is_better=higher_is_better)
        missed += best not in standing.contenders
        wrong += any(abs(truth[arm] - truth[best]) > 0.99 * margin for arm in standing.enough)
        some += bool(standing.enough)
    assert missed <= 12 and wrong <= 12, "5 % of 150 are 7.5"
    assert some >= 5, "enough is not always empty"


def decided_up_to(*levels: float):
    return lambda task, confidence: confidence <= levels[task]


def test_holm_frees_what_decided_tasks_do_not_need():
    levels = holm(decided_up_to(0.99, 0.976, 0.93), 3, 0.95)
    assert levels == pytest.approx([1 - 0.05 / 3, 0.975, 0.95])
    assert holm(decided_up_to(0.93, 0.976, 0.976), 3, 0.95) == pytest.approx([1 - 0.05 / 3] * 3)
    assert holm(decided_up_to(0.99, 0.99, 0.93), 3, 0.95) == pytest.approx([1 - 0.05 / 3] * 2 + [0.95])
    assert holm(decided_up_to(0.99, 0.99), 2, 0.95) == pytest.approx([0.975] * 2)
    assert holm(decided_up_to(0.5), 1, 0.9) == pytest.approx([0.9])
    assert holm(decided_up_to(), 0, 0.95) == []
