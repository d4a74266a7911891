"""Check the messages of a row, and keep every field that a chat template may render.

A message is `{"role", "content", ...}`. Content is text, or a list of text parts. Fields that say nothing
(null, empty) go; `arguments` of a call that were written as JSON become values, as servers read them. Whether
a turn is taught (`weight`, `train`) becomes one mark: `"weight": 0` on a turn that is only read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from adaptkit.data.conversations import names_speakers
from adaptkit.data.records import Fault

CHAT_ROLES = ("system", "developer", "user", "assistant", "tool")
TEMPLATE_INPUTS = ("tools", "documents", "chat_template_kwargs")
"""Columns beside `messages` that a chat template is given."""
UNREAD = ("system", "system_prompt", "history", "functions", "tools")
"""Columns beside `prompt` or `messages` that hold what a model should see, and that nothing here reads."""
FLAGS = ("weight", "train", "training")
"""Fields that say whether a turn is taught."""
NAMES_ONLY = ("id", "tool_call_id", "message_id", "timestamp", "created", "created_at", "metadata")
"""Fields that name a message or say something about it: a template may leave them out."""
_TEXT_PARTS = ("text", "input_text", "output_text")
_EXAMPLE = 'write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'

Message = dict[str, Any]
CheckText = Callable[[Any, str], str | Fault]
"""(a value, what it is called) -> the text, or what is wrong with it."""


def read_messages(value: Any, check_text: CheckText) -> list[Message] | Fault:
    """The messages of a row, checked; `check_text` says what is acceptable text."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not len(value):
        return Fault("'messages' is not a list of messages", _EXAMPLE)
    messages: list[Message] = []
    for number, message in enumerate(value, start=1):
        checked = _read_message(message, number, check_text)
        if isinstance(checked, Fault):
            return checked
        messages.append(checked)
    if not any(message["role"] == "assistant" for message in messages):
        return Fault("no assistant message: nothing to learn from", "add the answer, or remove the row")
    if taught_turns(messages):
        return messages
    return Fault(
        "no assistant message is taught: all have weight 0", "give one the weight 1, or remove the row"
    )


def taught_turns(messages: Sequence[Message]) -> list[int]:
    """Where the assistant's turns stand that are taught."""
    return [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight", 1) != 0]


def message_text(message: Message) -> str:
    """All that a message says: its text, and what else it holds as JSON."""
    pieces = [message[name] for name in ("reasoning_content", "reasoning", "thinking") if name in message]
    pieces += content_texts(message)
    if "tool_calls" in message:
        pieces.append(json.dumps(message["tool_calls"], ensure_ascii=False))
    return "\n".join(str(piece) for piece in pieces if piece)


def content_texts(message: Message) -> list[str]:
    """The texts of a message's content: one, or those of its parts."""
    content = message.get("content", "")
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content]


def is_plain(message: Message) -> bool:
    """Whether a message is a role and a text, and no more."""
    return isinstance(message.get("content"), str) and not message.keys() - {"role", "content", "weight"}


def unread_column(record: Mapping[str, Any], roles: Mapping[str, str]) -> Fault | None:
    """The complaint about a column that holds something a model should see, where nothing reads it."""
    beside = "messages" if "messages" in roles else "prompt"
    read = {part.strip() for column in roles.values() for part in (column, *column.split("+"))}
    for name in UNREAD:
        if name not in record or name in read or (name == "tools" and beside == "messages"):
            continue
        if name == "system" and names_speakers([dict(record)], list(roles.values())):
            continue  # it stands before the turns
        if record[name] is None or (hasattr(record[name], "__len__") and not len(record[name])):
            continue
        if name == "functions" and beside == "messages":
            fix = "write functions as tools, and their calls as tool_calls"
        else:
            fix = "write it as messages (a system message, earlier turns), or remove the column"
        return Fault(f"'{name}' stands beside '{beside}' and would not be read", fix)
    return None


def template_input(value: Any, name: str) -> Any:
    """A column for the chat template: a list or an object, also where it was written as JSON."""
    value = from_json(value)
    wanted: type = dict if name == "chat_template_kwargs" else list
    if not isinstance(value, wanted):
        return Fault(f"'{name}' is {type(value).__name__}, not {wanted.__name__}", f"write '{name}' as JSON")
    value = [from_json(item) for item in value] if isinstance(value, list) else value
    if not _is_json(value):
        return Fault(f"'{name}' holds values that JSON cannot", f"write '{name}' as JSON")
    return _without_nothing(value)


