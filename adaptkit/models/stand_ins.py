"""Hide control tokens that a user's words spell from a chat template, and mark them in what it wrote.

A template writes control tokens of its own, which count. Those of the user's words go through it as letters
that no text holds, and come back with their places, so that they are encoded as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptkit.errors import DataError
from adaptkit.models.control_tokens import FILLER, Span, control_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PRIVATE_USE = range(ord(FILLER), 0xF8FF)


@dataclass(frozen=True)
class Rendered:
    """What a chat template wrote, and where the row's own words look like control tokens."""

    text: str
    spelt: tuple[Span, ...] = ()


class StandIns:
    """Stand-ins for the control tokens that a row's own words spell, of the same length."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, values: Any):
        self._spans = control_tokens(tokenizer).spans
        spelt: dict[str, None] = {}

        def collect(text: str) -> str:
            spelt.update(dict.fromkeys(text[start:stop] for start, stop in self._spans(text)))
            return text

        _map_texts(values, collect)
        self._letter_of: dict[str, str] = {}
        if spelt:
            used = set(json.dumps(values, ensure_ascii=False, default=str))
            free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
            self._letter_of = dict(zip(spelt, free, strict=False))

    def __bool__(self) -> bool:
        """Whether the words spell any control token."""
        return bool(self._letter_of)

    def put(self, values: Any) -> Any:
        return _map_texts(values, self._hide) if self._letter_of else values

    def _hide(self, text: str) -> str:
        parts: list[str] = []
        at = 0
        for start, stop in self._spans(text):
            parts += [text[at:start], self._letter_of[text[start:stop]] * (stop - start)]
            at = stop
        return "".join([*parts, text[at:]])

    def restore(self, text: str, where: str) -> Rendered:
        """The rendered text in the user's own words.

        Raises: DataError if the template rewrote a stand-in.
        """
        spelt: list[Span] = []
        for original, letter in self._letter_of.items():
            if f"\\u{ord(letter):04x}" in text:
                what = f"the chat template escapes the control token {original!r} in the row's text"
                raise DataError(what, where=where, fix="take it out of the row")
            stand_in = letter * len(original)
            spelt += [match.span() for match in re.finditer(stand_in, text)]
            text = text.replace(stand_in, original)
        return Rendered(text, tuple(sorted(spelt)))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with each text in it changed; roles stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {
            change(name): item if name == "role" else _map_texts(item, change) for name, item in value.items()
        }
    return value
