"""Expected calibration error over 15 equal-width bins (Guo et al. 2017), as a local `evaluate` module.

    evaluate.load("adaptkit/study/metrics/ece", keep_in_memory=True).compute(predictions=[0.9, 0.6],
    references=[1, 0])

Predictions are the probabilities of the predicted labels, references whether those labels were right.
"""

from __future__ import annotations

import datasets
import evaluate

from adaptkit.study import scores


class CalibrationError(evaluate.Metric):
    """Adapter over `adaptkit.study.scores.ece`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("int32")}
        )
        return evaluate.MetricInfo(
            description=scores.ece.__doc__, citation="", inputs_description="", features=features
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        return {"ece": scores.ece(predictions, references)}
