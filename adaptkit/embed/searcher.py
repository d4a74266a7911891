"""Search an index for as long as a process lives, whatever is migrated meanwhile.

    searcher = Searcher("index", encoder_of)
    searcher.search(["a question"], 10)      # before, while and after the index switches to another model

A version of the index and the model that it belongs to are one value, which is replaced as a whole: a query
is encoded and searched with both of the same version. Imports no torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptkit.embed.canary_vectors import Embedder
from adaptkit.embed.field_values import Filter
from adaptkit.embed.index import Hit, Index
from adaptkit.embed.index_folder import current
from adaptkit.errors import AdaptkitError
from adaptkit.notices import tell

AGAIN_S = 10.0
"""After which a version that could not be opened is tried again."""


@dataclass(frozen=True)
class _Opened:
    """A version and its model."""

    index: Index
    embedder: Embedder


class Searcher:
    """Follows an index: each query is answered by one version and its model, wholly.

    When the index switches, the next query has the new model loaded by a thread of its own, and the old
    version answers until that is done.

    Args:
        embedder_of: opens what encodes the queries of a version: `encoder_of`, or a server's model.
        at_once: queries that may go through the model at the same time.
    Raises: DataError, ModelError where the version that answers now cannot be opened.
    """

    def __init__(self, folder: str | Path, embedder_of: Callable[[Index], Embedder], *, at_once: int = 1):
        self.folder, self._embedder_of = Path(folder), embedder_of
        self._turn = threading.Semaphore(at_once)
        self._opening = threading.Lock()
        self._not_before = 0.0
        self._opened = self._open(None)

    @property
    def index(self) -> Index:
        """The version that answers."""
        return self._opened.index

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        filter: Filter | None = None,
        every_passage: bool = False,
    ) -> list[list[Hit]]:
        """The k best documents of each query, all by one version.

        Raises: as `Index.search`.
        """
        return self.answer(queries, k, filter=filter, every_passage=every_passage)[1]

    def answer(
        self, queries: Sequence[str], k: int, *, filter: Filter | None, every_passage: bool
    ) -> tuple[Index, list[list[Hit]]]:
        """As `search`, with the version that answered."""
        opened = self._opened
        if current(self.folder) != opened.index.folder and time.monotonic() >= self._not_before:
            self._follow()
        with self._turn:
            hits = opened.index.search(
                opened.embedder, queries, k, filter=filter, every_passage=every_passage
            )
        return opened.index, hits

    def _follow(self) -> None:
        """Begin to open the version that answers now, unless that has begun."""
        if self._opening.acquire(blocking=False):
            threading.Thread(target=self._replace, daemon=True, name="index-follower").start()

    def _replace(self) -> None:
        try:
            self._opened = self._open(self._opened)
        except AdaptkitError as error:
            self._not_before = time.monotonic() + AGAIN_S
            what = "has switched to another version, whose model cannot be used; the old one goes on"
            tell(f"{self.folder} {what}: {error}")
        finally:
            self._opening.release()

    def _open(self, before: _Opened | None) -> _Opened:
        """The version that answers now; an update leaves the model that is open."""
        index = Index.open(self.folder)
        if before is not None and before.index.info["model"] == index.info["model"]:
            embedder = before.embedder
        else:
            embedder = self._embedder_of(index)
        index.check(embedder)
        return _Opened(index, embedder)
