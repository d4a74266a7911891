"""Pairs of texts with a label: copies, paraphrases, and which of two answers people prefer."""

from __future__ import annotations

import time
from typing import ClassVar

from adaptkit.finetune.config import Kind
from adaptkit.model_uses import Use
from adaptkit.study.task import TaskConfig, TaskFiles
from adaptkit.study.task_answers import Baseline
from adaptkit.study.tasks.classify import Classify
from adaptkit.study.tasks.word_counts import PairCounts

TFIDF = "TF-IDF of both texts and logistic regression: word counts, no language model"


class Pairs(Classify):
    """A classification head that reads both texts as one."""

    name = "pairs"
    want = "labelled_pairs"
    finetune_kind: ClassVar[Kind] = "pairs"
    trained_use = Use.CLASSIFY

    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        from sklearn.linear_model import LogisticRegression

        from adaptkit.data.labels import label_rows

        parts, begun = self.parts(files), time.perf_counter()
        pairs = {
            name: [(row.values["text1"], row.values["text2"]) for row in part.rows]
            for name, part in parts.items()
        }
        features = PairCounts().fit(pairs["train"])
        model = LogisticRegression(C=10.0, solver="sag", tol=3e-3, max_iter=1000, random_state=0)
        model.fit(features.transform(pairs["train"]), [row.values["label"] for row in parts["train"].rows])
        answering = time.perf_counter()
        chances = model.predict_proba(features.transform(pairs["test"]))
        rows = label_rows(parts["test"], [str(name) for name in model.classes_], chances)
        ended = time.perf_counter()
        return Baseline("tfidf", TFIDF, rows, ended - begun, len(rows) / (ended - answering))
