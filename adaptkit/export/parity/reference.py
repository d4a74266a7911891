"""What an exported model answers, written beside it, and the server's own answers held against that before it
is ready.

The export is measured in our own process; a server reads the same files with kernels of its own, at a
precision of its own. A folder that loads and answers nonsense, or something else than was measured, is
refused here.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from adaptkit.client.likelihood import http_bits_per_byte
from adaptkit.client.openai import Client
from adaptkit.errors import ServerError
from adaptkit.export.source import Source
from adaptkit.run import read_json, write_json

if TYPE_CHECKING:
    from torch import nn

FILE, HTTP_FILE = "reference.json", "parity.http.json"
TEXTS = (
    "The first result of the trial is that",
    "Please open the door of the old library, and",
    "In room seven there are",
)
NEW_TOKENS, WINDOW = 8, 64
EXACT, ROUNDED = 1e-3, 0.1
"""Largest change of a log-probability in nats, of a class's probability, of a reranker's logit relative to
its size, or of 1 - cosine: where server and export compute in float32, and where either rounds (0.02 was the
most seen of int8, int4 and fp8 under vLLM on a CPU)."""
BITS = 1e-3
"""Largest change of bits per byte in any precision: a mean over all tokens moves less than one (0.00004 with
int8, bf16)."""


def make(source: Source, model: nn.Module, tokenizer: Any) -> dict[str, Any]:
    """The answers of `model`, as it was exported, to fixed sentences that are part of adaptkit."""
    import torch

    from adaptkit.export.parity import answers
    from adaptkit.models.sentence.dense import read_dense
    from adaptkit.models.sentence.layout import read_layout

    if source.kind == "embed":
        layout = read_layout(source.folder, model.config, tokenizer)
        dense = read_dense(source.folder, layout.dense)
        vectors = answers.embed(
            model, tokenizer, TEXTS, layout, dense
        )  # with the prompt, which a server does not put there
        return {
            "kind": source.kind,
            "texts": [layout.prompt(None) + text for text in TEXTS],
            "vectors": _rounded(vectors),
        }
    if source.kind == "rerank":
        outputs = answers.pair_logits(
            model, tokenizer, [(TEXTS[0], text) for text in TEXTS], answers.SCORED_TOKENS
        )
        return {"kind": source.kind, "texts": list(TEXTS), "logits": _rounded(outputs[:, 0])}
    if source.kind == "classify":
        outputs = torch.cat(
            [answers.logits(model, tokenizer, [text], answers.SCORED_TOKENS) for text in TEXTS]
        )
        return {"kind": source.kind, "texts": list(TEXTS), "probabilities": _rounded(outputs.softmax(-1))}
    return {"kind": source.kind, **_continuations(model, tokenizer), "language": _language(model, tokenizer)}


def _continuations(model: nn.Module, tokenizer: Any) -> dict[str, Any]:
    """Greedy tokens after TEXTS, and their log-probabilities."""
    from adaptkit.export.parity import answers
    from adaptkit.finetune.generate import generate
    from adaptkit.finetune.template import opening

    start = opening(tokenizer)
    prompts = [[*start, *ids] for ids in tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]]
    tokens = generate(model, tokenizer, prompts, NEW_TOKENS)
    logprobs = [
        answers.logprobs(model, [[*prompt, *new]])[len(prompt) - 1 :]
        for prompt, new in zip(prompts, tokens, strict=True)
    ]
    return {"prompts": prompts, "tokens": tokens, "logprobs": [_rounded(row) for row in logprobs]}


def _language(model: nn.Module, tokenizer: Any) -> dict[str, Any]:
    """Bits per byte of the built-in sentences, by the trainer's own code, and how they were read."""
    from adaptkit.export.parity.heldout import BUILT_IN
    from adaptkit.finetune.template import context_length
    from adaptkit.models.bits_per_byte import bits_per_byte, first_token, score_documents

    seq_len = min(WINDOW, context_length(model) - 2)
    value = bits_per_byte(
        score_documents(model, tokenizer, [("", text) for text in BUILT_IN], seq_len=seq_len)
    )
    return {
        "texts": list(BUILT_IN),
        "seq_len": seq_len,
        "first_token": first_token(tokenizer),
        "bits_per_byte": round(value, 7),
    }


