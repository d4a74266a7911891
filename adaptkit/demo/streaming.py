"""Ask several models one prompt at once: their answers as they grow, with speed, and how each one ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from adaptkit.client.openai import Client
from adaptkit.demo.served_models import Failure, Server, explain
from adaptkit.errors import ServerError

State = Literal["waiting", "asked", "writing", "done", "failed"]
SHOW_EVERY_S = 0.08
NEWS_S = 0.5  # without news the page is drawn again after so long, so that waiting shows


@dataclass(frozen=True)
class Prompt:
    """What is asked.

    Attributes:
        chat: as a message to a chat model; else the text is continued.
        together: all models at once; else one after the other, which makes speeds comparable.
    """

    text: str
    max_tokens: int = 128
    temperature: float = 0.0
    chat: bool = False
    together: bool = True


@dataclass(frozen=True)
class Answer:
    """One model's answer so far.

    Attributes:
        tokens: as the server counted them, else the pieces that came.
        first_s: from asking to the first piece; None before it.
        seconds: from asking to now, or to the end.
    """

    model: str
    state: State = "waiting"
    text: str = ""
    tokens: int = 0
    first_s: float | None = None
    seconds: float = 0.0
    failure: Failure | None = None

    @property
    def tokens_per_s(self) -> float | None:
        if not self.tokens or self.seconds <= 0:
            return None
        return self.tokens / self.seconds

    def usd(self, usd_per_hour: float) -> float | None:
        """Price a thousand such answers on a server that writes them one by one; None before the end."""
        if self.state != "done":
            return None
        return usd_per_hour / 3600 * self.seconds * 1000

    def grown(self, piece: str, seconds: float) -> Answer:
        """Add one more piece, which came `seconds` after asking."""
        tokens, text, first_s = self.tokens, self.text + piece, self.first_s
        if piece:
            tokens += 1
        if first_s is None:
            first_s = seconds
        return replace(self, state="writing", text=text, tokens=tokens, seconds=seconds, first_s=first_s)


class AnswerStream:
    """Answers of several models to one prompt.

        with AnswerStream(server, ["generic", "tuned"], prompt) as stream:
            for answers in stream.progress(): ...

    Leaving the block closes the connection, which ends the work on the server.
    """

    def __init__(self, server: Server, models: Sequence[str], prompt: Prompt):
        self.server, self.prompt = server, prompt
        self.answers = {model: Answer(model) for model in models}
        self._client: Client = server.client()
        self._stopped = threading.Event()
        self._changed = threading.Event()
        self._begun: dict[str, float] = {}
        groups = [list(models)]
        if prompt.together:
            groups = [[model] for model in models]
        self._threads = [
            threading.Thread(target=self._ask_all, args=(group,), daemon=True) for group in groups
        ]

    def __enter__(self) -> AnswerStream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._client.close()

    def progress(self) -> Iterator[list[Answer]]:
        """Yield snapshots until all have ended; also without news, so that waiting shows."""
        yield self._now()
        while any(thread.is_alive() for thread in self._threads):
            if self._changed.wait(NEWS_S):
                time.sleep(SHOW_EVERY_S)
            self._changed.clear()
            yield self._now()
        yield self._now()

    def _now(self) -> list[Answer]:
        """Take a snapshot of the answers; those without a word yet say how long that has been."""
        now, begun = time.perf_counter(), dict(self._begun)
        answers = []
        for answer in list(self.answers.values()):
            if answer.state == "asked":
                answer = replace(answer, seconds=now - begun[answer.model])
            answers.append(answer)
        return answers

    def _ask_all(self, models: Sequence[str]) -> None:
        for model in models:
            if not self._stopped.is_set():
                self._ask(model)

    def _ask(self, model: str) -> None:
        begun = time.perf_counter()
        counts: list[int] = []
        self._begun[model] = begun
        self._set(replace(self.answers[model], state="asked"))
        try:
            for piece in self._stream(model, counts):
                if self._stopped.is_set():
                    return
                self._set(self.answers[model].grown(piece, time.perf_counter() - begun))
        except (ServerError, ValueError, KeyError, TypeError, RuntimeError) as error:
            answer = self.answers[model]
            failure = explain(error, self.server.url, model, started=answer.tokens > 0)
            seconds = time.perf_counter() - begun
            self._set(replace(answer, state="failed", failure=failure, seconds=seconds))
        else:
            answer, seconds = self.answers[model], time.perf_counter() - begun
            tokens = answer.tokens
            if counts and counts[-1]:
                tokens = counts[-1]
            self._set(replace(answer, state="done", tokens=tokens, seconds=seconds))

    def _stream(self, model: str, counts: list[int]) -> Iterator[str]:
        """Stream pieces of the answer; the server's own count of tokens goes into `counts`."""
        prompt = self.prompt
        if prompt.chat:
            messages = [{"role": "user", "content": prompt.text}]
            return self._client.stream_chat(
                model,
                messages,
                max_tokens=prompt.max_tokens,
                temperature=prompt.temperature,
                on_tokens=counts.append,
            )
        return self._client.stream(
            model,
            prompt.text,
            max_tokens=prompt.max_tokens,
            temperature=prompt.temperature,
            on_tokens=counts.append,
        )

    def _set(self, answer: Answer) -> None:
        self.answers[answer.model] = answer
        self._changed.set()
