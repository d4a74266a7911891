"""Classification with any number of labels a text, or none."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar

from adaptkit.data.readers import read
from adaptkit.finetune.config import Kind
from adaptkit.model_uses import Use
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import Assignment, TaskConfig, TaskFiles
from adaptkit.study.task_answers import Answers, Baseline
from adaptkit.study.task_size import TaskSize
from adaptkit.study.tasks.rows import RowKind, answers_of, asking_of, probed, prompted_of, task_words
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
    asks = frozenset({"instruction", "labels", "examples"})
    metrics = ("micro_f1", "macro_label_f1")
    cannot = frozenset({Adaptation.RAG, Adaptation.RAG_LORA})  # a head learns from texts, not from prompts

    def size(self, task: TaskConfig) -> TaskSize:
        from adaptkit.finetune.prompted_values import longest_answer, written_sets

        train = read(task.train, self.want)
        return replace(super().size(task), answer_tokens=longest_answer(written_sets(train)))

    def instruction(self, task: TaskConfig) -> str:
        from adaptkit.finetune.prompted_values import set_words

        return set_words(task_words(task)).block(read(task.train, self.want).labels, described=True)

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit.finetune.prompted_values import ask_for_label_sets, prompt_label_sets

        if work.api is not None:
            return answers_of(ask_for_label_sets(asking_of(work), self.parts(work.files)))
        if work.arm.adaptation is Adaptation.PROMPT:
            return answers_of(prompt_label_sets(prompted_of(work), self.parts(work.files)))
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
