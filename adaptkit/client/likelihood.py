"""Bits per byte over HTTP, from the log-probabilities that a server gives for the tokens of a prompt.

The windows are those of the training side: a document is its first token (BOS) and its tokens; long ones are
read in windows that overlap by half, and every token after the first is charged exactly once. So the two
agree to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adaptkit.client.openai import Client
from adaptkit.errors import ServerError

PROMPTS_AT_ONCE = 8


@dataclass(frozen=True)
class _Window:
    """Tokens of one request; the first `skipped` of them are only looked at, the others are charged."""

    token_ids: list[int]
    skipped: int


def http_bits_per_byte(
    client: Client,
    model: str,
    documents: Sequence[str],
    *,
    seq_len: int,
    first_token: int | None = None,
    lost_nats: float = 0.0,
) -> float:
    """Measure the bits per UTF-8 byte that a served model needs for `documents`.

    Args:
        seq_len: tokens per window; at most the model's window minus 2, as vLLM must be able to generate one
            token more.
        first_token: what a document begins with; by default what the server's own tokenizer puts first.
        lost_nats: what is charged for what the tokenizer cannot give back of the documents.
    Raises: ServerError if the server refuses, or the documents hold no text.
    """
    num_bytes = sum(len(text.encode()) for text in documents)
    if not num_bytes:
        raise ServerError("there is no text to score", where=model, fix="give documents that are not empty")
    if first_token is None:
        first_token = _first_token(client, model)
    encoded = [[first_token, *client.tokenize(model, text)] for text in documents]
    windows = [window for token_ids in encoded for window in _windows(token_ids, seq_len)]
    batches = (windows[start : start + PROMPTS_AT_ONCE] for start in range(0, len(windows), PROMPTS_AT_ONCE))
    nats = lost_nats + sum(_nats(client, model, batch) for batch in batches)
    return nats / num_bytes / math.log(2)


def _first_token(client: Client, model: str) -> int:
    special_tokens = client.tokenize(model, "", add_special_tokens=True)
    if not special_tokens:
        fix = "give `first_token`: what a document began with in training"
        raise ServerError("its tokenizer puts no token first", where=model, fix=fix)
    return special_tokens[0]


def _windows(token_ids: list[int], seq_len: int) -> Iterator[_Window]:
    stride, charged = max(1, seq_len // 2), 0
    while charged < len(token_ids) - 1:
        start = max(0, charged - (seq_len - stride))
        end = min(start + seq_len, len(token_ids) - 1)
        yield _Window(token_ids[start : end + 1], charged - start)
        charged = end


def _nats(client: Client, model: str, windows: list[_Window]) -> float:
    prompts = [window.token_ids for window in windows]
    total = 0.0
    for window, completion in zip(
        windows, client.complete_each(model, prompts, max_tokens=1, prompt_logprobs=0), strict=True
    ):
        if len(completion.prompt_logprobs) != len(window.token_ids):
            fix = "serve it with vLLM, and without adapters beside it"
            raise ServerError("gives no log-probabilities of its prompts", where=model, fix=fix)
        for place in range(window.skipped + 1, len(window.token_ids)):
            total -= completion.prompt_logprobs[place][window.token_ids[place]]
    return total
