"""What a reranker learns from: a question, a document that answers it, and documents that the first stage
takes for the answer.

A step shows a new sample of these for each question, so that over the epochs all are seen. Shape letters: B
= questions, K = documents of each, the right one first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.data.beir import RetrievalSet
from adaptkit.embed.cross_encoder import CrossEncoder
from adaptkit.embed.rows import Example, like_lengths
from adaptkit.errors import DataError
from adaptkit.trainer.row_source import mix


@dataclass(frozen=True)
class RankingExample:
    """A question with its answer and its confusers.

    Attributes:
        negatives: documents of the first stage's ranking that are not known to answer it, best first.
        where: `file:line`.
    """

    question: str
    positive: str
    negatives: tuple[str, ...]
    where: str


class RankingRows:
    """A trainer's source of questions with `negatives` documents beside the right one."""

    def __init__(self, examples: Sequence[RankingExample], reranker: CrossEncoder, negatives: int):
        self.examples, self.reranker, self.negatives = examples, reranker, negatives
        reranker.pairs.read(text for row in examples for text in (row.question, row.positive, *row.negatives))
        self.cut = reranker.pairs.cuts((row.question, row.positive) for row in examples)

    def __len__(self) -> int:
        return len(self.examples)

    def where(self, index: int) -> str:
        return self.examples[index].where

    def length(self, index: int) -> int:
        """Tokens of the question with its answer."""
        row = self.examples[index]
        return len(self.reranker.pairs.row(row.question, row.positive).ids)

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """The rows' tensors in parts of like lengths, `00.input_ids`, ...; `order` int64 [B, K] says where
        each is."""
        pairs = self.reranker.pairs
        rows = [
            pairs.row(self.examples[index].question, document)
            for index in indices
            for document in self.documents(index, seed=seed, epoch=epoch)
        ]
        parts = like_lengths([len(row.ids) for row in rows])
        batch: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            padded = self.reranker.batch([rows[i] for i in part])
            batch |= {f"{number:02d}.{name}": value for name, value in padded.items()}
        order = torch.empty(len(rows), dtype=torch.int64)
        order[torch.tensor([i for part in parts for i in part])] = torch.arange(len(rows))
        return {**batch, "order": order.view(len(indices), -1)}

    def documents(self, index: int, *, seed: int, epoch: int) -> list[str]:
        """The answer, and a sample of its confusers."""
        row = self.examples[index]
        drawn = random.Random(mix(seed, epoch, index)).sample(row.negatives, self.negatives)
        return [row.positive, *drawn]


def ranking_examples(
    examples: Sequence[Example],
    searched: RetrievalSet,
    candidates: Mapping[str, Sequence[str]],
    groups: Mapping[str, int],
    negatives: int,
    depth: int,
) -> list[RankingExample]:
    """Examples with what the first stage found for each question and is not known to be right.

    Args:
        candidates: query id -> ids of documents, as `FirstStage.candidates` gives them.
        groups: see `rows.groups_of`; documents of a question's own group are never its negatives.
        depth: documents that are kept of each.
    Raises: DataError where fewer than `negatives` documents are left.
    """
    query_of = {text: query for query, text in searched.queries.items()}
    rows = []
    for example in examples:
        question, positive = example.texts[:2]
        found = (searched.documents[name] for name in candidates[query_of[question]])
        wrong = tuple(text for text in found if groups.get(text, -1) != groups[question])[:depth]
        if len(wrong) < negatives:
            what = f"only {len(wrong)} documents can be negatives of this row, {negatives} were asked for"
            raise DataError(what, where=example.where, fix="lower negatives, raise depth, or give more texts")
        rows.append(RankingExample(question, positive, wrong, example.where))
    return rows
