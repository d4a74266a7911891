"""Let a model continue the prompts of a training batch, for distillation on its own text.

Shape suffixes: B = rows, T = tokens, P = tokens of the longest prompt.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from adaptkit import ops
from adaptkit.models.generation_settings import end_ids, own_distribution
from adaptkit.models.head import unwrap
from adaptkit.trainer.objective import Batch

PROMPT_SHARE = 4
"""Of a row without a prompt of its own, the first of this many parts is one."""


@torch.no_grad()
def continued(model: nn.Module, batch: Batch) -> Batch:
    """The rows' prompts, each continued by samples from `model` up to the row length or its end of text.

    A prompt is what stands before a row's first label, or the row's first quarter; of a row that packs
    documents, the part of it that belongs to its last document. Samples come from torch's global generator,
    which the trainer seeds by step; they are labelled, and their prompts are not.

    Returns: input_ids, labels, position_ids and attention_mask [B, T], prompts padded on the left.
    """
    ids_BT, ends_B = batch["input_ids"], prompt_lengths(batch)
    starts_B, ends = prompt_starts(batch, ends_B), end_ids(model)
    pad = unwrap(model).config.pad_token_id
    if pad is None:
        pad = 0
    prompts_BP, mask_BP = left_padded(ids_BT, starts_B, ends_B, pad)
    longest = prompts_BP.shape[1]
    settings = GenerationConfig(
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        max_new_tokens=max(1, ids_BT.shape[1] - longest),
        eos_token_id=ends or None,
        pad_token_id=pad,
        use_cache=True,
    )
    training = model.training
    model.eval()
    with own_distribution(model):
        generate: Any = unwrap(model, keep_peft=True).generate
        written_BT = generate(input_ids=prompts_BP, attention_mask=mask_BP, generation_config=settings)
    model.train(training)
    new_BT = _until_the_end(written_BT[:, longest:], ends)
    mask_BT = torch.cat([mask_BP, new_BT.long()], 1)
    labels_BT = written_BT.where(
        torch.cat([torch.zeros_like(mask_BP, dtype=torch.bool), new_BT], 1), ops.IGNORE_INDEX
    )
    positions_BT = (mask_BT.cumsum(1) - 1).clamp_min(0)
    return {
        "input_ids": written_BT,
        "labels": labels_BT,
        "position_ids": positions_BT,
        "attention_mask": mask_BT,
    }


def prompt_lengths(batch: Batch) -> Tensor:
    """Tokens of each row's prompt, int64 [B], at least one."""
    labels_BT = batch["labels"]
    first_B = (labels_BT != ops.IGNORE_INDEX).int().argmax(1)
    return first_B.where(first_B > 1, max(1, labels_BT.shape[1] // PROMPT_SHARE))


def prompt_starts(batch: Batch, ends_B: Tensor) -> Tensor:
    """Where the document begins that each row's prompt ends in, int64 [B]."""
    ids_BT = batch["input_ids"]
    if "position_ids" not in batch:
        return torch.zeros_like(ends_B)
    places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    begins_BT = (batch["position_ids"] == 0) & (places_T < ends_B[:, None])
    return (places_T * begins_BT).amax(1)


def left_padded(ids_BT: Tensor, starts_B: Tensor, ends_B: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """The tokens from start to end of each row moved to the right edge, and their mask, both [B, P]."""
    longest = int((ends_B - starts_B).max())
    from_BP = torch.arange(longest, device=ids_BT.device) - longest + ends_B[:, None]
    mask_BP = from_BP >= starts_B[:, None]
    return ids_BT.gather(1, from_BP.clamp_min(0)).where(mask_BP, pad), mask_BP.long()


def _until_the_end(written_BT: Tensor, ends: list[int]) -> Tensor:
    """True up to and with the first end of text."""
    ids = torch.tensor(ends, dtype=written_BT.dtype, device=written_BT.device)
    ended_BT = torch.isin(written_BT, ids).int()
    return ended_BT.cumsum(1) - ended_BT == 0
