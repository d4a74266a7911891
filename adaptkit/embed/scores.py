"""Score an encoder: at which ranks the right answers come, or how its cosines follow given scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from adaptkit.data.beir import read_set, retrieval_folder, scored_split
from adaptkit.data.readers import DataConfig
from adaptkit.embed.config import Loss
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.examples import FROM_TEXT, SCORED, Examples, read_examples, set_of
from adaptkit.embed.retrieval import retrieval_rows
from adaptkit.embed.retrieval_metrics import retrieval_scores
from adaptkit.embed.scored_pairs import Scale

ItemRow = dict[str, Any]


def rows_of_data(encoder: Encoder, data: DataConfig, loss: Loss, scale: Scale | None = None) -> list[ItemRow]:
    """Item rows of test data: of all documents of a retrieval set, or of examples in files.

    Args:
        scale: of the scores that were learnt from.
    """
    folder = retrieval_folder(data)
    if folder is not None:
        return retrieval_rows(
            encoder,
            read_set(
                folder, scored_split(folder), data.max_bytes, data.on_bad_row, data.columns, data.protect
            ),
        )
    return rows_of_examples(encoder, read_examples(data, loss, scale=scale), loss)


def rows_of_examples(encoder: Encoder, examples: Examples, loss: Loss) -> list[ItemRow]:
    """Item rows of pairs searched among each other, or of scored pairs; none for text without pairs."""
    if loss in FROM_TEXT:
        return []
    if loss not in SCORED:
        return retrieval_rows(encoder, set_of(examples))
    document = encoder.layout.prompt_if_any("document")
    left, right = (
        encoder.encode([row.texts[side] for row in examples.rows], prompt=document) for side in (0, 1)
    )
    products = (left * right).sum(1)
    if not encoder.layout.normalised:
        products /= np.maximum(np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1), 1e-12)
    cosines = products.tolist()
    return [
        {"id": row.where, "score": row.target, "cosine": cosine}
        for row, cosine in zip(examples.rows, cosines, strict=True)
    ]


def scores_of(rows: list[ItemRow]) -> dict[str, float]:
    """The metrics of item rows: ranks, or Spearman's correlation of scores and cosines, where both differ."""
    if not rows or "cosine" not in rows[0]:
        return retrieval_scores(rows)
    scores, cosines = (np.array([row[key] for row in rows]) for key in ("score", "cosine"))
    if np.ptp(scores) == 0 or np.ptp(cosines) == 0:
        return {}
    return {"spearman": float(spearmanr(scores, cosines).statistic)}
