"""Pack documents into full rows of tokens in which they never see each other, for pretraining.

Shapes: B rows, T = seq_len tokens.

Rows carry position ids that restart at 0 with each document, and no attention mask: attention that finds
documents by these restarts is exact only so (an all-ones mask or a cache makes documents leak). Encoders do
not look at restarts by themselves; where nothing makes them, they get a block mask. Masking noise is a
function of (seed, epoch, index) alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from adaptkit.data.shards import TokenShards
from adaptkit.errors import DataError
from adaptkit.models.separation import Separation
from adaptkit.ops import IGNORE_INDEX

# Share of ordinary tokens chosen for prediction, and of the chosen those that become the mask, or a random
# token: BERT, arXiv 1810.04805, section 3.1.
CHOSEN, MASK_SHARE, RANDOM_SHARE = 0.15, 0.8, 0.1


class PackedTokens:
    """Rows of `seq_len` tokens cut from a stream of documents.

    A document longer than a row, or cut by a row's end, goes on in the next row as if it began there. The
    last row is padded, nothing is dropped.

    Args:
        objective: `causal` labels are the tokens, aligned with them, IGNORE_INDEX on each document's first
            token; `masked` labels are the chosen tokens, IGNORE_INDEX elsewhere.
        separate: how documents are kept apart. `positions`: by the restarts alone. `mask`: masked only, also
            a block mask [B, 1, T, T]. `rows`: one piece of one document a row, padded, with a mask [B, T].
    Raises: DataError for a masked objective with a tokenizer that has no mask token, ValueError for a causal
        one with a mask.
    """

    def __init__(
        self,
        shards: TokenShards,
        seq_len: int,
        objective: Literal["causal", "masked"] = "causal",
        separate: Separation = "positions",
    ):
        self.shards, self.seq_len, self.objective, self.separate = shards, seq_len, objective, separate
        if objective == "causal" and separate == "mask":
            raise ValueError("causal rows are told apart by positions, or hold one document each")
        if objective == "masked" and shards.index["mask_id"] is None:
            fix = "train a tokenizer with masked=True, or use objective: causal"
            raise DataError("the tokenizer has no mask token", where=str(shards.folder), fix=fix)
        if seq_len < 2:
            raise DataError(
                f"rows of {seq_len} token hold nothing to predict", where="seq_len", fix="use at least 2"
            )
        self._starts = np.concatenate([[0], shards.ends[:-1]])  # stream position of each document
        self._rows = self._pieces() if separate == "rows" else None

    def __len__(self) -> int:
        return -(-self.shards.num_tokens // self.seq_len) if self._rows is None else len(self._rows)

    def where(self, index: int) -> str:
        """The place of the document that the row begins in."""
        start, _ = self._span(index)
        return self.shards.documents[bisect_right(self._starts, start) - 1].where

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """A batch: `input_ids`, `labels`, `position_ids` [B, T].

        `separate` adds an `attention_mask`: [B, 1, T, T] for `mask`, [B, T] for `rows`.
        """
        rows = [self._row(index) for index in indices]
        tokens, positions, documents = (np.stack(column) for column in zip(*rows, strict=True))
        if self.objective == "causal":
            labels = np.where((documents < 0) | (positions == 0), IGNORE_INDEX, tokens)
            arrays = {"input_ids": tokens, "labels": labels, "position_ids": positions}
        else:
            noisy = [
                self._noise(row, np.random.default_rng([seed, epoch, i]))
                for row, i in zip(tokens, indices, strict=True)
            ]
            inputs, labels = (np.stack(column) for column in zip(*noisy, strict=True))
            arrays = {"input_ids": inputs, "labels": labels, "position_ids": positions}
        if self.separate == "mask":
            arrays["attention_mask"] = documents[:, None, :, None] == documents[:, None, None, :]
        elif self.separate == "rows":
            mask = documents >= 0
            arrays["attention_mask"] = mask if self.objective == "masked" else mask.astype(np.int64)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _span(self, index: int) -> tuple[int, int]:
        if self._rows is not None:
            return self._rows[index]
        return index * self.seq_len, min((index + 1) * self.seq_len, self.shards.num_tokens)

    def _row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens, positions, document numbers) [T]; document -1 is padding, which sees only itself."""
        start, stop = self._span(index)
        size = stop - start
        tokens = np.full(self.seq_len, self.shards.index["pad_id"], np.int64)
        tokens[:size] = self.shards.read(start, stop)
        inside = (
            self._starts[bisect_right(self._starts, start) : bisect_right(self._starts, stop - 1)] - start
        )
        begins = np.concatenate([[0], inside, [size] if size < self.seq_len else []]).astype(np.int64)
        numbers = np.repeat(np.arange(len(begins)), np.diff([*begins, self.seq_len]))
        positions = np.arange(self.seq_len) - begins[numbers]
        return tokens, positions, np.where(np.arange(self.seq_len) < size, numbers, -1)

    def _noise(self, tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, labels) of one row under BERT's noise.

        Of the chosen tokens 80 % become the mask, 10 % a random token, 10 % stay.
        """
        ordinary = ~np.isin(tokens, self._special)
        draw, kind = rng.random(self.seq_len), rng.random(self.seq_len)
        replacement = self._ordinary_ids[rng.integers(len(self._ordinary_ids), size=self.seq_len)]
        chosen = ordinary & (draw < CHOSEN)
        if not chosen.any() and ordinary.any():
            chosen[np.where(ordinary, draw, 2.0).argmin()] = True  # a row without labels would teach nothing
        labels = np.where(chosen, tokens, IGNORE_INDEX)
        inputs = np.where(chosen & (kind < MASK_SHARE), self.shards.index["mask_id"], tokens)
        at_random = chosen & (kind >= MASK_SHARE) & (kind < MASK_SHARE + RANDOM_SHARE)
        return np.where(at_random, replacement, inputs), labels

    @cached_property
    def _special(self) -> np.ndarray:
        return np.asarray([*self.shards.index["special_ids"], self.shards.index["pad_id"]], np.int64)

    @cached_property
    def _ordinary_ids(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.shards.index["vocab_size"]), self._special)

    def _pieces(self) -> list[tuple[int, int]]:
        """(start, stop) in the stream of every piece of a document that fits into a row."""
        return [
            (at, min(at + self.seq_len, int(end)))
            for start, end in zip(self._starts, self.shards.ends, strict=True)
            for at in range(int(start), int(end), self.seq_len)
        ]


class Source(Protocol):
    """What a trainer reads: examples by number."""

    def __len__(self) -> int: ...
    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]: ...
    def where(self, index: int) -> str: ...


def packed_rows(
    shards: TokenShards, seq_len: int, objective: Literal["causal", "masked"], separate: Separation
) -> Source:
    """`PackedTokens` as a model takes them; `separate` says what keeps documents apart in it."""
    rows = PackedTokens(shards, seq_len, objective, separate=separate)
    return _OwnPositions(rows) if separate == "rows" else rows


class _OwnPositions:
    """Rows of one document each, without position ids: the model counts its own way (RoBERTa does not start
    at 0)."""

    def __init__(self, source: Source):
        self.source, self.where = source, source.where

    def __len__(self) -> int:
        return len(self.source)

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        batch = self.source.collate(indices, seed=seed, epoch=epoch)
        batch.pop("position_ids")
        return batch


class MixedSource:
    """Several sources in fixed shares; an epoch is one pass over the first of them (replay: domain first).

    Which rows the others lend is drawn by `seed`, without replacement until a source is used up, from one
    pass over the first source to the next: repeating a small text among a large one repeats only the small
    one. All sources must give batches with the same keys and row length.

    Args:
        parts: (source, share) pairs; shares are positive and are scaled to add up to 1.
    Raises: DataError for shares that are not positive.
    """

    def __init__(self, parts: Sequence[tuple[Source, float]], seed: int = 0):
        if not parts or any(share <= 0 for _, share in parts):
            raise DataError(
                "shares of a mixture must be above 0",
                where="replay_share",
                fix="leave sources with no share out",
            )
        self.sources = [source for source, _ in parts]
        rng = np.random.default_rng([seed, len(parts)])
        self._places: list[tuple[int, int]] = []
        self._lent = [_Lent(0, 0, np.empty(0, np.int64), [])]
        for number, (source, share) in enumerate(parts):
            count = len(source) if number == 0 else round(len(self.sources[0]) * share / parts[0][1])
            self._places += [(number, i) for i in range(count)]
            if number:
                first = _repeated_permutation(len(source), count, rng)
                self._lent.append(_Lent(len(source), count, first, [seed, len(parts), number]))

    def __len__(self) -> int:
        return len(self._places)

    def where(self, index: int) -> str:
        """The place of an example of the first pass."""
        number, inner = self._place(index, 0)
        return self.sources[number].where(inner)

    def _place(self, index: int, epoch: int) -> tuple[int, int]:
        """The source of an example, and its row there in this pass."""
        number, inner = self._places[index]
        return (number, self._lent[number].row(inner, epoch)) if number else (number, inner)

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """The rows in the order of `indices`, each collated by its own source."""
        batches: dict[int, dict[str, Tensor]] = {}
        rows: dict[int, tuple[int, int]] = {}
        places = [self._place(index, epoch) for index in indices]
        for number in sorted({number for number, _ in places}):
            at = [i for i, (source, _) in enumerate(places) if source == number]
            inner = [places[i][1] for i in at]
            batches[number] = self.sources[number].collate(inner, seed=seed, epoch=epoch)
            rows |= {i: (number, k) for k, i in enumerate(at)}
        order = [rows[i] for i in range(len(indices))]
        return {
            key: torch.stack([batches[number][key][k] for number, k in order])
            for key in next(iter(batches.values()))
        }


@dataclass
class _Lent:
    """The rows that a source lends, pass by pass: it goes on where the pass before ended.

    Attributes:
        size: rows of the source.
        count: rows that it lends in each pass.
        first: rows of the first pass.
        seed: of the orders in which the source is gone through again.
    """

    size: int
    count: int
    first: np.ndarray
    seed: list[int]
    _orders: dict[int, np.ndarray] = field(default_factory=dict)

    def row(self, k: int, epoch: int) -> int:
        """The `k`-th row lent in a pass."""
        if epoch == 0:
            return int(self.first[k])
        round_number, at = divmod(epoch * self.count + k, self.size)
        return int(self._order(round_number)[at])

    def _order(self, round_number: int) -> np.ndarray:
        """A whole round through the source; the first pass may have begun it: others go on."""
        if round_number not in self._orders:
            begun = self.first[round_number * self.size : (round_number + 1) * self.size]
            order = np.random.default_rng([*self.seed, round_number]).permutation(self.size)
            self._orders[round_number] = np.concatenate([begun, order[~np.isin(order, begun)]])
        return self._orders[round_number]


def _repeated_permutation(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate([np.empty(0, np.int64), *rounds])[:count]
