"""Kinds of fine-tuning, one class each: the head, the training examples, and the answers to items."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from adaptkit import models
from adaptkit.data.cut_texts import CutTexts, tell_cuts
from adaptkit.data.json_fields import Schema
from adaptkit.data.label_names import check_labels
from adaptkit.data.labels import label_rows, label_scores
from adaptkit.data.readers import Dataset, Row, Want
from adaptkit.data.row_fields import schema_of_rows
from adaptkit.data.score_table import ItemRow
from adaptkit.data.supervised import Example, SupervisedRows, build_examples, expected_answer, prompt_ids
from adaptkit.errors import DataError
from adaptkit.finetune.choice_likelihood import score_choices, softmax
from adaptkit.finetune.extraction import as_answers, field_rows, field_scores, placed_fields
from adaptkit.finetune.generation import generate
from adaptkit.finetune.label_sets import MultiLabel
from adaptkit.finetune.predicted_scores import Regression
from adaptkit.finetune.prompt_template import FRAME_TOKENS, context_length, cut
from adaptkit.finetune.prompt_words import EXTRACTION_PROMPT
from adaptkit.finetune.task_protocol import Classify, Examples, Task
from adaptkit.finetune.text_pairs import Pairs
from adaptkit.finetune.word_tags import Spans
from adaptkit.model_uses import Use
from adaptkit.models.control_tokens import control_tokens, encode, encode_rendered
from adaptkit.trainer.objective import CausalLM, Objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from adaptkit.run_record import RunRecord


class LabelWords(Task):
    """The language model learns to write the label.

    An item is answered by the most likely label, closing token included.
    """

    want, use, model_kind = "labelled", Use.LABEL_WORDS, "causal"

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int, max_new_tokens: int
    ) -> None:
        self.tokenizer, self.label_names, self.max_length = tokenizer, list(labels), max_length
        self.choices = [self._answer(name) for name in self.label_names]
        frame = len(self._example("", self.label_names[0]).ids)
        self.room = max_length - frame - max(map(len, self.choices))
        if self.room < 1:
            what = f"max_length {max_length} leaves no room for text beside the labels"
            raise DataError(what, where="max_length", fix=f"give at least {frame * 2}")

    def objective(self) -> Objective:
        return CausalLM()

    def source(self, dataset: Dataset) -> Examples:
        check_labels(dataset, self.label_names)
        sft = dataclasses.replace(dataset, rows=self._questions(dataset), kind="sft")
        rows = SupervisedRows(sft, self.tokenizer, self.max_length)
        frame = self.max_length - self.room
        lengths = [len(spans) + frame for spans in self._spans([row.text for row in dataset.rows])]
        rows.cut = CutTexts.of(lengths, self.max_length)  # its own count finds texts that are cut already
        return rows

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        queries = [prompt_ids(row, self.tokenizer) for row in self._questions(dataset)]
        likelihoods = score_choices(model, self.tokenizer, [], queries, self.choices)
        return label_rows(dataset, self.label_names, softmax(likelihoods.nats))

    def score(self, rows: Sequence[ItemRow]) -> dict[str, float]:
        return label_scores(rows)

    def _questions(self, dataset: Dataset) -> list[Row]:
        """Labelled rows as prompts with the label as their completion."""
        texts = self._cut([row.values["text"] for row in dataset.rows])
        return [
            dataclasses.replace(row, values=prompt_and_label(text, row.values["label"]))
            for row, text in zip(dataset.rows, texts, strict=True)
        ]

    def _example(self, text: str, label: str) -> Example:
        where = f"{self.tokenizer.name_or_path}: chat template"
        return build_examples(Row(prompt_and_label(text, label), where, ""), self.tokenizer)[0]

    def _answer(self, label: str) -> list[int]:
        """The tokens taught for a label, the closing one included."""
        example = self._example("a", label)
        return [token for token, taught in zip(example.ids, example.taught, strict=True) if taught]

    def _cut(self, texts: list[str]) -> list[str]:
        """Texts that leave room for the answer: training cuts an example's end, where the answer stands."""
        fitting = []
        for text, spans in zip(texts, self._spans(texts), strict=True):
            if len(spans) > self.room:
                text = text[: spans[self.room - 1][1]]
            fitting.append(text)
        return fitting

    def _spans(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """The characters of each text's tokens."""
        control = control_tokens(self.tokenizer)
        encoded = [encode_rendered(self.tokenizer, text, control.spans(text)) for text in texts]
        return [[(start, end) for _, start, end in pieces] for pieces in encoded]


class Instruct(Task):
    """Answers to prompts and conversations; plain text trains too, but has nothing to be answered."""

    want: ClassVar[Want] = "sft"
    use, model_kind = Use.SFT, "causal"

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int, max_new_tokens: int
    ) -> None:
        self.tokenizer, self.max_length, self.max_new_tokens = tokenizer, max_length, max_new_tokens
        self.label_names: list[str] = []

    def objective(self) -> Objective:
        return CausalLM()

    def source(self, dataset: Dataset) -> Examples:
        return SupervisedRows(dataset, self.tokenizer, self.max_length)

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        if dataset.kind == "text":
            return []
        context = context_length(model)
        room = max(context - self.max_new_tokens, context // 2)
        whole = [prompt_ids(row, self.tokenizer) for row in dataset.rows]
        tell_cuts({"prompts": CutTexts.of(map(len, whole), room)}, "fewer max_new_tokens")
        prompts = [_start_and_end(ids, room) for ids in whole]
        limits = [min(self.max_new_tokens, context - len(prompt)) for prompt in prompts]
        continuations = generate(model, self.tokenizer, prompts, limits)
        answers = self.tokenizer.batch_decode(continuations, skip_special_tokens=True)
        expected = [expected_answer(row, self.tokenizer) for row in dataset.rows]
        return [
            {"id": row.id, "reference": answer.text, "prediction": answer.of(written)}
            for row, answer, written in zip(dataset.rows, expected, answers, strict=True)
        ]

    def score(self, rows: Sequence[ItemRow]) -> dict[str, float]:
        """Share of answers equal to the reference but for blanks at the ends; nothing without answers."""
        if not rows:
            return {}
        hits = [row["prediction"].strip() == row["reference"].strip() for row in rows]
        return {"exact_match": sum(hits) / len(hits)}


class Extract(Instruct):
    """Fields of a text, as one JSON object.

    A text that is too long loses its end, never its answer.
    """

    want: ClassVar[Want] = "extract"

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int, max_new_tokens: int
    ) -> None:
        super().__init__(tokenizer, labels, max_length, max_new_tokens)
        self.schema = Schema(())
        bare = Row({"prompt": EXTRACTION_PROMPT.replace("{text}", ""), "completion": "{}"}, "", "")
        self.room = max_length - max_new_tokens - len(prompt_ids(bare, tokenizer)) - FRAME_TOKENS
        if self.room < 1:
            what = (
                f"max_length {max_length} leaves no room for text beside an answer of {max_new_tokens} tokens"
            )
            raise DataError(what, where="max_length", fix=f"give at least {2 * (max_length - self.room)}")

    def look_at(self, train: Dataset) -> None:
        if not self.schema.fields:
            self.schema = schema_of_rows(placed_fields(train))
        self.schema.check(placed_fields(train))

    def facts(self) -> dict[str, Any]:
        return {"fields": self.schema.described}

    def recall(self, facts: dict[str, Any]) -> None:
        self.schema = Schema.of(facts["fields"])

    def source(self, dataset: Dataset) -> Examples:
        rows = SupervisedRows(self._asked(dataset), self.tokenizer, self.max_length)
        lengths = [
            len(ids) for ids in encode(self.tokenizer, [row.text for row in dataset.rows], special=False)
        ]
        rows.cut = CutTexts.of(lengths, self.room)
        return rows

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        return field_rows(dataset, self.schema, super().rows(model, self._asked(dataset)))

    def score(self, rows: Sequence[ItemRow]) -> dict[str, float]:
        return field_scores(rows)

    def _asked(self, dataset: Dataset) -> Dataset:
        """Rows as prompts whose texts leave room for an answer."""
        texts = [cut(self.tokenizer, row.values["text"], self.room) for row in dataset.rows]
        rows = [
            dataclasses.replace(row, values={**row.values, "text": text})
            for row, text in zip(dataset.rows, texts, strict=True)
        ]
        return as_answers(dataset.with_rows(rows), self.schema)


