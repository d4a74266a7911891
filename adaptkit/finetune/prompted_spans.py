"""Find spans by prompts: a model writes what the spans of each label say, and the text is searched for that.

The answer is one object, a list of texts for each label; an API is held to it where it can be. Nothing is
trained and nothing calibrated: words are written, and no likelihood stands for a span.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adaptkit.data.annotations import words_of
from adaptkit.data.json_fields import Field, Schema
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.score_table import ItemRow
from adaptkit.finetune.asked_answers import Asking
from adaptkit.finetune.frozen_answers import FrozenAnswers
from adaptkit.finetune.prompt_words import TaskWords
from adaptkit.finetune.prompted_answers import answer_rows
from adaptkit.finetune.prompted_values import (
    MOST_TOKENS,
    SPARE_TOKENS,
    Parts,
    Prompted,
    as_objects,
    ask_for_objects,
    rows_by_id,
)
from adaptkit.finetune.word_tags import answer_row, check_spans_there, span_scores

SPANS_INSTRUCTION = "Copy from the text, letter by letter, what each label stands for."


def span_schema(label_names: Sequence[str]) -> Schema:
    """The object that spans are written as: a list of texts for each label."""
    return Schema(tuple(Field(name, "string", many=True) for name in label_names))


def span_words(words: TaskWords, label_names: Sequence[str]) -> TaskWords:
    """The words of a task with spans: instruction, labels, and the object to write."""
    asked = replace(words, instruction=words.instruction.strip() or SPANS_INSTRUCTION)
    block = asked.block(label_names, described=any(words.descriptions.values()))
    form = "Answer with one JSON object and nothing else: for each label that occurs a list of its texts."
    return TaskWords(f"{block}\n{form}")


def prompt_spans(prompted: Prompted, parts: Parts) -> FrozenAnswers:
    """Have a model write what each label's spans say, and look for that in the text.

    Raises: DataError where no training row has a span.
    """
    check_spans_there(parts["train"])
    names = parts["train"].labels
    schema, by_id = span_schema(names), rows_by_id(parts)
    asked = {name: as_objects(part, _said, schema) for name, part in parts.items()}

    def completed(rows: Sequence[ItemRow]) -> list[ItemRow]:
        return [{**row, **_span_row(by_id[row["id"]], row["prediction"], schema)} for row in rows]

    answers = [row.values["completion"] for row in asked["train"].rows]
    longest = max(len(ids) for ids in prompted.tokenizer(answers, add_special_tokens=False)["input_ids"])
    outcome = answer_rows(
        prompted.model,
        prompted.tokenizer,
        asked["train"],
        asked["dev"],
        asked["test"],
        score=lambda rows: span_scores(completed(rows)),
        metric=prompted.metric,
        words=span_words(prompted.words, names),
        examples=prompted.examples,
        trials=prompted.trials,
        seed=prompted.seed,
        max_new_tokens=min(MOST_TOKENS, longest + SPARE_TOKENS),
    )
    return replace(outcome, rows=completed(outcome.rows))


def ask_for_spans(asking: Asking, parts: Parts) -> FrozenAnswers:
    """Have an API write what each label's spans say, and look for that in the text.

    Raises: DataError where no training row has a span; as `ask_for_answers`.
    """
    check_spans_there(parts["train"])
    names = parts["train"].labels
    schema = span_schema(names)
    asking = replace(asking, words=span_words(asking.words, names), schema=schema)
    return ask_for_objects(
        asking, parts, _said, schema, lambda row, answer: _span_row(row, answer, schema), span_scores
    )


def found_spans(row: Row, said: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Where the text says what was written: whole words, each place once, the first that is free.

    What the text does not say is left out.
    """
    places = words_of(row.text, row.values.get("tokens"))
    starts, ends = {start for start, _ in places}, {end for _, end in places}
    taken: list[dict[str, Any]] = []
    for label, texts in said.items():
        for text in filter(None, map(str.strip, texts)):
            start = row.text.find(text)
            while start >= 0:
                end = start + len(text)
                free = all(end <= span["start"] or start >= span["end"] for span in taken)
                if free and start in starts and end in ends:
                    taken.append({"start": start, "end": end, "label": label})
                    break
                start = row.text.find(text, start + 1)
    return sorted(taken, key=lambda span: (span["start"], span["end"]))


def _said(row: Row) -> dict[str, list[str]]:
    """What the spans of a row say, by label."""
    said: dict[str, list[str]] = {}
    for span in sorted(row.values["spans"], key=lambda span: span["start"]):
        said.setdefault(span["label"], []).append(row.text[span["start"] : span["end"]])
    return said


def _span_row(row: Row, answer: str, schema: Schema) -> ItemRow:
    return answer_row(row, found_spans(row, schema.parsed(answer) or {}))


def written_spans(train: Dataset) -> list[str]:
    """What a model would have to write for each training row: what its spans say."""
    return [json.dumps(_said(row), ensure_ascii=False) for row in train.rows]
