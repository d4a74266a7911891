"""A teacher behind an OpenAI-compatible address: its log-probabilities of given tokens, and the text it writes.

vLLM gives both (`prompt_logprobs`, at most 20 a token unless it was started with --max-logprobs). Nothing is sent but the
training text; the key, if the server asks for one, is read from OPENAI_API_KEY.
Shape suffixes: B = rows, T = tokens, K = kept tokens.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adaptkit.errors import ModelError, ServerError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOP_K = 20
TIMEOUT_S = 300
PROBES = 8


class ServedTeacher:
    """The first model that a server names."""

    def __init__(self, address: str):
        self.address = address.rstrip("/").removesuffix("/v1")
        self.name = self._call("GET", "models")["data"][0]["id"]
        self.tokens_read = 0

    def score(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The k largest log-probabilities at temperature 1 after each position, each document of a row asked for alone."""
        ids_BT, positions_BT = batch["input_ids"], batch["position_ids"]
        ids = torch.arange(TOP_K).expand(*ids_BT.shape, TOP_K).clone()  # where nothing follows, no label reads this
        logprobs = torch.full(ids.shape, -30.0)
        for row in range(len(ids_BT)):
            starts = (positions_BT[row] == 0).nonzero().flatten().tolist()
            for start, stop in zip(starts, [*starts[1:], ids_BT.shape[1]], strict=True):
                if stop - start > 1:
                    for at, found in enumerate(self._prompt_logprobs(ids_BT[row, start:stop].tolist(), TOP_K)):
                        ids[row, start + at], logprobs[row, start + at] = found
        return ids, logprobs

    def write(self, prompts: Sequence[str], max_tokens: int, seed: int) -> list[str]:
        """A sampled continuation of each prompt."""
        body = {"prompt": list(prompts), "max_tokens": max_tokens, "temperature": 1.0, "seed": seed}
        choices = self._call("POST", "completions", body)["choices"]
        return [choice["text"] for choice in sorted(choices, key=lambda choice: choice["index"])]

    def check_tokens(self, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> None:
        """Raises: ModelError if the server splits one of the first texts into other tokens than `tokenizer`."""
        for text in texts[:PROBES]:
            own = tokenizer(text)["input_ids"]
            entries = self._call("POST", "completions", _asking(text, 0))["choices"][0]["prompt_logprobs"]
            theirs = [int(next(iter(entry))) for entry in entries[1:]]
            if own[1:] != theirs:
                what = "the student's tokenizer splits text otherwise than the server's: their distributions cannot be compared"
                fix = "start from a model with the served one's tokenizer, or set signal=text"
                raise ModelError(what, where="teacher", fix=fix)

    def _prompt_logprobs(self, ids: list[int], top_k: int) -> list[tuple[Tensor, Tensor]]:
        """What may follow each token but the last: (ids, log-probabilities), the largest first."""
        self.tokens_read += len(ids)
        entries = self._call("POST", "completions", _asking(ids, top_k))["choices"][0].get("prompt_logprobs")
        if not entries or len(entries) != len(ids):
            what = "the server gives no log-probabilities of its prompts"
            raise ServerError(what, where=self.address, fix="serve the teacher with vLLM, or set signal=text")
        found = []
        for entry in entries[1:]:
            best = sorted(((told["logprob"], int(token)) for token, told in entry.items()), reverse=True)[:top_k]
            if len(best) < top_k:
                what = f"the server gives {len(best)} log-probabilities a token, not {top_k}"
                raise ServerError(what, where=self.address, fix=f"start it with --max-logprobs {top_k} or more")
            found.append((torch.tensor([token for _, token in best]), torch.tensor([logprob for logprob, _ in best])))
        return found

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Raises: ServerError for no answer, or one that is an error."""
        data = None if body is None else json.dumps({"model": self.name, **body}).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.address}/v1/{path}", data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            what = f"the teacher's server answers {error.code}: {error.read()[:200].decode(errors='replace')}"
            raise ServerError(what, where=self.address, fix="look at its log; a key is read from OPENAI_API_KEY") from None
        except (OSError, ValueError) as error:
            fix = "start it, and give its address as teacher=http://host:port"
            raise ServerError(f"the teacher's server does not answer: {error}", where=self.address, fix=fix) from None


def _asking(prompt: str | list[int], top_k: int) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": top_k}
