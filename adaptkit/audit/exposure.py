"""Exposure: how much likelier a planted secret is to a model than the secrets that were not planted.

    for canary, found in zip(made, expose(model, tokenizer, made), strict=True):
        canary.repeats, found.bits, found.written

Exposure is log2 |R| - log2 rank, where R are all 10^9 secrets of the form and the rank is by likelihood
(Carlini et al. 2019, arXiv 1802.08232, definition 2). The rank is estimated as there (section 4.3): a skew
normal distribution is fitted to the losses of secrets that nobody planted, and its share below the canary's
loss stands for rank / |R|. A secret that a model has never read has 1.4 bits on average (1 / ln 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import skewnorm

from adaptkit.data.canaries import SPACE_BITS, Canary, other_secrets
from adaptkit.errors import ModelError
from adaptkit.finetune.choice_likelihood import score_choices
from adaptkit.finetune.generation import generate
from adaptkit.models.bits_per_byte import first_token
from adaptkit.models.control_tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NUM_OTHERS = 256
"""Secrets that nobody planted, by which a canary is ranked."""


@dataclass(frozen=True)
class Exposed:
    """One canary: its exposure in bits, and whether greedy writing gave its secret."""

    bits: float
    written: bool


def expose(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, canaries: Sequence[Canary]
) -> list[Exposed]:
    """The exposure of each canary.

    Raises: ModelError for a tokenizer that joins the blank-separated digits of a secret.
    """
    secrets = [*(canary.secret for canary in canaries), *other_secrets(NUM_OTHERS)]
    queries, choices = _tokens(tokenizer, canaries, secrets)
    nats = score_choices(model, tokenizer, [], queries, choices).nats
    written = generate(model, tokenizer, queries, max(map(len, choices[: len(canaries)])))
    found = []
    for number, losses in enumerate(-nats):
        secret = choices[number]
        bits = exposure(float(losses[number]), losses[len(canaries) :])
        found.append(Exposed(bits, written[number][: len(secret)] == secret))
    return found


def exposure(loss: float, others: np.ndarray) -> float:
    """Bits of exposure of a loss in nats among the losses of other secrets, between 0 and `SPACE_BITS`."""
    if np.ptp(others) == 0:
        return 0.0
    share = float(skewnorm.cdf(loss, *skewnorm.fit(others)))
    return min(SPACE_BITS, max(0.0, -math.log2(max(share, 2**-SPACE_BITS))))


def _tokens(
    tokenizer: PreTrainedTokenizerBase, canaries: Sequence[Canary], secrets: Sequence[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of what stands before each canary's secret, and of each secret."""
    begin = first_token(tokenizer)
    before = encode(tokenizer, [canary.prefix for canary in canaries], special=False)
    whole = encode(tokenizer, [canaries[0].prefix + secret for secret in secrets], special=False)
    choices = [ids[len(before[0]) :] for ids in whole]
    texts = encode(tokenizer, [canary.text for canary in canaries], special=False)
    for ids, query, secret in zip(texts, before, choices[: len(canaries)], strict=True):
        if ids != query + secret or not secret:
            what = "the tokenizer joins letters and digits across blanks, so canaries cannot be ranked"
            raise ModelError(what, fix="audit a model with another tokenizer, or without canaries")
    return [[begin, *query] for query in before], choices
