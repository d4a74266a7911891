"""JSON over HTTP to one server, with one policy for errors and for trying again.

Every failure is a ServerError that says what happened, where, and what to do: Refusal for an answer that is
no success, BadAnswer for one that cannot be read. Requests to a model change nothing on the server, so each
may be sent twice: while a server is overloaded or restarts it is asked again, for as long as the caller's
patience lasts. The key goes to the named server only, never through a proxy of the environment and never
into a message.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from adaptkit.config import refuse_credentials
from adaptkit.errors import ServerError

TIMEOUT_S, CONNECT_S, HEALTH_S = 300.0, 10.0, 10.0
OVERLOADED = (429, 503)
PASSING = (429, 500, 502, 503, 504, 529)
"""What hosted services answer for a while, and then no more."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""Between two tries, where the server does not ask for more; each pause is twice the one before."""
SHOWN_CHARS = 300
"""Of an answer that is no JSON, in a message."""
T = TypeVar("T")


class Refusal(ServerError):
    """An answer that is no success.

    Attributes:
        status: its HTTP status.
        retry_after_s: when to ask again; 0 where the server does not say.
    """

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


class BadAnswer(ServerError):
    """An answer that no OpenAI-compatible server gives."""


class Connection:
    """Sends requests to one server.

    Args:
        base_url: `http://host:port`, with or without `/v1`.
        key: its API key; empty for none.
        patience_s: how long to try again while the server is overloaded (429, 503), or gone after it answered
            before. An address that never answered fails at once.
        timeout_s: how long to wait for an answer, or for the next piece of one.
        again: statuses that are asked again.
        longest_pause_s: between two tries, where the server does not ask for more.
        transport: for tests and Unix sockets; httpx's own by default.
    Raises: ServerError for an address that cannot be one, ConfigError for one that holds a login or a key.
    """

    def __init__(
        self,
        base_url: str,
        key: str = "",
        *,
        patience_s: float = 0.0,
        timeout_s: float = TIMEOUT_S,
        again: Collection[int] = OVERLOADED,
        longest_pause_s: float = LONGEST_PAUSE_S,
        transport: httpx.BaseTransport | None = None,
    ):
        fix = "give the key by a key file or the environment"
        refuse_credentials(base_url, where="the server's address", fix=fix)
        self.base_url, self.patience_s = base_url.rstrip("/").removesuffix("/v1"), patience_s
        self._key, self._has_answered = key, False
        self._again, self._longest_pause_s = again, longest_pause_s
        self._last = threading.local()
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        headers = {}
        if key:
            headers["authorization"] = f"Bearer {key}"
        try:
            self._http = httpx.Client(
                base_url=self.base_url,
                headers=headers,
                timeout=timeout,
                transport=transport,
                trust_env=False,
                # Without TLS no certificates are read, which takes longer than a request to a server here.
                verify=not self.base_url.startswith("http://"),
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            fix = "write the address as http://host:port, and a key in plain letters"
            raise ServerError(f"is no address: {error}", where=base_url, fix=fix) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the server then stops working on what it was asked."""
        self._http.close()

    @property
    def last_seconds(self) -> float:
        """How long the last answer took that this thread got, the tries before it left out."""
        return float(getattr(self._last, "seconds", 0.0))

    def healthy(self) -> bool:
        """Ask whether all models of the server answer."""
        try:
            return self._http.get("/health", timeout=HEALTH_S).status_code == 200
        except httpx.HTTPError:
            return False

    def get(self, path: str, read: Callable[[Any], T]) -> T:
        """Give what `read` makes of the JSON that a GET answers with; otherwise as `post`."""
        return self._call("GET", path, None, read)

    def post(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        """Give what `read` makes of the JSON that a POST of `body` answers with.

        Raises: Refusal, BadAnswer where `read` does not find what it looks for, ServerError for no answer.
        """
        return self._call("POST", path, body, read)

    def events(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> Iterator[T]:
        """Yield what `read` makes of each event of a streamed answer, as it comes. Nothing is tried again.

        Raises: as `post`, also in the middle of a stream.
        """
        try:
            with self._http.stream("POST", path, json={**body, "stream": True}) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._refusal(path, answer)
                for line in answer.iter_lines():
                    if line == "data: [DONE]":
                        return
                    if line.startswith("data: "):
                        yield self._event(path, line.removeprefix("data: "), read)
        except httpx.HTTPError as error:
            raise self._no_answer(path, error) from None
        raise ServerError("the stream was cut before its end", where=self._where(path), fix="ask again")

    def _call(self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[Any], T]) -> T:
        until, pause = time.monotonic() + self.patience_s, FIRST_PAUSE_S
        while True:
            wait = pause
            try:
                return self._read(path, self._request(method, path, body).text, read)
            except Refusal as refusal:
                wait = max(wait, refusal.retry_after_s)
                if refusal.status not in self._again or time.monotonic() + wait > until:
                    raise
            except BadAnswer:
                raise
            except ServerError:
                if not self._has_answered or time.monotonic() + wait > until:
                    raise
            time.sleep(wait)
            pause = min(2 * pause, self._longest_pause_s)

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        """Send a request once.

        Raises: Refusal for an answer that is no success, ServerError for none.
        """
        begun = time.perf_counter()
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._no_answer(path, error) from None
        self._has_answered = True
        self._last.seconds = time.perf_counter() - begun
        if answer.status_code != 200:
            raise self._refusal(path, answer)
        return answer

    def _read(self, path: str, text: str, read: Callable[[Any], T]) -> T:
        try:
            return read(json.loads(text))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            what = f"answers what no OpenAI-compatible server does ({error!r}): {self._plain(text)}"
            fix = "give the address of an OpenAI-compatible server"
            raise BadAnswer(what, where=self._where(path), fix=fix) from None

    def _event(self, path: str, text: str, read: Callable[[Any], T]) -> T:
        if self._read(path, text, lambda event: "error" in event):
            raise Refusal(f"200: {self._message(text)}", where=self._where(path), fix=_fix(500), status=200)
        return self._read(path, text, read)

    def _no_answer(self, path: str, error: httpx.HTTPError) -> ServerError:
        what = f"no answer: {error or type(error).__name__}"
        return ServerError(what, where=self._where(path), fix="start the server, or mend the address")

    def _refusal(self, path: str, answer: httpx.Response) -> Refusal:
        return Refusal(
            f"{answer.status_code}: {self._message(answer.text)}",
            where=self._where(path),
            fix=_fix(answer.status_code),
            status=answer.status_code,
            retry_after_s=_retry_after_s(answer),
        )

    def _message(self, text: str) -> str:
        """Find what the server says went wrong."""
        try:
            return self._plain(json.loads(text)["error"]["message"], len(text))
        except (LookupError, TypeError, ValueError, AttributeError):
            return self._plain(text)

    def _plain(self, text: str, most: int = SHOWN_CHARS) -> str:
        """Cut a text to its beginning, without the key, should the server repeat it."""
        if self._key:
            text = text.replace(self._key, "<key>")
        return text[:most]

    def _where(self, path: str) -> str:
        return f"{self.base_url}{path}"


def _fix(status: int) -> str:
    if status in (401, 403):
        return "give the server's key, in a key file or in OPENAI_API_KEY"
    if status == 404:
        return "ask for one of the models that the server names at /v1/models"
    if status in OVERLOADED:
        return "ask again later"
    if status >= 500:
        return "look at the server's log"
    return "change the request as the server says"


def _retry_after_s(answer: httpx.Response) -> float:
    """Read what a Retry-After header asks for: seconds, or a date; 0 where it says neither."""
    text = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
