"""Ask an exported model about fixed sentences: the answers that a server's are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adaptkit.export.parity import answers
from adaptkit.export.parity.evaluation_data import BUILT_IN
from adaptkit.export.source import LABEL_SET, REGRESSION, Source, problem_type
from adaptkit.finetune.generation import generate
from adaptkit.finetune.prompt_template import context_length, opening
from adaptkit.models.bits_per_byte import bits_per_byte, first_token, score_documents
from adaptkit.models.round_trip import lost_text
from adaptkit.models.sentence.dense import read_dense
from adaptkit.models.sentence.layout import read_layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TEXTS = (
    "The first result of the trial is that",
    "Please open the door of the old library, and",
    "In room seven there are",
)
NEW_TOKENS, WINDOW = 8, 64


def make_reference(
    source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """Write the content of reference.json: what the exported `model` answers to fixed sentences."""
    reference = make_answers(source, model, tokenizer)
    if source.kind == "generate":
        reference["language"] = _language(model, tokenizer)
    return reference


def make_answers(
    source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """Ask a model of any kind about fixed sentences."""
    texts = list(TEXTS)
    if source.kind == "embed":
        layout = read_layout(source.folder, model.config, tokenizer)
        dense = read_dense(source.folder, layout.dense)
        # with the prompt, which a server does not put there
        vectors = answers.embed(model, tokenizer, texts, layout, dense)
        prompted = [layout.prompt(None) + text for text in texts]
        return {"kind": source.kind, "texts": prompted, "vectors": _rounded(vectors)}
    if source.kind == "rerank":
        pairs = [(texts[0], text) for text in texts]
        outputs = answers.pair_logits(model, tokenizer, pairs, answers.SCORED_TOKENS)
        return {"kind": source.kind, "texts": texts, "logits": _rounded(outputs[:, 0])}
    if source.kind == "classify":
        rows = [answers.logits(model, tokenizer, [text], answers.SCORED_TOKENS) for text in texts]
        answered = activated(torch.cat(rows), problem_type(source.folder))
        return {"kind": source.kind, "texts": texts, "probabilities": _rounded(answered)}
    if source.kind == "tag":
        per_text = answers.token_logits(model, tokenizer, texts, answers.SCORED_TOKENS)
        tagged = [_rounded(logits.softmax(-1)) for logits in per_text]
        return {"kind": source.kind, "texts": texts, "probabilities": tagged}
    return {"kind": source.kind, **_continuations(model, tokenizer)}


def activated(logits: Tensor, problem: str) -> Tensor:
    """Turn a classifier's logits into what a server answers: the function that goes with the problem."""
    if problem == REGRESSION:
        return logits
    return logits.sigmoid() if problem == LABEL_SET else logits.softmax(-1)


def _continuations(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Generate greedy tokens after TEXTS, with their log-probabilities."""
    start = opening(tokenizer)
    prompts = [[*start, *ids] for ids in tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]]
    tokens = generate(model, tokenizer, prompts, NEW_TOKENS)
    logprobs = [
        answers.logprobs(model, [[*prompt, *new]])[len(prompt) - 1 :]
        for prompt, new in zip(prompts, tokens, strict=True)
    ]
    return {"prompts": prompts, "tokens": tokens, "logprobs": [_rounded(row) for row in logprobs]}


def _language(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Measure bits per byte of the built-in sentences by the trainer's code, and note how they were read."""
    seq_len, texts = min(WINDOW, context_length(model) - 2), list(BUILT_IN)
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    lost = (lost_text(tokenizer, text, ids).nats for text, ids in zip(texts, encoded, strict=True))
    scores = score_documents(model, tokenizer, [("", text) for text in texts], seq_len=seq_len)
    return {
        "texts": texts,
        "seq_len": seq_len,
        "first_token": first_token(tokenizer),
        "bits_per_byte": round(bits_per_byte(scores), 7),
        "lost_nats": round(sum(lost), 7),
    }


def _rounded(values: Tensor) -> list[Any]:
    """Round to seven digits, which float32 has; more would only make files of one export differ."""
    if values.ndim > 1:
        return [_rounded(value) for value in values]
    return [round(float(value), 7) for value in values]
