"""Bring conversations of other layouts into messages: [{"role": "user", "content": "..."}, ...].

ShareGPT                       {"conversations": [{"from": "human", "value": "..."}, ...], "system":
"..."} prompt and completion as lists {"prompt": [{"role": ...}], "completion": [{"role": ...}]}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from adaptkit.data.records import Record

SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
"""Whom ShareGPT and its descendants name in `from`, and whose message that is."""


def conversation(record: Record, columns: Sequence[str]) -> Any:
    """The messages in some columns of a record, one list after the other; what is no list of messages as it
    is."""
    values = [record[column] for column in columns]
    if not all(isinstance(value, list) for value in values):
        return values[0]
    turns = [_message(turn) for value in values for turn in value]
    system = record.get("system")
    says_system = any(isinstance(turn, dict) and turn.get("role") == "system" for turn in turns)
    if _has_speakers(values) and isinstance(system, str) and system.strip() and not says_system:
        return [{"role": "system", "content": system}, *turns]
    return turns


def names_speakers(samples: Iterable[Record], columns: Sequence[str]) -> bool:
    """Whether any of these records writes its turns as ShareGPT does."""
    return any(_has_speakers(sample.get(column) for column in columns) for sample in samples)


def in_two_lists(sample: Record, columns: Iterable[str | None]) -> bool:
    """Whether a record's prompt and completion are lists of messages."""
    values = [sample.get(column or "") for column in columns]
    return all(isinstance(value, list) and all(isinstance(turn, dict) for turn in value) for value in values)


def _has_speakers(values: Iterable[Any]) -> bool:
    lists = [value for value in values if isinstance(value, list)]
    return any(
        isinstance(turn, dict) and "from" in turn and "role" not in turn for turns in lists for turn in turns
    )


def _message(turn: Any) -> Any:
    """A turn with `role` and `content` in place of `from` and `value`; its other fields stay."""
    if not isinstance(turn, dict) or "role" in turn or "from" not in turn:
        return turn
    others = {name: value for name, value in turn.items() if name not in ("from", "value")}
    speaker = turn["from"]
    role = SPEAKERS.get(speaker.strip().lower(), speaker) if isinstance(speaker, str) else speaker
    return {"role": role, "content": turn.get("value"), **others}
