"""A teacher behind an OpenAI-compatible address: its log-probabilities of given tokens, and the text it
writes.

vLLM gives both, also behind `adaptkit serve` (`prompt_logprobs`, at most 20 a token unless it was started
with --max-logprobs, and none where adapters are served beside the model). Nothing is sent but the training
text; the key, if the server asks for one, is read from OPENAI_API_KEY. Shape suffixes: B = rows, T =
tokens, K = kept tokens.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adaptkit.client.openai import Client
from adaptkit.data.drawing import draw_hash
from adaptkit.errors import ConfigError, ModelError, ServerError
from adaptkit.ops import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOP_K = 20
PROBES = 8
PROBE_CHARACTERS = 200
TOKENS_AT_ONCE = 16384
"""Tokens of one request: a server's guard takes bodies of a megabyte."""
PATIENCE_S = 150.0
"""How long a server that is busy or restarts is asked again."""
NAMED = "/v1/models/"
UNLIKELY = -30.0
"""Log-probabilities where nothing follows; no label reads them."""


class ServedTeacher:
    """The model that an address ends in (`http://host:port/v1/models/NAME`), else the first there that writes
    text. Use it in a `with` block, which closes the connection.

    Raises: ServerError if there is none.
    """

    def __init__(self, address: str):
        base, _, name = address.rstrip("/").partition(NAMED)
        self.client = Client(base, os.environ.get("OPENAI_API_KEY", ""), patience_s=PATIENCE_S)
        self.address = self.client.base_url
        writers = [model for model in self.client.models() if model.writes]
        chosen = next((model for model in writers if name in ("", model.name)), None)
        if chosen is None:
            what, fix = "serves no model that writes text", "serve a causal language model"
            if name:
                what = f"serves no model '{name}' that writes text"
            if writers:
                addresses = [f"{self.address}{NAMED}{model.name}" for model in writers]
                fix = f"name one of these: {', '.join(addresses)}"
            raise ServerError(what, where=self.address, fix=fix)
        self.name, self.window = chosen.name, chosen.max_len

    def __enter__(self) -> ServedTeacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def score(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The k largest log-probabilities at temperature 1 after each position, each document of a row read
        alone."""
        ids_BT = batch["input_ids"]
        ids_BTK = torch.arange(TOP_K).expand(*ids_BT.shape, TOP_K).clone()
        logprobs_BTK = torch.full(ids_BTK.shape, UNLIKELY)
        spans = list(_document_spans(batch))
        at_once = max(1, TOKENS_AT_ONCE // ids_BT.shape[1])
        for group in (spans[i : i + at_once] for i in range(0, len(spans), at_once)):
            documents = [ids_BT[row, start:stop].tolist() for row, start, stop in group]
            for (row, start, stop), (ids_TK, logprobs_TK) in zip(
                group, self._largest_logprobs(documents, TOP_K), strict=True
            ):
                ids_BTK[row, start : stop - 1] = ids_TK
                logprobs_BTK[row, start : stop - 1] = logprobs_TK
        return ids_BTK, logprobs_BTK

    def write(self, prompts: Sequence[str], max_tokens: int, seed: int) -> list[str]:
        """A sampled continuation of each prompt; of a prompt that is too long for the server, its end is
        read."""
        options: dict[str, int | float | str] = {"temperature": 1.0, "seed": seed}
        if self.window:
            options |= {"truncate_prompt_tokens": self.window - max_tokens, "truncation_side": "left"}
        completions = self.client.complete_each(self.name, prompts, max_tokens=max_tokens, **options)
        return [completion.text for completion in completions]

    def check_window(self, seq_len: int) -> None:
        """Raises: ConfigError if the server cannot read a row and answer with one token more."""
        if self.window and seq_len >= self.window:
            what = f"the served teacher reads and writes at most {self.window} together"
            fix = f"set size.seq_len={self.window - 1} or less"
            raise ConfigError(f"rows of {seq_len} tokens, but {what}", where="size.seq_len", fix=fix)

    def check_tokens(self, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> None:
        """Raises: ModelError if the server splits one of a few texts, drawn by hash, into other tokens than
        `tokenizer`."""
        for text in (text[:PROBE_CHARACTERS] for text in heapq.nsmallest(PROBES, texts, key=draw_hash)):
            own_ids = tokenizer(text)["input_ids"]
            [entries] = self._prompt_logprobs([text], 0)
            if own_ids[1:] != [next(iter(entry)) for entry in entries[1:]]:
                what = "the student's tokenizer splits text otherwise than the server's"
                fix = "start from a model with the served one's tokenizer, or set signal=text"
                what = f"{what}: their distributions cannot be compared"
                raise ModelError(what, where="teacher", fix=fix)

    def _largest_logprobs(self, documents: Sequence[list[int]], top_k: int) -> list[tuple[Tensor, Tensor]]:
        """What may follow each token but the last of each document: ids and log-probabilities [T - 1, K], the
        largest first."""
        answers = []
        for ids, entries in zip(documents, self._prompt_logprobs(documents, top_k), strict=True):
            if len(entries) != len(ids):
                what = f"the server answers {len(ids)} tokens with {len(entries)} log-probabilities"
                fix = "serve the teacher with vLLM, or set signal=text"
                raise ServerError(what, where=self.address, fix=fix)
            if (least := min(len(entry) for entry in entries[1:])) < top_k:
                what = f"the server gives {least} log-probabilities a token, not {top_k}"
                fix = f"start it with --max-logprobs {top_k} or more"
                raise ServerError(what, where=self.address, fix=fix)
            largest = [
                sorted(((logprob, token) for token, logprob in entry.items()), reverse=True)[:top_k]
                for entry in entries[1:]
            ]
            pairs_TK2 = torch.tensor(largest, dtype=torch.float64)
            answers.append((pairs_TK2[..., 1].long(), pairs_TK2[..., 0].float()))
        return answers

    def _prompt_logprobs(
        self, prompts: Sequence[str] | Sequence[list[int]], top_k: int
    ) -> list[tuple[dict[int, float], ...]]:
        """Of each prompt and each of its tokens, log-probabilities by token id (none for the first)."""
        completions = self.client.complete_each(self.name, prompts, max_tokens=1, prompt_logprobs=top_k)
        if not all(completion.prompt_logprobs for completion in completions):
            what = "the server gives no log-probabilities of its prompts"
            fix = "serve the teacher with vLLM, or set signal=text"
            raise ServerError(what, where=self.address, fix=fix)
        return [completion.prompt_logprobs for completion in completions]


def _document_spans(batch: dict[str, Tensor]) -> Iterator[tuple[int, int, int]]:
    """(row, start, stop) of each document that a label stands in: several in a row, or one and padding."""
    alone = "position_ids" not in batch
    marks = batch["attention_mask" if alone else "position_ids"]
    for row, (marks_T, labels_T) in enumerate(zip(marks, batch["labels"], strict=True)):
        starts = [0, int(marks_T.sum())] if alone else (marks_T == 0).nonzero().flatten().tolist()
        for start, stop in zip(starts, [*starts[1:], len(labels_T)], strict=True):
            if (labels_T[start + 1 : stop] != IGNORE_INDEX).any():
                yield row, start, stop
