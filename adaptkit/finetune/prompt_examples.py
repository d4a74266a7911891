"""Draw the examples of a prompt from training rows: by hash, labels in turns, never a row that is judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from adaptkit.data.readers import Dataset, Row


def drawn_examples(train: Dataset, judged: Iterable[Dataset], count: int, seed: int) -> list[Row]:
    """Up to `count` training rows in an order that depends on their content and on `seed` alone.

    Args:
        judged: data sets whose rows are never examples, wherever they stand.
    """
    apart = {row.text for dataset in judged for row in dataset.rows}
    rows = sorted(
        (row for row in train.rows if row.text not in apart),
        key=lambda row: hashlib.sha256(f"{seed} {row.id} {row.text}".encode()).digest(),
    )
    labels = [str(row.values.get("label", "")) for row in rows]
    return [rows[place] for place in in_turns(labels, count)]


def in_turns(labels: Sequence[str], count: int) -> list[int]:
    """Places of at most `count` of these labels: one of each before any comes twice."""
    waiting: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        waiting.setdefault(label, []).append(place)
    taken: list[int] = []
    while waiting and len(taken) < count:
        taken += [places.pop(0) for places in waiting.values()][: count - len(taken)]
        waiting = {label: places for label, places in waiting.items() if places}
    return taken
