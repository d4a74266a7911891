"""All metrics of a study, as tables of per-item sums (`adaptkit.data.score_table`).

    table = score_table("macro_f1", rows)     # rows of eval/<suite>.jsonl
    table.value, len(table)

Nothing here needs more than numpy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adaptkit.data.score_table import (
    ScoreTable,
    accuracy_table,
    macro_f1_table,
    macro_set_f1_table,
    mean_absolute_error_table,
    mean_table,
    micro_f1_table,
    ratio,
    spearman_table,
)
from adaptkit.data.words import fold, punctuation, without_han_blanks, words
from adaptkit.embed.retrieval_metrics import PER_QUERY, retrieval_row
from adaptkit.errors import DataError
from adaptkit.study.statistics import Interval
from adaptkit.subsequence import longest_common_subsequence

NUM_ECE_BINS = 15
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is read: its words, its direction, and how rows become a table."""

    title: str
    higher_is_better: bool
    most: float
    """Largest possible value."""
    columns: tuple[str, ...]
    """What it reads of an item row."""
    table: Callable[[Sequence[dict[str, Any]]], ScoreTable]
    least: float = 0.0
    """Smallest possible value."""


def within_metric(metric: str, interval: Interval) -> Interval:
    """An interval that t stretched past what the metric can be, ended there."""
    known = METRICS[metric]
    return replace(interval, low=max(interval.low, known.least), high=min(interval.high, known.most))


def score_table(metric: str, rows: Sequence[dict[str, Any]]) -> ScoreTable:
    """The table of `metric` over the rows of a suite.

    Raises: DataError when the metric is unknown or a row lacks what the metric reads.
    """
    if metric not in METRICS:
        raise DataError(f"unknown metric '{metric}'", fix=f"one of: {', '.join(METRICS)}")
    try:
        return METRICS[metric].table(rows)
    except KeyError as error:
        raise DataError(
            f"item rows lack {error}, which {metric} reads", fix="delete the run directory and run again"
        ) from None


# Calibration


