"""ROUGE-L F1 (Lin 2004; rouge-score's tokens, no stemming), as a local `evaluate` module.

evaluate.load("adaptkit/study/metrics/rouge_l", keep_in_memory=True).compute(predictions=[...],
references=[...])
"""

from __future__ import annotations

import datasets
import evaluate

from adaptkit.study import scores


class RougeL(evaluate.Metric):
    """Adapter over `adaptkit.study.scores.rouge_l`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(
            description=scores.rouge_l.__doc__, citation="", inputs_description="", features=features
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"rouge_l": scores.rouge_l(predictions, references)}
