"""A number for each text: ratings, grades, prices."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar

from adaptkit.data.readers import read
from adaptkit.finetune.config import Kind
from adaptkit.finetune.prompt_formats import num_examples
from adaptkit.model_uses import Use
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import Assignment, TaskConfig, TaskFiles
from adaptkit.study.task_answers import Answers, Baseline
from adaptkit.study.task_size import TaskSize
from adaptkit.study.tasks.rows import RowKind, answers_of, asking_of, probed, prompted_of, task_words
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
    asks = frozenset({"instruction", "examples"})
    metrics = ("spearman", "mae")
    cannot = frozenset({Adaptation.RAG, Adaptation.RAG_LORA})  # a head learns from texts, not from prompts

    def size(self, task: TaskConfig) -> TaskSize:
        count, size = len(self._numbers(task)), super().size(task)
        factor = 1.0 + num_examples(task.examples, count) / 2
        return replace(size, num_labels=count, prompt_factor=factor)

    def instruction(self, task: TaskConfig) -> str:
        from adaptkit.finetune.prompted_values import number_words

        return number_words(task_words(task)).block(list(self._numbers(task)), described=False)

    def _numbers(self, task: TaskConfig) -> dict[str, float]:
        """What a prompted model chooses from."""
        from adaptkit.finetune.prompted_values import numbers_of

        return numbers_of([row.values["score"] for row in read(task.train, self.want).rows])

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit.finetune.prompted_values import ask_for_scores, prompt_scores

        if work.api is not None:
            return answers_of(ask_for_scores(asking_of(work), self.parts(work.files)))
        if work.arm.adaptation is Adaptation.PROMPT:
            return answers_of(prompt_scores(prompted_of(work), self.parts(work.files)))
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
