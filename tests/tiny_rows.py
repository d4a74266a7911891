"""Small data sets whose rows are made by hand."""

from __future__ import annotations

import random

from adaptkit.data.readers import Dataset, Row, content_id


def dataset(values: list[dict], kind: str = "labelled") -> Dataset:
    rows = [Row(value, f"x.jsonl:{i + 1}", content_id(value)) for i, value in enumerate(values)]
    return Dataset(rows, kind, {})


def shuffled(data: Dataset, seed: int = 1) -> Dataset:
    values = [row.values for row in data.rows]
    random.Random(seed).shuffle(values)
    return dataset(values, data.kind)


def texts(rows: list[Row]) -> list[str]:
    return [row.text for row in rows]


def labelled(**counts: int) -> Dataset:
    """Rows sorted by label, as files often are."""
    return dataset(
        [{"text": f"{label} {i}", "label": label} for label, count in counts.items() for i in range(count)]
    )
