"""Read JSON as numbered records, however it is laid out.

    one object a line      {"text": ...}                 (JSONL)
    objects over lines     { newline "text": ... }       (pretty-printed)
    one list               [{"text": ...}, ...]
    a list under one key   {"version": 1, "data": [{"text": ...}, ...]}

The layout is seen in the first HEAD_BYTES. Files are read as they stream by, whatever their layout: what is
in memory at a time is one value and a window around it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from adaptkit.data.byte_streams import open_utf8, read_head, tell_encoding
from adaptkit.data.json_window import (
    BLANKS,
    MAX_VALUE_CHARS,
    Refused,
    Window,
    decode,
    may_go_on,
    no_constant,
    unique_keys,
)
from adaptkit.data.records import Fault, Place, Record
from adaptkit.errors import DataError
from adaptkit.notices import Tell

HEAD_BYTES = 1 << 22
LISTS_OF_A_ROW = {
    "messages",
    "tokens",
    "tags",
    "spans",
    "labels",
    "conversations",
    "conversation",
    "prompt",
    "completion",
    "tools",
    "history",
    "turns",
}
"""Keys whose lists belong to one row: an object that holds such a list is a row, not a wrapper of rows."""
TURNS_OF_A_ROW = ("messages", "conversations", "conversation")
TEXTS_OF_A_ROW = {
    "text",
    "prompt",
    "instruction",
    "anchor",
    "text1",
    "sentence1",
    "question",
    "input",
    "content",
}
Layout = Literal["lines", "objects", "list", "wrapped"]


def read_json_records(path: Path, suffix: str, tell: Tell) -> Iterator[tuple[Place, Record | Fault]]:
    """(place, record) of every row: `line`, or `line:column` where a line holds several.

    Raises: DataError at `file:line` where nothing behind a place can be read, for several lists of rows, and
        for a table of columns.
    """
    layout = layout_of(*read_head(path, HEAD_BYTES), where=str(path))
    with open_utf8(path) as (stream, encoding):
        tell_encoding(path, encoding, tell)
        if layout == "lines":
            for line, raw in enumerate(_lines(stream, path), start=1):
                yield str(line), parse_object(raw)
            return
        if layout == "list" and suffix != ".json":
            tell(f"{path}: is one JSON list; its items are read as rows")
        window = Window(stream, path)
        if layout == "objects":
            tell(f"{path}: its JSON objects are written over several lines")
            yield from _objects(window)
        elif layout == "list":
            yield from _items(window)
        else:
            yield from _wrapped(window, path, tell)
        if window.next_mark():
            raise window.broken("text follows the end of the list")


def _lines(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of a stream. Raises: DataError for one that is longer than any row."""
    line = 0
    while raw := stream.readline(MAX_VALUE_CHARS + 1):
        line += 1
        if len(raw) > MAX_VALUE_CHARS:
            what = f"a line of more than {MAX_VALUE_CHARS:,} bytes"
            raise DataError(what, where=f"{path}:{line}", fix="write one row a line")
        yield raw


