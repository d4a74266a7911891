"""A small typed client of an OpenAI-compatible server, ours or any: what ready checks, benchmarks and demos
call.

with Client("http://127.0.0.1:8000", key) as client:
    client.complete("name", "Once", max_tokens=16).text
    for piece in client.stream_chat("name", [{"role": "user", "content": "Hello"}]): ...
    client.embed("vectors", ["one text", "another"])
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from adaptkit.client.identity import ModelIdentity
from adaptkit.errors import ServerError

Messages = Sequence[dict[str, str]]
TIMEOUT_S, CONNECT_S = 300.0, 10.0
OVERLOADED = (429, 503)
CUT: dict[str, Any] = {
    "truncate_prompt_tokens": -1
}  # an option of vLLM's: texts end where the model's window does, as in training


@dataclass(frozen=True)
class Model:
    """A served model: its name and what it answers with (empty for a server that is not adaptkit's)."""

    name: str
    kind: str = ""
    max_len: int | None = None
    identity: ModelIdentity | None = None


@dataclass(frozen=True)
class Completion:
    """Generated text; `token_ids` and `logprobs` (nats, one per token) where the server gave them."""

    text: str
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


class Refusal(ServerError):
    """An answer that is no success; `retry_after_s` is when to ask again, 0 where the server does not say."""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        status: int = 0,
        retry_after_s: float = 0.0,
    ):
        super().__init__(what, where=where, fix=fix)
        self.status, self.retry_after_s = status, retry_after_s