TASKS: dict[str, type[Task]] = {
    "sft": Instruct,
    "extract": Extract,
    "classify": Classify,
    "label_words": LabelWords,
    "multi_label": MultiLabel,
    "spans": Spans,
    "regression": Regression,
    "pairs": Pairs,
}


def task_of(record: RunRecord, tokenizer: PreTrainedTokenizerFast) -> Task:
    """The task that a finished fine-tuning was trained for, to answer items with its model again."""
    facts = record.facts
    task = TASKS[facts["kind"]](tokenizer, facts["labels"], record.seq_len, facts["max_new_tokens"])
    task.recall(facts)
    return task


def load_model(
    task: Task, tokenizer: PreTrainedTokenizerFast, base: str, quantization: Literal["nf4"] | None, seed: int
) -> PreTrainedModel:
    """The base with the head the task needs; a new head is drawn from `seed`."""
    names = task.output_names if task.model_kind in ("classifier", "tagger") else None
    model = models.load(base, task.model_kind, label_names=names, quantization=quantization, seed=seed)
    if names:
        # a causal classifier reads the last token that is not padding, and finds it by this id
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
        if task.problem_type:
            model.config.problem_type = task.problem_type
    return model


def prompt_and_label(text: str, label: str) -> dict[str, str]:
    return {"prompt": f"{text}\nLabel:", "completion": f" {label}"}


def _start_and_end(ids: list[int], room: int) -> list[int]:
    """The first token and the end of a prompt that is too long."""
    if len(ids) <= room:
        return ids
    return [*ids[:1], *ids[len(ids) - room + 1 :]]
