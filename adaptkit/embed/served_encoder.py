"""A server's embedding model as what encodes queries: ours or any that speaks OpenAI's `/v1/embeddings`.

    with Client("http://127.0.0.1:8000", key) as client:
        served = ServedEncoder.of(client, "vectors", words=index.canaries.words, normalised=True)
        index.search(served, ["a question"])

Its files cannot be seen, so its digest is empty: an index knows it by its canaries, which are sent along with
every request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adaptkit.client.openai import CUT, Client
from adaptkit.errors import ServerError


@dataclass(frozen=True, eq=False)
class ServedEncoder:
    """One embedding model of a server.

    Attributes:
        model: its name there.
        words: the prompt before queries, which a server does not put there by itself.
        normalised: whether vectors have length 1, also after they were cut.
        options: of the server's requests.
    """

    client: Client
    model: str
    words: str = ""
    normalised: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    precision: str = "bfloat16"

    @classmethod
    def of(cls, client: Client, model: str, *, words: str, normalised: bool) -> ServedEncoder:
        """The server's model of a name; its only embedding model where the name is empty.

        Raises: ServerError.
        """
        served = [row for row in client.models() if row.kind in ("", "embed")]
        named = [row for row in served if row.name == model or not model]
        if len(named) != 1:
            names = ", ".join(row.name for row in served) or "none"
            what = f"serves {len(named)} embedding models named '{model}'" if model else "serves no one model"
            raise ServerError(what, where=client.base_url, fix=f"name one of its models: {names}")
        options = CUT if named[0].max_len else {}  # vLLM's own
        return cls(client, named[0].name, words, normalised, options)

    @property
    def name(self) -> str:
        return f"'{self.model}' at {self.client.base_url}"

    def check_products(self) -> None:
        """Nothing: the index was made by a model that could be searched, and the canaries say it is this."""

    def encode_queries(self, texts: Sequence[str], dimensions: int = 0) -> np.ndarray:
        """Vectors of queries, float32 [N, D], in one request, so of one model.

        Raises: ServerError.
        """
        rows = self.client.embed(self.model, [self.words + text for text in texts], **self.options)
        vectors_ND = np.array(rows, np.float32)
        if dimensions and dimensions < vectors_ND.shape[1]:
            vectors_ND = vectors_ND[:, :dimensions]
            if self.normalised:
                vectors_ND = vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
        return vectors_ND
