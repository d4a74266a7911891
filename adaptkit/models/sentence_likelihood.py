"""The likelihood of each token of whole sentences, of causal and of masked language models.

    for found in sentence_likelihoods(model, tokenizer, ["The trial was small.", "The trial was large."]):
        found.tokens, found.nats

A causal model is asked for each token given those before it. A masked one is asked for each token given all
others, with that one masked: the pseudo-log-likelihood of Salazar et al. 2020 (arXiv 1910.14659), which costs
a row for each token.

Shape letters: B rows of a batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from adaptkit import models
from adaptkit.errors import DataError, ModelError
from adaptkit.models.batching import BATCH_TOKENS, batches_by_length, pad_right
from adaptkit.models.bits_per_byte import first_token, target_nats
from adaptkit.models.control_tokens import encode, frame
from adaptkit.models.head import logits_at
from adaptkit.models.positions import fitting_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_TOKENS = 512
"""Of a sentence."""


@dataclass(frozen=True)
class SentenceLikelihood:
    """One sentence.

    Attributes:
        tokens: ids, without those that the tokenizer puts around a text.
        nats: float64 [T], log-likelihood of each of them.
    """

    tokens: list[int]
    nats: np.ndarray


def sentence_likelihoods(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[SentenceLikelihood]:
    """Of each sentence, in the order given.

    Raises: DataError for a sentence that is empty or too long for the model, ModelError for a masked model
        without a mask token, or a causal one without a token to begin with.
    """
    tokens = encode(tokenizer, texts, special=False)
    most = fitting_length(MOST_TOKENS, model.config) - 2
    for text, ids in zip(texts, tokens, strict=True):
        if not 0 < len(ids) <= most:
            what = f"a sentence of {len(ids)} tokens, and 1 to {most} can be read: '{text[:60]}'"
            raise DataError(what, fix="give sentences, not documents")
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        if models.unwrap(model).can_generate():
            nats = _causal(model, first_token(tokenizer), tokens)
        else:
            nats = _masked(model, tokenizer, tokens)
    model.train(was_training)
    return [SentenceLikelihood(*pair) for pair in zip(tokens, nats, strict=True)]


def _causal(model: PreTrainedModel, begin: int, tokens: Sequence[list[int]]) -> list[np.ndarray]:
    found = [np.empty(0)] * len(tokens)
    for items in batches_by_length([len(ids) for ids in tokens], BATCH_TOKENS):
        inputs = [[begin, *tokens[i][:-1]] for i in items]
        nats_BT = target_nats(model, inputs, [tokens[i] for i in items], begin).numpy()
        for row, i in zip(nats_BT, items, strict=True):
            found[i] = -row[: len(tokens[i])]
    return found


def _masked(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[list[int]]
) -> list[np.ndarray]:
    if tokenizer.mask_token_id is None:
        what = "the tokenizer has no mask token to ask for the tokens of a sentence at"
        raise ModelError(what, fix="choose a model with [MASK], or a causal one")
    before, behind = frame(tokenizer)
    places = [(i, place) for i, ids in enumerate(tokens) for place in range(len(ids))]
    rows = []
    for i, place in places:
        row = [*before, *tokens[i], *behind]
        row[len(before) + place] = int(tokenizer.mask_token_id)
        rows.append(row)
    found = [np.empty(len(ids)) for ids in tokens]
    for numbers in batches_by_length([len(row) for row in rows], BATCH_TOKENS):
        chosen = [places[n] for n in numbers]
        batch = pad_right([rows[n] for n in numbers], tokenizer.pad_token_id or 0, model.device)
        at_B1 = torch.tensor([[len(before) + place] for _, place in chosen], device=model.device)
        chances_BV = logits_at(model, batch, at_B1)[:, 0].log_softmax(-1)
        wanted_B = torch.tensor([tokens[i][place] for i, place in chosen], device=model.device)
        nats_B = chances_BV.gather(1, wanted_B[:, None])[:, 0].double().cpu().numpy()
        for (i, place), value in zip(chosen, nats_B, strict=True):
            found[i][place] = value
    return found
