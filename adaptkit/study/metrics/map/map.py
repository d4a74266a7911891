"""Mean over queries of the average precision at the ranks of the relevant documents, as a local `evaluate`
module.

    evaluate.load("adaptkit/study/metrics/map", keep_in_memory=True).compute(
        predictions=[["d1", "d7"]], references=[[{"document": "d7", "grade": 1}]]
    )

Predictions are rankings, best first; references name the judged documents of each query. Values are
trec_eval's.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from adaptkit.study import scores


class MeanAveragePrecision(evaluate.Metric):
    """Adapter over `adaptkit.study.scores.retrieval`."""

    def _info(self) -> evaluate.MetricInfo:
        judged = [{"document": datasets.Value("string"), "grade": datasets.Value("int64")}]
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("string")), "references": judged}
        )
        return evaluate.MetricInfo(
            description=scores.retrieval.__doc__, citation="", inputs_description="", features=features
        )

    def _compute(
        self, predictions: list[list[str]], references: list[list[dict[str, Any]]]
    ) -> dict[str, float]:
        return {"map": scores.retrieval("map", predictions, references)}