def ece(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Expected calibration error: 15 equal-width bins of the predicted label's probability, weighted by bin
    size.

    Source: Guo et al. 2017 (arXiv 1706.04599). Biased upwards on small samples: every bin's noise counts as
        error.
    """
    return ece_table(confidences, correct).value


def ece_table(confidences: Sequence[float], correct: Sequence[bool]) -> ScoreTable:
    confidence = np.asarray(confidences, dtype=np.float64)
    gap = confidence - np.asarray(correct, dtype=np.float64)
    hot = np.zeros((len(confidence), NUM_ECE_BINS))
    hot[np.arange(len(confidence)), bin_index(confidence)] = 1.0
    return ScoreTable(np.concatenate([hot * gap[:, None], np.ones((len(gap), 1))], axis=1), _finish_ece)


def _finish_ece(totals: np.ndarray) -> np.ndarray:
    return np.abs(totals[..., :-1]).sum(axis=-1) / totals[..., -1]


def bin_index(confidence: np.ndarray, num_bins: int = NUM_ECE_BINS) -> np.ndarray:
    """Index of the equal-width bin (low, high] that holds each confidence; 0 falls in the first."""
    return np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)


def brier(probabilities: Sequence[dict[str, float]], references: Sequence[str]) -> float:
    """Mean over items of the summed squared error of all labels' probabilities (Brier 1950); 2 is worst."""
    return _brier_table(probabilities, references).value


def _brier_table(probabilities: Sequence[dict[str, float]], references: Sequence[str]) -> ScoreTable:
    return mean_table(
        [
            sum((p - (name == r)) ** 2 for name, p in chances.items()) + (r not in chances)
            for chances, r in zip(probabilities, references, strict=True)
        ]
    )


# Generation


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation, for all scripts: folded (`words.fold`), without punctuation and the articles
    a / an / the, blanks collapsed, and left out beside Han and kana, where they mean nothing."""
    folded = _ARTICLES.sub(" ", fold(text).translate(punctuation()))
    return without_han_blanks(" ".join(folded.split()))


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Share of items whose prediction equals the reference after `normalise_answer`."""
    return _exact_match_table(predictions, references).value


def _exact_match_table(predictions: Sequence[str], references: Sequence[str]) -> ScoreTable:
    return mean_table(
        [
            float(normalise_answer(p) == normalise_answer(r))
            for p, r in zip(predictions, references, strict=True)
        ]
    )


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Mean F1 of the longest common subsequence of words (Lin 2004), unstemmed.

    For ASCII text it is what the rouge-score package gives. That package drops all letters but a-z; here
    words are those of `adaptkit.data.words`, in any script: without blanks between words, every letter is
    one.
    """
    return _rouge_l_table(predictions, references).value


def _rouge_l_table(predictions: Sequence[str], references: Sequence[str]) -> ScoreTable:
    return mean_table([_rouge_l_item(p, r) for p, r in zip(predictions, references, strict=True)])


def _rouge_l_item(prediction: str, reference: str) -> float:
    predicted, actual = (words(text.replace("_", " ")) for text in (prediction, reference))
    common = longest_common_subsequence(actual, predicted)
    return 2 * common / (len(predicted) + len(actual)) if common else 0.0


# Language


def bits_per_byte(nats: Sequence[float], num_bytes: Sequence[int]) -> float:
    """Sum of nats over sum of UTF-8 bytes, in bits: comparable across tokenizers, unlike perplexity."""
    return _bits_per_byte_table(nats, num_bytes).value


def _bits_per_byte_table(nats: Sequence[float], num_bytes: Sequence[int]) -> ScoreTable:
    bits = np.asarray(nats, dtype=np.float64) / math.log(2)
    return ScoreTable(np.stack([bits, np.asarray(num_bytes, dtype=np.float64)], axis=1), ratio)


# Retrieval


def retrieval(
    metric: str, rankings: Sequence[Sequence[str]], judged: Sequence[Sequence[dict[str, Any]]]
) -> float:
    """A per-query retrieval metric averaged over queries, with trec_eval's definition.

    Args:
        metric: ndcg_at_10, mrr_at_10, map, recall_at_10 or recall_at_100.
        rankings: documents of each query, best first.
        judged: `{"document", "grade"}` of each query's judged documents; grades above 0 are relevant.
    """
    rows = []
    for ranking, documents in zip(rankings, judged, strict=True):
        grades = {document["document"]: document["grade"] for document in documents}
        rows.append(retrieval_row("", ranking, grades))
    return score_table(metric, rows).value


def confidence_and_hit(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[bool]]:
    """Probability of the predicted label, and whether it was right, per classification row."""
    confidences = [row["probabilities"][row["prediction"]] for row in rows]
    hits = [row["prediction"] == row["label"] for row in rows]
    return confidences, hits


def _by_columns(
    title: str,
    table: Callable[[list[Any], list[Any]], ScoreTable],
    columns: tuple[str, str],
    *,
    higher_is_better: bool = True,
    most: float = 1.0,
    least: float = 0.0,
) -> MetricInfo:
    """A metric that reads two columns of the item rows."""

    def of_rows(rows: Sequence[dict[str, Any]]) -> ScoreTable:
        return table([row[columns[0]] for row in rows], [row[columns[1]] for row in rows])

    return MetricInfo(title, higher_is_better, most, columns, of_rows, least)


# Spans, as lists of start, end and label


def _entity_f1_table(predicted: Sequence[Sequence[Any]], actual: Sequence[Sequence[Any]]) -> ScoreTable:
    """F1 of spans over all items: a hit has start, end and label of a true span, as in seqeval."""
    return micro_f1_table(_hashable(predicted), _hashable(actual))


def _macro_entity_f1_table(predicted: Sequence[Sequence[Any]], actual: Sequence[Sequence[Any]]) -> ScoreTable:
    return macro_set_f1_table(_hashable(predicted), _hashable(actual), lambda span: span[2])


def _hashable(items: Sequence[Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
    return [[tuple(span) for span in spans] for spans in items]


def _of_ones_own(title: str, column: str, *, higher_is_better: bool) -> MetricInfo:
    """The mean of the numbers that a user's metric gave each item."""

    def of_rows(rows: Sequence[dict[str, Any]]) -> ScoreTable:
        return mean_table([float(row[column]) for row in rows])

    return MetricInfo(title, higher_is_better, math.inf, (column,), of_rows, -math.inf)


# Fields of a JSON object, as lists of field and value


def _macro_field_f1_table(predicted: Sequence[Sequence[Any]], actual: Sequence[Sequence[Any]]) -> ScoreTable:
    return macro_set_f1_table(_hashable(predicted), _hashable(actual), lambda pair: pair[0])


def _object_match_table(rows: Sequence[dict[str, Any]]) -> ScoreTable:
    """Share of items whose answer is an object of the schema with all fields right and none too many."""
    return mean_table(
        [float(row["valid"] and sorted(row["predicted_fields"]) == sorted(row["fields"])) for row in rows]
    )


def f1_of_fields(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Field -> F1 of its values over all items."""
    columns = ("predicted_fields", "fields")
    names = {name for row in rows for column in columns for name, _ in row[column]}
    return {
        name: _entity_f1_table(
            *([[pair for pair in row[column] if pair[0] == name] for row in rows] for column in columns)
        ).value
        for name in names
    }


def _per_query(title: str, name: str) -> MetricInfo:
    """A metric that is a mean over queries."""

    def of_rows(rows: Sequence[dict[str, Any]]) -> ScoreTable:
        return mean_table([PER_QUERY[name](row) for row in rows])

    return MetricInfo(title, True, 1.0, ("hits", "relevant"), of_rows)


METRICS: dict[str, MetricInfo] = {
    "bits_per_byte": _by_columns(
        "bits per byte", _bits_per_byte_table, ("nats", "num_bytes"), higher_is_better=False, most=math.inf
    ),
    "accuracy": _by_columns("accuracy", accuracy_table, ("prediction", "label")),
    "macro_f1": _by_columns("macro-F1", macro_f1_table, ("prediction", "label")),
    "micro_f1": _by_columns("micro-F1 of labels", micro_f1_table, ("predicted_labels", "labels")),
    "macro_label_f1": _by_columns("macro-F1 over labels", macro_set_f1_table, ("predicted_labels", "labels")),
    "entity_f1": _by_columns("F1 of spans", _entity_f1_table, ("predicted_spans", "spans")),
    "macro_entity_f1": _by_columns("macro-F1 of spans", _macro_entity_f1_table, ("predicted_spans", "spans")),
    "field_f1": _by_columns("F1 of fields", _entity_f1_table, ("predicted_fields", "fields")),
    "macro_field_f1": _by_columns(
        "macro-F1 over fields", _macro_field_f1_table, ("predicted_fields", "fields")
    ),
    "json_exact_match": MetricInfo(
        "all fields right", True, 1.0, ("predicted_fields", "fields", "valid"), _object_match_table
    ),
    "valid_json": MetricInfo(
        "valid JSON", True, 1.0, ("valid",), lambda rows: mean_table([float(row["valid"]) for row in rows])
    ),
    "spearman": _by_columns("rank correlation", spearman_table, ("predicted_score", "score"), least=-1.0),
    "mae": _by_columns(
        "mean absolute error",
        mean_absolute_error_table,
        ("predicted_score", "score"),
        higher_is_better=False,
        most=math.inf,
    ),
    "rouge_l": _by_columns("ROUGE-L", _rouge_l_table, ("prediction", "reference")),
    "exact_match": _by_columns("exact match", _exact_match_table, ("prediction", "reference")),
    "own_score": _of_ones_own("your score", "own_score", higher_is_better=True),
    "own_error": _of_ones_own("your error", "own_error", higher_is_better=False),
    "ece": MetricInfo(
        "calibration error",
        higher_is_better=False,
        most=1.0,
        columns=("probabilities", "prediction", "label"),
        table=lambda rows: ece_table(*confidence_and_hit(rows)),
    ),
    "brier": _by_columns(
        "Brier score", _brier_table, ("probabilities", "label"), higher_is_better=False, most=2.0
    ),
    "ndcg_at_10": _per_query("nDCG@10", "ndcg_at_10"),
    "mrr_at_10": _per_query("MRR@10", "mrr_at_10"),
    "map": _per_query("MAP", "map"),
    "recall_at_10": _per_query("recall@10", "recall_at_10"),
    "recall_at_100": _per_query("recall@100", "recall_at_100"),
}
"""Every metric by its name, in the order in which tables show them."""
