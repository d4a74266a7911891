"""How much a task gives to read, before anything is prepared."""

from __future__ import annotations

from dataclasses import dataclass

BYTES_PER_TOKEN = 3.0
"""Of text that is not tokenised yet, in plans."""


@dataclass(frozen=True)
class TaskSize:
    """How much a task gives to read, in tokens of BYTES_PER_TOKEN bytes: an estimate from its raw rows.

    Attributes:
        num_rows: training rows.
        row_tokens: of a training row, all of its texts.
        text_tokens: of one text, which is what attention spans.
        batch_rows: rows of an optimizer step.
        dev_tokens, test_tokens: read to answer all development or test items once.
        prompt_factor: how much more a prompted model reads than the items themselves.
        num_items: of the test.
        num_bytes: of all texts.
        num_labels: different answers; 0 for free text.
        answer_tokens: that a written answer has at most; 0 where the kind has a fixed limit.
        num_documents: searched for each item; 0 where nothing is searched.
        num_dev: development queries of a search; 0 where nothing is searched.
    """

    num_rows: int
    row_tokens: float
    text_tokens: float
    batch_rows: int
    dev_tokens: float
    test_tokens: float
    num_items: int
    num_bytes: float
    prompt_factor: float = 1.0
    num_labels: int = 0
    num_documents: int = 0
    num_dev: int = 0
    answer_tokens: float = 0.0
