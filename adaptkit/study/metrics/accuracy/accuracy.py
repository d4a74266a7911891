"""Share of items whose predicted label equals the true one, as a local `evaluate` module.

evaluate.load("adaptkit/study/metrics/accuracy", keep_in_memory=True).compute(predictions=[...],
references=[...])
"""

from __future__ import annotations

import datasets
import evaluate

from adaptkit.data.score_table import accuracy


class Accuracy(evaluate.Metric):
    """Adapter over `adaptkit.data.score_table.accuracy`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(
            description=accuracy.__doc__, citation="", inputs_description="", features=features
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"accuracy": accuracy(predictions, references)}
