"""Texts of requests that come together, encoded together: one thread computes, and takes what waits.

    batches = VectorBatches(encode, most_tokens=8192)
    running = asyncio.create_task(batches.run())
    vectors_ND = await batches.vectors([[101, 7592, 102], ...])

Texts wait in the order in which they came. While the model computes, others come; the next batch holds as
many of them as its tokens allow, of however many requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

Tokens = Sequence[int]
Encode = Callable[[Sequence[Tokens]], np.ndarray]
"""Token ids of N texts to their vectors, float32 [N, D]."""


@dataclass(eq=False)
class _Request:
    """A request whose texts wait.

    Attributes:
        vectors: of its texts, as far as they are done.
        left: texts that are not.
    """

    texts: Sequence[Tokens]
    vectors: list[np.ndarray]
    left: int
    done: asyncio.Future[np.ndarray]


class VectorBatches:
    """Encodes the texts of many requests.

    Args:
        encode: what computes, in a thread of its own; it sorts texts by length itself.
        most_tokens: of one batch; a longer text has one of its own.
    Attributes:
        num_batches: encoded so far.
        num_texts, num_tokens: in them.
    """

    def __init__(self, encode: Encode, most_tokens: int):
        self._encode, self._most_tokens = encode, most_tokens
        self._waiting: deque[tuple[_Request, int]] = deque()
        self._come = asyncio.Event()
        self.num_batches = self.num_texts = self.num_tokens = 0

    async def vectors(self, texts: Sequence[Tokens]) -> np.ndarray:
        """Vectors of one request's texts, float32 [N, D], N at least 1; one that is given up is not begun.

        Raises: what `encode` raises.
        """
        done = asyncio.get_running_loop().create_future()
        request = _Request(texts, [np.empty(0, np.float32)] * len(texts), len(texts), done)
        self._waiting.extend((request, place) for place in range(len(texts)))
        self._come.set()
        return await done

    async def run(self) -> None:
        """Encode what waits, until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while True:
                await self._come.wait()
                batch = self._next_batch()
                if not batch:
                    self._come.clear()
                    continue
                texts = [request.texts[place] for request, place in batch]
                try:
                    vectors_ND = await loop.run_in_executor(thread, self._encode, texts)
                except Exception as error:
                    _fail(batch, error)
                    continue
                self._count(texts)
                _hand_out(batch, vectors_ND)

    def _next_batch(self) -> list[tuple[_Request, int]]:
        """Take the texts that have waited for longest, as many as the tokens allow."""
        batch: list[tuple[_Request, int]] = []
        tokens = 0
        while self._waiting:
            request, place = self._waiting[0]
            if not request.done.done():  # else its caller has gone, or a text of it failed
                tokens += len(request.texts[place])
                if batch and tokens > self._most_tokens:
                    break
                batch.append((request, place))
            self._waiting.popleft()
        return batch

    def _count(self, texts: Sequence[Tokens]) -> None:
        self.num_batches += 1
        self.num_texts += len(texts)
        self.num_tokens += sum(map(len, texts))


def _hand_out(batch: Sequence[tuple[_Request, int]], vectors_ND: np.ndarray) -> None:
    for (request, place), vector_D in zip(batch, vectors_ND, strict=True):
        request.vectors[place] = vector_D
        request.left -= 1
        if not request.left and not request.done.done():
            request.done.set_result(np.stack(request.vectors))


def _fail(batch: Sequence[tuple[_Request, int]], error: Exception) -> None:
    for request, _ in batch:
        if not request.done.done():
            request.done.set_exception(error)
