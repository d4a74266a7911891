"""A small typed client of an OpenAI-compatible server, ours or any: all of adaptkit asks servers through it.

    with Client("http://127.0.0.1:8000", key) as client:
        client.complete("name", "Once", max_tokens=16).text
        for piece in client.stream_chat("name", [{"role": "user", "content": "Hello"}]): ...
        client.embed("vectors", ["one text", "another"])

What fails and what is tried again: `client.connection`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adaptkit.client.connection import OVERLOADED, BadAnswer, Connection, Refusal
from adaptkit.client.identity import ModelIdentity
from adaptkit.prompt_names import prompt_for

__all__ = [
    "CUT",
    "OVERLOADED",
    "BadAnswer",
    "Client",
    "Completion",
    "Messages",
    "Model",
    "Refusal",
    "prompt_option",
]

Messages = Sequence[dict[str, str]]
Row = dict[str, Any]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
CUT: dict[str, Any] = {"truncate_prompt_tokens": -1}
"""An option of vLLM's: texts end where the model's window does, as in training."""


@dataclass(frozen=True)
class Model:
    """A served model: its name and what it answers with (empty for a server that is not adaptkit's).

    Attributes:
        ready: false while it loads or restarts.
        prompts: names of the prompts that an embedding model may be asked with.
    """

    name: str
    kind: str = ""
    max_len: int | None = None
    identity: ModelIdentity | None = None
    ready: bool = True
    prompts: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether it generates text; servers that name no kinds are vLLM's own, which serve generators."""
        return self.kind in ("", "generate")


@dataclass(frozen=True)
class Completion:
    """Generated text.

    Attributes:
        token_ids, logprobs: of the generated tokens (nats), where the server gave them.
        prompt_logprobs: for each token of the prompt, token id -> log-probability, its own first; empty for
            the first token, and no entries where they were not asked for.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    prompt_logprobs: tuple[dict[int, float], ...] = ()


class Client(Connection):
    """Calls one server; see `Connection` for its arguments and for what it raises."""

    def models(self) -> list[Model]:
        """List what the server offers."""

        def read(answer: Any) -> list[Model]:
            return [
                Model(
                    name=row["id"],
                    kind=row.get("kind", ""),
                    max_len=row.get("max_model_len"),
                    identity=ModelIdentity.from_row(row),
                    ready=bool(row.get("ready", True)),
                    prompts=tuple(row.get("prompts") or ()),
                )
                for row in answer["data"]
            ]

        return self.get("/v1/models", read)

    def complete(
        self, model: str, prompt: str | Sequence[int], *, max_tokens: int = 64, **options: Any
    ) -> Completion:
        """Continue a text or a list of token ids; greedy unless `temperature` is given."""
        body = _generation(model, max_tokens, options) | {"prompt": prompt}
        return self.post(COMPLETIONS, body, _first_completion)

    def complete_each(
        self,
        model: str,
        prompts: Sequence[str] | Sequence[list[int]],
        *,
        max_tokens: int = 64,
        **options: Any,
    ) -> list[Completion]:
        """Continue several prompts in one request; one completion per prompt, in order."""
        body = _generation(model, max_tokens, options) | {"prompt": list(prompts)}
        return self.post(COMPLETIONS, body, lambda answer: _completions(answer, len(prompts)))

    def chat(self, model: str, messages: Messages, *, max_tokens: int = 64, **options: Any) -> Completion:
        """Answer the last of some messages; greedy unless `temperature` is given."""
        body = _generation(model, max_tokens, options) | {"messages": list(messages)}
        return self.post(CHAT, body, _first_completion)

    def answer(self, model: str, request: str, *, max_tokens: int = 64, **options: Any) -> str:
        """Answer a request in words: by chat, or by a plain continuation where there is no chat template."""
        try:
            messages = [{"role": "user", "content": request}]
            return self.chat(model, messages, max_tokens=max_tokens, **options).text
        except Refusal as refusal:
            if "chat template" not in refusal.what:
                raise
        return self.complete(model, request, max_tokens=max_tokens, **options).text

    def stream(
        self,
        model: str,
        prompt: str,
        *,
        max_tokens: int = 64,
        on_tokens: Callable[[int], None] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Yield pieces of a continuation as they come; `on_tokens` is told their number of tokens at the end.

        Raises: ServerError, also in the middle if the server dies.
        """
        body = _generation(model, max_tokens, options) | {"prompt": prompt}
        return self._pieces(COMPLETIONS, body, on_tokens)

    def stream_chat(
        self,
        model: str,
        messages: Messages,
        *,
        max_tokens: int = 64,
        on_tokens: Callable[[int], None] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Yield pieces of an answer as they come; otherwise as `stream`."""
        body = _generation(model, max_tokens, options) | {"messages": list(messages)}
        return self._pieces(CHAT, body, on_tokens)

    def embed(self, model: str, texts: Sequence[str], **options: Any) -> list[list[float]]:
        """Turn texts into vectors, one per text, in order."""
        body = {"model": model, "input": list(texts), **options}

        def read(answer: Any) -> list[list[float]]:
            return [row["embedding"] for row in _in_order(answer["data"], len(texts))]

        return self.post("/v1/embeddings", body, read)

    def classify(self, model: str, texts: Sequence[str], **options: Any) -> list[tuple[str, list[float]]]:
        """Classify texts: (label, probability of each class) per text, in order."""
        return [(row["label"], row["probs"]) for row in self.classify_rows(model, texts, **options)]

    def classify_rows(self, model: str, texts: Sequence[str], **options: Any) -> list[dict[str, Any]]:
        """Classify texts: all that the server says of each, in order.

        An exported classifier says `confidence` and `abstain` beside `label` and `probs`.
        """
        body = {"model": model, "input": list(texts), **options}

        def read(answer: Any) -> list[dict[str, Any]]:
            rows = _in_order(answer["data"], len(texts))
            for row in rows:
                _ = row["label"], row["probs"]
            return rows

        return self.post("/classify", body, read)

    def tag(self, model: str, texts: Sequence[str], **options: Any) -> list[list[list[float]]]:
        """Tag the tokens of texts: the probability of each tag for every token, special ones included."""
        body = {"model": model, "input": list(texts), "task": "token_classify", **options}

        def read(answer: Any) -> list[list[list[float]]]:
            return [row["data"] for row in _in_order(answer["data"], len(texts))]

        return self.post("/pooling", body, read)

    def rerank(self, model: str, query: str, documents: Sequence[str], **options: Any) -> list[float]:
        """Score how relevant each document is to the query, in the order given."""
        body = {"model": model, "query": query, "documents": list(documents), **options}

        def read(answer: Any) -> list[float]:
            return [row["relevance_score"] for row in _in_order(answer["results"], len(documents))]

        return self.post("/rerank", body, read)

    def tokenize(self, model: str, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Turn a text into the server's own token ids."""
        body = {"model": model, "prompt": text, "add_special_tokens": add_special_tokens}
        return self.post("/tokenize", body, lambda answer: list(answer["tokens"]))

    def tokenize_chat(self, model: str, messages: Messages) -> list[int]:
        """Turn a conversation into the token ids that the server's chat template gives, an answer begun."""
        body = {"model": model, "messages": list(messages), "add_generation_prompt": True}
        return self.post("/tokenize", body, lambda answer: list(answer["tokens"]))

    def _pieces(
        self, path: str, body: dict[str, Any], on_tokens: Callable[[int], None] | None
    ) -> Iterator[str]:
        if on_tokens:
            body = {**body, "stream_options": {"include_usage": True}}

        def read(event: Any) -> list[str]:
            if on_tokens and event.get("usage"):
                on_tokens(event["usage"].get("completion_tokens", 0))
            return [_text(choice.get("delta") or choice) for choice in event.get("choices") or []]

        for pieces in self.events(path, body, read):
            yield from pieces


def prompt_option(texts: str, names: Sequence[str]) -> dict[str, str]:
    """Make the option of `embed` that puts the prompt for queries or documents before them, if there is one.

    Args:
        texts: "query" or "document".
        names: the model's prompts.
    """
    name = prompt_for(texts, names)
    return {} if name is None else {"prompt_name": name}


def _generation(model: str, max_tokens: int, options: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "max_tokens": max_tokens, "temperature": 0.0, **options}


def _in_order(rows: list[Row], count: int) -> list[Row]:
    """Sort rows by their index.

    Raises: ValueError if there are not `count`.
    """
    if len(rows) != count:
        raise ValueError(f"{len(rows)} answers to {count} inputs")
    return sorted(rows, key=lambda row: row["index"])


def _first_completion(answer: Row) -> Completion:
    return _completion(answer["choices"][0], answer.get("usage") or {})


def _completions(answer: Row, count: int) -> list[Completion]:
    usage = answer.get("usage") or {}
    return [_completion(choice, usage) for choice in _in_order(answer["choices"], count)]


def _completion(choice: Row, usage: Row) -> Completion:
    logprobs = choice.get("logprobs") or {}
    values = logprobs.get("token_logprobs") or [entry["logprob"] for entry in logprobs.get("content") or []]
    return Completion(
        text=_text(choice.get("message") or choice),
        finish_reason=choice.get("finish_reason") or "",
        prompt_tokens=usage.get("prompt_tokens", 0),
        output_tokens=usage.get("completion_tokens", 0),
        token_ids=tuple(choice.get("token_ids") or ()),
        logprobs=tuple(values),
        prompt_logprobs=tuple(
            {int(token): float(entry["logprob"]) for token, entry in (entries or {}).items()}
            for entries in choice.get("prompt_logprobs") or ()
        ),
    )


def _text(part: Row) -> str:
    """Take the words of a choice, a message or a piece of one; a model may answer with none."""
    return part.get("content") or part.get("text") or ""
