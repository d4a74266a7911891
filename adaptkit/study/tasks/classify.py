"""Classification: with a head of its own, or in the language model's own words for the labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from adaptkit.data.readers import Dataset, Row, Want
from adaptkit.finetune.config import Kind
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import Assignment, TaskConfig, TaskFiles
from adaptkit.study.task_answers import Answers, Baseline, Rows
from adaptkit.study.tasks.rows import RowKind, answers_of, asking_of, finder_of, own_model, task_words
from adaptkit.study.tasks.word_counts import word_counts

if TYPE_CHECKING:
    import numpy as np

    from adaptkit.finetune.frozen_answers import FrozenAnswers
    from adaptkit.models import Kind as ModelForm

TFIDF = "TF-IDF and logistic regression: word counts, no language model"
LABEL_TOKENS = 4


class Classify(RowKind):
    """A classification head on the model."""

    name = "classify"
    family = "classify"
    want: ClassVar[Want] = "labelled"
    finetune_kind: ClassVar[Kind] = "classify"
    head: ClassVar[ModelForm | None] = "classifier"
    metrics = ("accuracy", "macro_f1")
    asks = frozenset({"instruction", "labels", "examples"})
    cannot = frozenset({Adaptation.RAG_LORA})  # a head learns from texts, not from prompts

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit import models

        if work.api is not None:
            return self.asked(work)

        model = own_model(work)
        answer = _probed if work.arm.adaptation is Adaptation.PROBE else _prompted
        outcome = answer(work, model, models.load_tokenizer(work.origin), self.parts(work.files))
        return answers_of(outcome)

    def asked(self, work: Assignment) -> Answers:
        """Answer by asking a model over an API."""
        from adaptkit.finetune.asked_answers import ask_for_labels

        parts = self.parts(work.files)
        train, names = parts["train"], parts["train"].labels
        outcome = ask_for_labels(asking_of(work), train, parts["dev"], parts["test"], names)
        return answers_of(outcome)

    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        parts = self.parts(files)
        train = [(row.values["text"], row.values["label"]) for row in parts["train"].rows]
        dev, test = (
            [(row.id, row.values["text"], row.values["label"]) for row in parts[part].rows]
            for part in ("dev", "test")
        )
        begun = time.perf_counter()
        model = WordCountClassifier(train)
        answering = time.perf_counter()
        rows = model.rows(test)
        ended = time.perf_counter()
        speed = len(rows) / (ended - answering)
        return Baseline("tfidf", TFIDF, rows, ended - begun, speed, model.rows(dev))


def _prompted(work: Assignment, model: Any, tokenizer: Any, parts: dict[str, Dataset]) -> FrozenAnswers:
    from adaptkit.finetune.prompted_labels import prompt_rows

    return prompt_rows(
        model,
        tokenizer,
        parts["train"],
        parts["dev"],
        parts["test"],
        label_names=parts["train"].labels,
        words=task_words(work.task),
        examples=work.task.examples,
        trials=work.trials,
        metric=work.task.tuned_by,
        seed=work.seed,
        max_length=work.task.max_length,
        finder=finder_of(work),
    )


def _probed(work: Assignment, model: Any, tokenizer: Any, parts: dict[str, Dataset]) -> FrozenAnswers:
    from adaptkit.finetune.probe import probe_rows

    return probe_rows(
        model,
        tokenizer,
        parts["train"],
        parts["dev"],
        parts["test"],
        label_names=parts["train"].labels,
        trials=work.trials,
        metric=work.task.tuned_by,
        max_length=work.task.max_length,
    )


class LabelWords(Classify):
    """The language model writes the label."""

    name = "label_words"
    finetune_kind: ClassVar[Kind] = "label_words"
    head = None
    cannot = frozenset()

    def prompted_row(self, row: Row, label: str) -> Row:
        from adaptkit.finetune.tasks import prompt_and_label

        return replace(row, values=prompt_and_label(row.values["text"], label))

    def answer_tokens(self, num_labels: int) -> float:
        return LABEL_TOKENS * num_labels  # every label is scored


class WordCountClassifier:
    """TF-IDF features and logistic regression: seconds to train, no language model.

    Args:
        train: (text, label) pairs.
    """

    def __init__(self, train: Sequence[tuple[str, str]]):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        # Stochastic average gradient: the accuracy of L-BFGS in a quarter of its time. 20,000 rows take one
        # core 4 s (sentences, 5 labels), and about a minute at worst (2 kB each, 77 labels).
        model = LogisticRegression(C=10.0, solver="sag", tol=3e-3, max_iter=1000, random_state=0)
        self._pipeline = make_pipeline(word_counts(), model)
        self._pipeline.fit([text for text, _ in train], [label for _, label in train])
        self.labels = [str(name) for name in self._pipeline.classes_]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Of each label, in the order of `labels` [num_texts, num_labels]."""
        chances_NC: np.ndarray = self._pipeline.predict_proba(list(texts))
        return chances_NC

    def rows(self, items: Sequence[tuple[str, str, str]]) -> Rows:
        """Item rows of (id, text, label) triples: `id`, `label`, `prediction`, `probabilities`."""
        if not items:
            return []
        chances_NC = self.probabilities([text for _, text, _ in items])
        return [
            {
                "id": row_id,
                "label": label,
                "prediction": self.labels[int(chances_C.argmax())],
                "probabilities": {
                    name: round(float(p), 6) for name, p in zip(self.labels, chances_C, strict=True)
                },
            }
            for (row_id, _, label), chances_C in zip(items, chances_NC, strict=True)
        ]
