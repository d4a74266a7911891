"""Classification with any number of labels a text, or none."""

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

TFIDF = "TF-IDF and a logistic regression for each label: word counts, no language model"


class MultiLabel(RowKind):
    """A yes or no for every label, with one threshold that is chosen on development rows."""

    name = "multi_label"
    family = "multi_label"
    want = "multi_label"
    finetune_kind: ClassVar[Kind] = "multi_label"
    trained_use = Use.CLASSIFY
    head = "classifier"
    metrics = ("micro_f1", "macro_label_f1")
    cannot = IN_WORDS  # a prompt is asked for one label

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit.finetune.label_sets import probe_label_sets

        return probed(self, work, probe_label_sets)

    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        import numpy as np

        from adaptkit.data.labels import best_threshold, label_set_rows, truth_of
        from adaptkit.finetune.label_sets import OneAgainstRest

        parts, begun = self.parts(files), time.perf_counter()
        names = parts["train"].labels
        features = word_counts().fit([row.text for row in parts["train"].rows])

        def read(part: str) -> object:
            return features.transform([row.text for row in parts[part].rows])

        inputs = read("train")
        heads = [
            OneAgainstRest(inputs, column, 10.0, "liblinear") for column in truth_of(parts["train"], names).T
        ]
        dev = np.stack([head(read("dev")) for head in heads], axis=1)
        threshold = best_threshold(dev, truth_of(parts["dev"], names))
        answering = time.perf_counter()
        inputs = read("test")
        rows = label_set_rows(parts["test"], names, np.stack([head(inputs) for head in heads], 1), threshold)
        ended = time.perf_counter()
        return Baseline("tfidf", TFIDF, rows, ended - begun, len(rows) / (ended - answering))
