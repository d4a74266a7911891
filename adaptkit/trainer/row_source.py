"""Decide which examples each step learns from: pure functions, so there is nothing to save, and any number of
ranks sees the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """A fixed number of examples, made into batches by index.

    A source of ragged examples may also have `length(index) -> int`, in tokens: then microbatches hold like
    lengths.
    """

    def __len__(self) -> int: ...

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """A batch of these examples; any noise in it is a pure function of (seed, epoch, index)."""

    def where(self, index: int) -> str:
        """`file.jsonl:12` of an example, for messages."""


def mix(*numbers: int) -> int:
    """A 63-bit seed that depends on every number and on their order."""
    text = ",".join(str(number) for number in numbers)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass
class Order:
    """Which examples each step sees: a new permutation of all examples per epoch, laid end to end and cut
    into steps."""

    num_examples: int
    global_batch_size: int
    seed: int
    _cached: tuple[int, Tensor] | None = field(default=None, repr=False)

    def step(self, step: int) -> tuple[list[int], int]:
        """Indices of the examples of a step (counted from 0) and the epoch in which the step begins."""
        first = step * self.global_batch_size
        indices: list[int] = []
        while len(indices) < self.global_batch_size:
            epoch, position = divmod(first + len(indices), self.num_examples)
            missing = self.global_batch_size - len(indices)
            indices += self._permutation(epoch)[position : position + missing].tolist()
        return indices, first // self.num_examples

    def _permutation(self, epoch: int) -> Tensor:
        if self._cached is None or self._cached[0] != epoch:
            generator = torch.Generator().manual_seed(mix(self.seed, epoch))
            self._cached = (epoch, torch.randperm(self.num_examples, generator=generator))
        return self._cached[1]


def cut(indices: list[int], size: int) -> list[list[int]]:
    """Consecutive groups of at most `size`."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def microbatches(
    source: Source, order: Order, step: int, size: int, rank: int, world_size: int
) -> tuple[list[list[int]], int]:
    """A rank's microbatches of a step, of `size` examples (0: all at once), and the epoch; those of like
    lengths together."""
    indices, epoch = order.step(step)
    if length := getattr(source, "length", None):
        indices.sort(key=length)  # they pad less, and their sum is the same
    return deal(indices, size or len(indices) // world_size, rank, world_size), epoch


def deal(indices: list[int], size: int, rank: int, world_size: int) -> list[list[int]]:
    """A rank's microbatches of a step: in each round every rank takes `size` neighbours, so ranks do like
    work."""
    share = len(indices) // world_size
    sizes = [len(group) for group in cut(list(range(share)), size)]
    starts = [world_size * size * number + rank * count for number, count in enumerate(sizes)]
    return [indices[start : start + count] for start, count in zip(starts, sizes, strict=True)]
