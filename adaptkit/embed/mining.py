"""Find hard negatives with the model itself: texts that it takes for the answer and that are not.

Shape suffixes: A = anchors, N = documents, D = size of a vector.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from adaptkit.embed.encoder import Encoder
from adaptkit.embed.rows import Example
from adaptkit.errors import DataError

CEILING = 0.95
"""A text that scores above this share of the positive's score may be a right answer that nobody marked
(positive-aware mining, arXiv 2407.15831)."""
BLOCK = 256


def mine(
    examples: Sequence[Example],
    encoder: Encoder,
    corpus: Sequence[str],
    groups: dict[str, int],
    count: int,
    prompts: tuple[str | None, str | None],
) -> list[Example]:
    """The examples with `count` more negatives each: the highest-ranked texts that are not known or likely to
    be right.

    Args:
        corpus: texts to choose from; the examples' positives are always among them.
        groups: see `rows.groups_of`; texts of an example's own group are never its negatives.
        prompts: names of the prompts of anchors and of documents.
    Raises: DataError where the corpus holds too few other texts.
    """
    documents = sorted({*corpus, *(text for example in examples for text in example.texts[1:])})
    place = {text: i for i, text in enumerate(documents)}
    unknown = len(groups)
    groups_N = np.array([groups.get(text, unknown + i) for i, text in enumerate(documents)])
    documents_ND = encoder.encode(documents, prompt=prompts[1])
    anchors = sorted({example.texts[0] for example in examples})
    anchors_AD = encoder.encode(anchors, prompt=prompts[0])
    row_of = {text: i for i, text in enumerate(anchors)}
    with_negatives = []
    for start in range(0, len(examples), BLOCK):
        block = examples[start : start + BLOCK]
        scores = anchors_AD[[row_of[example.texts[0]] for example in block]] @ documents_ND.T
        for example, scores_N in zip(block, scores, strict=True):
            chosen = _hardest(scores_N, place[example.texts[1]], groups_N, count)
            if len(chosen) < count:
                what = f"only {len(chosen)} texts can be negatives of this row, {count} were asked for"
                raise DataError(what, where=example.where, fix="lower hard_negatives, or give more rows")
            negatives = (documents[i] for i in chosen)
            with_negatives.append(dataclasses.replace(example, texts=(*example.texts, *negatives)))
    return with_negatives


def _hardest(scores_N: np.ndarray, positive: int, groups_N: np.ndarray, count: int) -> list[int]:
    """The highest scores below the ceiling; where those are too few, the lowest above it."""
    allowed = groups_N != groups_N[positive]
    below = allowed & (scores_N <= CEILING * scores_N[positive])
    if below.sum() >= count:
        candidates = np.flatnonzero(below)
        order = np.argsort(-scores_N[candidates], kind="stable")
    else:
        candidates = np.flatnonzero(allowed)
        order = np.argsort(scores_N[candidates], kind="stable")
    return candidates[order[:count]].tolist()
