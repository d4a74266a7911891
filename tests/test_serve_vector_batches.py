"""Texts that wait are encoded together: in the order in which they came, up to a number of tokens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from adaptkit.serve.engine.vector_batches import VectorBatches


class Model:
    """Gives each text its tokens' sum and number, and waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.may_go = threading.Event()

    def encode(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        self.batches.append([list(text) for text in texts])
        assert self.may_go.wait(30)
        if any(-1 in text for text in texts):
            raise ValueError("no such token")
        return np.array([[sum(text), len(text)] for text in texts], np.float32)


async def reached(model: Model, batches: int) -> None:
    while len(model.batches) < batches:
        await asyncio.sleep(0.001)


def test_what_comes_while_the_model_computes_is_one_batch_of_so_many_tokens() -> None:
    async def ask() -> list[np.ndarray]:
        model = Model()
        batches = VectorBatches(model.encode, most_tokens=6)
        running = asyncio.create_task(batches.run())
        first = asyncio.create_task(batches.vectors([[1], [2]]))
        await reached(model, 1)
        others = [asyncio.create_task(batches.vectors(texts)) for texts in ([[3, 3]], [[4] * 3, [5] * 2])]
        gone = asyncio.create_task(batches.vectors([[9]]))
        long = asyncio.create_task(batches.vectors([[1] * 10]))
        await asyncio.sleep(0)
        gone.cancel()
        model.may_go.set()
        answers = [await task for task in (first, *others, long)]
        assert model.batches == [[[1], [2]], [[3, 3], [4] * 3], [[5] * 2], [[1] * 10]]
        assert (batches.num_batches, batches.num_texts, batches.num_tokens) == (4, 6, 19)
        running.cancel()
        return answers

    first, second, third, long = asyncio.run(ask())
    assert first.tolist() == [[1, 1], [2, 1]] and second.tolist() == [[6, 2]]
    assert third.tolist() == [[12, 3], [10, 2]] and long.tolist() == [[10, 10]]


def test_a_failure_reaches_those_whose_texts_it_was_and_no_one_else() -> None:
    async def ask() -> None:
        model = Model()
        batches = VectorBatches(model.encode, most_tokens=2)
        model.may_go.set()
        running = asyncio.create_task(batches.run())
        wrong = asyncio.create_task(batches.vectors([[1], [-1], [2], [3]]))
        right = asyncio.create_task(batches.vectors([[7, 7]]))
        with pytest.raises(ValueError, match="no such token"):
            await wrong
        assert (await right).tolist() == [[14, 2]]
        assert model.batches[-1] == [[7, 7]] and [[2], [3]] not in model.batches, "what is lost is not begun"
        running.cancel()

    asyncio.run(ask())
