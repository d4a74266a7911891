"""Make canaries: vectors of the fixed texts, and how far rounding alone moves them.

canaries = make_canaries(encoder)          # when documents are encoded
"""

from __future__ import annotations

import torch

from adaptkit.embed.canary_vectors import TEXTS, Canaries, distances
from adaptkit.embed.encoder import Encoder
from adaptkit.models.jitter import jittered

DRAWS = 2
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_canaries(encoder: Encoder, dimensions: int = 0) -> Canaries:
    """Encode the fixed texts as queries, and measure what rounding moves them by.

    That some of them are cut is no news: they do not count among the texts that were.
    """
    cut = encoder.cut
    vectors_ND = encoder.encode_queries(TEXTS, dimensions)
    noise = {}
    for name, dtype in PRECISIONS.items():
        largest = 0.0
        for seed in range(DRAWS):
            with jittered(encoder.model, torch.finfo(dtype).eps / 2, seed):
                moved_ND = encoder.encode_queries(TEXTS, dimensions)
            largest = max(largest, float(distances(vectors_ND, moved_ND).max()))
        noise[name] = float(f"{largest:.3g}")
    words = encoder.layout.prompt(encoder.layout.prompt_if_any("query"))
    encoder.cut = cut
    rows = tuple(tuple(float(f"{value:.7g}") for value in row) for row in vectors_ND)
    return Canaries(texts=TEXTS, words=words, vectors=rows, precision=encoder.precision, noise=noise)
