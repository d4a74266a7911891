"""Extract fields as JSON: rows as prompts with their one right answer, and answers as item rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from adaptkit.data.json_fields import Placed, Schema, facts
from adaptkit.data.readers import Dataset
from adaptkit.data.score_table import ItemRow, macro_set_f1_table, micro_f1_table
from adaptkit.finetune.prompt_words import EXTRACTION_PROMPT


def placed_fields(*parts: Dataset) -> Iterator[Placed]:
    """Where rows stand, and their fields."""
    return ((row.where, row.values["fields"]) for part in parts for row in part.rows)


def as_answers(dataset: Dataset, schema: Schema, wording: str = EXTRACTION_PROMPT) -> Dataset:
    """Rows as prompts and completions: the text, and its fields in the schema's one spelling.

    Raises: DataError at `file:line` for a row that does not fit the schema.
    """
    schema.check(placed_fields(dataset))
    rows = [
        replace(
            row,
            values={
                "prompt": wording.replace("{text}", row.values["text"]),
                "completion": schema.canonical(row.values["fields"]),
            },
        )
        for row in dataset.rows
    ]
    return replace(dataset, rows=rows, kind="sft")


def field_row(item_id: str, truth: Mapping[str, Any], values: Mapping[str, Any] | None) -> ItemRow:
    """An item row of fields; values are None for an answer that is no object of the schema."""
    return {
        "id": item_id,
        "fields": facts(truth),
        "predicted_fields": facts(values or {}),
        "valid": values is not None,
    }


def field_rows(dataset: Dataset, schema: Schema, rows: Sequence[ItemRow]) -> list[ItemRow]:
    """Item rows of written answers, with what they hold; each is read as strictly as a program would."""
    completed = []
    for row, item in zip(dataset.rows, rows, strict=True):
        values = schema.parsed(item["prediction"])
        completed.append({**item, **field_row(row.id, row.values["fields"], values), "id": item["id"]})
    return completed


def field_scores(rows: Sequence[ItemRow]) -> dict[str, float]:
    """Scores of item rows; nothing without any."""
    if not rows:
        return {}
    predicted, actual = (
        [[tuple(pair) for pair in row[name]] for row in rows] for name in ("predicted_fields", "fields")
    )
    hits = [
        row["valid"] and sorted(p) == sorted(a) for row, p, a in zip(rows, predicted, actual, strict=True)
    ]
    return {
        "field_f1": micro_f1_table(predicted, actual).value,
        "macro_field_f1": macro_set_f1_table(predicted, actual, lambda pair: pair[0]).value,
        "json_exact_match": float(np.mean(hits)),
        "valid_json": float(np.mean([row["valid"] for row in rows])),
    }
