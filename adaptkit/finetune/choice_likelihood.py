"""Measure how likely a language model finds each of a few short continuations of many texts.

A causal model is asked in `causal_likelihood`, a masked one here: for each choice at as many mask positions
as it has tokens.

Shape letters: N items, B items of a batch, C choices, T tokens of a row, S choice tokens read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.finetune.causal_likelihood import Part, TokenRows, causal_parts
from adaptkit.models.batching import BATCH_TOKENS, batches_by_length, pad_right
from adaptkit.models.head import logits_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Likelihoods:
    """Log-probabilities of choices.

    Attributes:
        nats: float64 [N, C], log p(choice | prefix, query), summed over the choice's tokens.
        num_tokens: int [C], tokens of each choice.
        tokens_read: input tokens the model processed.
    """

    nats: np.ndarray
    num_tokens: np.ndarray
    tokens_read: int

    def scores(self, normalised: bool) -> np.ndarray:
        """[N, C] nats, per token if `normalised`: a long label is not less likely for being long."""
        if normalised:
            return self.nats / self.num_tokens
        return self.nats


def score_choices(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prefix: Sequence[int],
    queries: Sequence[Sequence[int]],
    choices: Sequence[Sequence[int]],
) -> Likelihoods:
    """Score every choice after every query.

    Args:
        prefix: token ids that stand before every query (BOS or [CLS], shots); may be empty for a causal
            model.
        queries: token ids, at least one each.
        choices: token ids, at least one each. A masked LM is asked for them at as many mask positions.
    Raises: ModelError for a masked LM whose tokenizer has no mask token.
    """
    num_tokens = np.array([len(choice) for choice in choices])
    nats = np.empty((len(queries), len(choices)))
    tokens_read = 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        if models.unwrap(model).can_generate():
            parts = causal_parts(model, list(prefix), queries, choices)
        else:
            parts = _masked(model, tokenizer, list(prefix), queries, choices)
        for items, columns, batch_nats, read in parts:
            nats[np.ix_(items, columns)] = batch_nats.double().cpu().numpy()
            tokens_read += read
    model.train(was_training)
    return Likelihoods(nats, num_tokens, tokens_read)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _masked(
    model: PreTrainedModel, tokenizer: Any, prefix: list[int], queries: TokenRows, choices: TokenRows
) -> Iterator[Part]:
    """As `causal_parts`: choices of equal length share one pass with that many mask tokens."""
    if tokenizer.mask_token_id is None:
        raise ModelError(
            "the tokenizer has no mask token to score labels at",
            fix="choose a base with [MASK], or a causal LM",
        )
    end = []
    if tokenizer.sep_token_id is not None:
        end = [tokenizer.sep_token_id]
    for length in sorted({len(choice) for choice in choices}):
        columns = [c for c, choice in enumerate(choices) if len(choice) == length]
        wanted = torch.tensor([choices[c] for c in columns], device=model.device)
        rows = [[*prefix, *query, *[tokenizer.mask_token_id] * length, *end] for query in queries]
        for items in batches_by_length([len(row) for row in rows], BATCH_TOKENS):
            batch = pad_right([rows[i] for i in items], tokenizer.pad_token_id or 0, model.device)
            last_B = batch["attention_mask"].sum(1) - len(end) - length
            place = last_B[:, None] + torch.arange(length, device=last_B.device)
            chances = logits_at(model, batch, place).log_softmax(-1)
            nats = chances[:, torch.arange(length)[None], wanted].sum(-1)
            yield items, columns, nats, batch["input_ids"].numel()
