"""Spans of a text with a label each: named entities, doses, parties of a contract."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from adaptkit.data.annotations import OUTSIDE, spans_from_tags, tags_of, words_of
from adaptkit.data.readers import Row, read
from adaptkit.data.words import fold
from adaptkit.finetune.config import Kind
from adaptkit.model_uses import Use
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import Assignment, TaskConfig, TaskFiles
from adaptkit.study.task_answers import Answers, Baseline
from adaptkit.study.task_size import TaskSize
from adaptkit.study.tasks.rows import RowKind, answers_of, asking_of, probed, prompted_of, task_words

WORD_FEATURES = "each word's spelling, neighbours and known names, logistic regression: no language model"
LONGEST_NAME = 6
"""Words of a span that is looked up as a whole."""


class Spans(RowKind):
    """A tag for every word; judged by whole spans with the right label."""

    name = "spans"
    family = "spans"
    want = "spans"
    finetune_kind: ClassVar[Kind] = "spans"
    trained_use = Use.TAG
    prompted_use = Use.WRITE
    head = "tagger"
    asks = frozenset({"instruction", "labels", "examples"})
    metrics = ("entity_f1", "macro_entity_f1")
    cannot = frozenset({Adaptation.RAG, Adaptation.RAG_LORA})  # the text holds the spans

    def size(self, task: TaskConfig) -> TaskSize:
        from adaptkit.finetune.prompted_spans import written_spans
        from adaptkit.finetune.prompted_values import longest_answer

        train = read(task.train, self.want)
        return replace(super().size(task), answer_tokens=longest_answer(written_spans(train)))

    def instruction(self, task: TaskConfig) -> str:
        from adaptkit.finetune.prompted_spans import span_words

        return span_words(task_words(task), read(task.train, self.want).labels).instruction

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit.finetune.prompted_spans import ask_for_spans, prompt_spans

        if work.api is not None:
            return answers_of(ask_for_spans(asking_of(work), self.parts(work.files)))
        if work.arm.adaptation is Adaptation.PROMPT:
            return answers_of(prompt_spans(prompted_of(work), self.parts(work.files)))
        from adaptkit.finetune.word_tags import probe_spans

        return probed(self, work, probe_spans)

    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import SGDClassifier
        from sklearn.pipeline import make_pipeline

        from adaptkit.finetune.word_tags import answer_row, check_spans_there

        parts, begun = self.parts(files), time.perf_counter()
        train, test = parts["train"].rows, parts["test"].rows
        check_spans_there(parts["train"])
        seen, names = known_names(train, least=2), known_names(train)  # a row must not know itself
        tags = [tag for row in train for tag in tags_of(_words(row), row.values["spans"])]
        model = make_pipeline(
            CountVectorizer(analyzer=list, binary=True),
            SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=30, random_state=0),
        )
        model.fit([features for row in train for features in word_features(row, seen)], tags)
        answering = time.perf_counter()
        predicted = iter(model.predict([features for row in test for features in word_features(row, names)]))
        rows = []
        for row in test:
            places = _words(row)
            of_row = [str(next(predicted)) for _ in places]
            rows.append(answer_row(row, spans_from_tags(places, of_row)))
        ended = time.perf_counter()
        return Baseline("word-features", WORD_FEATURES, rows, ended - begun, len(rows) / (ended - answering))


def known_names(rows: Sequence[Row], least: int = 1) -> dict[tuple[str, ...], str]:
    """The words of spans that stand so often in training rows, folded -> their most frequent label."""
    labels: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for row in rows:
        places = _words(row)
        for span in row.values["spans"]:
            inside = [place for place in places if place[0] < span["end"] and place[1] > span["start"]]
            labels[tuple(fold(row.text[a:b]) for a, b in inside)][span["label"]] += 1
    return {
        words: max(sorted(counts), key=counts.__getitem__)
        for words, counts in labels.items()
        if counts.total() >= least
    }


def word_features(row: Row, names: dict[tuple[str, ...], str]) -> list[list[str]]:
    """What is looked at of each word: itself, its ends, its shape, its neighbours, and known names."""
    written = [row.text[a:b] for a, b in _words(row)]
    folded = [fold(word) for word in written]
    known = _looked_up(folded, names)
    features = []
    for number, (word, plain) in enumerate(zip(written, folded, strict=True)):
        before = folded[number - 1] if number else "^"
        after = folded[number + 1] if number + 1 < len(folded) else "$"
        shape = "".join("d" if c.isdigit() else "X" if c.isupper() else "x" for c in word)[:6]
        said = [
            *(f"word {plain}", f"start {plain[:3]}", f"end {plain[-3:]}", f"shape {shape}"),
            *(f"before {before}", f"after {after}", f"pair {before} {plain}", f"name {known[number]}"),
        ]
        features.append(said)
    return features


def _looked_up(words: Sequence[str], names: dict[tuple[str, ...], str]) -> list[str]:
    """The tag of each word by known names alone, the longest first."""
    tags = [OUTSIDE] * len(words)
    at = 0
    while at < len(words):
        lengths = range(min(LONGEST_NAME, len(words) - at), 0, -1)
        length = next((n for n in lengths if tuple(words[at : at + n]) in names), 0)
        if length:
            label = names[tuple(words[at : at + length])]
            tags[at : at + length] = [f"B-{label}", *[f"I-{label}"] * (length - 1)]
        at += max(1, length)
    return tags


def _words(row: Row) -> list[tuple[int, int]]:
    return words_of(row.text, row.values.get("tokens"))
