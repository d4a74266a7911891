"""Temperature, confidence, and the threshold below which people decide."""

from __future__ import annotations

import numpy as np
import pytest

from adaptkit.audit.selective import SHARES, Judged, fit_confidence, threshold_for


def made_rows(num: int, sharpness: float = 1.0, seed: int = 0) -> list[dict]:
    """Items of a classifier whose probabilities are right at sharpness 1, and too sure above."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num):
        top = rng.uniform(0.5, 1.0)
        truth = "a" if rng.random() < top else "b"
        sure = top**sharpness / (top**sharpness + (1 - top) ** sharpness)
        chances = {"a": sure, "b": 1 - sure}
        rows.append({"id": f"i{number}", "label": truth, "prediction": "a", "probabilities": chances})
    return rows


def test_the_temperature_that_undoes_what_was_done_is_found() -> None:
    for sharpness in (0.5, 1.0, 3.0):
        fit = fit_confidence(Judged.of(made_rows(4000, sharpness)))
        assert fit.temperature == pytest.approx(sharpness, rel=0.12)


def test_confidence_is_scaled_and_means_what_it_says() -> None:
    fit = fit_confidence(Judged.of(made_rows(4000, 3.0)))
    items = Judged.of(made_rows(4000, 3.0, seed=1))
    assert fit.confidence(items).mean() == pytest.approx(items.hit_N.mean(), abs=0.02)
    assert items.probabilities_NC.max(axis=1).mean() > items.hit_N.mean() + 0.1


def test_thresholds_hand_over_the_shares_that_they_stand_for() -> None:
    dev = Judged.of(made_rows(1000))
    fit = fit_confidence(dev)
    handed = [float((fit.confidence(dev) < threshold).mean()) for threshold in fit.thresholds]
    assert handed == pytest.approx(SHARES, abs=0.002)


def test_half_as_many_errors_are_wanted_where_nothing_is_said() -> None:
    dev = Judged.of(made_rows(500))
    assert fit_confidence(dev).wanted == pytest.approx(1 - (1 - dev.hit_N.mean()) / 2)
    assert fit_confidence(dev, 0.9).wanted == 0.9


def test_the_wanted_accuracy_is_reached_on_new_items_on_average() -> None:
    reached = []
    for seed in range(30):
        dev, test = (Judged.of(made_rows(300, seed=2 * seed + part)) for part in (0, 1))
        fit = fit_confidence(dev, 0.85)
        assert fit.wanted_threshold is not None
        reached.append(test.hit_N[fit.confidence(test) >= fit.wanted_threshold].mean())
    assert 0.845 < np.mean(reached) < 0.88


def test_counts_and_confidences_must_both_reach_it() -> None:
    confidence = np.linspace(1.0, 0.6, 100)
    right, wrong = np.ones(100, dtype=bool), np.zeros(100, dtype=bool)
    by_confidence = threshold_for(confidence, right, 0.9)
    assert by_confidence is not None and confidence[confidence >= by_confidence].mean() >= 0.9
    assert (confidence >= by_confidence).sum() == 50
    assert threshold_for(confidence, wrong, 0.9) is None
    mixed = np.arange(100) < 60
    assert (confidence >= threshold_for(confidence, mixed, 0.8)).sum() == 75


def test_a_threshold_lies_between_two_confidences_and_never_among_equal_ones() -> None:
    confidence = np.array([0.99] * 30 + [0.8] * 30)
    hit = np.array([True] * 30 + [True] * 10 + [False] * 20)
    assert threshold_for(confidence, hit, 0.9) == pytest.approx((0.99 + 0.8) / 2)
    assert threshold_for(confidence, hit, 0.6) == 0.0
    assert threshold_for(confidence[:10], hit[:10], 0.5) is None, "fewer than 20 items tell nothing"


def test_a_label_that_the_classifier_does_not_know_counts_as_an_error_and_teaches_nothing() -> None:
    rows = made_rows(50)
    strange = [{**row, "label": "unheard of"} for row in rows[:10]]
    items = Judged.of([*strange, *rows[10:]])
    assert (items.truth_N[:10] == -1).all() and not items.hit_N[:10].any()
    known = items.only(items.truth_N >= 0)
    assert fit_confidence(items).temperature == fit_confidence(known).temperature
