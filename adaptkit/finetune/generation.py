"""Let a model write greedily, in batches of prompts of similar length."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from adaptkit import models
from adaptkit.models.batching import batches_by_length, batches_of_one_length
from adaptkit.models.generation_settings import end_ids, own_distribution
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
    max_new_tokens: int | Sequence[int],
) -> list[list[int]]:
    """Greedy continuations of prompts of token ids, without the token that ends them; the same tokens as each
    prompt alone would get.

    Writing stops at every end that the model's generation config names. Nothing else of that config counts:
    penalties and beams of a folder decide no answer. Prompts of a batch are padded on the left and masked
    there, with position ids that start at the first real token. Where the architecture reads its padding all
    the same, prompts of one length stand together.

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
        for items in _batches(prompts, limits, mixed=_padding_is_masked(model, prompts, padding)):
            settings = GenerationConfig(
                do_sample=False,
                max_new_tokens=limits[items[0]],
                eos_token_id=ends or None,
                pad_token_id=padding,
                use_cache=True,
            )
            batch = _pad_left([prompts[i] for i in items], padding, model.device)
            output = writer.generate(**batch, generation_config=settings)
            longest = batch["input_ids"].shape[1]
            for i, row in zip(items, output[:, longest:].tolist(), strict=True):
                continuations[i] = _up_to(row, ends)
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


def _batches(prompts: Sequence[Sequence[int]], limits: Sequence[int], *, mixed: bool) -> Iterator[list[int]]:
    """Prompts of one limit, and of similar length where lengths may be mixed, of one length otherwise."""
    group = batches_by_length if mixed else batches_of_one_length
    for limit in sorted(set(limits), reverse=True):
        members = [i for i, own in enumerate(limits) if own == limit]
        for items in group([len(prompts[i]) + limit for i in members], BATCH_TOKENS):
            yield [members[item] for item in items]


def _up_to(ids: list[int], ends: list[int]) -> list[int]:
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return ids[:stop]
