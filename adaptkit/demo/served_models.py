"""What the page knows of the server: which models it offers, and in which words its failures are told.

The key lies here, in the process, and goes into requests to the server only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from adaptkit.client.openai import OVERLOADED, BadAnswer, Client, Model, Refusal
from adaptkit.errors import ServerError

GENERATE, CLASSIFY, EMBED, RERANK = "generate", "classify", "embed", "rerank"
LOOK_S = 8.0  # a server that does not list its models in this time counts as away


@dataclass(frozen=True)
class Failure:
    """Why something did not work, for people.

    Attributes:
        kind: `away`, `busy`, `missing`, `refused` or `cut`; the page draws each differently.
        what, do: one sentence each.
    """

    kind: str
    what: str
    do: str


@dataclass(frozen=True)
class Look:
    """One look at the server."""

    models: tuple[Model, ...] = ()
    failure: Failure | None = None

    def of_kind(self, kind: str) -> list[Model]:
        """Models of a kind; one that does not tell its kind may generate."""
        return [model for model in self.models if (model.kind or GENERATE) == kind]


@dataclass(frozen=True)
class Server:
    """Where the models are.

    Attributes:
        url: without `/v1`.
        key: never shown, never sent anywhere but to `url`.
    """

    url: str
    key: str = field(default="", repr=False)

    def client(self) -> Client:
        """A connection of its own, to be closed: closing it ends what is under way."""
        return Client(self.url, self.key)

    def look(self) -> Look:
        try:
            with Client(self.url, self.key, timeout_s=LOOK_S) as client:
                found = tuple(client.models())
        except (ServerError, ValueError, KeyError, TypeError) as error:
            return Look(failure=explain(error, self.url))
        return (
            Look(found)
            if found
            else Look(failure=Failure("missing", "The server offers no model.", "Serve one first."))
        )


def explain(error: Exception, url: str, model: str = "", started: bool = False) -> Failure:
    """A failure in words.

    Args:
        started: part of the answer had come already.
    """
    if isinstance(error, Refusal) and error.status in OVERLOADED:
        wait = f"Try again in {math.ceil(max(1.0, error.retry_after_s))} s."
        what = (
            "The server is busy: too many requests."
            if error.status == 429
            else "The model is loading or restarting."
        )
        return Failure("busy", what, wait)
    if isinstance(error, Refusal) and error.status == 404:
        return Failure(
            "missing", f"{model or 'This model'} is no longer served.", "Look at the server again."
        )
    if isinstance(error, Refusal) and error.status in (401, 403):
        do = "Start the demo with the server's key in ADAPTKIT_API_KEY or --key-file."
        return Failure("refused", "The server does not accept this demo's key.", do)
    if started:
        return Failure("cut", "The answer broke off: the connection to the server was lost.", "Ask again.")
    if isinstance(error, Refusal):
        return Failure("refused", _chat_hint(error.what), "Change the text or the settings and ask again.")
    if isinstance(error, ServerError) and not isinstance(error, BadAnswer):
        do = "Start it with \u201cadaptkit serve\u201d: this page finds it by itself."
        return Failure("away", f"No server answers at {url}.", do)
    return Failure(
        "refused",
        f"{url} does not answer like an OpenAI-compatible server.",
        "Give another address with --server.",
    )


def _chat_hint(what: str) -> str:
    if "chat template" in what.lower():
        return "This model was never taught to chat: choose \u201cContinue the text\u201d."
    return f"The server refused: {what[:300]}"


def names(models: Sequence[Model]) -> list[str]:
    return [model.name for model in models]
