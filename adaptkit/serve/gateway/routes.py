"""The routes that are served: every other path is 404, whatever vLLM's own application offers.

vLLM 0.32 has 35 routes, and its `--api-key` leaves 17 of them open. This table is all that an adaptkit server
answers: a new vLLM release cannot add to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adaptkit.export.source import ServedKind
from adaptkit.serve.engine.command import EngineName

GENERATE: tuple[ServedKind, ...] = ("generate",)
POOLING: tuple[ServedKind, ...] = ("embed", "classify", "tag", "rerank")
PAIRS: tuple[ServedKind, ...] = ("embed", "rerank")
EVERY: tuple[ServedKind, ...] = (*GENERATE, *POOLING)


@dataclass(frozen=True)
class Route:
    """One path: its method, the kinds of model that answer it, and whether it opens without a key."""

    method: str
    kinds: tuple[ServedKind, ...] = ()
    """Empty where the request names no model."""
    open: bool = False


HEALTH, METRICS, MODELS, VERSION = "/health", "/metrics", "/v1/models", "/version"
CLASSIFY = "/classify"
SEARCH = "/v1/search"
"""Of ours: vLLM has nothing like it."""
ROUTES: dict[str, Route] = {
    HEALTH: Route("GET", open=True),
    METRICS: Route("GET"),
    VERSION: Route("GET"),
    MODELS: Route("GET"),
    "/v1/chat/completions": Route("POST", GENERATE),
    "/v1/completions": Route("POST", GENERATE),
    "/v1/embeddings": Route("POST", ("embed",)),
    CLASSIFY: Route("POST", ("classify",)),
    "/pooling": Route("POST", POOLING),
    "/score": Route("POST", PAIRS),
    "/v1/score": Route("POST", PAIRS),
    "/rerank": Route("POST", PAIRS),
    "/v1/rerank": Route("POST", PAIRS),
    "/v2/rerank": Route("POST", PAIRS),
    SEARCH: Route("POST"),
    "/tokenize": Route("POST", EVERY),
    "/detokenize": Route("POST", EVERY),
}
OF_OUR_ENCODER = ("/v1/embeddings", "/tokenize")
"""What adaptkit's own encoder answers of the routes of embedding models."""
NOT_SERVED = {
    "/v1/responses": "it keeps conversations on the server; use /v1/chat/completions",
    "/v1/audio/transcriptions": "only text is served",
    "/v1/audio/speech": "only text is served",
    "/v1/images/generations": "only text is served",
    "/v1/moderations": "use /classify with a classifier of your own",
    "/v1/files": "nothing is kept on the server",
    "/v1/batches": "send the requests one by one; as many as you like may be under way",
}
"""Routes of OpenAI's that a client may ask for in vain, and what to do instead."""
_ONE_MODEL = re.compile(rf"{MODELS}/[A-Za-z0-9][\w.@+-]{{0,199}}", re.ASCII)


def find_route(path: str) -> str | None:
    """Find the entry of the table that `path` is, spelt exactly so; None for every other path."""
    if path in ROUTES:
        return path
    if _ONE_MODEL.fullmatch(path):
        return MODELS
    return None


def not_served(path: str) -> str:
    """Say that a path is not in the table, and what is."""
    if path in NOT_SERVED:
        return f"{path} is not served: {NOT_SERVED[path]}"
    return "no such route; known: " + ", ".join(ROUTES)


def routes_of_kind(kind: ServedKind, engine: EngineName = "vllm") -> list[str]:
    """List the paths that a model of this kind answers, in this engine."""
    paths = [path for path, route in ROUTES.items() if kind in route.kinds]
    return paths if engine == "vllm" else [path for path in paths if path in OF_OUR_ENCODER]
