"""The longest common subsequence of two sequences: for ROUGE-L and lossy tokenizers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def longest_common_subsequence(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Length, by the bit-parallel recurrence of Hyyro 2004: one addition per item of `right`."""
    masks: dict[Hashable, int] = {}
    for i, item in enumerate(left):
        masks[item] = masks.get(item, 0) | (1 << i)
    everything = (1 << len(left)) - 1
    row = everything
    for item in right:
        hits = row & masks.get(item, 0)
        row = ((row + hits) | (row - hits)) & everything
    return len(left) - row.bit_count()
