"""Look at the server: which models it offers, and what its failures are in plain words.

The key stays in this process, and goes into requests to the server only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from adaptkit.client.openai import OVERLOADED, BadAnswer, Client, Model, Refusal
from adaptkit.errors import ServerError

GENERATE, CLASSIFY, EMBED, RERANK = "generate", "classify", "embed", "rerank"
LOOK_S = 8.0  # a server that does not list its models in this time counts as away
_TOO_LONG = re.compile(
    r"(maximum|max) (context|model|sequence|input) len|too (long|many tokens)|max_model_len", re.I
)
FailureKind = Literal["away", "busy", "missing", "refused", "cut"]


@dataclass(frozen=True)
class Failure:
    """Why something did not work, for people.

    Attributes:
        kind: the page draws each differently.
        what, do: one sentence each.
    """

    kind: FailureKind
    what: str
    do: str


@dataclass(frozen=True)
class Look:
    """What one look at the server showed."""

    models: tuple[Model, ...] = ()
    failure: Failure | None = None

    def of_kind(self, kind: str) -> list[Model]:
        """Pick the models of a kind; one that does not tell its kind may generate."""
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
        """Open a connection of its own, to be closed: closing it ends what is under way."""
        return Client(self.url, self.key)

    def look(self) -> Look:
        """Ask which models are served now."""
        try:
            with Client(self.url, self.key, timeout_s=LOOK_S) as client:
                models = tuple(client.models())
        except (ServerError, ValueError, KeyError, TypeError) as error:
            return Look(failure=explain(error, self.url))
        if not models:
            return Look(failure=Failure("missing", "The server offers no model.", "Serve one first."))
        return Look(models)


def explain(error: Exception, url: str, model: str = "", started: bool = False) -> Failure:
    """Say a failure in words.

    Args:
        started: part of the answer had come already.
    """
    if isinstance(error, Refusal) and (failure := _known_refusal(error, model)):
        return failure
    if started:
        return Failure("cut", "The answer broke off: the connection to the server was lost.", "Ask again.")
    if isinstance(error, Refusal):
        return _explained(error)
    if isinstance(error, ServerError) and not isinstance(error, BadAnswer):
        do = "Start it with \u201cadaptkit serve\u201d: this page finds it by itself."
        return Failure("away", f"No server answers at {url}.", do)
    what = f"{url} does not answer like an OpenAI-compatible server."
    return Failure("refused", what, "Give another address with --server.")


def _known_refusal(error: Refusal, model: str) -> Failure | None:
    """Explain refusals whose status says enough."""
    if error.status in OVERLOADED:
        what = "The model is loading or restarting."
        if error.status == 429:
            what = "The server is busy: too many requests."
        return Failure("busy", what, f"Try again in {math.ceil(max(1.0, error.retry_after_s))} s.")
    if error.status == 404:
        what = f"{model or 'This model'} is no longer served."
        return Failure("missing", what, "Look at the server again.")
    if error.status in (401, 403):
        do = "Start the demo with the server's key in ADAPTKIT_API_KEY or --key-file."
        return Failure("refused", "The server does not accept this demo's key.", do)
    return None


def _explained(refusal: Refusal) -> Failure:
    """Explain what a server said of this request, in our words: its own speak of its settings."""
    if "chat template" in refusal.what.lower():
        what = "This model was never taught to chat: choose \u201cContinue the text\u201d."
        return Failure("refused", what, "Ask again then.")
    if _TOO_LONG.search(refusal.what):
        what = "The text and the longest answer together do not fit into this model\u2019s window."
        return Failure("refused", what, "Shorten the text, or move the slider to a shorter answer.")
    if refusal.status == 413:
        return Failure("refused", "This is more text than the server takes at once.", "Shorten it.")
    if refusal.status >= 500 or refusal.status == 200:
        what = "The model failed on this request."
        return Failure("refused", what, "Ask again; its server\u2019s log says why.")
    what = "The server does not take this text with these settings."
    return Failure("refused", what, "Change the text or the settings and ask again; its log says why.")
