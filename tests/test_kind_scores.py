"""Scores that are no means of items: F1 of sets and spans, rank correlation, and the threshold of labels."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer
from tiny_rows import dataset

from adaptkit.data.labels import best_threshold, label_set_rows, truth_of
from adaptkit.data.score_table import micro_f1_table, spearman_table
from adaptkit.study.scores import METRICS, score_table
from adaptkit.study.statistics import resample

NAMES = ("a", "b", "c", "d")


def label_rows(num: int, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    draw = lambda: [name for name in NAMES if rng.random() < 0.4]  # noqa: E731
    return [{"id": str(i), "labels": draw(), "predicted_labels": draw()} for i in range(num)]


def test_f1_of_label_sets_is_that_of_scikit_learn() -> None:
    rows = label_rows(60)
    encode = MultiLabelBinarizer(classes=NAMES).fit_transform
    truth = encode([row["labels"] for row in rows])
    predicted = encode([row["predicted_labels"] for row in rows])
    for name, average in (("micro_f1", "micro"), ("macro_label_f1", "macro")):
        assert score_table(name, rows).value == pytest.approx(f1_score(truth, predicted, average=average))


def test_a_bootstrap_computes_f1_of_the_drawn_items() -> None:
    rows = label_rows(40)
    table = score_table("micro_f1", rows)
    drawn = np.random.default_rng(0).integers(0, 40, 40)
    weights = np.bincount(drawn, minlength=40)
    again = score_table("micro_f1", [rows[i] for i in drawn])
    assert float(table.finish(weights @ table.sums)) == pytest.approx(again.value)
    replicates = resample({"x": [table], "y": [score_table("micro_f1", label_rows(40, seed=1))]}, None)
    interval = replicates.interval("x", 0.95)
    assert interval.low < table.value < interval.high


def test_f1_is_0_where_there_is_nothing_to_find() -> None:
    assert micro_f1_table([[], []], [[], []]).value == 0.0
    empty = [{"id": "1", "labels": [], "predicted_labels": []}]
    assert score_table("macro_label_f1", empty).value == 0.0


def test_a_span_is_a_hit_with_both_ends_and_its_label() -> None:
    rows = [
        {"id": "1", "spans": [[0, 3, "p"], [9, 12, "l"]], "predicted_spans": [[0, 3, "p"], [9, 11, "l"]]},
        {"id": "2", "spans": [[4, 6, "p"]], "predicted_spans": [[4, 6, "l"], [8, 9, "p"]]},
        {"id": "3", "spans": [], "predicted_spans": []},
    ]
    assert score_table("entity_f1", rows).value == pytest.approx(2 * 1 / (4 + 3))
    assert score_table("macro_entity_f1", rows).value == pytest.approx((2 * 1 / (2 + 2) + 0) / 2)


def numbers(num: int, seed: int = 0, ties: bool = True) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 6, num).astype(float) if ties else rng.normal(size=num)
    return (truth + rng.normal(size=num)).round(1).tolist(), truth.tolist()


@pytest.mark.parametrize("ties", [True, False])
def test_rank_correlation_is_that_of_scipy(ties: bool) -> None:
    predicted, actual = numbers(80, ties=ties)
    assert spearman_table(predicted, actual).value == pytest.approx(spearmanr(predicted, actual).statistic)
    assert spearman_table(actual, [-value for value in actual]).value == pytest.approx(-1.0)
    assert spearman_table([1.0] * 80, actual).value == 0.0


def test_a_bootstrap_of_rank_correlation_varies_as_one_that_ranks_again() -> None:
    predicted, actual = numbers(120, seed=3)
    table, rng = spearman_table(predicted, actual), np.random.default_rng(0)
    ours, ranked = [], []
    for _ in range(600):
        drawn = rng.integers(0, 120, 120)
        ours.append(float(table.finish(table.sums[drawn].sum(axis=0))))
        ranked.append(spearmanr(np.take(predicted, drawn), np.take(actual, drawn)).statistic)
    assert np.std(ours) == pytest.approx(np.std(ranked), rel=0.15)


def test_an_error_is_better_low_and_a_correlation_may_be_negative() -> None:
    assert not METRICS["mae"].higher_is_better and METRICS["mae"].most == math.inf
    assert METRICS["spearman"].least == -1.0 and METRICS["accuracy"].least == 0.0
    rows = [{"score": 1.0, "predicted_score": 3.0}, {"score": 2.0, "predicted_score": 1.0}]
    assert score_table("mae", rows).value == 1.5


@pytest.mark.parametrize("seed", range(4))
def test_no_other_threshold_has_a_better_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((30, 3)) < 0.3).astype(np.float32)
    probabilities = np.clip(0.3 * truth + rng.random((30, 3)) * 0.7, 0, 1).round(2)
    values = [
        {"text": str(i), "labels": [n for n, t in zip("abc", row, strict=True) if t]}
        for i, row in enumerate(truth)
    ]
    data = dataset(values, "multi_label")
    assert (truth_of(data, "abc") == truth).all()

    def f1(threshold: float) -> float:
        return score_table("micro_f1", label_set_rows(data, "abc", probabilities, threshold)).value

    best = best_threshold(probabilities, truth)
    assert f1(best) == pytest.approx(max(f1(threshold) for threshold in np.linspace(0, 1, 201)))


def test_without_any_label_the_threshold_is_a_half() -> None:
    assert best_threshold(np.full((4, 2), 0.3), np.zeros((4, 2))) == 0.5
