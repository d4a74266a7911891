"""Rows with answers: decide which tokens a model is taught, and which it only reads.

What is taught is decided by position: the assistant's turns of a conversation (but those of weight 0), the
completion after a prompt, each with the token that ends it, even when that token also serves as padding. A
conversation's turns are found by rendering its prefixes with the tokenizer's own chat template, as a server
does, not by markers that a template may or may not carry. Control tokens written out in a row are text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adaptkit.data.chat_template import Conversation
from adaptkit.data.cut_texts import CutTexts
from adaptkit.data.message_fields import is_plain
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.tokenizers import end_token, pad_token
from adaptkit.errors import DataError, ModelError
from adaptkit.models.batching import pad_right
from adaptkit.models.control_tokens import Piece, Span, control_tokens, encode, encode_prompt, encode_rendered
from adaptkit.models.stand_ins import Rendered
from adaptkit.ops import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Example:
    """Token ids, which of them are taught (same length), and the row's place."""

    ids: list[int]
    taught: list[bool]
    where: str


class SupervisedRows:
    """Examples for supervised fine-tuning of a causal model.

    Rows may be conversations (`messages`), `prompt` + `completion`, or plain `text` (every token taught but
    the first). Where a template rewrites earlier turns (dropping a turn's reasoning, say), each assistant
    turn becomes an example of its own, since no single rendering equals what a server shows the model at
    every turn.

    Args:
        max_length: longer examples lose their end; `cut` counts them.
        packed: put several examples in one row of at most `max_length` tokens; position ids restart with
            each.
    Attributes:
        end_ids: the tokens that taught turns end with.
    Raises: DataError at `file:line` for a row in which nothing would be taught, or that the template refuses.
    """

    def __init__(
        self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, packed: bool = False
    ):
        self.max_length, self.packed = max_length, packed
        self._pad = pad_token(tokenizer)
        full = [example for row in dataset.rows for example in build_examples(row, tokenizer)]
        self.cut = CutTexts.of((len(example.ids) for example in full), max_length)
        self.end_ids = sorted({token for example in full for token in _ends(example, tokenizer)})
        self.examples = [_fitted(example, max_length) for example in full]
        self._rows = [[i] for i in range(len(full))]
        if packed:
            self._rows = _fill([len(example.ids) for example in self.examples], max_length)

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, index: int) -> str:
        return self.examples[self._rows[index][0]].where

    def length(self, index: int) -> int:
        """Tokens of a row."""
        return sum(len(self.examples[i].ids) for i in self._rows[index])

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """`input_ids` and `labels` [B, T], padded on the right; packed rows have `position_ids` too."""
        rows = [[self.examples[i] for i in self._rows[index]] for index in indices]
        length = max(sum(len(e.ids) for e in row) for row in rows)
        ids = np.full((len(rows), length), self._pad, np.int64)
        labels = np.full((len(rows), length), IGNORE_INDEX, np.int64)
        positions = np.zeros((len(rows), length), np.int64)
        for b, row in enumerate(rows):
            at = 0
            for example in row:
                stop = at + len(example.ids)
                ids[b, at:stop] = example.ids
                labels[b, at:stop] = np.where([False, *example.taught[1:]], example.ids, IGNORE_INDEX)
                positions[b, at:stop] = np.arange(len(example.ids))
                at = stop
            positions[b, at:] = np.arange(length - at)
        batch = {"input_ids": ids, "labels": labels} | ({"position_ids": positions} if self.packed else {})
        return {name: torch.from_numpy(array) for name, array in batch.items()}


