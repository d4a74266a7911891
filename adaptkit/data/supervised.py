"""Rows with answers: decide which tokens a model is taught, and which it only reads.

What is taught is decided by position: the assistant's turns of a conversation, the completion after a
prompt, each with the token that ends it, even when that token also serves as padding. A conversation's turns
are found by rendering its prefixes with the tokenizer's own chat template, as a server does, not by markers
that a template may or may not carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from adaptkit.data.cut_texts import CutTexts
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.tokenizers import encode, end_token, pad_token
from adaptkit.errors import DataError
from adaptkit.models.batching import pad_right
from adaptkit.ops import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Span = tuple[int, int]  # characters [start, stop)


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
    Raises: DataError at `file:line` for a row in which nothing would be taught, or that the template refuses.
    """

    def __init__(
        self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, packed: bool = False
    ):
        self.max_length, self.packed = max_length, packed
        self._pad = pad_token(tokenizer)
        full = [example for row in dataset.rows for example in build_examples(row, tokenizer)]
        self.cut = CutTexts.of((len(example.ids) for example in full), max_length)
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

    Raises: DataError at the row's place when nothing in it would be taught.
    """
    if "messages" in row.values:
        return _from_messages(row, row.values["messages"], tokenizer)
    if "completion" in row.values:
        if tokenizer.chat_template:
            messages = [*_user(row), {"role": "assistant", "content": row.values["completion"]}]
            return _from_messages(row, messages, tokenizer)
        prompt = prompt_ids(row, tokenizer)
        answer = encode(tokenizer, [row.values["completion"]], special=False)[0]
        ids = _closed([*prompt, *answer], tokenizer)
        return [_checked(Example(ids, [i >= len(prompt) for i in range(len(ids))], row.where))]
    ids = _closed(encode(tokenizer, [row.values["text"]])[0], tokenizer)
    return [_checked(Example(ids, [True] * len(ids), row.where))]


def prompt_ids(row: Row, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids after which the model is to answer, exactly as a server shows them to it.

    With a chat template the row's messages up to the last answer are rendered; else a prompt stands alone,
    closed by a line break unless it or the completion brings a blank of its own.
    """
    if "messages" in row.values or tokenizer.chat_template:
        messages = row.values.get("messages") or [*_user(row), {"role": "assistant", "content": "-"}]
        last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        text = _render(tokenizer, messages[:last], row.where, prompt=True)
        return encode(tokenizer, [text], special=False)[0]
    prompt, completion = row.values["prompt"], row.values.get("completion", "")
    glue = "" if prompt[-1].isspace() or completion[:1].isspace() else "\n"
    ids = encode(tokenizer, [prompt + glue])[0]
    # A closing special token (BERT-like) would end the text before its answer.
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.sep_token_id else ids


def _user(row: Row) -> list[dict[str, str]]:
    return [{"role": "user", "content": row.values["prompt"]}]


def _from_messages(
    row: Row, messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast
) -> list[Example]:
    if not tokenizer.chat_template:
        fix = "train the tokenizer with a chat template, set one, or give prompt and completion"
        raise DataError("a conversation, but the tokenizer has no chat template", where=row.where, fix=fix)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    whole = _render(tokenizer, messages[: turns[-1] + 1], row.where)
    spans = [_span(tokenizer, messages, turn, whole, row.where) for turn in turns]
    if all(span is not None for span in spans):
        return [_encode_spans(whole, [span for span in spans if span], tokenizer, row.where)]
    examples = []
    for turn in turns:
        text = _render(tokenizer, messages[: turn + 1], row.where)
        span = _span(tokenizer, messages, turn, text, row.where)
        if span is None:
            fix = "use a template whose add_generation_prompt output begins the assistant's turn"
            raise DataError(
                "the chat template renders a prompt that no answer continues", where=row.where, fix=fix
            )
        examples.append(_encode_spans(text, [span], tokenizer, row.where))
    return examples


def _span(
    tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], turn: int, text: str, where: str
) -> Span | None:
    """The characters of `text` that the model writes in this turn; None if `text` renders it otherwise."""
    before = _render(tokenizer, messages[:turn], where, prompt=True)
    after = _render(tokenizer, messages[: turn + 1], where)
    if not (text.startswith(after) and after.startswith(before)):
        return None
    return len(before), len(after.rstrip())  # blanks after the closing token are never generated


def _render(
    tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], where: str, prompt: bool = False
) -> str:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        return cast(str, text)
    except Exception as error:  # a template is a program of the user's: it may fail in any way
        fix = "order the turns as the template expects, or use another template"
        raise DataError(
            f"the chat template refuses this conversation: {error}", where=where, fix=fix
        ) from None


def _encode_spans(text: str, spans: list[Span], tokenizer: PreTrainedTokenizerFast, where: str) -> Example:
    """Encode a rendered conversation and mark the tokens inside `spans`.

    The text is encoded whole. Only if a token crosses the edge of a span is it encoded piece by piece: such a
    token could never follow the prompt that a server sees.
    """
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    core.no_padding()
    whole = core.encode(text, add_special_tokens=False)
    edges = {edge for span in spans for edge in span}
    if any(start < edge < stop for start, stop in whole.offsets for edge in edges):
        bounds = [0, *sorted(edges), len(text)]
        parts = [
            core.encode(text[a:b], add_special_tokens=False).ids
            for a, b in zip(bounds, bounds[1:], strict=False)
        ]
        taught = [any(a <= left < b for a, b in spans) for left in bounds[:-1]]
        ids = [i for part in parts for i in part]
        mask = [flag for part, flag in zip(parts, taught, strict=True) for _ in part]
    else:
        ids = whole.ids
        mask = [
            any(a <= start and stop <= b and stop > start for a, b in spans) for start, stop in whole.offsets
        ]
    last = max((i for i, flag in enumerate(mask) if flag), default=None)
    if last is not None and ids[last] not in tokenizer.all_special_ids:
        # The template does not close the answer: without this the model would never learn to stop.
        ids, mask = _closed(ids[: last + 1], tokenizer), mask[: last + 1]
        mask = mask + [True] * (len(ids) - len(mask))
    return _checked(Example(ids, mask, where))


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
