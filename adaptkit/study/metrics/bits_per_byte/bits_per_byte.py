"""Bits per byte of raw UTF-8 text, comparable across tokenizers, as a local `evaluate` module.

    evaluate.load("adaptkit/study/metrics/bits_per_byte", keep_in_memory=True).compute(predictions=[71.2],
    references=[100])

Predictions are the documents' negative log likelihoods in nats, references their sizes in bytes.
"""

from __future__ import annotations

import datasets
import evaluate

from adaptkit.study import scores


class BitsPerByte(evaluate.Metric):
    """Adapter over `adaptkit.study.scores.bits_per_byte`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(
            description=scores.bits_per_byte.__doc__, citation="", inputs_description="", features=features
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        return {"bits_per_byte": scores.bits_per_byte(predictions, references)}
