"""Texts in batches of similar length: every item once, the longest first, within the limits, padded right."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.models.batching import batches_by_length, pad_right

lengths_of_items = st.lists(st.integers(1, 40), max_size=60)


@settings(max_examples=100, deadline=None)
@given(lengths_of_items, st.integers(1, 200), st.none() | st.integers(1, 8))
def test_every_item_is_in_one_batch_within_the_limits(lengths, batch_tokens, batch_rows):
    batches = batches_by_length(lengths, batch_tokens, batch_rows)
    flat = [index for batch in batches for index in batch]
    assert flat == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch[0]] * len(batch) <= batch_tokens
        assert batch_rows is None or len(batch) <= batch_rows


def test_a_batch_is_filled_before_the_next_begins():
    assert batches_by_length([4] * 5, 12) == [[0, 1, 2], [3, 4]]
    assert batches_by_length([1, 9, 4, 4], 8) == [[1], [2, 3], [0]]
    assert batches_by_length([1] * 5, 100, 2) == [[0, 1], [2, 3], [4]]


def test_rows_are_padded_on_the_right_and_masked_there():
    batch = pad_right([[5, 6, 7], [8]], 9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
