"""Offer the study's metrics to Hugging Face `evaluate`: one local module, the metric is its config name.

    metric = evaluate.load("adaptkit/study/hf_metrics.py", "macro_f1", keep_in_memory=True)
    metric.compute(predictions=["a", "b"], references=["a", "c"])

Needs the extra `metrics`. All else in adaptkit computes with the same functions.
What a metric reads:

    accuracy, macro_f1, exact_match, rouge_l: texts or labels.
    ece: the probability of each predicted label; as reference 1 if that label was right, else 0.
    micro_f1, macro_label_f1: the labels of each text, any number of them.
    entity_f1, macro_entity_f1: {"start", "end", "label"} of each span of a text.
    field_f1, macro_field_f1: [field, value] of each field of a text, values as text.
    spearman, mae: numbers.
    bits_per_byte: a document's negative log likelihood in nats; as reference its size in bytes.
    ndcg_at_10, mrr_at_10, map, recall_at_10, recall_at_100: a query's documents, best first; as reference
        {"document", "grade"} of each of its judged documents. Values are trec_eval's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import evaluate

from adaptkit.data import score_table
from adaptkit.study import scores

_DOCUMENTS = datasets.Sequence(datasets.Value("string"))
_JUDGED = [{"document": datasets.Value("string"), "grade": datasets.Value("int64")}]
_LABELS = datasets.Sequence(datasets.Value("string"))
_SPANS = [
    {"start": datasets.Value("int64"), "end": datasets.Value("int64"), "label": datasets.Value("string")}
]
_FIELDS = datasets.Sequence(datasets.Sequence(datasets.Value("string")))
_NUMBER = datasets.Value("float64")
_INPUTS = {
    "micro_f1": (_LABELS, _LABELS),
    "macro_label_f1": (_LABELS, _LABELS),
    "entity_f1": (_SPANS, _SPANS),
    "macro_entity_f1": (_SPANS, _SPANS),
    "field_f1": (_FIELDS, _FIELDS),
    "macro_field_f1": (_FIELDS, _FIELDS),
    "spearman": (_NUMBER, _NUMBER),
    "mae": (_NUMBER, _NUMBER),
    "ece": (datasets.Value("float64"), datasets.Value("int32")),
    "bits_per_byte": (datasets.Value("float64"), datasets.Value("int64")),
}


def _named(name: str) -> Callable[..., float]:
    """A metric of item rows as a function of predictions and references."""
    predicted, actual = scores.METRICS[name].columns

    def compute(predictions: list[Any], references: list[Any]) -> float:
        """Computed over all items, as the study's tables do."""
        pairs = zip(predictions, references, strict=True)
        rows = [{predicted: _plain(p), actual: _plain(r)} for p, r in pairs]
        return scores.score_table(name, rows).value

    return compute


def _plain(answer: Any) -> Any:
    """Spans as item rows hold them: [start, end, label]."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return [[span["start"], span["end"], span["label"]] for span in answer]
    return answer


_FUNCTIONS: dict[str, Callable[..., float]] = {
    "accuracy": score_table.accuracy,
    "macro_f1": score_table.macro_f1,
    "exact_match": scores.exact_match,
    "rouge_l": scores.rouge_l,
    "ece": scores.ece,
    "bits_per_byte": scores.bits_per_byte,
    "micro_f1": _named("micro_f1"),
    "macro_label_f1": _named("macro_label_f1"),
    "entity_f1": _named("entity_f1"),
    "macro_entity_f1": _named("macro_entity_f1"),
    "field_f1": _named("field_f1"),
    "macro_field_f1": _named("macro_field_f1"),
    "spearman": _named("spearman"),
    "mae": _named("mae"),
}
_RETRIEVAL = ("ndcg_at_10", "mrr_at_10", "map", "recall_at_10", "recall_at_100")


class StudyMetric(evaluate.Metric):
    """One of the study's metrics, chosen by the config name."""

    def _info(self) -> evaluate.MetricInfo:
        name = self.config_name
        if name not in (*_FUNCTIONS, *_RETRIEVAL):
            raise ValueError(f"unknown metric '{name}': name one of {', '.join([*_FUNCTIONS, *_RETRIEVAL])}")
        text = datasets.Value("string")
        predictions, references = _INPUTS.get(name, (text, text))
        if name in _RETRIEVAL:
            predictions, references = _DOCUMENTS, _JUDGED
        features = datasets.Features({"predictions": predictions, "references": references})
        description = _FUNCTIONS.get(name, scores.retrieval).__doc__ or ""
        return evaluate.MetricInfo(
            description=description, citation="", inputs_description="", features=features
        )

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        name = self.config_name
        if name in _RETRIEVAL:
            return {name: scores.retrieval(name, predictions, references)}
        return {name: _FUNCTIONS[name](predictions, references)}
