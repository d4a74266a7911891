"""Canaries: a handful of fixed texts whose vectors are kept, so that a model is known by its answers.

    check_canaries(canaries, embedder, "index")  # ModelError where it does not give these vectors any more

A folder is known by its digest, but the libraries that compute with it change; a server shows no digest at
all. Both must repeat the canaries within what rounding alone moves them, which is measured when they are
made (`embed.canary_noise`). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, Protocol

import numpy as np

from adaptkit.errors import ModelError
from adaptkit.run_record import Record

TEXTS = (
    "Does aspirin help?",
    "The same sentence always gets the same vector from the same model.",
    "def area(width: float, height: float) -> float:\n    return width * height",
    "Invoice no. 20417 of 3 May 2021: 12 items, EUR 1,348.50, due within 30 days.",
    "Le m\u00e9decin a vu la patiente \u00e0 14 h 30; \u60a3\u8005\u306f\u9000\u9662\u3057\u305f\u3002",
    " ".join(
        f"Paragraph {number} says that the pump stops when the valve is closed." for number in range(80)
    ),
)
"""Prose, code, numbers, other scripts, and a text that is longer than most encoders read."""
CANARIES = "canaries.json"
"""The file that holds them, beside vectors."""
FIRST = 1
"""The one that is sent along with every request to a model without a digest."""
TIMES_NOISE = 8.0
"""A tolerance's multiple of the noise that was measured: few texts and draws do not show the largest."""
FLOOR = 2e-6
"""Share of a vector: what float32 kernels differ by at least."""
BLIND = 0.5
"""Most that a tolerance may be, as a share of the distance between vectors of different texts."""
SHOWN_CHARS = 60


class Canaries(Record):
    """Fixed texts as queries, and their vectors."""

    version: Literal[1] = 1
    texts: tuple[str, ...]
    words: str
    """The prompt that stands before queries."""
    vectors: tuple[tuple[float, ...], ...]
    precision: str
    """What they were computed in."""
    noise: dict[str, float]
    """Precision -> the largest change that its rounding made, as a share of a vector's length."""


class Embedder(Protocol):
    """What turns queries into vectors: an Encoder here, or a server's model.

    Attributes:
        digest: sha256 of its files; empty where they cannot be seen.
        precision: what it computes in; the coarsest likely one where that cannot be seen.
        name: for messages.
    """

    @property
    def digest(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def name(self) -> str: ...

    def check_products(self) -> None: ...

    def encode_queries(self, texts: Sequence[str], dimensions: int = 0) -> np.ndarray: ...


def distances(expected_ND: np.ndarray, got_ND: np.ndarray) -> np.ndarray:
    """How far vectors are apart, as shares of the expected ones' lengths; infinite where one is no number."""
    apart_N = np.linalg.norm(expected_ND - got_ND, axis=1)
    lengths_N = np.maximum(np.linalg.norm(expected_ND, axis=1), 1e-15)
    return np.where(np.isfinite(apart_N), apart_N / lengths_N, np.inf)


def tolerance(canaries: Canaries, precision: str) -> float:
    """The most that a canary may move, as a share of its length: what rounding in the coarser of both
    precisions explains, but never so much that another text's vector would pass."""
    coarsest = canaries.noise["bfloat16"]
    noise = max(canaries.noise.get(name, coarsest) for name in (precision, canaries.precision))
    pairs_P2 = list(combinations(np.array(canaries.vectors, np.float32), 2))
    first_PD, second_PD = (np.stack([pair[side] for pair in pairs_P2]) for side in (0, 1))
    spread = float(np.median(distances(first_PD, second_PD)))
    return min(FLOOR + TIMES_NOISE * noise, BLIND * spread)


def check_canaries(canaries: Canaries, embedder: Embedder, where: str) -> None:
    """Have a model repeat all canaries.

    Raises: ModelError where it gives other vectors.
    """
    got_ND = embedder.encode_queries(canaries.texts, len(canaries.vectors[0]))
    compare_canaries(canaries, range(len(canaries.texts)), got_ND, embedder, where)


def compare_canaries(
    canaries: Canaries, places: Sequence[int], got_ND: np.ndarray, embedder: Embedder, where: str
) -> None:
    """Hold vectors that a model gave to some of the canaries against those that were kept.

    Raises: ModelError where they are others.
    """
    expected_ND = np.array([canaries.vectors[place] for place in places], np.float32)
    fix = "search with the model that made the index, or bring it to this one: `adaptkit embed migrate`"
    if got_ND.shape != expected_ND.shape:
        sizes = f"{got_ND.shape[1]} numbers, and these have {expected_ND.shape[1]}"
        what = f"{embedder.name} gives vectors of {sizes}"
        raise ModelError(what, where=where, fix=fix)
    apart_N, allowed = distances(expected_ND, got_ND), tolerance(canaries, embedder.precision)
    failing = np.flatnonzero(~(apart_N <= allowed))
    if len(failing):
        worst = int(apart_N.argmax())
        shown = " ".join(canaries.texts[places[worst]].split())[:SHOWN_CHARS]
        what = (
            f"{embedder.name} does not give the vectors that these documents were encoded with: of "
            f"{len(places)} kept texts {len(failing)} moved, the vector of '{shown}' by "
            f"{apart_N[worst]:.2g} of its length, and rounding explains {allowed:.1g}"
        )
        raise ModelError(what, where=where, fix=fix)
