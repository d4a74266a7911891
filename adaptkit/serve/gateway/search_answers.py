"""Answer `POST /v1/search` over an index: the served model that made it encodes the query.

    {"query": "does aspirin help?", "top_k": 5, "filter": {"source": ["pubmed"]}, "rerank": "judge"}
    {"model": "vectors", "ranked_by": "vectors, then judge", "hits": [
        {"id": "PMC7", "score": 0.44, "start": 760, "end": 1504, "text": "...", "relevance": 0.9, ...}]}

A model is known by its folder's digest, and by the texts that are kept with the index: one of them goes along
with each query. The index is followed: what `adaptkit embed update` or `migrate` writes answers soon after.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.client.openai import CUT, Client, Refusal
from adaptkit.embed.field_values import FILTER, Filter, as_text
from adaptkit.embed.fusion import Fusion
from adaptkit.embed.index import Hit, Index
from adaptkit.embed.searcher import Searcher
from adaptkit.embed.served_encoder import ServedEncoder
from adaptkit.errors import AdaptkitError, ConfigError, ServerError, nearest
from adaptkit.export.source import Source
from adaptkit.run import model_digest
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway.refused import Refused
from adaptkit.serve.limits import MOST_WAITING

MOST_HITS, MOST_READ = 1000, 500
AT_ONCE = 32
"""Queries that the engine encodes at the same time."""

log = logging.getLogger("adaptkit.serve")


@dataclass(frozen=True)
class SearchRequest:
    """What a caller wants.

    Attributes:
        top_k: documents.
        filter: field -> values, one of which a document must have.
        every_passage: whether a document may be found several times.
        rerank: name of the served reranker that reads the first hits again; empty for none.
        depth: hits that it reads.
        share: what its scores count, the first ones' the rest, each brought between 0 and 1.
    """

    query: str
    top_k: int = 10
    filter: Filter | None = None
    every_passage: bool = False
    rerank: str = ""
    depth: int = 50
    share: float = 1.0

    @classmethod
    def of(cls, body: dict[str, Any]) -> SearchRequest:
        """Raises: Refused (400) that names the field."""
        query, every, rerank = body.get("query"), body.get("every_passage"), body.get("rerank")
        if not isinstance(query, str) or not query.strip():
            raise Refused(400, "`query` must be a text that is not empty", param="query")
        if every is not None and not isinstance(every, bool):
            raise Refused(400, "`every_passage` must be true or false", param="every_passage")
        if rerank is not None and not isinstance(rerank, str):
            raise Refused(400, "`rerank` must name a served reranker", param="rerank")
        for field in ("rerank_depth", "rerank_share"):
            if body.get(field) is not None and not rerank:
                raise Refused(400, f"`{field}` goes with `rerank`", param=field)
        share = body.get("rerank_share")
        share = 1.0 if share is None else share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise Refused(400, "`rerank_share` must be a number from 0 to 1", param="rerank_share")
        return cls(
            query,
            _whole_number(body, "top_k", 10, MOST_HITS),
            _filter(body.get("filter")),
            bool(every),
            rerank or "",
            _whole_number(body, "rerank_depth", 50, MOST_READ),
            float(share),
        )


class EngineClients:
    """A client of each engine, made anew where the engine has been started anew at another port."""

    def __init__(self) -> None:
        self._clients: dict[str, tuple[str, Client]] = {}

    def of(self, engine: Engine) -> Client:
        kept = self._clients.get(engine.label)
        if kept is None or kept[0] != engine.url:
            kept = (engine.url, Client(engine.url, engine.key))
            self._clients[engine.label] = kept
        return kept[1]


class EngineEncoder:
    """An engine's embedding model; see `ServedEncoder`."""

    digest, precision = "", "bfloat16"

    def __init__(self, engine: Engine, clients: EngineClients, index: Index):
        self.engine, self._clients = engine, clients
        self._words = index.canaries.words if index.canaries else ""
        self._normalised = bool(index.info["normalised"])

    @property
    def name(self) -> str:
        return f"'{self.engine.name}'"

    def check_products(self) -> None:
        """Nothing: see `ServedEncoder.check_products`."""

    def encode_queries(self, texts: Sequence[str], dimensions: int = 0) -> np.ndarray:
        """Vectors of queries, float32 [N, D].

        Raises: ServerError.
        """
        client = self._clients.of(self.engine)
        served = ServedEncoder(client, self.engine.name, self._words, self._normalised, CUT)
        return served.encode_queries(texts, dimensions)


