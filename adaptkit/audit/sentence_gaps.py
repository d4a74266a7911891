"""How much likelier sentences are to a model with one word than with another, in bits.

    gaps = sentence_gaps(model, tokenizer, sets)
    gaps.whole_UK, gaps.around_UK

Of two sentences that differ in a word, the likelihood of the whole also tells how common the words are. That
of the tokens that both share, given the others, does not: it asks what goes with the word (Nangia et al.
2020, arXiv 2010.00133). A causal model reads from left to right, so what stands before the word adds nothing.

Shape letters: U sets (pairs, or templates), K words.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import numpy as np

from adaptkit.audit.sentence_sets import SentenceSets
from adaptkit.models.sentence_likelihood import SentenceLikelihood, sentence_likelihoods

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class SentenceGaps:
    """What one model finds of all sets with the same words.

    Attributes:
        whole_UK: log2-likelihood of the sentence with the word, less the mean of those with the other words.
        around_UK: the same of the tokens that two sentences share, mean over the other words.
    """

    whole_UK: np.ndarray
    around_UK: np.ndarray


def sentence_gaps(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sets: SentenceSets
) -> SentenceGaps:
    """Ask a causal or masked language model.

    Raises: DataError for a sentence that it cannot read.
    """
    texts = [text for sentences in sets.sentences for text in sentences]
    found = sentence_likelihoods(model, tokenizer, texts)
    size = len(sets.words)
    units = [found[first : first + size] for first in range(0, len(found), size)]
    whole_UK = np.array([[_mean_gap(unit, k, shared=False) for k in range(size)] for unit in units])
    around_UK = np.array([[_mean_gap(unit, k, shared=True) for k in range(size)] for unit in units])
    return SentenceGaps(whole_UK / np.log(2), around_UK / np.log(2))


def _mean_gap(unit: list[SentenceLikelihood], k: int, *, shared: bool) -> float:
    """Nats of the k-th sentence less those of each other one, mean over these."""
    pair = _shared_gap if shared else _whole_gap
    return float(np.mean([pair(unit[k], other) for number, other in enumerate(unit) if number != k]))


def _whole_gap(first: SentenceLikelihood, second: SentenceLikelihood) -> float:
    return float(first.nats.sum() - second.nats.sum())


def _shared_gap(first: SentenceLikelihood, second: SentenceLikelihood) -> float:
    blocks = SequenceMatcher(None, first.tokens, second.tokens, autojunk=False).get_matching_blocks()
    return float(
        sum(
            first.nats[block.a : block.a + block.size].sum()
            - second.nats[block.b : block.b + block.size].sum()
            for block in blocks
        )
    )
