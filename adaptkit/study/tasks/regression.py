"""A number for each text: ratings, grades, prices."""

from __future__ import annotations

import time
from typing import ClassVar

from adaptkit.finetune.config import Kind
from adaptkit.model_uses import Use
from adaptkit.study.arms import IN_WORDS
from adaptkit.study.task import Assignment, TaskConfig, TaskFiles
from adaptkit.study.task_answers import Answers, Baseline
from adaptkit.study.tasks.rows import RowKind, probed
from adaptkit.study.tasks.word_counts import word_counts

TFIDF = "TF-IDF and ridge regression: word counts, no language model"


class Regression(RowKind):
    """A head with one output; judged by the order it puts texts in, or by how far off it is."""

    name = "regression"
    family = "regression"
    want = "scored"
    finetune_kind: ClassVar[Kind] = "regression"
    trained_use = Use.CLASSIFY
    head = "classifier"
    metrics = ("spearman", "mae")
    cannot = IN_WORDS  # a prompt gives no number on a scale

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit.finetune.predicted_scores import probe_scores

        return probed(self, work, probe_scores)

    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline

        from adaptkit.finetune.predicted_scores import score_rows, spread_scores

        parts, begun = self.parts(files), time.perf_counter()
        texts = {name: [row.text for row in part.rows] for name, part in parts.items()}
        model = make_pipeline(word_counts(), Ridge(alpha=1.0))
        model.fit(texts["train"], spread_scores(parts["train"]))
        answering = time.perf_counter()
        rows = score_rows(parts["test"], model.predict(texts["test"]))
        ended = time.perf_counter()
        return Baseline("tfidf", TFIDF, rows, ended - begun, len(rows) / (ended - answering))
