"""Search an index for as long as a process lives, whatever is migrated meanwhile.

    searcher = Searcher("index")
    searcher.search(["a question"], 10)      # before, while and after the index switches to another model

A version of the index and the model that it belongs to are one value, which is replaced as a whole: a query
is encoded and searched with both of the same version.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adaptkit.embed.canary_vectors import Embedder
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.index import Index
from adaptkit.embed.index_folder import current
from adaptkit.errors import AdaptkitError, ModelError
from adaptkit.notices import tell

AGAIN_S = 10.0
"""After which a version that could not be opened is tried again."""


def encoder_of(index: Index) -> Encoder:
    """The encoder that made an index, from where it lay then.

    Raises: ModelError where it is not there any more, or the index does not say where it was.
    """
    place = index.info.get("encoder")
    if not place:
        what = "does not say where its model lies: an earlier release made it"
        raise ModelError(what, where=str(index.folder), fix="encode and index the documents again")
    return Encoder.load(place)


@dataclass(frozen=True)
class _Opened:
    """A version and its model; one query at a time goes through the model."""

    index: Index
    embedder: Embedder
    turn: threading.Lock = field(default_factory=threading.Lock)


class Searcher:
    """Follows an index: each query is answered by one version and its model, wholly.

    When the index switches, the next query has the new model loaded by a thread of its own, and the old
    version answers until that is done.

    Args:
        embedder_of: opens what encodes the queries of a version, such as a server's model.
    Raises: DataError, ModelError where the version that answers now cannot be opened.
    """

    def __init__(self, folder: str | Path, embedder_of: Callable[[Index], Embedder] = encoder_of):
        self.folder, self._embedder_of = Path(folder), embedder_of
        self._opening = threading.Lock()
        self._not_before = 0.0
        self._opened = self._open()

    @property
    def index(self) -> Index:
        """The version that answers."""
        return self._opened.index

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[tuple[str, float]]]:
        """The k best (id, score) of each query, all by one version.

        Raises: as `Index.search`.
        """
        opened = self._opened
        if current(self.folder) != opened.index.folder and time.monotonic() >= self._not_before:
            self._follow()
        with opened.turn:
            return opened.index.search(opened.embedder, queries, k)

    def _follow(self) -> None:
        """Begin to open the version that answers now, unless that has begun."""
        if self._opening.acquire(blocking=False):
            threading.Thread(target=self._replace, daemon=True, name="index-follower").start()

    def _replace(self) -> None:
        try:
            self._opened = self._open()
        except AdaptkitError as error:
            self._not_before = time.monotonic() + AGAIN_S
            what = "has switched to another model, which cannot be used; the old one goes on"
            tell(f"{self.folder} {what}: {error}")
        finally:
            self._opening.release()

    def _open(self) -> _Opened:
        index = Index.open(self.folder)
        embedder = self._embedder_of(index)
        index.check(embedder)
        return _Opened(index, embedder)
