"""Who writes: a causal model in a folder, a served model, or one that is paid by the token.

    generator = FolderGenerator("models/writer")
    generator.write(["Write a question that ..."], max_tokens=60)     # [Written(text, cut)]

A folder's model writes greedily; served ones are sampled at TEMPERATURE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from adaptkit import models
from adaptkit.client.openai import Client, Refusal
from adaptkit.client.paid import PaidClient, TokenPrice
from adaptkit.data.readers import Row
from adaptkit.data.supervised import prompt_ids
from adaptkit.errors import ConfigError
from adaptkit.finetune.generation import generate
from adaptkit.finetune.prompt_template import context_length
from adaptkit.models.control_tokens import encode_prompt
from adaptkit.run import model_digest
from adaptkit.trainer.device import placed

TEMPERATURE = 0.7
FOLDER_BATCH = 32
"""Requests that a folder's model is given together: so many answers a kill may lose."""


@dataclass(frozen=True)
class Written:
    """An answer; `cut` where it had come to its most tokens."""

    text: str
    cut: bool


class Generator(Protocol):
    """What answers requests.

    Attributes:
        identity: what rows record of it.
        at_once: calls of `write` at the same time.
        batch: requests of a call.
        price: of its tokens; None where none is paid for.
    """

    identity: str
    at_once: int
    batch: int
    price: TokenPrice | None

    def write(self, requests: Sequence[str], max_tokens: int) -> list[Written]:
        """Answer each request, in order."""


class FolderGenerator:
    """A causal model in a folder: asked by its chat template, else it goes on with the request.

    Raises: ModelError for a folder without one.
    """

    at_once = 1
    batch = FOLDER_BATCH
    price: TokenPrice | None = None

    def __init__(self, folder: str | Path):
        self.identity = f"{Path(folder).name} sha256:{model_digest(Path(folder))[:16]}"
        self.model = placed(models.load(folder, "causal"))
        self.tokenizer = models.load_tokenizer(folder)

    def write(self, requests: Sequence[str], max_tokens: int) -> list[Written]:
        """Raises: ConfigError where the model reads too little for a request and its answer."""
        prompts = [self._prompt(request) for request in requests]
        window = context_length(self.model)
        if (longest := max(map(len, prompts))) + max_tokens > window:
            what = f"reads {window:,} tokens at once; a request and its answer have {longest + max_tokens:,}"
            fix = "use a model that reads more, a smaller --count, or a shorter --prompt-file"
            raise ConfigError(f"the generator {what}", where="--model", fix=fix)
        rows = generate(self.model, self.tokenizer, prompts, max_tokens)
        return [
            Written(str(self.tokenizer.decode(row, skip_special_tokens=True)), len(row) >= max_tokens)
            for row in rows
        ]

    def _prompt(self, request: str) -> list[int]:
        if self.tokenizer.chat_template:
            return prompt_ids(Row({"prompt": request, "completion": "-"}, "", "request"), self.tokenizer)
        return encode_prompt(self.tokenizer, request)


class ServedGenerator:
    """A model behind an OpenAI-compatible address, asked by chat, or to go on where it has no template."""

    batch = 1
    price: TokenPrice | None = None

    def __init__(self, client: Client, name: str, at_once: int):
        self.client, self.name, self.at_once = client, name, at_once
        self.identity = f"{name} at {urlsplit(client.base_url).netloc}"

    def write(self, requests: Sequence[str], max_tokens: int) -> list[Written]:
        """Raises: ServerError."""
        return [self._written(request, max_tokens) for request in requests]

    def _written(self, request: str, max_tokens: int) -> Written:
        try:
            messages = [{"role": "user", "content": request}]
            answer = self.client.chat(self.name, messages, max_tokens=max_tokens, temperature=TEMPERATURE)
        except Refusal as refusal:
            if "chat template" not in refusal.what:
                raise
            answer = self.client.complete(self.name, request, max_tokens=max_tokens, temperature=TEMPERATURE)
        return Written(answer.text, answer.finish_reason == "length")


class PaidGenerator:
    """A model that is paid by the token: replies are kept, and spending stops at the ceiling."""

    batch = 1

    def __init__(self, paid: PaidClient):
        self.paid, self.at_once = paid, paid.at_once
        self.price: TokenPrice | None = paid.price
        self.identity = f"{paid.model} at {urlsplit(paid.client.base_url).netloc}"

    def write(self, requests: Sequence[str], max_tokens: int) -> list[Written]:
        """Raises: BudgetError at the ceiling, ServerError."""
        replies = [
            self.paid.ask(
                [{"role": "user", "content": request}], max_tokens=max_tokens, temperature=TEMPERATURE
            )
            for request in requests
        ]
        return [Written(reply.text, reply.tokens_out >= max_tokens) for reply in replies]