def check(client: Client, source: Source, name: str, *, exact: bool, room: int = 0) -> None:
    """Hold a server's answers against the folder's, and keep the figures in `parity.http.json`; nothing to do
    without FILE.

    Args:
        exact: server and export both compute in float32.
        room: tokens that the server takes, where it may be asked for log-probabilities of prompts; else 0.
    Raises: ServerError if an answer is further off than the precision explains.
    """
    path = source.folder / FILE
    if not path.is_file():
        return
    told = read_json(path)
    measure = {"generate": _generated, "embed": _embedded, "rerank": _ranked}.get(told["kind"], _classified)
    figures = {"answers": _figure(measure(client, name, told), EXACT if exact else ROUNDED)}
    language = told.get("language")
    if language and room >= language["seq_len"] + 2:
        exported, read = language["bits_per_byte"], {key: language[key] for key in ("seq_len", "first_token")}
        served = http_bits_per_byte(client, name, language["texts"], **read)
        off = _figure(abs(served - exported), BITS)
        figures["bits per byte"] = {"exported": exported, "served": served, **off}
    with contextlib.suppress(OSError):  # a read-only folder is served all the same
        write_json(
            source.folder / HTTP_FILE, {"ok": all(figure["ok"] for figure in figures.values()), **figures}
        )
    for title, figure in figures.items():
        if not figure["ok"]:
            change = f"off by {figure['change']:.3g}, and {figure['limit']:g} is allowed"
            what = f"its {title} are not those that were exported: {change}"
            raise ServerError(
                what, where=name, fix="adaptkit export it again; if that does not help, serve another format"
            )


def _figure(off: float, limit: float) -> dict[str, Any]:
    return {"change": off, "limit": limit, "ok": bool(off <= limit)}  # not so for nan


def _generated(client: Client, name: str, told: dict[str, Any]) -> float:
    """Of the log-probabilities of greedy tokens, up to and with the first token that differs: there two were
    nearly equal."""
    changes = [0.0]
    for prompt, tokens, logprobs in zip(told["prompts"], told["tokens"], told["logprobs"], strict=True):
        if not tokens:
            continue
        asked = {"max_tokens": len(tokens), "ignore_eos": True, "logprobs": 0, "return_token_ids": True}
        found = client.complete(name, prompt, **asked)
        if len(found.logprobs) != len(tokens) or len(found.token_ids) != len(tokens):
            return math.nan
        for ours, theirs, before, now in zip(tokens, found.token_ids, logprobs, found.logprobs, strict=True):
            changes.append(abs(before - now))
            if ours != theirs:
                break
    return _largest(changes)


def _embedded(client: Client, name: str, told: dict[str, Any]) -> float:
    pairs = zip(told["vectors"], client.embed(name, told["texts"]), strict=True)
    return _largest([1 - _cosine(ours, theirs) for ours, theirs in pairs])


def _ranked(client: Client, name: str, told: dict[str, Any]) -> float:
    """Of logits: which function a server puts over them is the folder's business."""
    found = client.rerank(name, told["texts"][0], told["texts"], use_activation=False)
    return _largest(
        [abs(ours - theirs) / max(1.0, abs(ours)) for ours, theirs in zip(told["logits"], found, strict=True)]
    )


def _classified(client: Client, name: str, told: dict[str, Any]) -> float:
    found = [probabilities for _, probabilities in client.classify(name, told["texts"])]
    rows = zip(told["probabilities"], found, strict=True)
    return _largest([abs(a - b) for ours, theirs in rows for a, b in zip(ours, theirs, strict=True)])


def _largest(changes: list[float]) -> float:
    """`max` passes over nan; here it wins."""
    return math.nan if any(map(math.isnan, changes)) else max(changes)


def _cosine(a: list[float], b: list[float]) -> float:
    if len(a) != len(b):
        return math.nan
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def _rounded(values: Any) -> Any:
    """Seven digits are float32's; more would only make files of one export differ."""
    return (
        [_rounded(value) for value in values]
        if values.ndim > 1
        else [round(float(value), 7) for value in values]
    )