class SearchAnswers:
    """The application behind `/v1/search`.

    Args:
        folder: the index's.
        engines: what is served; one of them must be the index's model.
    """

    def __init__(self, folder: Path, engines: Sequence[Engine]):
        self.folder, self._engines = folder, engines
        self._searcher: Searcher | None = None
        self._opening = threading.Lock()
        self._clients, self._digests = EngineClients(), dict[str, str]()
        self._under_way = 0

    async def answer(self, body: dict[str, Any]) -> bytes:
        """The body of the answer to a request's.

        Raises: Refused.
        """
        asked = SearchRequest.of(body)
        reranker = self._reranker(asked.rerank) if asked.rerank else None
        if self._under_way >= MOST_WAITING:
            raise Refused(503, "too many searches are under way", headers={"retry-after": "1"})
        self._under_way += 1
        try:
            return await asyncio.to_thread(self._search, asked, reranker)
        except ServerError as error:
            if isinstance(error, Refusal) and error.status == 400:
                raise Refused(400, "the model does not take this query", param="query") from None
            log.warning("a search failed: %s", error)
            what = "the models that a search asks do not answer; try again in 1 s"
            raise Refused(503, what, headers={"retry-after": "1"}) from None
        except AdaptkitError as error:
            if error.where == FILTER:
                raise Refused(400, f"{error.what}; {error.fix}", param=FILTER) from None
            log.error("a search failed: %s", error)
            what = "the index cannot be searched now: the server's log says why"
            raise Refused(503, what) from None
        finally:
            self._under_way -= 1

    def _search(self, asked: SearchRequest, reranker: Engine | None) -> bytes:
        with self._opening:
            if self._searcher is None:
                self._searcher = Searcher(self.folder, self._encoder_of, at_once=AT_ONCE)
        most = max(asked.top_k, asked.depth) if reranker else asked.top_k
        index, [hits] = self._searcher.answer(
            [asked.query], most, filter=asked.filter, every_passage=asked.every_passage
        )
        rows = [_row(hit) for hit in hits]
        ranked_by = "words and vectors" if index.info.get("words") else "vectors"
        if reranker is not None and hits:
            rows = _read_again(self._clients.of(reranker), reranker.name, asked, hits, rows)
            ranked_by += f", then {asked.rerank}"
        answer = {"object": "search", "model": self._engine_of(index).name, "ranked_by": ranked_by}
        return json.dumps({**answer, "hits": rows[: asked.top_k]}, ensure_ascii=False).encode()

    def _encoder_of(self, index: Index) -> EngineEncoder:
        return EngineEncoder(self._engine_of(index), self._clients, index)

    def _engine_of(self, index: Index) -> Engine:
        """Raises: ConfigError where no engine serves the model that made the index."""
        embedders = [engine for engine in self._engines if engine.launch.source.kind == "embed"]
        able = [engine for engine in embedders if self._digest(engine) == index.info["model"]]
        if not able:
            raise not_served(self.folder, index, [engine.launch.source for engine in self._engines])
        return _readiest(able)

    def _digest(self, engine: Engine) -> str:
        if engine.name not in self._digests:
            self._digests[engine.name] = model_digest(engine.launch.source.folder)
        return self._digests[engine.name]

    def _reranker(self, name: str) -> Engine:
        """Raises: Refused for a name that is no ready reranker's."""
        rerankers = [engine for engine in self._engines if engine.launch.source.kind == "rerank"]
        able = [engine for engine in rerankers if engine.name == name]
        if not able:
            names = list(dict.fromkeys(engine.name for engine in rerankers))
            served = ", ".join(names) or "none"
            what = f"no reranker '{name[:100]}'{nearest(name[:100], names)}; served: {served}"
            raise Refused(404, what, param="rerank")
        engine = _readiest(able)
        if engine.state != "ready":
            seconds = str(engine.retry_after)
            raise Refused(503, f"model '{name}' is {engine.state}", headers={"retry-after": seconds})
        return engine


def _readiest(replicas: Sequence[Engine]) -> Engine:
    """Of the engines of one model one that is ready, with the fewest answers under way."""
    return min(replicas, key=lambda engine: (engine.state != "ready", engine.answering))


def check_index(folder: Path, sources: Sequence[Source]) -> None:
    """Raises: DataError for a folder that holds no index, ConfigError where nothing that will be served made
    it."""
    index = Index.open(folder)
    digests = {model_digest(source.folder) for source in sources if source.kind == "embed"}
    if index.info["model"] not in digests:
        raise not_served(folder, index, sources)


def not_served(folder: Path, index: Index, sources: Collection[Source]) -> ConfigError:
    """The error for an index whose model is none of those that are served."""
    embedders = ", ".join(source.name for source in sources if source.kind == "embed") or "none"
    made_by = index.info.get("encoder") or index.info["model"][:12]
    what = f"was made by {made_by}, and the embedding models that are served are other folders: {embedders}"
    fix = f"serve that folder too, or bring the index to a served one: adaptkit embed migrate {folder} FOLDER"
    return ConfigError(what, where=str(folder), fix=fix)


def _read_again(
    client: Client, name: str, asked: SearchRequest, hits: Sequence[Hit], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Have a reranker score the first hits, and order them by both scores; the others follow as they were."""
    again = hits[: asked.depth]
    second_K = client.rerank(name, asked.query, [hit.passage for hit in again], **CUT)
    first_K = np.array([hit.score for hit in again])
    fused_K = Fusion("weighted", asked.share).scores(first_K, np.array(second_K))
    for row, relevance in zip(rows, second_K, strict=False):
        row["relevance"] = relevance
    order = np.argsort(-fused_K, kind="stable").tolist()
    return [*(rows[place] for place in order), *rows[len(again) :]]


def _row(hit: Hit) -> dict[str, Any]:
    return {**hit._asdict(), "fields": dict(hit.fields)}


def _whole_number(body: dict[str, Any], field: str, default: int, most: int) -> int:
    value = body.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Refused(400, f"`{field}` must be a whole number from 1 to {most}", param=field)
    return value


def _filter(value: Any) -> Filter:
    """Raises: Refused (400) for what is no object of values or lists of values."""
    wanted: dict[str, list[Any]] = {}
    for name, each in (value if isinstance(value, dict) else {}).items():
        wanted[name] = each if isinstance(each, list) else [each]
    plain = all(isinstance(each, str | int | float) for listed in wanted.values() for each in listed)
    if not (plain and (value is None or isinstance(value, dict))):
        what = '`filter` must be an object of values or lists of values: {"source": ["pubmed"]}'
        raise Refused(400, what, param="filter")
    return {name: [as_text(each) for each in listed] for name, listed in wanted.items()}
