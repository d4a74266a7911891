"""What differs between the kinds of fine-tuning: the model's head, the training examples, and how items are
answered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from adaptkit import models
from adaptkit.data import Row
from adaptkit.data.labels import check_labels, classify_rows, label_rows, label_scores
from adaptkit.errors import DataError
from adaptkit.finetune.answering import question_and_answer
from adaptkit.finetune.generate import generate
from adaptkit.finetune.likelihood import score_choices
from adaptkit.finetune.prompting import softmax
from adaptkit.finetune.template import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from adaptkit.data import Dataset
    from adaptkit.run_record import RunRecord
    from adaptkit.trainer.objective import Objective
    from adaptkit.trainer.source import Source

ItemRow = dict[str, Any]
Score = Callable[[Sequence[ItemRow]], dict[str, float]]


class Task(Protocol):
    """One kind of fine-tuning on one tokenizer.

    Attributes:
        want: the rows it reads, as `adaptkit.data.read` names them.
        model_kind: the head it trains.
        label_names: the classes in the order of the head's outputs; empty for free text.
        score: metrics of item rows, unless a caller brings its own.
    """

    want: Literal["sft", "labelled"]
    model_kind: Literal["causal", "classifier"]
    label_names: list[str]
    score: Score

    def objective(self) -> Objective: ...
    def source(self, dataset: Dataset) -> Source: ...
    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]: ...


class Classify:
    """A head on the pooled state: the last token of a causal model, the encoder's own pooling otherwise."""

    want, model_kind = "labelled", "classifier"
    score = staticmethod(label_scores)

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int, max_new_tokens: int
    ):
        self.tokenizer, self.label_names, self.max_length = tokenizer, list(labels), max_length

    def objective(self) -> Objective:
        from adaptkit.trainer.objective import Classification

        return Classification()

    def source(self, dataset: Dataset) -> Source:
        from adaptkit.data import LabelledRows

        return LabelledRows(dataset, self.tokenizer, self.max_length, self.label_names)

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        return classify_rows(model, self.tokenizer, dataset, self.label_names, self.max_length)


class LabelWords:
    """The language model learns to write the label; an item is answered by the most likely label, closing
    token included."""

    want, model_kind = "labelled", "causal"
    score = staticmethod(label_scores)

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int, max_new_tokens: int
    ):
        self.tokenizer, self.label_names, self.max_length = tokenizer, list(labels), max_length
        self.choices = [self._answer(name) for name in self.label_names]
        frame = len(self._example("", self.label_names[0]).ids)
        self.room = max_length - frame - max(map(len, self.choices))
        if self.room < 1:
            what = f"max_length {max_length} leaves no room for text beside the labels"
            raise DataError(what, where="max_length", fix=f"give at least {frame * 2}")

    def objective(self) -> Objective:
        from adaptkit.trainer.objective import CausalLM

        return CausalLM()

    def source(self, dataset: Dataset) -> Source:
        from adaptkit.data import SupervisedRows

        check_labels(dataset, self.label_names)
        texts = self._cut([row.values["text"] for row in dataset.rows])
        rows = [_asked(row, text, row.values["label"]) for row, text in zip(dataset.rows, texts, strict=True)]
        return SupervisedRows(
            dataclasses.replace(dataset, rows=rows, kind="sft"), self.tokenizer, self.max_length
        )

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        from adaptkit.data.supervised import prompt_ids

        texts = self._cut([row.values["text"] for row in dataset.rows])
        asked = [
            _asked(row, text, row.values["label"]) for row, text in zip(dataset.rows, texts, strict=True)
        ]
        queries = [prompt_ids(row, self.tokenizer) for row in asked]
        found = score_choices(model, self.tokenizer, [], queries, self.choices)
        return label_rows(dataset, self.label_names, softmax(found.nats))

    def _example(self, text: str, label: str) -> Any:
        from adaptkit.data.supervised import build_examples

        return build_examples(_asked(Row({}, "", ""), text, label), self.tokenizer)[0]

    def _answer(self, label: str) -> list[int]:
        """The tokens taught for a label, the closing one included."""
        example = self._example("a", label)
        return [token for token, taught in zip(example.ids, example.taught, strict=True) if taught]

    def _cut(self, texts: list[str]) -> list[str]:
        """Texts that leave room for the answer: training cuts an example's end, where the answer stands."""
        spans = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [
            text if len(s) <= self.room else text[: s[self.room - 1][1]]
            for text, s in zip(texts, spans, strict=True)
        ]


class Instruct:
    """Answers to prompts and conversations; plain text trains too, but has nothing to be answered."""

    want, model_kind = "sft", "causal"

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int, max_new_tokens: int
    ):
        self.tokenizer, self.max_length, self.max_new_tokens = tokenizer, max_length, max_new_tokens
        self.label_names: list[str] = []

    @staticmethod
    def score(rows: Sequence[ItemRow]) -> dict[str, float]:
        """Share of answers equal to the reference but for blanks at the ends; nothing where there are no
        answers."""
        hits = [row["prediction"].strip() == row["reference"].strip() for row in rows]
        return {"exact_match": sum(hits) / len(hits)} if hits else {}

    def objective(self) -> Objective:
        from adaptkit.trainer.objective import CausalLM

        return CausalLM()

    def source(self, dataset: Dataset) -> Source:
        from adaptkit.data import SupervisedRows

        return SupervisedRows(dataset, self.tokenizer, self.max_length)

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        from adaptkit.data.supervised import prompt_ids

        if dataset.kind == "text":
            return []
        room = context_length(model) - self.max_new_tokens
        prompts = [_kept(prompt_ids(row, self.tokenizer), room) for row in dataset.rows]
        answers = generate(model, self.tokenizer, prompts, self.max_new_tokens)
        words = [self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]
        return [
            {"id": row.id, "reference": question_and_answer(row)[1], "prediction": said}
            for row, said in zip(dataset.rows, words, strict=True)
        ]


TASKS: dict[str, type[Task]] = {"sft": Instruct, "classify": Classify, "label_words": LabelWords}


def task_of(record: RunRecord, tokenizer: PreTrainedTokenizerFast) -> Task:
    """The task that a finished fine-tuning was trained for, to answer items with its model again."""
    facts = record.facts
    return TASKS[facts["kind"]](tokenizer, facts["labels"], record.seq_len, facts["max_new_tokens"])


def load_model(
    task: Task, tokenizer: PreTrainedTokenizerFast, base: str, quantization: Literal["nf4"] | None, seed: int
) -> Any:
    """The base with the head the task needs; a new head is drawn from `seed`."""
    names = task.label_names if task.model_kind == "classifier" else None
    model = models.load(base, task.model_kind, label_names=names, quantization=quantization, seed=seed)
    if names:
        # a causal classifier reads the last token that is not padding, and finds it by this id
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
        model.config.problem_type = "single_label_classification"
    return model


def _asked(row: Row, text: str, label: str) -> Row:
    values = {"prompt": f"{text}\nLabel:", "completion": f" {label}"}
    return dataclasses.replace(row, values=values)


def _kept(ids: list[int], room: int) -> list[int]:
    """The first token and the end of a prompt that is too long."""
    return ids if len(ids) <= room else [*ids[:1], *ids[len(ids) - room + 1 :]]
