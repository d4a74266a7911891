"""Ask a model that is paid for by the token: replies are kept, spending stops at a ceiling, time is measured.

    with PaidClient(client, "small-chat", TokenPrice(0.15, 0.60), replies=folder, ledger=ledger) as model:
        reply = model.ask([{"role": "user", "content": "Hello"}], max_tokens=16)

A reply is kept under the digest of its request, address and model included: the same request is never paid
for twice, by this study or another beside it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adaptkit.client.openai import Client, Messages
from adaptkit.disk import writing
from adaptkit.errors import BudgetError
from adaptkit.run import read_json, write_json

TURN_TOKENS = 16
"""What a chat template may write around one turn, at most."""
PER_MILLION = 1e6


@dataclass(frozen=True)
class TokenPrice:
    """US dollars per million tokens of prompts and of answers."""

    usd_in: float
    usd_out: float

    def usd(self, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in * self.usd_in + tokens_out * self.usd_out) / PER_MILLION


@dataclass(frozen=True)
class Reply:
    """What a model answered, and what that took.

    Attributes:
        seconds: until the whole answer was there, without earlier tries.
        usd: by the tokens that the server counted; where it counts none, the most that it can be.
        kept: it was paid for before, and nothing was sent.
    """

    text: str
    tokens_in: int
    tokens_out: int
    seconds: float
    usd: float
    kept: bool = False


class Ledger:
    """What a study has spent, in a file that all of its processes write: none gets past the ceiling.

    Before a request is sent, the most that it can cost is put down; when its answer is there, what it did.

    Args:
        setting: where the ceiling is set, and `fewer` how less is asked: for who reaches it.
    """

    def __init__(
        self, path: Path, ceiling: float, *, setting: str = "api.ceiling", fewer: str = "judge on fewer items"
    ):
        self.path, self.ceiling, self._setting, self._fewer = path, ceiling, setting, fewer

    @property
    def spent(self) -> float:
        return float(read_json(self.path)["usd"]) if self.path.exists() else 0.0

    def reserve(self, usd: float) -> None:
        """Raises: BudgetError where so much more may cost more than the ceiling."""
        with self._locked():
            spent = self.spent
            if spent + usd > self.ceiling:
                what = f"the next request may cost ${usd:.2g}; ${spent:.4g} of ${self.ceiling:g} are spent"
                kept = "replies that are here are not paid for again"
                fix = f"raise {self._setting}, or {self._fewer}: {kept}"
                raise BudgetError(what, where=self._setting, fix=fix)
            write_json(self.path, {"usd": spent + usd})

    def correct(self, usd: float) -> None:
        """Add the difference between what was put down and what it came to."""
        with self._locked():
            write_json(self.path, {"usd": max(0.0, self.spent + usd)})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.with_suffix(".lock")
        with writing(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class PaidClient:
    """One model behind one address; may be asked from several threads.

    Args:
        replies: the folder that replies are kept in.
        at_once: how many requests the server takes at once, for whoever asks.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        price: TokenPrice,
        *,
        replies: Path,
        ledger: Ledger,
        at_once: int = 1,
    ):
        self.client, self.model, self.price, self.at_once = client, model, price, at_once
        self.replies, self.ledger = replies, ledger

    def __enter__(self) -> PaidClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, messages: Messages, *, max_tokens: int, **options: Any) -> Reply:
        """The model's answer to messages, greedy unless `temperature` is given.

        Raises: BudgetError where the answer may cost more than is left, ServerError for none.
        """
        path = self._path({"messages": list(messages), "max_tokens": max_tokens, **options})
        if path.exists():
            return replace(Reply(**read_json(path)["reply"]), kept=True)
        most = most_usd(messages, max_tokens, self.price)
        self.ledger.reserve(most)
        try:
            answer = self.client.chat(self.model, messages, max_tokens=max_tokens, **options)
        except BaseException:
            self.ledger.correct(-most)
            raise
        usd = most
        if answer.prompt_tokens:
            usd = self.price.usd(answer.prompt_tokens, answer.output_tokens)
        self.ledger.correct(usd - most)
        seconds = self.client.last_seconds
        reply = Reply(answer.text, answer.prompt_tokens, answer.output_tokens, seconds, usd)
        write_json(path, {"model": self.model, "messages": list(messages), "reply": asdict(reply)})
        return reply

    def _path(self, request: dict[str, Any]) -> Path:
        whole = {"address": self.client.base_url, "model": self.model, **request}
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        return self.replies / digest[:2] / f"{digest}.json"


def most_usd(messages: Messages, max_tokens: int, price: TokenPrice) -> float:
    """The most that one request can cost: a token of its texts is one byte at least."""
    num_bytes = sum(len(message["content"].encode()) + TURN_TOKENS for message in messages) + TURN_TOKENS
    return price.usd(num_bytes, max_tokens)
