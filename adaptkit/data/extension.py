"""Extending an existing vocabulary with words of a new domain, embeddings included.

BPE goes on merging where its training stopped: every old merge keeps its rank, so text without the new words
    is encoded
as before, and encoding stays lossless. WordPiece and Unigram gain whole words, of those they can spell. A new
row of an embedding starts as the mean of the rows of the pieces that the new token replaces; tied embeddings
stay tied.
"""

from __future__ import annotations

import copy
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from adaptkit.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Pieces = tuple[str, ...]
New = tuple[str, Pieces]  # a new token and the old tokens it replaces
Pair = tuple[str, str]


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel, texts: Iterable[str], num_new: int
) -> PreTrainedTokenizerFast:
    """A copy of `tokenizer` with up to `num_new` new tokens learnt from `texts`; `model` gets rows for them,
    in place.

    Raises: ModelError for a tokenizer that is none of BPE, WordPiece, Unigram; DataError when `texts` yield
        no new token.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = _words(tokenizer, texts)
    kind = state["model"]["type"]
    if kind == "BPE":
        new, merges = _continue_bpe(words, num_new, set(state["model"]["vocab"]))
        state["model"]["merges"] += [list(pair) for pair in merges]
    elif kind in ("WordPiece", "Unigram"):
        known = {piece if isinstance(piece, str) else piece[0] for piece in state["model"]["vocab"]}
        spelt = Counter({word: count for word, count in words.items() if known.issuperset(word)})
        new = _whole_words(spelt, num_new, state["model"].get("continuing_subword_prefix") or "")
    else:
        raise ModelError(
            f"a {kind} tokenizer cannot be extended",
            where=tokenizer.name_or_path or None,
            fix="use another base",
        )
    if not new:
        raise DataError(
            "these texts yield no new token", where="texts", fix="give more domain text, or extend by nothing"
        )
    extended = _rebuilt(tokenizer, state, new)
    _grow(
        model,
        [[tokenizer.convert_tokens_to_ids(piece) for piece in pieces] for _, pieces in new],
        len(tokenizer),
    )
    return extended


def _words(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Counter[Pieces]:
    """How often each word occurs, as the pieces that `tokenizer` cuts it into."""
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    core.no_padding()
    counts: Counter[str] = Counter()
    for text in texts:
        text = core.normalizer.normalize_str(text) if core.normalizer else text
        counts.update(word for word, _ in core.pre_tokenizer.pre_tokenize_str(text))
    special = set(tokenizer.all_special_tokens)
    words: Counter[Pieces] = Counter()
    for word, count in counts.items():
        if count > 1 and word not in special:
            words[tuple(token.value for token in core.model.tokenize(word))] += count
    return words


def _continue_bpe(words: Counter[Pieces], num_new: int, known: set[str]) -> tuple[list[New], list[Pair]]:
    """Further merges: the most frequent pair of neighbours, again and again.

    Returns: the new tokens, and all merges in order; a merge may also lead to a token that was known already.
    """
    table = _Pairs(words)
    made: dict[str, Pieces] = {}
    new: list[New] = []
    merges: list[Pair] = []
    while len(new) < num_new and (pair := table.most_frequent()) is not None:
        token = pair[0] + pair[1]
        table.merge(pair)
        merges.append(pair)
        if token not in known and token not in made:
            made[token] = (*made.get(pair[0], (pair[0],)), *made.get(pair[1], (pair[1],)))
            new.append((token, made[token]))
    return new, merges


class _Pairs:
    """How often each pair of neighbouring pieces occurs, kept up to date while pairs are merged."""

    def __init__(self, words: Counter[Pieces]):
        self._words = [(list(word), count) for word, count in sorted(words.items()) if len(word) > 1]
        self._counts: Counter[Pair] = Counter()
        self._holders: dict[Pair, set[int]] = defaultdict(set)
        self._heap: list[tuple[int, Pair]] = []  # (-count, pair); entries whose count has changed are stale
        for number in range(len(self._words)):
            self._count(number, +1)
        self._heap = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._heap)

    def most_frequent(self) -> Pair | None:
        """The pair that occurs most, at least twice; of equals the first in the alphabet."""
        while self._heap and -self._heap[0][0] != self._counts[self._heap[0][1]]:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap and self._heap[0][0] <= -2 else None

    def merge(self, pair: Pair) -> None:
        for number in sorted(self._holders[pair]):
            self._count(number, -1)
            word, count = self._words[number]
            self._words[number] = (_merged(word, pair), count)
            self._count(number, +1)

    def _count(self, number: int, sign: int) -> None:
        word, count = self._words[number]
        for pair in zip(word, word[1:], strict=False):
            self._counts[pair] += sign * count
            (self._holders[pair].add if sign > 0 else self._holders[pair].discard)(number)
            heapq.heappush(self._heap, (-self._counts[pair], pair))


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def _whole_words(words: Counter[Pieces], num_new: int, prefix: str) -> list[New]:
    """The words whose own token would save the most pieces."""
    ranked = sorted(
        (word for word in words if len(word) > 1), key=lambda word: (-words[word] * (len(word) - 1), word)
    )
    return [
        (word[0] + "".join(piece.removeprefix(prefix) for piece in word[1:]), word)
        for word in ranked[:num_new]
    ]


def _rebuilt(
    tokenizer: PreTrainedTokenizerFast, state: dict[str, Any], new: list[New]
) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer

    model, first = state["model"], len(tokenizer)
    if model["type"] == "Unigram":
        # Above the score of its pieces' path (scores are negative), so that the best path takes it.
        score = dict(model["vocab"])
        model["vocab"] += [[token, sum(score[piece] for piece in pieces) * 0.5] for token, pieces in new]
    else:
        # Added tokens are found in the vocabulary by their old ids; otherwise loading would number them anew.
        model["vocab"] |= {token["content"]: token["id"] for token in state["added_tokens"]}
        model["vocab"] |= {token: first + i for i, (token, _) in enumerate(new)}
    extended = copy.deepcopy(tokenizer)
    extended._tokenizer = Tokenizer.from_str(json.dumps(state))
    moved = [t for t, i in tokenizer.get_vocab().items() if extended.convert_tokens_to_ids(t) != i]
    if moved or len(extended) != first + len(new):
        what = f"extension would renumber {len(moved)} tokens of this tokenizer"
        raise ModelError(
            what, where=tokenizer.name_or_path or None, fix="train a tokenizer of its own instead"
        )
    return extended


def _grow(model: PreTrainedModel, pieces: list[list[int]], first: int) -> None:
    """Give `model` the rows `first` .. `first + len(pieces)`, each the mean of its pieces' rows."""
    import torch

    old = model.get_input_embeddings().weight.shape[0]
    if old < first + len(pieces):
        model.resize_token_embeddings(first + len(pieces), mean_resizing=False)
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    if head is not None and head.weight is not tables[0]:
        tables.append(head.weight)
    if head is not None and getattr(head, "bias", None) is not None:
        tables.append(head.bias)
    with torch.no_grad():
        for table in tables:
            for row, ids in enumerate(pieces, start=first):
                table[row] = table[ids].mean(dim=0)
