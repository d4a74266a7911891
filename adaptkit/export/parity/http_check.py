"""Compare a server's answers with those that were written beside the exported model, before it is ready.

The export is measured in our own process; a server reads the same files with kernels of its own, at a
precision of its own. A folder that loads and answers nonsense, or something else than was measured, is
refused here. Loads no torch: a server's own process does without.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

from adaptkit.client.likelihood import http_bits_per_byte
from adaptkit.client.openai import Client
from adaptkit.errors import ServerError
from adaptkit.export.record import HTTP_FILE, REFERENCE_FILE
from adaptkit.export.source import Source
from adaptkit.run import read_json, write_json

EXACT, ROUNDED = 1e-3, 0.1
"""Largest change of a log-probability in nats, of a class's probability, of a reranker's logit or a predicted
number relative to its size, or of 1 - cosine: where server and export compute in float32, and where either
rounds (0.02 was the most seen of int8, int4 and fp8 under vLLM on a CPU)."""
BITS = 1e-3
"""Largest change of bits per byte in any precision: a mean over all tokens moves less than one (0.00004 with
int8, bf16)."""
PLAIN_EXACT, PLAIN_ROUNDED = 0.01, 0.5
"""The same for a folder that no export measured: wide enough for other kernels, far too narrow for others'
weights."""
Reference = dict[str, Any]
"""Content of reference.json, as `reference.make_reference` writes it."""


def check_server(client: Client, source: Source, name: str, *, exact: bool, room: int = 0) -> None:
    """Compare a server's answers with reference.json, and write the figures to parity.http.json.

    Nothing happens for a folder without reference.json.

    Args:
        exact: server and export both compute in float32.
        room: tokens that the server takes, where it may be asked for log-probabilities of prompts; else 0.
    Raises: ServerError if an answer is further off than the precision explains.
    """
    path = source.folder / REFERENCE_FILE
    if not path.is_file():
        return
    reference = read_json(path)
    limit = EXACT if exact else ROUNDED
    figures = {"answers": _figure(_change(client, name, reference), limit)}
    language = reference.get("language")
    if language and room >= language["seq_len"] + 2:
        figures["bits per byte"] = _bits_per_byte(client, name, language)
    ok = all(figure["ok"] for figure in figures.values())
    with contextlib.suppress(OSError):  # a read-only folder is served all the same
        write_json(source.folder / HTTP_FILE, {"ok": ok, **figures})
    for title, figure in figures.items():
        if not figure["ok"]:
            change = f"off by {figure['change']:.3g}, and {figure['limit']:g} is allowed"
            what = f"its {title} are not those that were exported: {change}"
            fix = "adaptkit export it again; if that does not help, serve another format"
            raise ServerError(what, where=name, fix=fix)


def check_answers(client: Client, name: str, reference: Reference, *, exact: bool) -> None:
    """Compare a server's answers with those that transformers gives for the same folder.

    Args:
        exact: both compute in float32.
    Raises: ServerError if an answer is another one.
    """
    figure = _figure(_change(client, name, reference), PLAIN_EXACT if exact else PLAIN_ROUNDED)
    if not figure["ok"]:
        change = f"off by {figure['change']:.3g}, and {figure['limit']:g} is allowed"
        what = f"the engine does not answer as transformers does: {change}"
        fix = (
            "look whether the folder holds the files of one model, or serve it without this check by --print"
        )
        raise ServerError(what, where=name, fix=fix)


def _change(client: Client, name: str, reference: Reference) -> float:
    """Measure the largest change of an answer, in the measure of the model's kind."""
    measures = {
        "generate": _generated,
        "embed": _embedded,
        "rerank": _ranked,
        "classify": _classified,
        "tag": _tagged,
    }
    return measures[reference["kind"]](client, name, reference)


def _figure(change: float, limit: float) -> dict[str, Any]:
    return {"change": change, "limit": limit, "ok": bool(change <= limit)}  # False for nan


def _bits_per_byte(client: Client, name: str, language: dict[str, Any]) -> dict[str, Any]:
    exported = language["bits_per_byte"]
    served = http_bits_per_byte(
        client,
        name,
        language["texts"],
        seq_len=language["seq_len"],
        first_token=language["first_token"],
        lost_nats=language.get("lost_nats", 0.0),
    )
    return {"exported": exported, "served": served, **_figure(abs(served - exported), BITS)}


def _generated(client: Client, name: str, reference: Reference) -> float:
    """Measure how far log-probabilities of greedy tokens moved, up to the first token that differs.

    There two tokens were nearly equal, and what follows is another text.
    """
    changes = [0.0]
    for prompt, tokens, logprobs in zip(
        reference["prompts"], reference["tokens"], reference["logprobs"], strict=True
    ):
        if not tokens:
            continue
        options = {"max_tokens": len(tokens), "ignore_eos": True, "logprobs": 0, "return_token_ids": True}
        answer = client.complete(name, prompt, **options)
        if len(answer.logprobs) != len(tokens) or len(answer.token_ids) != len(tokens):
            return math.nan
        for place, token in enumerate(tokens):
            changes.append(abs(logprobs[place] - answer.logprobs[place]))
            if token != answer.token_ids[place]:
                break
    return _largest(changes)


def _embedded(client: Client, name: str, reference: Reference) -> float:
    pairs = zip(reference["vectors"], client.embed(name, reference["texts"]), strict=True)
    return _largest([1 - _cosine(exported, served) for exported, served in pairs])


def _ranked(client: Client, name: str, reference: Reference) -> float:
    """Measure the change of logits: which function a server puts over them is the folder's business."""
    texts = reference["texts"]
    scores = client.rerank(name, texts[0], texts, use_activation=False)
    pairs = zip(reference["logits"], scores, strict=True)
    return _largest([abs(exported - served) / max(1.0, abs(exported)) for exported, served in pairs])


def _classified(client: Client, name: str, reference: Reference) -> float:
    answers = [probabilities for _, probabilities in client.classify(name, reference["texts"])]
    rows = zip(reference["probabilities"], answers, strict=True)
    pairs = [pair for exported, served in rows for pair in zip(exported, served, strict=True)]
    return _largest([abs(a - b) / max(1.0, abs(a)) for a, b in pairs])


def _tagged(client: Client, name: str, reference: Reference) -> float:
    """Measure the change of each tag's probability; a server that cuts texts otherwise gives no number."""
    changes = [0.0]
    answers = client.tag(name, reference["texts"])
    for exported, served in zip(reference["probabilities"], answers, strict=True):
        if len(exported) != len(served):
            return math.nan
        for a, b in zip(exported, served, strict=True):
            changes += [abs(x - y) for x, y in zip(a, b, strict=True)]
    return _largest(changes)


def _largest(changes: list[float]) -> float:
    """Find the largest change; nan wins, which `max` passes over."""
    if any(map(math.isnan, changes)):
        return math.nan
    return max(changes)


def _cosine(a: list[float], b: list[float]) -> float:
    if len(a) != len(b):
        return math.nan
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
