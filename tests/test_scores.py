"""Metrics against scikit-learn and rouge-score, the tables against the metrics, and the local `evaluate`
modules. Home of data.score_table and study.hf_metrics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sklearn.metrics import accuracy_score, f1_score

from adaptkit.data.score_table import accuracy, class_names, macro_f1, per_class_f1
from adaptkit.errors import DataError
from adaptkit.study import scores

METRICS = Path(scores.__file__).parent / "hf_metrics.py"
labels = st.sampled_from(["a", "b", "c", "d"])
pairs = st.lists(st.tuples(labels, labels), min_size=1, max_size=60)


@settings(max_examples=80, deadline=None)
@given(pairs)
def test_classification_equals_scikit_learn(found):
    predictions, references = zip(*found, strict=True)
    assert accuracy(predictions, references) == pytest.approx(accuracy_score(references, predictions))
    macro = f1_score(references, predictions, average="macro", zero_division=0)
    assert macro_f1(predictions, references) == pytest.approx(macro)
    names = class_names(predictions, references)
    each = f1_score(references, predictions, average=None, labels=names, zero_division=0)
    assert per_class_f1(predictions, references) == pytest.approx(dict(zip(names, each, strict=True)))


@settings(max_examples=60, deadline=None)
@given(pairs, st.integers(0, 2**31))
def test_weighted_table_is_the_metric_of_the_resample(found, seed):
    predictions, references = (np.array(side) for side in zip(*found, strict=True))
    picked = np.random.default_rng(seed).integers(0, len(found), len(found))
    weights = np.bincount(picked, minlength=len(found))[None].astype(float)
    rows = [{"prediction": p, "label": r} for p, r in zip(predictions, references, strict=True)]
    table = scores.score_table("macro_f1", rows)
    assert table.finish(weights @ table.sums)[0] == pytest.approx(
        macro_f1(predictions[picked], references[picked])
    )


words = st.text(alphabet="ab cdT12.,-_'", max_size=30)


@settings(max_examples=150, deadline=None)
@given(words, words)
def test_rouge_l_equals_rouge_score(prediction, reference):
    oracle = (
        rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
        .score(reference, prediction)["rougeL"]
        .fmeasure
    )
    assert scores.rouge_l([prediction], [reference]) == pytest.approx(oracle)


def test_rouge_l_on_repeated_words_and_long_texts():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    rng = np.random.default_rng(0)
    for _ in range(20):
        left, right = (" ".join(rng.choice(["of", "the", "drug", "x"], 90)) for _ in range(2))
        assert scores.rouge_l([left], [right]) == pytest.approx(scorer.score(right, left)["rougeL"].fmeasure)


def test_exact_match_normalises_like_squad():
    assert scores.exact_match(
        ["The  Aspirin!", "an  answer", "no"], ["aspirin", "Answer.", "yes"]
    ) == pytest.approx(2 / 3)


def test_bits_per_byte_weighs_documents_by_their_bytes():
    nats, sizes = [100 * math.log(2), 900 * math.log(2)], [100, 300]
    assert scores.bits_per_byte(nats, sizes) == pytest.approx(1000 / 400)
    assert scores.bits_per_byte(nats, sizes) != pytest.approx((1.0 + 3.0) / 2)


def test_ece_by_hand_and_at_the_bin_edges():
    assert scores.ece([0.9, 0.9, 0.6], [True, False, False]) == pytest.approx((2 * abs(0.9 - 0.5) + 0.6) / 3)
    assert scores.bin_index(np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 0, 1, 14]


def test_ece_equals_a_loop_over_bins():
    rng = np.random.default_rng(1)
    confidence, right = rng.random(500), rng.random(500) < 0.6
    total = 0.0
    for i in range(15):
        chosen = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        total += (
            chosen.mean() * abs(right[chosen].mean() - confidence[chosen].mean()) if chosen.any() else 0.0
        )
    assert scores.ece(confidence, right) == pytest.approx(total)


def test_brier_is_zero_when_sure_and_right_and_two_when_sure_and_wrong():
    assert scores.brier([{"a": 1.0, "b": 0.0}], ["a"]) == 0.0
    assert scores.brier([{"a": 1.0, "b": 0.0}], ["b"]) == 2.0
    assert scores.brier([{"a": 1.0}], ["b"]) == 2.0


def test_no_items_is_nan_not_zero():
    assert math.isnan(accuracy([], []))


def test_unknown_metric_and_missing_column_are_said():
    with pytest.raises(DataError, match="unknown metric 'bleu'"):
        scores.score_table("bleu", [])
    with pytest.raises(DataError, match="'num_bytes'"):
        scores.score_table("bits_per_byte", [{"nats": 1.0}])


_SPAN = {"start": 0, "end": 3, "label": "p"}


@pytest.mark.parametrize(
    ("name", "predictions", "references", "expected"),
    [
        ("accuracy", ["a", "b"], ["a", "c"], 0.5),
        ("macro_f1", ["a", "b"], ["a", "c"], 1 / 3),
        ("exact_match", ["The a.", "b"], ["A", "c"], 0.5),
        ("rouge_l", ["x y z"], ["x z"], 0.8),
        ("ece", [0.9, 0.6], [1, 0], 0.35),
        ("bits_per_byte", [100 * math.log(2)], [200], 0.5),
        ("micro_f1", [["a", "b"], []], [["a"], []], 2 / 3),
        ("macro_label_f1", [["a", "b"], []], [["a"], []], 0.5),
        ("entity_f1", [[_SPAN], [_SPAN]], [[_SPAN], []], 2 / 3),
        ("macro_entity_f1", [[_SPAN], [_SPAN]], [[_SPAN], []], 2 / 3),
        ("field_f1", [[["sum", "3"], ["day", "1"]], []], [[["sum", "3"]], []], 2 / 3),
        ("macro_field_f1", [[["sum", "3"], ["day", "1"]], []], [[["sum", "3"]], [["day", "1"]]], 0.5),
        ("spearman", [1.0, 2.0, 3.0], [2.0, 4.0, 3.0], 0.5),
        ("mae", [1.0, 2.0], [2.0, 4.0], 1.5),
        ("ndcg_at_10", [["a", "b"]], [[{"document": "b", "grade": 1}]], 0.6309297535714575),
        ("mrr_at_10", [["a", "b"]], [[{"document": "b", "grade": 1}]], 0.5),
        ("map", [["a", "b"]], [[{"document": "b", "grade": 1}]], 0.5),
        ("recall_at_10", [["a", "b"]], [[{"document": "b", "grade": 1}]], 1.0),
        (
            "recall_at_100",
            [["a", "b"]],
            [[{"document": "b", "grade": 1}, {"document": "c", "grade": 2}]],
            0.5,
        ),
    ],
)
def test_local_evaluate_module(name, predictions, references, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import evaluate

    metric = evaluate.load(str(METRICS), name, keep_in_memory=True, cache_dir=str(tmp_path))
    assert metric.compute(predictions=predictions, references=references)[name] == pytest.approx(expected)
    assert not list(tmp_path.rglob("*.arrow")), "nothing is written to the cache"


def test_a_metric_that_does_not_exist_is_named_with_those_that_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import evaluate

    with pytest.raises(ValueError, match="unknown metric 'bleu': name one of accuracy, macro_f1"):
        evaluate.load(str(METRICS), "bleu", keep_in_memory=True, cache_dir=str(tmp_path))


def test_every_metric_of_a_study_is_loadable_or_needs_more_than_two_columns():
    source = METRICS.read_text()
    others = {"brier", "json_exact_match", "valid_json", "own_score", "own_error"}
    assert {name for name in scores.METRICS if f'"{name}"' not in source} == others
