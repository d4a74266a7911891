"""Share of answers equal to the reference after SQuAD's normalisation, as a local `evaluate` module.

evaluate.load("adaptkit/study/metrics/exact_match", keep_in_memory=True).compute(predictions=[...],
references=[...])
"""

from __future__ import annotations

import datasets
import evaluate

from adaptkit.study import scores


class ExactMatch(evaluate.Metric):
    """Adapter over `adaptkit.study.scores.exact_match`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(
            description=scores.exact_match.__doc__, citation="", inputs_description="", features=features
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"exact_match": scores.exact_match(predictions, references)}
