"""Let a model write greedily, in batches of prompts of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from adaptkit.models.batching import batches_by_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 4096


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[list[int]]:
    """Greedy continuations of prompts of token ids, EOS left out; the same tokens as each prompt alone would
    get.

    Prompts of a batch are padded on the left and masked there, with position ids that start at the first real
    token.
    """
    padding = tokenizer.pad_token_id
    if padding is None:
        padding = 0
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=padding,
        use_cache=True,
    )
    continuations: list[list[int]] = [[] for _ in prompts]
    writer: Any = model  # PreTrainedModel does not declare what generation needs, its subclasses do
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for items in batches_by_length([len(prompt) + max_new_tokens for prompt in prompts], BATCH_TOKENS):
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
                continuations[i] = _up_to(row, tokenizer.eos_token_id)
    model.train(was_training)
    return continuations


def _up_to(ids: list[int], end: int | None) -> list[int]:
    if end not in ids:
        return ids
    return ids[: ids.index(end)]
