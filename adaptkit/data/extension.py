"""Extend a tokenizer's vocabulary with words of a new domain, and its model's embeddings with it.

BPE goes on merging where its training stopped: every old merge keeps its rank, so text without the new words
is encoded as before, and encoding stays lossless. An added token in place of a merge would be looked for
before words are cut, inside other words too ("gene" in "general"), and its blanks would be lost to
transformers' stripping. WordPiece and Unigram gain whole words, of those they can spell. A new row of an
embedding starts as the mean of the rows of the pieces that the new token replaces; tied embeddings stay tied.

No entry is ever spelt like a control token: texts that write one out keep spelling it.
"""

from __future__ import annotations

import copy
import heapq
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from adaptkit.errors import DataError, ModelError
from adaptkit.models import output_projection
from adaptkit.models.fixed_vocabulary import why_fixed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BLANK = "\u2581"
"""What stands for a blank in a normalised text."""
AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
"""Attributes of a tokenizer's model: marks of pieces that are no letters."""
Pieces = tuple[str, ...]
New = tuple[str, Pieces]  # a new token and the old tokens it replaces
Pair = tuple[str, str]


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel, texts: Iterable[str], num_new: int
) -> PreTrainedTokenizerFast:
    """Return a copy of `tokenizer` with up to `num_new` tokens learnt from `texts`; `model` gets their rows.

    Raises: ModelError for a tokenizer that is none of BPE, WordPiece, Unigram; DataError when `texts` yield
        no new token.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = _words(tokenizer, texts)
    kind = state["model"]["type"]
    if (fixed := why_fixed(tokenizer)) is not None:
        raise ModelError(fixed[0], where=tokenizer.name_or_path or None, fix=fixed[1])
    reserved = _reserved(tokenizer)
    if kind == "BPE":
        new, merges = _continue_bpe(words, num_new, set(state["model"]["vocab"]), reserved)
        state["model"]["merges"] += [list(pair) for pair in merges]
    else:
        vocabulary = {piece if isinstance(piece, str) else piece[0] for piece in state["model"]["vocab"]}
        spelt = Counter({word: count for word, count in words.items() if vocabulary.issuperset(word)})
        prefix = state["model"].get("continuing_subword_prefix") or ""
        new = _whole_words(spelt, num_new, prefix, {*vocabulary, *reserved})
    if not new:
        fix = "give more domain text, or extend by nothing"
        raise DataError("these texts yield no new token", where="texts", fix=fix)
    extended = _rebuilt(tokenizer, state, new)
    old_ids = tokenizer.get_vocab()
    _grow(model, [[old_ids[piece] for piece in pieces] for _, pieces in new], len(tokenizer))
    return extended


def _words(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Counter[Pieces]:
    """How often each word occurs, as the pieces that `tokenizer` cuts it into."""
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    core.no_padding()
    counts: Counter[str] = Counter()
    for text in texts:
        text = core.normalizer.normalize_str(text) if core.normalizer else text
        counts.update(_cut(core, text))
    words: Counter[Pieces] = Counter()
    for word, count in counts.items():
        pieces = tuple(token.value for token in core.model.tokenize(word)) if count > 1 else ()
        if _spells(core.model, pieces, word):
            words[pieces] += count
    return words


def _cut(core: Tokenizer, text: str) -> list[str]:
    """The words of a normalised text. A tokenizer that cuts none (Llama 2's) marks where each begins."""
    if core.pre_tokenizer is None:
        return re.findall(f"{BLANK}*[^{BLANK}]+|{BLANK}+", text)
    return [word for word, _ in core.pre_tokenizer.pre_tokenize_str(text)]


def _spells(model: Any, pieces: Pieces, word: str) -> bool:
    """Whether pieces are a word's own letters: an unknown, or a letter given in bytes, is not."""
    prefix, suffix = (getattr(model, name, None) or "" for name in AFFIXES)
    inner = [piece.removeprefix(prefix) for piece in pieces[1:]]
    return bool(pieces) and "".join([pieces[0], *inner]) in (word, word + suffix)


def _reserved(tokenizer: PreTrainedTokenizerFast) -> set[str]:
    """How control tokens are spelt, as they are and as a word of a text."""
    core, contents = tokenizer.backend_tokenizer, set(tokenizer.get_added_vocab())
    written = contents | {core.normalizer.normalize_str(token) for token in contents if core.normalizer}
    return contents | {"".join(_cut(core, token)) for token in written}


def _continue_bpe(
    words: Counter[Pieces], num_new: int, vocabulary: set[str], reserved: set[str]
) -> tuple[list[New], list[Pair]]:
    """Further merges: the most frequent pair of neighbours, again and again.

    Returns: the new tokens, and all merges in order; a merge may also lead to a token of `vocabulary`.
    """
    table = _Pairs(words, reserved)
    pieces_of: dict[str, Pieces] = {}
    new: list[New] = []
    merges: list[Pair] = []
    while len(new) < num_new and (pair := table.most_frequent()) is not None:
        token = pair[0] + pair[1]
        table.merge(pair)
        merges.append(pair)
        if token not in vocabulary and token not in pieces_of:
            left, right = (pieces_of.get(part, (part,)) for part in pair)
            pieces_of[token] = (*left, *right)
            new.append((token, pieces_of[token]))
    return new, merges


class _Pairs:
    """How often each pair of neighbouring pieces occurs, kept up to date while pairs are merged.

    Args:
        reserved: what no pair may be merged into.
    """

    def __init__(self, words: Counter[Pieces], reserved: set[str]):
        self._reserved = reserved
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
        while self._heap and (
            -self._heap[0][0] != self._counts[self._heap[0][1]] or "".join(self._heap[0][1]) in self._reserved
        ):
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
            if sign > 0:
                self._holders[pair].add(number)
            else:
                self._holders[pair].discard(number)
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


def _whole_words(words: Counter[Pieces], num_new: int, prefix: str, taken: set[str]) -> list[New]:
    """The words whose own token would save the most pieces."""
    several = [word for word in words if len(word) > 1]
    ranked = sorted(several, key=lambda word: (-words[word] * (len(word) - 1), word))
    spelt = [(word[0] + "".join(piece.removeprefix(prefix) for piece in word[1:]), word) for word in ranked]
    return [(token, word) for token, word in spelt if token not in taken][:num_new]


def _rebuilt(
    tokenizer: PreTrainedTokenizerFast, state: dict[str, Any], new: list[New]
) -> PreTrainedTokenizerFast:
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
    extended._tokenizer = Tokenizer.from_str(json.dumps(state))  # type: ignore[assignment]
    moved = [t for t, i in tokenizer.get_vocab().items() if extended.convert_tokens_to_ids(t) != i]
    if moved or len(extended) != first + len(new):
        what = f"extension would renumber {len(moved)} tokens of this tokenizer"
        fix = "train a tokenizer of its own instead"
        raise ModelError(what, where=tokenizer.name_or_path or None, fix=fix)
    return extended


def _grow(model: PreTrainedModel, pieces: list[list[int]], first: int) -> None:
    """Give `model` the rows from `first` on, each the mean of the rows of its pieces."""
    if _weight(model.get_input_embeddings()).shape[0] < first + len(pieces):
        model.resize_token_embeddings(first + len(pieces), mean_resizing=False)
    head = output_projection(model)
    tables = [_weight(model.get_input_embeddings())]
    if head is not None and head.weight is not tables[0]:
        tables.append(_weight(head))
    bias = getattr(head, "bias", None)
    if bias is not None:
        tables.append(bias)
    with torch.no_grad():
        for table in tables:
            for row, ids in enumerate(pieces, start=first):
                table[row] = table[ids].mean(dim=0)


def _weight(module: nn.Module) -> Tensor:
    return cast(Tensor, module.weight)