def from_json(value: Any) -> Any:
    """What a text says as JSON, if it is an object or a list; else the value itself."""
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _read_message(message: Any, number: int, check_text: CheckText) -> Message | Fault:
    if not isinstance(message, Mapping) or message.get("role") not in CHAT_ROLES:
        return Fault(f"message {number} has no role out of {', '.join(CHAT_ROLES)}", _EXAMPLE)
    content = _read_content(message, number, check_text)
    if isinstance(content, Fault):
        return content
    checked: Message = {"role": message["role"], "content": content}
    for name, value in message.items():
        if name in checked or name in FLAGS or _says_nothing(value):
            continue
        if name == "tool_calls":
            value = _read_calls(value, number)
        elif not _is_json(value):
            value = Fault(f"'{name}' of message {number} holds values that JSON cannot", f"remove '{name}'")
        if isinstance(value, Fault):
            return value
        checked[name] = value
    taught = _read_flags(message, number)
    if isinstance(taught, Fault):
        return taught
    if not taught and message["role"] == "assistant":
        checked["weight"] = 0
    return checked


def _read_content(message: Mapping[str, Any], number: int, check_text: CheckText) -> str | list[Any] | Fault:
    content, name = message.get("content"), f"content of message {number}"
    speechless = message["role"] == "tool" or not _says_nothing(message.get("tool_calls"))
    if speechless and _says_nothing(content):
        return ""
    if not isinstance(content, list):
        return check_text(content, name)
    parts: list[Any] = []
    for place, part in enumerate(content, start=1):
        value = part
        if isinstance(part, Mapping):
            if part.get("type", "text") not in _TEXT_PARTS:
                what = f"part {place} of message {number} is '{part.get('type')}', and models here read text"
                return Fault(what, "give text parts, or remove the row")
            value = part.get("text")
        text = check_text(value, f"part {place} of {name}")
        if isinstance(text, Fault):
            return text
        parts.append({"type": "text", "text": text})
    if not parts:
        return check_text("", name)
    return parts[0]["text"] if len(parts) == 1 else parts


def _read_calls(value: Any, number: int) -> list[Message] | Fault:
    """The calls of a message, their arguments as values."""
    fault = Fault(
        f"'tool_calls' of message {number} is no list of calls",
        'write [{"type": "function", "function": {"name": "...", "arguments": {...}}}]',
    )
    calls = from_json(value)
    if not isinstance(calls, list) or not _is_json(calls):
        return fault
    read: list[Message] = []
    for call in calls:
        call = from_json(call)
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            return fault
        arguments = inner.get("arguments")
        if isinstance(arguments, str):
            arguments = from_json(arguments or "{}")
            if not isinstance(arguments, dict):
                return Fault(
                    f"the arguments of a call in message {number} are no JSON object", "mend the arguments"
                )
        function = {**inner} if arguments is None else {**inner, "arguments": arguments}
        read.append({**call, "function": function} if "function" in call else function)
    return read


def _read_flags(message: Mapping[str, Any], number: int) -> bool | Fault:
    """Whether a message is taught, as its flags say; an assistant's is where they say nothing."""
    flags = {name: message[name] for name in FLAGS if message.get(name) is not None}
    for name, value in flags.items():
        if value not in (0, 1):
            what = f"'{name}' of message {number} is {value!r}; a turn is taught (1) or only read (0)"
            return Fault(what, f"write '{name}' as 0 or 1")
        if value and message["role"] != "assistant":
            what = f"'{name}' of message {number} asks to teach a turn of {message['role']}"
            return Fault(what, "only assistant turns are taught: remove the field")
    if len({bool(value) for value in flags.values()}) > 1:
        return Fault(f"the flags of message {number} disagree: {', '.join(flags)}", "keep one of them")
    return all(flags.values())


def _says_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def _without_nothing(value: Any) -> Any:
    """Without the nulls that tables put where a row has no such field."""
    if isinstance(value, dict):
        return {name: _without_nothing(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nothing(item) for item in value]
    return value


def _is_json(value: Any) -> bool:
    return all(_is_leaf(leaf) for leaf in _leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _is_leaf(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int, bool))
