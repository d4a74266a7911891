"""Turn a question and a document into the one row of tokens that a reranker reads.

    pairs = PairTokens(tokenizer, max_length=256)
    row = pairs.row("is aspirin safe?", document)          # row.ids, row.types

The row is the one that the tokenizer itself makes of two texts (`models.control_tokens.encode_pair`), so
transformers, sentence-transformers and servers read the saved folder alike. Each text is tokenised once,
whatever number of rows it stands in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tokenizers import processors

from adaptkit.data.cut_texts import CutTexts
from adaptkit.errors import ModelError
from adaptkit.models.control_tokens import encode


class PairRow(NamedTuple):
    """Token ids of a row, and which of its two texts each belongs to (0 or 1)."""

    ids: list[int]
    types: list[int]


@dataclass(frozen=True)
class _Frame:
    """The tokens around two texts: before the first, between both, behind the second; with their types."""

    before: PairRow
    between: PairRow
    behind: PairRow

    @property
    def size(self) -> int:
        return len(self.before.ids) + len(self.between.ids) + len(self.behind.ids)


class PairTokens:
    """Makes rows of pairs of texts.

    Args:
        max_length: tokens of a row at most, those around the texts included; the longer text is cut first.
    """

    def __init__(self, tokenizer: Any, max_length: int):
        self.tokenizer, self.max_length = tokenizer, max_length
        self._frame, self._second_type = _frame(tokenizer)
        self._cuts_start = tokenizer.truncation_side == "left"
        self._known: dict[str, tuple[np.ndarray, int]] = {}
        if max_length < self._frame.size + 2:
            what = f"max_length {max_length} leaves no room for a question and a document"
            raise ModelError(what, where=tokenizer.name_or_path, fix="raise max_length")

    def read(self, texts: Iterable[str]) -> None:
        """Tokenise many texts at once, for the rows that follow."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if not new:
            return
        for text, ids in zip(new, encode(self.tokenizer, new, special=False), strict=True):
            self._known[text] = np.array(self._cut(ids, self.max_length), np.int32), len(ids)

    def row(self, question: str, document: str) -> PairRow:
        """The row of one pair."""
        self.read((question, document))
        (first_ids, first_size), (second_ids, second_size) = self._known[question], self._known[document]
        sizes = _fitting(first_size, second_size, self.max_length - self._frame.size)
        first, second = self._cut(first_ids.tolist(), sizes[0]), self._cut(second_ids.tolist(), sizes[1])
        before, between, behind = self._frame.before, self._frame.between, self._frame.behind
        types = [*before.types, *([0] * len(first)), *between.types]
        types += [*([self._second_type] * len(second)), *behind.types]
        return PairRow([*before.ids, *first, *between.ids, *second, *behind.ids], types)

    def cuts(self, pairs: Iterable[tuple[str, str]]) -> CutTexts:
        """How many of these pairs are cut, and what they lose."""
        pairs = list(pairs)
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        sizes = dict(zip(texts, map(len, encode(self.tokenizer, texts, special=False)), strict=True))
        return CutTexts.of(
            (self._frame.size + sizes[first] + sizes[second] for first, second in pairs), self.max_length
        )

    def _cut(self, ids: list[int], size: int) -> list[int]:
        return ids[len(ids) - size :] if self._cuts_start and size < len(ids) else ids[:size]


def with_boundary(tokenizer: Any) -> Any:
    """The tokenizer, which puts EOS between two texts where nothing else tells where the first one ends.

    Servers tokenise by themselves, so what stands there must come from the tokenizer's own files.
    Raises: ModelError for such a tokenizer without EOS.
    """
    frame, _ = _frame(tokenizer)
    if frame.between.ids:
        return tokenizer
    if tokenizer.eos_token_id is None:
        what = "its tokenizer puts nothing between two texts, and names no EOS token"
        raise ModelError(what, where=tokenizer.name_or_path, fix="set eos_token in its tokenizer_config.json")
    before, behind = (tokenizer.convert_ids_to_tokens(part.ids) for part in (frame.before, frame.behind))
    single = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    start = next(i for i in range(len(single[0])) if single[0][i : i + len(single[1])] == single[1])
    first = tokenizer.convert_ids_to_tokens(single[0][:start])
    last = tokenizer.convert_ids_to_tokens(single[0][start + len(single[1]) :])
    special = dict.fromkeys([*before, *behind, *first, *last, tokenizer.eos_token])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*before, "$A", tokenizer.eos_token, "$B:1", *(f"{token}:1" for token in behind)],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in special],
    )
    return tokenizer


def _frame(tokenizer: Any) -> tuple[_Frame, int]:
    """What the tokenizer puts around two texts, and the type that it gives to the second one's tokens."""
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    core.no_padding()
    encoding = core.encode("a", "b")
    texts = encoding.sequence_ids
    first, second = ([place for place, text in enumerate(texts) if text == number] for number in (0, 1))
    if not first or not second:
        raise ModelError("its tokenizer reads no letters", where=tokenizer.name_or_path, fix="choose another")

    def part(start: int, stop: int) -> PairRow:
        return PairRow(encoding.ids[start:stop], encoding.type_ids[start:stop])

    around = _Frame(part(0, first[0]), part(first[-1] + 1, second[0]), part(second[-1] + 1, len(texts)))
    return around, int(encoding.type_ids[second[0]])


def _fitting(first: int, second: int, room: int) -> tuple[int, int]:
    """Sizes of two texts in a row: of a long pair the longer text is cut, then both alike, as `longest_first`
    of the tokenizers library does it."""
    if first + second <= room:
        return first, second
    shorter, longer = sorted((first, second))
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = shorter + room % 2
    return (shorter, longer) if first <= second else (longer, shorter)
