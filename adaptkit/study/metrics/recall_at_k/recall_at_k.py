"""Share of a query's relevant documents within the first k ranks, averaged over queries, as a local
`evaluate` module.

    evaluate.load("adaptkit/study/metrics/recall_at_k", keep_in_memory=True).compute(
        predictions=[["d1", "d7"]], references=[[{"document": "d7", "grade": 1}]], k=100
    )

Predictions are rankings, best first; references name the judged documents of each query. Values are
trec_eval's.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from adaptkit.study import scores


class RecallAtK(evaluate.Metric):
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
        self, predictions: list[list[str]], references: list[list[dict[str, Any]]], k: int = 10
    ) -> dict[str, float]:
        return {"recall_at_k": scores.retrieval(f"recall_at_{k}", predictions, references)}
