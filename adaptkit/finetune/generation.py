"""Let a model write greedily, in batches of prompts of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from adaptkit.models.batching import batches_by_length
from adaptkit.models.generation_settings import end_ids, own_distribution

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 4096


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
) -> list[list[int]]:
    """Greedy continuations of prompts of token ids, without the token that ends them; the same tokens as each
    prompt alone would get.

    Writing stops at every end that the model's generation config names. Nothing else of that config counts:
    penalties and beams of a folder decide no answer. Prompts of a batch are padded on the left and masked
    there, with position ids that start at the first real token.

    Args:
        max_new_tokens: of every prompt, or of each.
    """
    padding = tokenizer.pad_token_id
    if padding is None:
        padding = 0
    ends = end_ids(model, tokenizer)
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    continuations: list[list[int]] = [[] for _ in prompts]
    writer: Any = model  # PreTrainedModel does not declare what generation needs, its subclasses do
    was_training = model.training
    model.eval()
    with torch.inference_mode(), own_distribution(model):
        for items in _batches(prompts, limits):
            settings = GenerationConfig(
                do_sample=False,
                max_new_tokens=limits[items[0]],
                eos_token_id=ends or None,
                pad_token_id=padding,
                use_cache=True,
            )
            longest = max(len(prompts[i]) for i in items)
            pads = [longest - len(prompts[i]) for i in items]
            ids = torch.tensor([[padding] * pad + [*prompts[i]] for i, pad in zip(items, pads, strict=True)])
            mask = (torch.arange(longest)[None] >= torch.tensor(pads)[:, None]).long()
            output = writer.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=settings,
            )[:, longest:]
            for i, row in zip(items, output.tolist(), strict=True):
                continuations[i] = _up_to(row, ends)
    model.train(was_training)
    return continuations


def _batches(prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> Iterator[list[int]]:
    """Prompts of similar length and of one limit."""
    for limit in sorted(set(limits), reverse=True):
        members = [i for i, own in enumerate(limits) if own == limit]
        for items in batches_by_length([len(prompts[i]) + limit for i in members], BATCH_TOKENS):
            yield [members[item] for item in items]


def _up_to(ids: list[int], ends: list[int]) -> list[int]:
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return ids[:stop]
