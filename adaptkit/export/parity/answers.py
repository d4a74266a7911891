"""What a model answers on held-out text, in numbers that can be compared before and after an export.

Shape letters: N texts, T tokens, L classes, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.export.parity.heldout import HeldOut
from adaptkit.export.source import Source
from adaptkit.finetune.generate import generate
from adaptkit.finetune.template import context_length, opening
from adaptkit.models.batching import batches_by_length, pad_right
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from adaptkit.models.sentence.dense import read_dense
from adaptkit.models.sentence.layout import Layout, read_layout
from adaptkit.models.sentence.pooling import pool

NUM_PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 8, 16, 24
NUM_SCORED, SCORED_TOKENS = 8, 128
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Answers:
    """Attributes:
    greedy: continuations of fixed prompts, token ids; generators only.
    logprobs: float64 [tokens], log-probability of each token of fixed texts given those before it; generators
        only.
    bits_per_byte: on the held-out text; generators only.
    outputs: float64 [N, L] logits of a classifier, or of a reranker for each text as an answer to the one
        before it.
    vectors: float64 [N, D] normalised embeddings.
    scores: the task's metrics on the held-out items.
    """

    greedy: list[list[int]] = field(default_factory=list)
    logprobs: Tensor | None = None
    bits_per_byte: float | None = None
    outputs: Tensor | None = None
    vectors: Tensor | None = None
    scores: dict[str, float] = field(default_factory=dict)


def ask(source: Source, model: nn.Module, tokenizer: Any, heldout: HeldOut) -> Answers:
    """Everything that is compared about one model; `source` says of which kind it is and how it pools."""
    model = model.eval()
    texts = [text for _, text in heldout.texts]
    if source.kind == "embed":
        layout = read_layout(source.folder, model.config, tokenizer)
        return Answers(
            vectors=embed(model, tokenizer, texts, layout, read_dense(source.folder, layout.dense))
        )
    if source.kind == "rerank":
        pairs = list(zip(texts[-1:] + texts[:-1], texts, strict=True))
        return Answers(outputs=pair_logits(model, tokenizer, pairs, heldout.seq_len))
    if source.kind == "classify":
        return Answers(
            outputs=logits(model, tokenizer, texts, heldout.seq_len),
            scores=_task_scores(source, model, tokenizer, heldout),
        )
    start = opening(tokenizer)
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    prompts = [[*start, *ids[:PROMPT_TOKENS]] for ids in encoded if ids][:NUM_PROMPTS]
    seq_len = min(heldout.seq_len, context_length(model))
    return Answers(
        greedy=generate(
            model, tokenizer, prompts, min(NEW_TOKENS, context_length(model) - PROMPT_TOKENS - 1)
        ),
        logprobs=logprobs(
            model, [[*start, *ids][: min(SCORED_TOKENS, seq_len)] for ids in encoded[:NUM_SCORED]]
        ),
        bits_per_byte=bits_per_byte(score_documents(model, tokenizer, heldout.texts, seq_len=seq_len)),
        scores=_task_scores(source, model, tokenizer, heldout),
    )


@torch.no_grad()
def embed(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], layout: Layout, dense: nn.Module | None = None
) -> Tensor:
    """Unit vectors in the order of `texts`, float64 [N, D], pooled and cut as the folder's
    sentence-transformers files say.

    `dense` is what the pooled vectors go through: `models.sentence.dense.read_dense`.
    """
    dense = (dense or nn.Identity()).to(model.device).double()
    asked = [layout.prompt(None) + text for text in texts]
    encoded = tokenizer(asked, truncation=True, max_length=layout.max_length)["input_ids"]
    found: dict[int, Tensor] = {}
    for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
        batch = pad_right([encoded[i] for i in items], tokenizer.pad_token_id or 0, model.device)
        pooled_ND = pool(
            model.base_model(**batch).last_hidden_state.double(), batch["attention_mask"], layout.pooling
        )
        found |= zip(items, torch.nn.functional.normalize(dense(pooled_ND), dim=-1).cpu(), strict=True)
    return torch.stack([found[index] for index in range(len(texts))])


@torch.no_grad()
def logprobs(model: nn.Module, rows: Sequence[list[int]]) -> Tensor:
    """Of every token but a row's first, float64, one row after the other."""
    found = []
    for ids in rows:
        inputs = torch.tensor([ids], device=model.device)
        logits_TV = model(input_ids=inputs).logits[0, :-1].double()
        found.append(logits_TV.log_softmax(-1).gather(1, inputs[0, 1:, None])[:, 0].cpu())
    return torch.cat(found)


@torch.no_grad()
def pair_logits(model: nn.Module, tokenizer: Any, pairs: Sequence[tuple[str, str]], seq_len: int) -> Tensor:
    """Of a reranker for (query, document) pairs, float64 [N, 1]; token types tell the two apart where the
    model knows them."""
    kept = {"input_ids", "attention_mask"} | (
        {"token_type_ids"} if getattr(model.config, "type_vocab_size", 0) > 1 else set()
    )
    found = []
    for query, document in pairs:
        cut = {"truncation": True, "max_length": min(seq_len, context_length(model)), "return_tensors": "pt"}
        encoded = {
            name: value.to(model.device)
            for name, value in tokenizer(query, document, **cut).items()
            if name in kept
        }
        found.append(model(**encoded).logits.double().cpu())
    return torch.cat(found)


@torch.no_grad()
def logits(model: nn.Module, tokenizer: Any, texts: Sequence[str], seq_len: int) -> Tensor:
    """Of a classifier, float64 [N, L], longest texts first."""
    batches = _padded(model, tokenizer, texts, min(seq_len, context_length(model)))
    return torch.cat([model(**batch).logits.double().cpu() for batch in batches])


def _padded(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], max_length: int
) -> Iterator[dict[str, Tensor]]:
    """Batches of the texts, longest first: the same order for every model with this tokenizer."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
        yield pad_right([encoded[i] for i in items], tokenizer.pad_token_id or 0, model.device)


def _task_scores(source: Source, model: nn.Module, tokenizer: Any, heldout: HeldOut) -> dict[str, float]:
    """The task's own metrics on the held-out items; empty without a task or its training rows."""
    from adaptkit.finetune.tasks import TASKS

    config, items = heldout.config or {}, heldout.items
    if items is None or heldout.training is None:
        return {}
    labels = heldout.training.labels
    task = TASKS[config["kind"]](tokenizer, labels, config["max_length"], config["max_new_tokens"])
    rows = task.rows(model, items)
    return {name: float(value) for name, value in task.score(rows).items()} if rows else {}
