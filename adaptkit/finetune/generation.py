"""Let a model write greedily, in batches of prompts of similar length."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from adaptkit import models
from adaptkit.models.batching import batches_by_length, batches_of_one_length
from adaptkit.models.head import logits_at
from adaptkit.models.separation import rotations_follow_longest, state_runs_on

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 4096
FULL_TOLERANCE, HALF_TOLERANCE = 1e-4, 2e-2
"""How far padding may move logits, as a share of the largest, by the precision of the weights."""


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[list[int]]:
    """Greedy continuations of prompts of token ids, EOS left out; the same tokens as each prompt alone would
    get.

    Prompts of a batch are padded on the left and masked there, with position ids that start at the first real
    token. Where the architecture reads its padding all the same, prompts of one length stand together.
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
        lengths = [len(prompt) + max_new_tokens for prompt in prompts]
        if _padding_is_masked(model, prompts, padding):
            batches = batches_by_length(lengths, BATCH_TOKENS)
        else:
            batches = batches_of_one_length(lengths, BATCH_TOKENS)
        for items in batches:
            batch = _pad_left([prompts[i] for i in items], padding, model.device)
            output = writer.generate(**batch, generation_config=settings)
            longest = batch["input_ids"].shape[1]
            for i, row in zip(items, output[:, longest:].tolist(), strict=True):
                continuations[i] = _up_to(row, tokenizer.eos_token_id)
    model.train(was_training)
    return continuations


def _pad_left(prompts: Sequence[Sequence[int]], padding: int, device: torch.device) -> dict[str, Tensor]:
    longest = max(map(len, prompts))
    pads = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[padding] * pad + [*prompt] for prompt, pad in zip(prompts, pads, strict=True)])
    mask = (torch.arange(longest)[None] >= torch.tensor(pads)[:, None]).long()
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _padding_is_masked(model: PreTrainedModel, prompts: Sequence[Sequence[int]], padding: int) -> bool:
    """Whether the shortest prompt is followed by what it is followed by alone when it stands in one batch
    with the longest."""
    by_length = sorted(prompts, key=len)
    if not by_length or len(by_length[0]) == len(by_length[-1]):
        return True
    if state_runs_on(model) or rotations_follow_longest(model, len(by_length[-1])):
        return False
    found = []
    for rows in (by_length[:1], [by_length[0], by_length[-1]]):
        batch: dict[str, Any] = _pad_left(rows, padding, model.device)
        if "position_ids" in inspect.signature(models.unwrap(model).forward).parameters:
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        last = torch.full_like(batch["input_ids"][:, :1], -1) + batch["input_ids"].shape[1]
        found.append(logits_at(model, batch, last)[0])
    tolerance = FULL_TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
    return bool((found[0] - found[1]).abs().max() <= tolerance * found[0].abs().max())


def _up_to(ids: list[int], end: int | None) -> list[int]:
    if end not in ids:
        return ids
    return ids[: ids.index(end)]