def parse_object(raw: bytes) -> Record | Fault:
    """One JSONL line as a dict; duplicate keys, NaN and infinities are faults, unlike in Python's json."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Fault(f"not UTF-8 at byte {error.start + 1} of the line", "save the file as UTF-8")
    if not text.strip():
        return Fault("empty line", "remove it")
    if "\0" in text:
        return Fault("holds a NUL byte", "remove it; the file may be damaged")
    try:
        value = json.loads(text, object_pairs_hook=unique_keys, parse_constant=no_constant)
    except Refused as error:
        return Fault(str(error), "write each key once and numbers as finite decimals")
    except json.JSONDecodeError as error:
        what = f"not valid JSON: {error.msg} at column {error.colno}"
        return Fault(what, "write one complete JSON object a line")
    except (RecursionError, ValueError):
        what = "not usable JSON: nested too deeply or a number too long"
        return Fault(what, "write one flat JSON object a line")
    return _as_record(value)


def layout_of(head: str, whole: bool, *, where: str) -> Layout:
    """How a file that begins with `head` is laid out; what cannot be told is read line by line.

    Args:
        whole: `head` is the whole file.
    Raises: DataError for several lists of rows under keys, or for a table of columns.
    """
    start = len(head) - len(head.lstrip(BLANKS))
    first = head[start : start + 1]
    if first not in ("[", "{"):
        return "lines"
    try:
        value, end = decode(head, start)
    except json.JSONDecodeError as error:
        if not whole and may_go_on(error, head):
            return _layout_of_a_long_value(head, start)
        return _layout_of_a_broken_value(head, start)
    except (RecursionError, ValueError):
        return "lines"
    alone = whole and not head[end:].strip(BLANKS)
    if alone and first == "[":
        return "list"
    if alone and isinstance(value, dict) and _list_of_rows(value, where):
        return "wrapped"
    return "objects" if "\n" in head[start:end] else "lines"


def _layout_of_a_long_value(head: str, start: int) -> Layout:
    """The first value is longer than the head: a list of rows, or a wrapper of one; a row of its own if
    neither."""
    if head[start] == "[":
        return "list"
    window = Window.of_text(head[start:])
    try:
        return "wrapped" if _enter_list(window) else "lines"
    except DataError:
        return "lines"


def _layout_of_a_broken_value(head: str, start: int) -> Layout:
    """A fault in the first value: of its line alone where the next line is a row, else of a value over
    lines."""
    lines = [line for line in head[start:].split("\n")[:2] if line.strip()]
    if len(lines) < 2 or isinstance(parse_object(lines[1].encode("utf-8", "surrogateescape")), dict):
        return "lines"
    try:
        decode(lines[0], 0)
    except json.JSONDecodeError as error:
        ends_early = error.pos >= len(lines[0].rstrip()) - 1
        if ends_early and head[start] == "[":
            return "list"
        if ends_early and lines[0].rstrip()[-1:] in ("{", "[", ","):
            return "objects"
    except (RecursionError, ValueError):
        pass
    return "lines"


def _list_of_rows(value: Record, where: str) -> str | None:
    """The one key of an object that holds the rows; None for an object that is a row itself.

    Raises: DataError for several lists of rows, or for columns.
    """
    if any(isinstance(value.get(name), str) for name in TEXTS_OF_A_ROW):
        return None
    if any(_holds_rows(value.get(name)) for name in TURNS_OF_A_ROW):
        return None  # a conversation, with the documents or tools that it is about
    lists = [name for name, part in value.items() if _holds_rows(part) and name not in LISTS_OF_A_ROW]
    if len(lists) > 1:
        raise _several_lists(lists, where)
    if lists:
        return lists[0]
    if (
        value
        and not LISTS_OF_A_ROW & set(value)
        and all(isinstance(part, list | dict) for part in value.values())
    ):
        what = f"is one JSON object whose keys ({_few(list(value))}) hold lists or objects, and not rows"
        fix = (
            "write one JSON object a row, for example by pandas' to_json(path, orient='records', lines=True)"
        )
        raise DataError(what, where=where, fix=fix)
    return None


def _holds_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _several_lists(names: list[str], where: str) -> DataError:
    what = f"holds {len(names)} lists of rows: {_few(names)}"
    return DataError(what, where=where, fix="write each into a file of its own")


def _few(names: list[str]) -> str:
    shown = ", ".join(f"'{name[:40]}'" for name in names[:4])
    return shown if len(names) <= 4 else f"{shown}, ..."


def _objects(window: Window) -> Iterator[tuple[Place, Record | Fault]]:
    """Values one after the other."""
    while window.next_mark():
        yield window.place(), _as_record(window.value())


def _items(window: Window) -> Iterator[tuple[Place, Record | Fault]]:
    """The items of a list, its brackets included."""
    window.take("[")
    if window.next_mark() == "]":
        window.take("]")
        return
    while True:
        window.next_mark()
        yield window.place(), _as_record(window.value())
        if window.next_mark() == "]":
            window.take("]")
            return
        window.take(",")


def _wrapped(window: Window, path: Path, tell: Tell) -> Iterator[tuple[Place, Record | Fault]]:
    """The items of the one list of rows that an object holds."""
    name = _enter_list(window)
    tell(f"{path}: the rows are the items of its list '{name}'")
    yield from _items(window)
    while window.next_mark() == ",":
        window.take(",")
        window.next_mark()
        key = window.value()
        window.take(":")
        if _holds_rows(window.value()):
            raise _several_lists([str(name), str(key)], str(path))
    window.take("}")


def _enter_list(window: Window) -> str | None:
    """Go to the first list of objects under a key of the window's object; its key, or None for an object of
    rows' values."""
    window.take("{")
    while window.next_mark() == '"':
        key = str(window.value())
        window.take(":")
        if window.next_mark() == "[" and key not in LISTS_OF_A_ROW and window.mark_after_bracket() == "{":
            return key
        value = window.value()
        if key in TEXTS_OF_A_ROW and isinstance(value, str):
            return None
        if key in TURNS_OF_A_ROW and _holds_rows(value):
            return None
        if window.next_mark() != ",":
            return None
        window.take(",")
    return None


def _as_record(value: Any) -> Record | Fault:
    if isinstance(value, dict | Fault):
        return value
    return Fault(f"a JSON {_json_type(value)}, not an object", "write one JSON object a line")


def _json_type(value: Any) -> str:
    return {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
