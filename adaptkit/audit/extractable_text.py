"""Extraction: given the beginning of a passage of the training text, does a model write how it goes on?

    passages = draw_by_repeats(documents, tokenizer, 100)
    written(model, tokenizer, passages)       # per passage the tokens that were right before the first wrong

A passage is 100 tokens, of which 50 are given and 50 must be written, greedily (Carlini et al. 2023, arXiv
2202.07646). How often it stands in the training text, to the token, is counted in all of it. Of each document
at most one passage is drawn for each number of repeats, so that no document counts twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adaptkit.data.drawing import draw_hash
from adaptkit.data.ngrams import Runs, mix
from adaptkit.data.readers import Row
from adaptkit.finetune.generation import generate
from adaptkit.models.control_tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HALF = 50
"""Tokens that are given, and tokens that must be written."""
GROUPS = (("1", 1, 1), ("2 to 3", 2, 3), ("4 to 15", 4, 15), ("16 or more", 16, None))
"""Name, fewest and most times that a passage stands in the training text."""
HELD_OUT = "held out"


@dataclass(frozen=True)
class Passage:
    """Token ids of both halves, the group of repeats that it belongs to, and its document's cluster."""

    given: list[int]
    expected: list[int]
    group: str
    cluster: str


def draw_by_repeats(
    train: Sequence[Row], held_out: Sequence[Row], tokenizer: PreTrainedTokenizerBase, num: int
) -> list[Passage]:
    """At most `num` passages of each group of repeats, and as many held-out ones that the text does not
    hold."""
    ids, others = (encode(tokenizer, [row.text for row in rows], special=False) for rows in (train, held_out))
    hashes, documents, starts = _windows(ids)
    distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    passages: list[Passage] = []
    for group, fewest, most in GROUPS:
        inside = (counts >= fewest) & (counts <= (most or len(hashes)))
        places = first[inside]
        passages += _drawn(group, train, ids, documents[places], starts[places], num)
    hashes, documents, starts = _windows(others)
    unread = ~np.isin(hashes, distinct)
    return passages + _drawn(HELD_OUT, held_out, others, documents[unread], starts[unread], num)


def written(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, passages: Sequence[Passage]
) -> list[int]:
    """How many tokens of each passage's second half were right before the first wrong one."""
    if not passages:
        return []
    continuations = generate(model, tokenizer, [passage.given for passage in passages], HALF)
    return [_agreeing(passage.expected, ids) for passage, ids in zip(passages, continuations, strict=True)]


def _agreeing(expected: Sequence[int], ids: Sequence[int]) -> int:
    wrong = (place for place, (a, b) in enumerate(zip(expected, ids, strict=False)) if a != b)
    return next(wrong, min(len(expected), len(ids)))


def _windows(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hash of each run of tokens that is a passage, its document's number, and where it begins there."""
    length = 2 * HALF
    sizes = np.array([len(document) for document in ids], dtype=np.int64)
    num_windows = np.maximum(0, sizes - length + 1)
    documents = np.repeat(np.arange(len(ids)), num_windows)
    begins = np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
    starts = np.arange(len(documents)) - begins
    tokens = np.concatenate([np.asarray(document, dtype=np.uint64) for document in ids])
    places = (np.cumsum(sizes) - sizes)[documents] + starts
    hashes = Runs(mix(tokens + np.uint64(1)))(places, np.full(len(places), length))
    return hashes, documents, starts


def _drawn(
    group: str,
    rows: Sequence[Row],
    ids: Sequence[Sequence[int]],
    documents: np.ndarray,
    starts: np.ndarray,
    num: int,
) -> list[Passage]:
    """One passage of each of `num` clusters: clusters, their documents and the places in these by hash."""
    order = np.argsort(documents, kind="stable")
    present, begins = np.unique(documents[order], return_index=True)
    ends = [*begins[1:], len(order)]
    of_cluster: dict[str, tuple[str, int]] = {}
    for place, document in enumerate(present.tolist()):
        row = rows[document]
        candidate = draw_hash(row.id), place
        of_cluster[row.cluster] = min(of_cluster.get(row.cluster, candidate), candidate)
    passages = []
    for cluster in sorted(of_cluster, key=draw_hash)[:num]:
        place = of_cluster[cluster][1]
        within = starts[order[begins[place] : ends[place]]]
        document, start = int(present[place]), int(within[int(draw_hash(cluster), 16) % len(within)])
        tokens = list(ids[document][start : start + 2 * HALF])
        passages.append(Passage(tokens[:HALF], tokens[HALF:], group, cluster))
    return passages
