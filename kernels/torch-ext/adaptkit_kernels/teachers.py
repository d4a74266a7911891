"""What a teacher can say about a token: its hidden state and head, all its log-probabilities, or the k
largest.

Shape suffixes: T = tokens, E = the teacher's hidden size, V = vocabulary, K = kept tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

MIN_TAIL = 2.0**-23
"""Least probability of the tokens that a top-k teacher leaves out: stored log-probabilities are rounded and
may add up to 1."""


@dataclass(frozen=True)
class HiddenTeacher:
    """A teacher that runs beside the student; its logits are made a chunk of rows at a time."""

    hidden_TE: Tensor
    weight_VE: Tensor
    bias_V: Tensor | None = None


@dataclass(frozen=True)
class DenseTeacher:
    """A log-probability (or a logit: they differ by a constant) of every token at temperature 1, float [T,
    V]."""

    logprobs_TV: Tensor


@dataclass(frozen=True)
class TopKTeacher:
    """The k most likely tokens of each row and their log-probabilities AT THE TEMPERATURE OF THE LOSS.

    What they leave of the probability, at least MIN_TAIL, belongs to all other tokens together. The full
    partition sum is needed to change the temperature, so it cannot be changed afterwards. The ids of a row
    are distinct, and there are more tokens than k.
    """

    ids_TK: Tensor
    logprobs_TK: Tensor


Teacher = HiddenTeacher | DenseTeacher | TopKTeacher