class TextRows:
    """Texts of their own lengths, for encoders.

    Args:
        max_length: longer texts lose their end (the closing special token is kept); `cut` counts them.
    """

    def __init__(self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int):
        self.texts = encode(tokenizer, [row.text for row in dataset.rows])
        self.cut = CutTexts.of(map(len, self.texts), max_length)
        self.texts = [_cut(ids, max_length, tokenizer) for ids in self.texts]
        self._pad = pad_token(tokenizer)
        self._where = [row.where for row in dataset.rows]

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, index: int) -> str:
        return self._where[index]

    def length(self, index: int) -> int:
        """Tokens of a text."""
        return len(self.texts[index])

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` [B, T], padded on the right to the longest."""
        return pad_right([self.texts[i] for i in indices], self._pad)


class LabelledRows(TextRows):
    """Texts with one label each, for a classification head.

    Args:
        label_names: the classes, in the order of the head's outputs.
    Raises: DataError at `file:line` for a label that is not among them.
    """

    def __init__(
        self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, label_names: list[str]
    ):
        number = {name: i for i, name in enumerate(label_names)}
        for row in dataset.rows:
            if row.values.get("label") not in number:
                more = "..." if len(label_names) > 8 else ""
                fix = f"use one of {', '.join(label_names[:8])}{more}"
                raise DataError(f"unknown label {row.values.get('label')!r}", where=row.where, fix=fix)
        self.labels = [number[row.values["label"]] for row in dataset.rows]
        super().__init__(dataset, tokenizer, max_length)

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """As `TextRows`, and `labels` [B]."""
        labels = torch.tensor([self.labels[i] for i in indices], dtype=torch.int64)
        return {**super().collate(indices, seed=seed, epoch=epoch), "labels": labels}


def build_examples(row: Row, tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Make the examples of one row; none is cut.

    Raises: DataError at the row's place when nothing in it would be taught, or its chat template would leave
        something out, or its tokenizer cannot spell a control token that it writes out.
    """
    try:
        return _build(row, tokenizer)
    except ModelError as error:
        raise DataError(error.what, where=row.where, fix=error.fix) from None


def _build(row: Row, tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    if "messages" in row.values or ("completion" in row.values and tokenizer.chat_template):
        return _from_conversation(Conversation(row, tokenizer), tokenizer)
    if "completion" in row.values:
        prompt = prompt_ids(row, tokenizer)
        answer = encode(tokenizer, [row.values["completion"]], special=False)[0]
        ids = _closed([*prompt, *answer], tokenizer)
        return [_checked(Example(ids, [i >= len(prompt) for i in range(len(ids))], row.where))]
    ids = _closed(encode(tokenizer, [row.values["text"]])[0], tokenizer)
    return [_checked(Example(ids, [True] * len(ids), row.where))]


def prompt_ids(row: Row, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids after which the model is to answer, exactly as a server shows them to it.

    With a chat template the row's messages up to the last taught answer are rendered; else a prompt stands
    alone, closed by a line break unless it or the completion brings a blank of its own.
    """
    if "messages" in row.values or tokenizer.chat_template:
        conversation = Conversation(row, tokenizer)
        rendered = conversation.restore(conversation.render(conversation.taught[-1], prompt=True))
        return [token for token, _, _ in encode_rendered(tokenizer, rendered.text, rendered.spelt)]
    prompt, completion = row.values["prompt"], row.values.get("completion", "")
    glue = "" if prompt[-1].isspace() or completion[:1].isspace() else "\n"
    return encode_prompt(tokenizer, prompt + glue)


@dataclass(frozen=True)
class Answer:
    """What a model is to answer to a row, as its decoded tokens are compared with it.

    Attributes:
        opening: what the chat template writes before an answer's own text (an empty reasoning, say).
    """

    text: str
    opening: str = ""

    def of(self, decoded: str) -> str:
        """What a model answered, without the opening."""
        return decoded.strip().removeprefix(self.opening).strip()


def expected_answer(row: Row, tokenizer: PreTrainedTokenizerFast) -> Answer:
    """The last taught answer of a row: its text; with calls or reasoning, all that the template writes."""
    if "messages" not in row.values and not tokenizer.chat_template:
        return Answer(row.values["completion"].strip())
    conversation = Conversation(row, tokenizer)
    last = conversation.taught[-1]
    example = _own_example(conversation, last, tokenizer)
    taught = [token for token, flag in zip(example.ids, example.taught, strict=True) if flag]
    written = str(tokenizer.decode(taught, skip_special_tokens=True)).strip()
    message = row.values["messages"][last] if "messages" in row.values else None
    if message is not None and not is_plain(message):
        return Answer(written)
    text = (row.values["completion"] if message is None else message["content"]).strip()
    opening, answer, _ = written.rpartition(text)
    return Answer(text, opening.strip() if answer else "")


def _from_conversation(conversation: Conversation, tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """One example, or one for each turn where no single rendering shows what the model sees at every turn, or
    where the template does not close an answer: only an example's last answer gets a token to stop at."""
    conversation.check()
    turns = conversation.taught
    whole = conversation.render(turns[-1] + 1)
    spans = [conversation.answer_span(turn, whole) for turn in turns]
    if all(span is not None for span in spans):
        example = _encode_spans(conversation, whole, [span for span in spans if span], tokenizer)
        if len(turns) == 1 or len(list(_ends(example, tokenizer))) == len(turns):
            return [example]
    return [_own_example(conversation, turn, tokenizer) for turn in turns]


def _own_example(conversation: Conversation, turn: int, tokenizer: PreTrainedTokenizerFast) -> Example:
    text = conversation.render(turn + 1)
    span = conversation.answer_span(turn, text)
    if span is None:
        what = "the chat template renders a prompt that no answer continues"
        fix = "use a template whose add_generation_prompt output begins the assistant's turn, or give every"
        fix += " answer the reasoning that the prompt opens"
        raise DataError(what, where=conversation.where, fix=fix)
    return _encode_spans(conversation, text, [span], tokenizer)


def _encode_spans(
    conversation: Conversation, text: str, spans: list[Span], tokenizer: PreTrainedTokenizerFast
) -> Example:
    """Encode a rendered conversation and mark the tokens inside `spans`.

    The text is encoded whole. Only if a token crosses the edge of a span is it encoded piece by piece: such a
    token could never follow the prompt that a server sees.
    """
    rendered = conversation.restore(text)
    pieces = encode_rendered(tokenizer, rendered.text, rendered.spelt)
    edges = sorted({edge for span in spans for edge in span})
    if any(start < edge < stop for _, start, stop in pieces for edge in edges):
        bounds = [0, *edges, len(text)]
        pieces = [piece for a, b in pairwise(bounds) for piece in _part(tokenizer, rendered, a, b)]
    ids = [token for token, _, _ in pieces]
    mask = [any(a <= start and stop <= b and stop > start for a, b in spans) for _, start, stop in pieces]
    last = max((i for i, flag in enumerate(mask) if flag), default=None)
    if last is not None and not control_tokens(tokenizer).count([ids[last]]):
        # The template does not close the answer: without this the model would never learn to stop.
        ids, mask = _closed(ids[: last + 1], tokenizer), mask[: last + 1]
        mask = mask + [True] * (len(ids) - len(mask))
    return _checked(Example(ids, mask, conversation.where))


def _part(tokenizer: PreTrainedTokenizerFast, rendered: Rendered, start: int, stop: int) -> list[Piece]:
    """The tokens of a part of a rendered text, at their places in the whole."""
    spelt = [(a - start, b - start) for a, b in rendered.spelt if start <= a and b <= stop]
    pieces = encode_rendered(tokenizer, rendered.text[start:stop], spelt)
    return [(token, a + start, b + start) for token, a, b in pieces]


def _ends(example: Example, tokenizer: PreTrainedTokenizerFast) -> Iterator[int]:
    """The control token that each taught run of an example ends with, if it does."""
    controls = control_tokens(tokenizer)
    for i, taught in enumerate(example.taught):
        over = i + 1 == len(example.taught) or not example.taught[i + 1]
        if taught and over and controls.count([example.ids[i]]):
            yield example.ids[i]


def _closed(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """`ids`, ending with the token that closes a document."""
    end = end_token(tokenizer)
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def _checked(example: Example) -> Example:
    """`example`. Raises: DataError if it teaches nothing."""
    if not any(example.taught[1:]):
        what = "nothing in this row is taught to the model"
        raise DataError(what, where=example.where, fix="give the row a non-empty answer")
    return example


def _fitted(example: Example, max_length: int) -> Example:
    """`example` cut to `max_length`. Raises: DataError if nothing taught is left."""
    if len(example.ids) <= max_length:
        return example
    if not any(example.taught[1:max_length]):
        what = f"the answer begins after token {max_length}, so nothing of it is taught"
        raise DataError(what, where=example.where, fix="raise max_length or shorten the prompt")
    return Example(example.ids[:max_length], example.taught[:max_length], example.where)


def _cut(ids: list[int], max_length: int, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    if len(ids) <= max_length:
        return ids
    closing = ids[-1:] if ids[-1] in (tokenizer.sep_token_id, tokenizer.eos_token_id) else []
    return [*ids[: max_length - len(closing)], *closing]


def _fill(lengths: list[int], max_length: int) -> list[list[int]]:
    """Consecutive examples per row, as many as fit."""
    rows: list[list[int]] = []
    room = 0
    for number, length in enumerate(lengths):
        if length > room:
            rows.append([])
            room = max_length
        rows[-1].append(number)
        room -= length
    return rows
