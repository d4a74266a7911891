"""Answer by prompts what is more than one label: several labels, or a number; nothing trained.

Several labels, and numbers, are scored as labels are: the model says how likely each answer is behind the
prompt, calibrated. A label applies from a probability on that is chosen on development rows, as for every
other arm; a number is the mean of those that training rows have, by their probabilities. An API writes the
list of labels, or chooses a number, and is held to that where it can be. `prompted_spans` does spans.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.data.json_fields import Field, Schema
from adaptkit.data.labels import best_threshold, label_set_rows, label_set_scores, truth_of
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.score_table import ItemRow
from adaptkit.finetune.asked_answers import BYTES_PER_TOKEN, Asking, ask_for_answers, ask_for_labels
from adaptkit.finetune.frozen_answers import FrozenAnswers
from adaptkit.finetune.label_sets import THRESHOLD, check_labelled
from adaptkit.finetune.predicted_scores import rank_scores, spread_scores
from adaptkit.finetune.prompt_words import TaskWords
from adaptkit.finetune.prompted_labels import prompt_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_NUMBERS = 11
"""Numbers that a model chooses from where training rows have more."""
LABELS = "labels"
"""The field of an answer that holds the labels of a text."""
MOST_TOKENS, SPARE_TOKENS = 1024, 16
"""That a written answer may have, and that it may have beside the longest of the training rows."""
SETS_INSTRUCTION = "Name the labels that apply to the text."
NUMBER_INSTRUCTION = "Give the text a number. Answer with one of the numbers, and nothing else."
Parts = Mapping[str, Dataset]


@dataclass(frozen=True)
class Prompted:
    """A model of one's own that is prompted, and how.

    Attributes:
        words: the task's instruction and what its labels mean.
        examples: examples in a prompt; None takes as many as for labels, or two for spans.
        metric: what formats are chosen by.
        max_length: tokens of each text at most; 0 is what the model reads.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    words: TaskWords
    examples: int | None
    trials: int
    seed: int
    metric: str
    max_length: int


# Several labels


def set_words(words: TaskWords) -> TaskWords:
    """The words of a task with several labels; the instruction is made where there is none."""
    return replace(words, instruction=words.instruction.strip() or SETS_INSTRUCTION)


def prompt_label_sets(prompted: Prompted, parts: Parts) -> FrozenAnswers:
    """Score every label behind the prompt; those that reach a threshold, chosen on dev, apply.

    In the examples each label stands alone, so the labels of a text share its probability.
    Raises: DataError where no training row has a label.
    """
    check_labelled(parts["train"])
    names = parts["train"].labels

    def sets(
        part: str, rows: Sequence[ItemRow], threshold: float | None = None
    ) -> tuple[list[ItemRow], float]:
        chances = np.asarray([[row["probabilities"][name] for name in names] for row in rows])
        if threshold is None:
            threshold = best_threshold(chances, truth_of(parts[part], names))
        return label_set_rows(parts[part], names, chances, threshold), threshold

    outcome = prompt_rows(
        prompted.model,
        prompted.tokenizer,
        *_with_labels(parts, lambda row: row.labels, names[0]),
        label_names=names,
        words=set_words(prompted.words),
        examples=prompted.examples,
        trials=prompted.trials,
        seed=prompted.seed,
        metric=prompted.metric,
        max_length=prompted.max_length,
        score=lambda rows: label_set_scores(sets("dev", rows)[0]),
    )
    _, threshold = sets("dev", outcome.dev_rows)
    rows, _ = sets("test", outcome.rows, threshold)
    chosen = {**outcome.chosen, THRESHOLD: round(threshold, 6)}
    return replace(outcome, rows=rows, chosen=chosen, dev_rows=[])


def ask_for_label_sets(asking: Asking, parts: Parts) -> FrozenAnswers:
    """Have an API write the list of labels, which the server is held to where it can be.

    A reply that is no such list counts as no label.
    Raises: DataError where no training row has a label; as `ask_for_answers`.
    """
    check_labelled(parts["train"])
    names = parts["train"].labels
    schema = Schema((Field(LABELS, "string", many=True, choices=tuple(names)),))
    block = set_words(asking.words).block(names, described=True)
    form = f'Answer with one JSON object and nothing else: {{"{LABELS}": [...]}}, with the labels that apply.'
    asking = replace(asking, words=TaskWords(f"{block}\n{form}"), schema=schema)

    def completed(row: Row, answer: str) -> ItemRow:
        values = schema.parsed(answer) or {}
        return {"labels": list(row.labels), "predicted_labels": list(dict.fromkeys(values.get(LABELS, [])))}

    return ask_for_objects(
        asking, parts, lambda row: {LABELS: list(row.labels)}, schema, completed, label_set_scores
    )


# Numbers


def numbers_of(scores: Sequence[float], most: int = MOST_NUMBERS) -> dict[str, float]:
    """The numbers that a model chooses from, as they are written: all of the training rows, or, of many,
    some that lie among them evenly by rank, with three digits."""
    distinct = sorted(set(scores))
    if len(distinct) > most:
        places = np.quantile(np.asarray(scores), np.linspace(0, 1, most))
        return {f"{place:.3g}": float(f"{place:.3g}") for place in places}
    return {f"{number:g}": number for number in distinct}


