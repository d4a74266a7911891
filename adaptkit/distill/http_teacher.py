"""A teacher behind an OpenAI-compatible address: its log-probabilities of given tokens, and the text it
writes.

vLLM gives both, also behind `adaptkit serve` (`prompt_logprobs`, at most 20 a token unless it was started
with
--max-logprobs, and none where adapters are served beside the model). Nothing is sent but the training text;
the key, if the server asks for one, is read from OPENAI_API_KEY.
Shape suffixes: B = rows, T = tokens, K = kept tokens.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adaptkit.errors import ConfigError, ModelError, ServerError
from adaptkit.ops import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOP_K = 20
TIMEOUT_S = 300
PROBES = 8
PROBE_CHARACTERS = 200
TOKENS_AT_ONCE = 16384
"""Tokens of one request: a server's guard takes bodies of a megabyte."""
BUSY = (429, 503)
TRIES, LONGEST_WAIT_S = 6, 30.0
NAMED = "/v1/models/"


class ServedTeacher:
    """The model that an address ends in (`http://host:port/v1/models/NAME`), else the first there that writes
    text.

    Raises: ServerError if there is none.
    """

    def __init__(self, address: str):
        base, _, name = address.rstrip("/").partition(NAMED)
        self.address = base.removesuffix("/v1")
        rows = self._call("GET", "models")["data"]
        writing = [
            row for row in rows if row.get("kind", "generate") == "generate"
        ]  # vLLM itself names no kinds
        found = [row for row in writing if name in ("", row["id"])]
        if not found:
            what = (
                f"serves no model '{name}' that writes text" if name else "serves no model that writes text"
            )
            fix = "name one of these: " + ", ".join(f"{self.address}{NAMED}{row['id']}" for row in writing)
            raise ServerError(
                what, where=self.address, fix=fix if writing else "serve a causal language model"
            )
        self.name, self.window = found[0]["id"], found[0].get("max_model_len")

    def score(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The k largest log-probabilities at temperature 1 after each position, each document of a row read
        alone."""
        ids_BT = batch["input_ids"]
        ids = (
            torch.arange(TOP_K).expand(*ids_BT.shape, TOP_K).clone()
        )  # where nothing follows, no label reads this
        logprobs = torch.full(ids.shape, -30.0)
        spans = list(_documents(batch))
        at_once = max(1, TOKENS_AT_ONCE // ids_BT.shape[1])
        for group in (spans[i : i + at_once] for i in range(0, len(spans), at_once)):
            told = self._prompt_logprobs(
                [ids_BT[row, start:stop].tolist() for row, start, stop in group], TOP_K
            )
            for (row, start, stop), (found_ids, found) in zip(group, told, strict=True):
                ids[row, start : stop - 1], logprobs[row, start : stop - 1] = found_ids, found
        return ids, logprobs

    def write(self, prompts: Sequence[str], max_tokens: int, seed: int) -> list[str]:
        """A sampled continuation of each prompt; of a prompt that is too long for the server, its end is
        read."""
        body = {"prompt": list(prompts), "max_tokens": max_tokens, "temperature": 1.0, "seed": seed}
        if self.window:
            body |= {"truncate_prompt_tokens": self.window - max_tokens, "truncation_side": "left"}
        return [choice["text"] for choice in self._choices(body)]

    def check_window(self, seq_len: int) -> None:
        """Raises: ConfigError if the server cannot read a row and answer with one token more."""
        if self.window and seq_len >= self.window:
            what = f"rows of {seq_len} tokens, but the served teacher reads and writes at most {self.window} together"
            raise ConfigError(what, where="size.seq_len", fix=f"set size.seq_len={self.window - 1} or less")

    def check_tokens(self, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> None:
        """Raises: ModelError if the server splits one of the first texts into other tokens than `tokenizer`."""
        for text in (text[:PROBE_CHARACTERS] for text in texts[:PROBES]):
            own = tokenizer(text)["input_ids"]
            if own[1:] != [int(next(iter(entry))) for entry in self._entries([text], 0)[0][1:]]:
                what = "the student's tokenizer splits text otherwise than the server's: their distributions cannot be compared"
                fix = "start from a model with the served one's tokenizer, or set signal=text"
                raise ModelError(what, where="teacher", fix=fix)

    def _prompt_logprobs(self, documents: Sequence[list[int]], top_k: int) -> list[tuple[Tensor, Tensor]]:
        """What may follow each token but the last of each document: ids and log-probabilities [T - 1, K], the
        largest first."""
        found = []
        for ids, entries in zip(documents, self._entries(documents, top_k), strict=True):
            if len(entries) != len(ids):
                what = f"the server answers {len(ids)} tokens with {len(entries)} log-probabilities"
                raise ServerError(
                    what, where=self.address, fix="serve the teacher with vLLM, or set signal=text"
                )
            told = [
                sorted(((one["logprob"], int(token)) for token, one in entry.items()), reverse=True)
                for entry in entries[1:]
            ]
            if (least := min(map(len, told))) < top_k:
                what = f"the server gives {least} log-probabilities a token, not {top_k}"
                raise ServerError(
                    what, where=self.address, fix=f"start it with --max-logprobs {top_k} or more"
                )
            pairs_TK2 = torch.tensor([best[:top_k] for best in told], dtype=torch.float64)
            found.append((pairs_TK2[..., 1].long(), pairs_TK2[..., 0].float()))
        return found

    def _entries(self, prompts: Sequence[str | list[int]], top_k: int) -> list[list[dict[str, Any]]]:
        """Of each prompt, what the server tells about each of its tokens (nothing about the first)."""
        body = {"prompt": list(prompts), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": top_k}
        told = [choice.get("prompt_logprobs") for choice in self._choices(body)]
        if len(told) != len(prompts) or not all(told):
            what = "the server gives no log-probabilities of its prompts"
            raise ServerError(what, where=self.address, fix="serve the teacher with vLLM, or set signal=text")
        return told

    def _choices(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        choices = self._call("POST", "completions", {"model": self.name, **body})["choices"]
        return sorted(choices, key=lambda choice: choice["index"])

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Asks again where the server says that it is busy.

        Raises: ServerError for no answer, or one that is an error.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.address}/v1/{path}", data=data, headers=headers, method=method
        )
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                if not left or error.code not in BUSY:
                    what = f"the teacher's server answers {error.code}: {error.read()[:300].decode(errors='replace')}"
                    raise ServerError(
                        what, where=self.address, fix="look at its log; a key is read from OPENAI_API_KEY"
                    ) from None
                time.sleep(_wait(error.headers.get("retry-after")))
            except (OSError, ValueError) as error:
                fix = "start it, and give its address as teacher=http://host:port"
                raise ServerError(
                    f"the teacher's server does not answer: {error}", where=self.address, fix=fix
                ) from None


def _documents(batch: dict[str, Tensor]) -> Iterator[tuple[int, int, int]]:
    """(row, start, stop) of each packed document that a label stands in."""
    for row, (positions_T, labels_T) in enumerate(zip(batch["position_ids"], batch["labels"], strict=True)):
        starts = (positions_T == 0).nonzero().flatten().tolist()
        for start, stop in zip(starts, [*starts[1:], len(positions_T)], strict=True):
            if (labels_T[start + 1 : stop] != IGNORE_INDEX).any():
                yield row, start, stop


def _wait(told: str | None) -> float:
    """Seconds that a `Retry-After` header asks for; it may be a date, which nobody here waits for."""
    return min(float(told), LONGEST_WAIT_S) if told and told.isdecimal() else 1.0
