"""Keep what fits into so many bytes of a stream, drawn by hash: the order of files and rows is no matter."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteSample(Generic[T]):
    """Things within a byte limit: the first by hash.

    What is beyond the limit is forgotten as the stream goes by; once a hash has been pushed out, larger ones
    stay out.

    Args:
        max_bytes: 0 keeps all.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes, self.num_bytes, self.num_seen = max_bytes, 0, 0
        self._kept: list[tuple[int, int, int, T]] = []
        self._threshold: int | None = None

    def add(self, thing: T, hashed: str, size: int) -> None:
        """Take one thing, of the hash (in hex) and the size in bytes that are given."""
        self.num_seen += 1
        if not self.max_bytes:
            self._kept.append((0, self.num_seen, 0, thing))
            return
        key = -int(hashed, 16)
        if self._threshold is not None and key <= self._threshold:
            return
        heapq.heappush(self._kept, (key, -self.num_seen, size, thing))
        self.num_bytes += size
        while self.num_bytes > self.max_bytes and len(self._kept) > 1:
            self._threshold, _, size, _ = heapq.heappop(self._kept)
            self.num_bytes -= size

    def kept(self) -> list[T]:
        """What is kept, in the order that it came in."""
        return [item[3] for item in sorted(self._kept, key=lambda item: abs(item[1]))]
