"""Unweighted mean of per-label F1 (scikit-learn's `average="macro"`), as a local `evaluate` module.

evaluate.load("adaptkit/study/metrics/macro_f1", keep_in_memory=True).compute(predictions=[...],
references=[...])
"""

from __future__ import annotations

import datasets
import evaluate

from adaptkit.data.score_table import macro_f1


class MacroF1(evaluate.Metric):
    """Adapter over `adaptkit.data.score_table.macro_f1`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(
            description=macro_f1.__doc__, citation="", inputs_description="", features=features
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"macro_f1": macro_f1(predictions, references)}
