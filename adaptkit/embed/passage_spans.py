"""Cut documents that are longer than an encoder reads into overlapping passages.

    spans = PassageSpans(encoder, prompt="document").of(document)     # ((0, 912), (760, 1504))

A passage ends where a sentence or line does, if one ends in its second half, else between two words; the next
one begins about an eighth before, again with a sentence. Together they hold every character of the text.
Shape suffix: T = tokens of a text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from adaptkit.data.cutting import sentence_starts
from adaptkit.data.words import word_starts
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.stored_documents import Document, Span
from adaptkit.models.sentence.text_tokens import token_ids

OVERLAP = 1 / 8
"""Of a passage, what the next one repeats; where its last sentence is longer, up to twice as much."""
SEAM = 2
"""Tokens that a text may gain where something stands before it."""
FEWEST = 8
"""Tokens of a text in one passage, however long what stands before it is."""


class PassageSpans:
    """Cuts for one encoder.

    Args:
        prompt: name of the prompt before each text; None is the encoder's default.
    """

    def __init__(self, encoder: Encoder, prompt: str | None = None):
        self._tokenizer, layout = encoder.tokenizer, encoder.layout
        around = token_ids(encoder.tokenizer, layout, [""], layout.prompt(prompt))[0]
        self.limit = max(FEWEST, layout.max_length - len(around))
        """Tokens that a title and a text may have together."""

    def of(self, document: Document) -> tuple[Span, ...]:
        """Its passages; the whole text where that is not too long.

        A title takes its room in each of them; of one that needs more than half, the passages are too long.
        """
        starts_T = self._token_starts(document.text)
        title = len(self._token_starts(f"{document.title}\n")) if document.title else 0
        if title + len(starts_T) + SEAM <= self.limit:
            return ((0, len(document.text)),)
        limit = max(FEWEST, self.limit // 2, self.limit - title - SEAM)
        return tuple(cut_spans(document.text, starts_T, limit, int(OVERLAP * limit)))

    def _token_starts(self, text: str) -> list[int]:
        """Where each token of a text begins, in characters."""
        encoded = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        return [start for start, _ in encoded["offset_mapping"]]


def cut_spans(text: str, starts_T: Sequence[int], limit: int, overlap: int) -> list[Span]:
    """Spans of at most `limit` tokens that cover a text; each repeats about `overlap` of the one before.

    Args:
        starts_T: where each token begins, in characters, ascending.
    """
    sentences, words = sentence_starts(text), word_starts(text)
    spans: list[Span] = []
    begin = 0
    while True:
        first = bisect_left(starts_T, begin)
        if len(starts_T) - first <= limit:
            return [*spans, (begin, len(text))]
        most = starts_T[first + limit]
        end = _last(sentences, starts_T[first + limit // 2], most) or _last(words, begin, most) or most
        end = max(end, begin + 1)  # many tokens may begin at one character
        spans.append((begin, end))
        if end >= len(text):
            return spans
        begin = _repeated(sentences, starts_T, spans[-1], overlap)


def _repeated(sentences: Sequence[int], starts_T: Sequence[int], span: Span, overlap: int) -> int:
    """Where the next passage begins: with the sentences at this one's end that fit into the overlap, with the
    last one if it is up to twice as long, else behind this passage."""
    begin, end = span
    after = bisect_left(starts_T, end)
    for most in (overlap, 2 * overlap):
        back = starts_T[min(max(0, after - most), len(starts_T) - 1)]
        sentence = bisect_left(sentences, back)
        if sentence < len(sentences) and begin < sentences[sentence] < end:
            return sentences[sentence]
    return end


def _last(borders: Sequence[int], above: int, most: int) -> int | None:
    """The last border in (above, most]."""
    place = bisect_right(borders, most) - 1
    if place < 0 or borders[place] <= above:
        return None
    return borders[place]
