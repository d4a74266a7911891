"""Extraction: the fields that a text gives, as one JSON object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from adaptkit.data.json_fields import Schema
from adaptkit.data.readers import Dataset, read
from adaptkit.data.row_fields import schema_of_rows
from adaptkit.finetune.config import FinetuneConfig, Kind
from adaptkit.finetune.prompt_words import TaskWords
from adaptkit.model_uses import Use
from adaptkit.notices import tell
from adaptkit.study.arms import Adaptation
from adaptkit.study.corpus_rows import train_and_test
from adaptkit.study.task import Assignment, CorpusConfig, CorpusRows, TaskConfig, TaskFiles
from adaptkit.study.task_answers import Answers, Baseline, Rows
from adaptkit.study.task_size import BYTES_PER_TOKEN, TaskSize
from adaptkit.study.tasks.copied_fields import CopiedFields
from adaptkit.study.tasks.rows import RowKind, answers_of, asking_of, own_model

if TYPE_CHECKING:
    from adaptkit.data.score_table import ItemRow, Score
    from adaptkit.finetune.frozen_answers import FrozenAnswers

COPIED = "values seen in training rows, or of their shape, looked for in the text: no language model"
SPARE_TOKENS = 16
"""That an answer may have beside the longest of the training rows."""
MOST_TOKENS = 1024


class Extract(RowKind):
    """The language model writes the object; what is no object of the schema counts as nothing found."""

    name = "extract"
    family = "extract"
    want = "extract"
    finetune_kind: ClassVar[Kind] = "extract"
    trained_use = Use.SFT
    prompted_use = Use.WRITE
    metrics = ("field_f1", "macro_field_f1", "json_exact_match", "valid_json")
    asks = frozenset({"instruction", "examples", "fields"})
    cannot = frozenset({Adaptation.PROBE, Adaptation.RAG, Adaptation.RAG_LORA})  # the text holds the answer

    def prepare(self, files: TaskFiles, corpus: CorpusConfig, rows: CorpusRows) -> None:
        assert isinstance(corpus, TaskConfig)
        schema = _schema(corpus, rows.train)
        for part in (rows.train, rows.test):
            schema.check(_placed(part))
        super().prepare(files, corpus, rows)

    def schema(self, task: TaskConfig, files: TaskFiles) -> Schema:
        """The task's schema: as given, or of the prepared training and development rows."""
        parts = self.parts(files)
        return _schema(task, parts["train"].with_rows([*parts["train"].rows, *parts["dev"].rows]))

    def size(self, task: TaskConfig) -> TaskSize:
        train = read(task.train, self.want)
        learnt, tested, _ = train_and_test(task, train, self.want)
        schema = _schema(task, learnt)
        for part in (learnt, tested):
            schema.check(_placed(part))
        if not task.fields:
            tell(f"the fields of {task.name} are those of its training rows: {schema.sentence}")
        size = super().size(task)
        answers = [len(schema.canonical(row.values["fields"]).encode()) for row in train.rows]
        tokens = sum(answers) / len(answers) / BYTES_PER_TOKEN
        num_dev = size.dev_tokens / max(1.0, size.text_tokens)
        return replace(
            size,
            row_tokens=size.row_tokens + tokens,
            dev_tokens=size.dev_tokens + num_dev * tokens,
            test_tokens=size.test_tokens + size.num_items * tokens,
            answer_tokens=max(answers) / BYTES_PER_TOKEN + SPARE_TOKENS,
        )

    def instruction(self, task: TaskConfig) -> str:
        train = read(task.train, self.want)
        return _words(task, _schema(task, train)).asked(())

    def settings(self, work: Assignment) -> FinetuneConfig:
        from adaptkit.models.folder import saved_shape
        from adaptkit.models.positions import fitting_length

        schema, longest = self.schema(work.task, work.files), self._longest(work)
        length = fitting_length(work.task.max_length + longest + SPARE_TOKENS, saved_shape(work.origin))
        update = {"fields": schema.described, "max_new_tokens": longest, "max_length": length}
        return super().settings(work).model_copy(update=update)

    def why_no_label_curve(self, task: TaskConfig) -> str:
        return "" if task.fields else "its fields are those of its training rows: state `fields`"

    def written_tokens(self, work: Assignment, num_labels: int) -> float:
        return self._longest(work)

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit.finetune.extraction import as_answers, field_rows

        parts, schema = self.parts(work.files), self.schema(work.task, work.files)
        asked = {name: as_answers(part, schema, "{text}") for name, part in parts.items()}
        originals = {row.id: row for part in parts.values() for row in part.rows}

        def completed(rows: Rows) -> Rows:
            part = parts["test"].with_rows([originals[row["id"]] for row in rows])
            return field_rows(part, schema, rows)

        def score(rows: Sequence[ItemRow]) -> dict[str, float]:
            return self.scores(completed(list(rows)))

        outcome = self._written(work, schema, asked, score)
        return answers_of(replace(outcome, rows=completed(outcome.rows)))

    def _written(
        self, work: Assignment, schema: Schema, asked: dict[str, Dataset], score: Score
    ) -> FrozenAnswers:
        """Answers of a prompted model, by the API or here."""
        from adaptkit import models
        from adaptkit.finetune.asked_answers import ask_for_answers
        from adaptkit.finetune.prompted_answers import answer_rows

        words = _words(work.task, schema)
        if work.api is not None:
            longest = max(len(row.values["completion"].encode()) for row in asked["train"].rows)
            asking = replace(asking_of(work, schema), words=words)
            limit = round(longest / BYTES_PER_TOKEN) + SPARE_TOKENS
            return ask_for_answers(
                asking, asked["train"], asked["dev"], asked["test"], score=score, max_new_tokens=limit
            )
        return answer_rows(
            own_model(work),
            models.load_tokenizer(work.origin),
            asked["train"],
            asked["dev"],
            asked["test"],
            score=score,
            metric=work.task.tuned_by,
            words=words,
            examples=work.task.examples,
            trials=work.trials,
            seed=work.seed,
            max_new_tokens=self._longest(work),
        )

    def _longest(self, work: Assignment) -> int:
        """Tokens that an answer may have, in those of the arm's own model."""
        from adaptkit import models
        from adaptkit.study.spend import token_lengths

        schema, parts = self.schema(work.task, work.files), self.parts(work.files)
        answers = [schema.canonical(row.values["fields"]) for row in parts["train"].rows]
        longest = max(token_lengths(models.load_tokenizer(work.origin), answers))
        return min(MOST_TOKENS, longest + SPARE_TOKENS)

    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        from adaptkit.finetune.extraction import field_row

        parts, begun = self.parts(files), time.perf_counter()
        copied = CopiedFields(self.schema(task, files), parts["train"], parts["dev"])
        answering = time.perf_counter()
        rows = [
            field_row(row.id, row.values["fields"], copied.values(row.values["text"]))
            for row in parts["test"].rows
        ]
        ended = time.perf_counter()
        return Baseline("copied", COPIED, rows, ended - begun, len(rows) / max(1e-9, ended - answering))


def _schema(task: TaskConfig, rows: Dataset) -> Schema:
    return Schema.of(task.fields) if task.fields else schema_of_rows(_placed(rows))


def _placed(rows: Dataset) -> list[tuple[str, dict]]:
    return [(row.where, row.values["fields"]) for row in rows.rows]


def _words(task: TaskConfig, schema: Schema) -> TaskWords:
    """The instruction: the user's, or one that is made; the fields are named in both."""
    asked = task.instruction.strip() or "Extract fields from the text."
    fields = f"Answer with one JSON object and nothing else. Its fields: {schema.sentence}."
    return TaskWords(f"{asked}\n{fields} Leave out what the text does not give.")
