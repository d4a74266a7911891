"""Say what fine-tuning on a base would refuse in a data set, or read otherwise than it looks."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adaptkit.data.message_fields import TEMPLATE_INPUTS, is_plain
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.supervised import build_examples
from adaptkit.data.tokenizers import with_chat_template
from adaptkit.errors import DataError
from adaptkit.models.control_tokens import control_tokens
from adaptkit.models.round_trip import unknown_share

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TELLING = 0.05
"""Share of unknown tokens that is told."""


@dataclass(frozen=True)
class TaughtCheck:
    """What stands between the rows of one data set and a base.

    Attributes:
        refused: `file:line: what` of every row that training on this base refuses.
        spelt: `file:line: token` of every row that writes out one of its control tokens; it is read as text.
        fields: how many rows hold what only a chat template can tell the use of; counted without a base.
        unknown: share of the tokens that stand for text unknown to the base's tokenizer.
    """

    refused: list[str] = field(default_factory=list)
    spelt: list[str] = field(default_factory=list)
    fields: dict[str, int] = field(default_factory=dict)
    unknown: float = 0.0

    def notes(self, name: str) -> list[str]:
        """One sentence for each thing that needs a decision."""
        notes = []
        if self.refused:
            notes.append(f"{name}: the base refuses {len(self.refused)} rows; mend them or take them out")
        if self.spelt:
            what = f"{len(self.spelt)} rows write out control tokens of the base, which are read as text"
            notes.append(f"{name}: {what}; the first at {self.spelt[0]}")
        if self.unknown >= TELLING:
            what = f"{self.unknown:.0%} of the tokens are unknown to the base's tokenizer"
            notes.append(f"{name}: {what}, and nothing is learnt of such words")
        if self.fields:
            held = ", ".join(self.fields)
            notes.append(
                f"{name}: messages hold {held}; name --base to see whether its chat template takes them"
            )
        return notes


def check_taught(dataset: Dataset, tokenizer: PreTrainedTokenizerFast | None) -> TaughtCheck:
    """Make the examples of every row as training would, where there is a base's tokenizer."""
    if tokenizer is None:
        return TaughtCheck(fields=_fields(dataset.rows))
    if dataset.kind == "messages":
        tokenizer = with_chat_template(copy.deepcopy(tokenizer))
    refused: list[str] = []
    if dataset.kind in ("messages", "sft"):
        refused = [line for row in dataset.rows for line in _refusal(row, tokenizer)]
    unknown = unknown_share(tokenizer, (row.text for row in dataset.rows))
    return TaughtCheck(refused, _spelt(dataset.rows, tokenizer), unknown=unknown)


def _refusal(row: Row, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    try:
        build_examples(row, tokenizer)
    except DataError as error:
        return [f"{row.where}: {error.what}"]
    return []


def _spelt(rows: list[Row], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    controls = control_tokens(tokenizer)
    lines: list[str] = []
    for row in rows:
        text = row.text
        lines += [f"{row.where}: {text[start:stop]}" for start, stop in controls.spans(text)[:1]]
    return lines


def _fields(rows: list[Row]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in rows:
        if "messages" in row.values:
            held = {name for name in TEMPLATE_INPUTS if name in row.values}
            for message in row.values["messages"]:
                if not is_plain(message):
                    held |= message.keys() - {"role", "content", "weight"}
            counts.update(sorted(held))
    return dict(counts)