def number_words(words: TaskWords) -> TaskWords:
    """The words of a task with a number; the instruction is made where there is none."""
    return TaskWords(words.instruction.strip() or NUMBER_INSTRUCTION)


def prompt_scores(prompted: Prompted, parts: Parts) -> FrozenAnswers:
    """Score every number behind the prompt; the answer is their mean by probability.

    Raises: DataError where all training rows have the same number.
    """
    numbers = numbers_of(spread_scores(parts["train"]))
    by_id = rows_by_id(parts)

    def scored(rows: Sequence[ItemRow]) -> list[ItemRow]:
        means = [sum(p * numbers[name] for name, p in row["probabilities"].items()) for row in rows]
        return [_number_row(by_id[row["id"]], mean) for row, mean in zip(rows, means, strict=True)]

    outcome = prompt_rows(
        prompted.model,
        prompted.tokenizer,
        *_with_labels(parts, lambda row: [_nearest(numbers, row.values["score"])], next(iter(numbers))),
        label_names=list(numbers),
        words=number_words(prompted.words),
        examples=prompted.examples,
        trials=prompted.trials,
        seed=prompted.seed,
        metric=prompted.metric,
        max_length=prompted.max_length,
        score=lambda rows: rank_scores(scored(rows)),
    )
    return replace(outcome, rows=scored(outcome.rows), dev_rows=[])


def ask_for_scores(asking: Asking, parts: Parts) -> FrozenAnswers:
    """Have an API choose a number; a reply that names none counts as the mean of the training rows.

    Raises: DataError where all training rows have the same number; as `ask_for_labels`.
    """
    scores = spread_scores(parts["train"])
    numbers, mean, by_id = numbers_of(scores), float(np.mean(scores)), rows_by_id(parts)

    def scored(rows: Sequence[ItemRow]) -> list[ItemRow]:
        return [
            {**_price_of(row), **_number_row(by_id[row["id"]], numbers.get(row["prediction"], mean))}
            for row in rows
        ]

    outcome = ask_for_labels(
        replace(asking, words=number_words(asking.words)),
        *_with_labels(parts, lambda row: [_nearest(numbers, row.values["score"])], next(iter(numbers))),
        list(numbers),
        score=lambda rows: rank_scores(scored(rows)),
    )
    return replace(outcome, rows=scored(outcome.rows))


def _number_row(row: Row, number: float) -> ItemRow:
    return {"id": row.id, "score": row.values["score"], "predicted_score": round(float(number), 6)}


def _nearest(numbers: Mapping[str, float], score: float) -> str:
    return min(numbers, key=lambda name: abs(numbers[name] - score))


# Rows


def rows_by_id(parts: Parts) -> dict[str, Row]:
    return {row.id: row for part in parts.values() for row in part.rows}


def _with_labels(
    parts: Parts, labels: Callable[[Row], Sequence[str]], default: str
) -> tuple[Dataset, Dataset, Dataset]:
    """Rows of train, dev and test that have one label each: of training rows one for each of its labels, of
    others the first, which is not read."""

    def converted(name: str) -> Dataset:
        rows = []
        for row in parts[name].rows:
            own = list(labels(row)) if name == "train" else [*labels(row), default][:1]
            rows += [replace(row, values={"text": row.values["text"], "label": label}) for label in own]
        return replace(parts[name], rows=rows, kind="labelled")

    return converted("train"), converted("dev"), converted("test")


def as_objects(part: Dataset, said: Callable[[Row], Mapping[str, Any]], schema: Schema) -> Dataset:
    """Rows as a question and its one right answer, an object of the schema."""
    rows = [
        replace(row, values={"prompt": row.text, "completion": schema.canonical(said(row))})
        for row in part.rows
    ]
    return replace(part, rows=rows, kind="sft")


def ask_for_objects(
    asking: Asking,
    parts: Parts,
    said: Callable[[Row], Mapping[str, Any]],
    schema: Schema,
    completed: Callable[[Row, str], ItemRow],
    scores: Callable[[Sequence[ItemRow]], dict[str, float]],
) -> FrozenAnswers:
    """Objects that an API writes, read as item rows."""
    asked = {name: as_objects(part, said, schema) for name, part in parts.items()}
    by_id = rows_by_id(parts)

    def read(rows: Sequence[ItemRow]) -> list[ItemRow]:
        return [{**row, **completed(by_id[row["id"]], row["prediction"]), "id": row["id"]} for row in rows]

    longest = longest_answer(row.values["completion"] for row in asked["train"].rows)
    outcome = ask_for_answers(
        asking,
        asked["train"],
        asked["dev"],
        asked["test"],
        score=lambda rows: scores(read(rows)),
        max_new_tokens=longest,
    )
    return replace(outcome, rows=read(outcome.rows))


def written_sets(train: Dataset) -> list[str]:
    """What an API would have to write for each training row: its labels."""
    return [json.dumps({LABELS: list(row.labels)}) for row in train.rows]


def longest_answer(answers: Iterable[str]) -> int:
    """Tokens that a written answer may have, by the longest of the training rows."""
    longest = max(len(answer.encode()) for answer in answers)
    return min(MOST_TOKENS, math.ceil(longest / BYTES_PER_TOKEN) + SPARE_TOKENS)


def _price_of(row: ItemRow) -> ItemRow:
    """What asking for an item took, and what was replied."""
    return {key: value for key, value in row.items() if key not in ("label", "prediction")}
