"""Hard negatives: near the anchor, but neither right nor too likely to be. Home of embed.mining."""

from __future__ import annotations

import numpy as np
import pytest

from adaptkit.embed.mining import CEILING, mine
from adaptkit.embed.rows import Example
from adaptkit.errors import DataError

COSINES = {"right": 1.0, "twin": 0.99, "near": 0.9, "far": 0.5, "farther": 0.1}
ANCHOR = Example(("question", "right"), "rows.jsonl:1")


class Stub:
    """An encoder of one dimension, whose products with the anchor are known."""

    def __init__(self) -> None:
        self.prompts: list[str | None] = []

    def encode(self, texts: list[str], *, prompt: str | None) -> np.ndarray:
        self.prompts.append(prompt)
        return np.array([[COSINES.get(text, 1.0)] for text in texts], np.float32)


def mined(
    count: int, groups: dict[str, int] | None = None, corpus: tuple[str, ...] = tuple(COSINES)
) -> list[str]:
    groups = groups or {"question": 0, "right": 0}
    rows = mine([ANCHOR], Stub(), corpus, groups, count, (None, None))
    assert rows[0].texts[:2] == ANCHOR.texts and rows[0].where == ANCHOR.where
    return list(rows[0].texts[2:])


def test_negatives_are_the_nearest_texts_below_the_ceiling() -> None:
    assert COSINES["near"] < CEILING < COSINES["twin"]
    assert mined(2) == ["near", "far"]


def test_texts_of_the_same_group_are_never_negatives() -> None:
    assert mined(2, {"question": 0, "right": 0, "near": 0}) == ["far", "farther"]


def test_where_too_few_are_below_the_ceiling_the_lowest_come() -> None:
    assert mined(4) == ["farther", "far", "near", "twin"]


def test_a_corpus_with_too_few_other_texts_is_refused_with_the_row() -> None:
    with pytest.raises(DataError, match="only 4 texts can be negatives of this row, 5 were asked for") as no:
        mined(5)
    assert no.value.where == "rows.jsonl:1"


def test_anchors_and_documents_are_encoded_under_their_own_prompts() -> None:
    encoder = Stub()
    mine([ANCHOR], encoder, list(COSINES), {"question": 0, "right": 0}, 1, ("query", "document"))
    assert encoder.prompts == ["document", "query"]
