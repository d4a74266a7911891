"""Ask a model about held-out text: answers in numbers that can be compared before and after an export.

Shape letters: N texts, T tokens, L classes, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adaptkit.embed.cross_encoder import has_token_types
from adaptkit.export.parity.evaluation_data import EvaluationData
from adaptkit.export.source import Source
from adaptkit.finetune.generation import generate
from adaptkit.finetune.prompt_template import context_length, opening
from adaptkit.finetune.tasks import Classify, Task, task_of
from adaptkit.models.batching import batches_by_length, pad_right
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from adaptkit.models.control_tokens import encode, encode_pair
from adaptkit.models.sentence.dense import read_dense
from adaptkit.models.sentence.layout import Layout, check_servable, read_layout
from adaptkit.models.sentence.pooling import pool
from adaptkit.models.sentence.text_tokens import lower_cased, token_ids
from adaptkit.run_record import RecipeKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

NUM_PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 8, 16, 24
NUM_SCORED, SCORED_TOKENS = 8, 128
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Answers:
    """What one model answered; what its kind does not answer stays empty.

    Attributes:
        greedy: continuations of fixed prompts, token ids; generators only.
        logprobs: float64 [tokens], log-probability of each token of fixed texts given those before it;
            generators only.
        bits_per_byte: on the held-out text; generators only.
        outputs: float64 [N, L] logits of a classifier, of a tagger for each token, or of a reranker for each
            text as an answer to the one before it.
        vectors: float64 [N, D] normalised embeddings.
        scores: the task's metrics on the held-out items.
        item_rows, passage_rows: what these metrics and bits per byte were computed from, as eval/ has it.
    """

    greedy: list[list[int]] = field(default_factory=list)
    logprobs: Tensor | None = None
    bits_per_byte: float | None = None
    outputs: Tensor | None = None
    vectors: Tensor | None = None
    scores: dict[str, float] = field(default_factory=dict)
    item_rows: list[dict[str, Any]] = field(default_factory=list)
    passage_rows: list[dict[str, Any]] = field(default_factory=list)


def ask(
    source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: EvaluationData
) -> Answers:
    """Ask a model for everything that is compared; `source` says of which kind it is and how it pools."""
    model.eval()
    texts = data.texts
    if source.kind == "embed":
        layout = read_layout(source.folder, model.config, tokenizer)
        check_servable(layout, str(source.folder))
        return Answers(
            vectors=embed(model, tokenizer, texts, layout, read_dense(source.folder, layout.dense))
        )
    if source.kind == "rerank":
        pairs = list(zip(texts[-1:] + texts[:-1], texts, strict=True))
        return Answers(outputs=pair_logits(model, tokenizer, pairs, data.seq_len))
    item_rows, scores = _task_scores(source, model, tokenizer, data)
    if source.kind == "classify":
        outputs = logits(model, tokenizer, texts, data.seq_len)
        return Answers(outputs=outputs, scores=scores, item_rows=item_rows)
    if source.kind == "tag":
        outputs = torch.cat(token_logits(model, tokenizer, texts, data.seq_len))
        return Answers(outputs=outputs, scores=scores, item_rows=item_rows)
    start = opening(tokenizer)
    encoded = encode(tokenizer, texts, special=False)
    prompts = [[*start, *ids[:PROMPT_TOKENS]] for ids in encoded if ids][:NUM_PROMPTS]
    seq_len = min(data.seq_len, context_length(model))
    num_new = min(NEW_TOKENS, context_length(model) - PROMPT_TOKENS - 1)
    rows = [[*start, *ids][: min(SCORED_TOKENS, seq_len)] for ids in encoded[:NUM_SCORED]]
    passage_rows = score_documents(model, tokenizer, data.passages, seq_len=seq_len)
    return Answers(
        greedy=generate(model, tokenizer, prompts, num_new),
        logprobs=logprobs(model, rows),
        bits_per_byte=bits_per_byte(passage_rows),
        scores=scores,
        item_rows=item_rows,
        passage_rows=passage_rows,
    )


@torch.no_grad()
def embed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    layout: Layout,
    dense: nn.Module | None = None,
) -> Tensor:
    """Turn texts into unit vectors, float64 [N, D], in their order, pooled and cut as the folder's files say.

    `dense` is what the pooled vectors go through: `models.sentence.dense.read_dense`.
    """
    dense = (dense or nn.Identity()).to(model.device).double()
    if layout.lower_case:
        tokenizer = lower_cased(copy.deepcopy(tokenizer))
    encoded = token_ids(tokenizer, layout, texts, layout.prompt(None))
    vectors: dict[int, Tensor] = {}
    for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
        batch = pad_right([encoded[i] for i in items], tokenizer.pad_token_id or 0, model.device)
        hidden_NTD = model.base_model(**batch).last_hidden_state.double()
        pooled_ND = pool(hidden_NTD, batch["attention_mask"], layout.pooling)
        unit_ND = torch.nn.functional.normalize(dense(pooled_ND), dim=-1).cpu()
        vectors |= zip(items, unit_ND, strict=True)
    return torch.stack([vectors[index] for index in range(len(texts))])


@torch.no_grad()
def logprobs(model: PreTrainedModel, rows: Sequence[list[int]]) -> Tensor:
    """Compute the log-probability of every token but a row's first, float64, one row after the other."""
    parts = []
    for ids in rows:
        inputs = torch.tensor([ids], device=model.device)
        logits_TV = model(input_ids=inputs).logits[0, :-1].double()
        parts.append(logits_TV.log_softmax(-1).gather(1, inputs[0, 1:, None])[:, 0].cpu())
    return torch.cat(parts)