class Client:
    """Calls one server.

    Args:
        base_url: `http://host:port`, without `/v1`.
        key: its API key; empty for none.
        patience_s: how long to try again while the server is overloaded or restarts (429, 503, no
            connection).
        timeout_s: how long to wait for an answer, or for the next piece of one.
        transport: for tests and Unix sockets; httpx's own by default.
    """

    def __init__(
        self,
        base_url: str,
        key: str = "",
        *,
        patience_s: float = 0.0,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # No proxy of the environment: the key and the texts go to the named server only.
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout, transport=transport, trust_env=False
        )
        self.base_url, self.patience_s = base_url, patience_s

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def healthy(self) -> bool:
        """True if the server says that all its models answer."""
        try:
            return self._http.get("/health", timeout=10.0).status_code == 200
        except httpx.HTTPError:
            return False

    def models(self) -> list[Model]:
        rows = self.call("GET", "/v1/models")["data"]
        return [
            Model(row["id"], row.get("kind", ""), row.get("max_model_len"), ModelIdentity.from_row(row))
            for row in rows
        ]

    def complete(
        self, model: str, prompt: str | Sequence[int], *, max_tokens: int = 64, **options: Any
    ) -> Completion:
        """Continue a text or a list of token ids; greedy unless `temperature` is given."""
        asked = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0.0, **options}
        return _completion(self.call("POST", "/v1/completions", asked), "text")

    def chat(self, model: str, messages: Messages, *, max_tokens: int = 64, **options: Any) -> Completion:
        asked = {
            "model": model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0.0,
            **options,
        }
        return _completion(self.call("POST", "/v1/chat/completions", asked), "message")

    def stream(
        self,
        model: str,
        prompt: str,
        *,
        max_tokens: int = 64,
        on_tokens: Callable[[int], None] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Pieces of a continuation as they come; `on_tokens` is told at the end how many tokens they were.

        Raises: ServerError, also in the middle if the server dies.
        """
        asked = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0.0, **options}
        return (choice.get("text") or "" for choice in self._stream("/v1/completions", asked, on_tokens))

    def stream_chat(
        self,
        model: str,
        messages: Messages,
        *,
        max_tokens: int = 64,
        on_tokens: Callable[[int], None] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Pieces of an answer as they come; otherwise as `stream`."""
        asked = {
            "model": model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0.0,
            **options,
        }
        return (
            choice["delta"].get("content") or ""
            for choice in self._stream("/v1/chat/completions", asked, on_tokens)
        )

    def embed(self, model: str, texts: Sequence[str], **options: Any) -> list[list[float]]:
        """One vector per text, in order."""
        rows = self.call("POST", "/v1/embeddings", {"model": model, "input": list(texts), **options})["data"]
        return [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]

    def classify(self, model: str, texts: Sequence[str], **options: Any) -> list[tuple[str, list[float]]]:
        """(label, probability of each class) per text, in order."""
        rows = self.call("POST", "/classify", {"model": model, "input": list(texts), **options})["data"]
        return [(row["label"], row["probs"]) for row in sorted(rows, key=lambda row: row["index"])]

    def rerank(self, model: str, query: str, documents: Sequence[str], **options: Any) -> list[float]:
        """Relevance of each document to the query, in the order given."""
        asked = {"model": model, "query": query, "documents": list(documents), **options}
        rows = self.call("POST", "/rerank", asked)["results"]
        return [row["relevance_score"] for row in sorted(rows, key=lambda row: row["index"])]

    def tokenize(self, model: str, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """The server's own token ids of a text."""
        asked = {"model": model, "prompt": text, "add_special_tokens": add_special_tokens}
        return self.call("POST", "/tokenize", asked)["tokens"]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request, tried again within `patience_s`.

        Raises: ServerError with what the server said.
        """
        until = time.monotonic() + self.patience_s
        while True:
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.HTTPError as error:
                failed, wait = (
                    ServerError(f"no answer: {error or type(error).__name__}", where=self._where(path)),
                    1.0,
                )
            else:
                if answer.status_code == 200:
                    return answer.json()
                failed, wait = (
                    self._failed(path, answer.status_code, answer.text, _retry_after(answer)),
                    _retry_after(answer),
                )
                if answer.status_code not in OVERLOADED:
                    raise failed
            if time.monotonic() + wait > until:
                raise failed
            time.sleep(wait)

    def _stream(
        self, path: str, body: dict[str, Any], on_tokens: Callable[[int], None] | None
    ) -> Iterator[dict[str, Any]]:
        """Choices of server-sent events."""
        counted = {"stream_options": {"include_usage": True}} if on_tokens else {}
        try:
            with self._http.stream("POST", path, json={**body, **counted, "stream": True}) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._failed(path, answer.status_code, answer.text, _retry_after(answer))
                for line in answer.iter_lines():
                    if line == "data: [DONE]":
                        return
                    if not line.startswith("data: "):
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise self._failed(path, 200, line.removeprefix("data: "))
                    if on_tokens and event.get("usage"):
                        on_tokens(event["usage"].get("completion_tokens", 0))
                    yield from event.get("choices") or []
        except httpx.HTTPError as error:
            raise ServerError(
                f"no answer: {error or type(error).__name__}", where=self._where(path)
            ) from None
        raise ServerError("the stream was cut before its end", where=self._where(path))

    def _where(self, path: str) -> str:
        return f"{self.base_url}{path}"

    def _failed(self, path: str, status: int, text: str, retry_after_s: float = 0.0) -> Refusal:
        try:
            message = json.loads(text)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = text[:300]
        return Refusal(
            f"{status}: {message}", where=self._where(path), status=status, retry_after_s=retry_after_s
        )


def _completion(answer: dict[str, Any], field: str) -> Completion:
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    text = choice[field] if field == "text" else choice["message"].get("content")
    logprobs = choice.get("logprobs") or {}
    values = logprobs.get("token_logprobs") or [entry["logprob"] for entry in logprobs.get("content") or []]
    return Completion(
        text=text or "",
        finish_reason=choice.get("finish_reason") or "",
        prompt_tokens=usage.get("prompt_tokens", 0),
        output_tokens=usage.get("completion_tokens", 0),
        token_ids=tuple(choice.get("token_ids") or ()),
        logprobs=tuple(values),
    )


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 1.0