@torch.no_grad()
def pair_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]], seq_len: int
) -> Tensor:
    """Compute a reranker's logits for (query, document) pairs, float64 [N, 1].

    Token types tell query and document apart where the model has them.
    """
    has_types = has_token_types(model, tokenizer)
    max_length = min(seq_len, context_length(model))
    rows = []
    for query, document in pairs:
        ids, types = encode_pair(tokenizer, query, document, max_length=max_length)
        inputs = {"input_ids": torch.tensor([ids], device=model.device)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if has_types:
            inputs["token_type_ids"] = torch.tensor([types], device=model.device)
        rows.append(model(**inputs).logits.double().cpu())
    return torch.cat(rows)


@torch.no_grad()
def logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], seq_len: int
) -> Tensor:
    """Compute a classifier's logits, float64 [N, L], longest texts first: the same order for every model."""
    max_length = min(seq_len, context_length(model))
    encoded = encode(tokenizer, texts, max_length=max_length)
    rows = []
    for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
        batch = pad_right([encoded[i] for i in items], tokenizer.pad_token_id or 0, model.device)
        rows.append(model(**batch).logits.double().cpu())
    return torch.cat(rows)


def task_in(source: Source, tokenizer: PreTrainedTokenizerFast, data: EvaluationData) -> Task | None:
    """The task that a model learnt; None without one, or without items to score it on."""
    if data.items is None or source.record is None:
        return None
    if source.record.recipe is RecipeKind.FINETUNE:
        return task_of(source.record, tokenizer)
    return Classify(tokenizer, source.labels, data.seq_len, NEW_TOKENS)  # it learnt from another classifier


@torch.no_grad()
def token_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], seq_len: int
) -> list[Tensor]:
    """Compute a tagger's logits for every token of each text, float64 [T, L], special tokens among them."""
    max_length = min(seq_len, context_length(model))
    rows: list[Tensor] = []
    for ids in encode(tokenizer, texts, max_length=max_length):
        inputs = torch.tensor([ids], device=model.device)
        rows.append(model(input_ids=inputs).logits[0].double().cpu())
    return rows


def _task_scores(
    source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: EvaluationData
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Answer the held-out items: rows as eval/ has them, and the task's own metrics; empty without a task."""
    task = task_in(source, tokenizer, data)
    rows = [] if task is None or data.items is None else task.rows(model, data.items)
    if task is None or not rows:
        return [], {}
    return rows, {name: float(value) for name, value in task.score(rows).items()}
