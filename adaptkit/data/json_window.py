"""Take JSON values one by one from a file that is read as they are needed, and tell where each stands."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from adaptkit.data.byte_streams import CHUNK_BYTES
from adaptkit.data.records import Fault, Place, Record
from adaptkit.errors import DataError

MAX_VALUE_CHARS = 1 << 25
"""A single value that is longer is refused: most likely a quotation mark is missing."""
LONGEST_LITERAL = 16
"""Characters at the end of a window that may be the beginning of a number, an escape or `false`."""
BLANKS = " \t\r\n"
_NO_BLANKS = re.compile(f"[{BLANKS}]*")


class Refused(ValueError):
    """Valid for Python's json module, not for us."""


class Window:
    """A moving window over the text of a file, from which JSON values are taken one by one."""

    def __init__(self, stream: BinaryIO | None, path: Path):
        self._stream, self._path = stream, path
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at = "", 0
        self._line, self._column, self._line_of_last_place = 1, 1, 0

    @classmethod
    def of_text(cls, text: str) -> Window:
        """A window that does not move."""
        window = cls(None, Path())
        window._text = text
        return window

    def place(self) -> Place:
        """Where the next value begins: its line, and its column if another place was given on that line."""
        first, self._line_of_last_place = self._line != self._line_of_last_place, self._line
        return str(self._line) if first else f"{self._line}:{self._column}"

    def next_mark(self) -> str:
        """The next character that is no blank, which stays; empty at the end."""
        while True:
            end = _NO_BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            self._go_to(end)
            if end < len(self._text):
                return self._text[end]
            if not self._more():
                return ""

    def take(self, mark: str) -> None:
        """Step over a character. Raises: DataError if another one stands there."""
        found = self.next_mark()
        if not found:
            raise self.broken(f"the file ends where '{mark}' should stand")
        if found != mark:
            raise self.broken(f"'{found}' where '{mark}' should stand")
        self._go_to(self._at + 1)

    def mark_after_bracket(self) -> str:
        """The first character that is no blank behind the one that comes next; nothing is stepped over."""
        while True:
            rest = self._text[self._at + 1 :].lstrip(BLANKS)
            if rest or not self._more():
                return rest[:1]

    def value(self) -> Any:
        """The next JSON value, or a Fault for one that only Python's json would take.

        Raises: DataError where there is none.
        """
        self.next_mark()
        while True:
            try:
                value, end = decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not (may_go_on(error, self._text) and self._more()):
                    self._go_to(max(self._at, error.pos))
                    raise self.broken(error.msg) from None
                continue
            except (RecursionError, ValueError):
                raise self.broken("nested too deeply") from None
            if end < len(self._text) or not self._more():  # a number may go on
                self._go_to(end)
                return value

    def broken(self, what: str) -> DataError:
        """An error at the place that the window stands at."""
        what = f"not valid JSON: {what} at column {self._column}"
        fix = "write one complete JSON object a line, or one complete JSON list"
        return DataError(what, where=f"{self._path}:{self._line}", fix=fix)

    def _go_to(self, at: int) -> None:
        passed = self._text[self._at : at]
        if newlines := passed.count("\n"):
            self._line += newlines
            self._column = len(passed) - passed.rfind("\n")
        else:
            self._column += len(passed)
        self._at = at

    def _more(self) -> bool:
        """Read on, twice as much each time; whether anything came."""
        if self._stream is None:
            return False
        rest = len(self._text) - self._at
        if rest > MAX_VALUE_CHARS:
            raise self.broken(f"a value of more than {MAX_VALUE_CHARS:,} characters")
        raw = self._stream.read(max(CHUNK_BYTES, rest))
        text = self._decoder.decode(raw, final=not raw)
        if not raw and not text:
            return False
        self._text, self._at = self._text[self._at :] + text, 0
        return True


def decode(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins there, and where it ends; a Fault in place of one that we refuse."""
    try:
        return _STRICT.raw_decode(text, at)
    except Refused as error:
        fault = Fault(str(error), "write each key once and numbers as finite decimals")
    except json.JSONDecodeError:
        raise
    except ValueError:
        fault = Fault("not usable JSON: a number too long", "write numbers that a computer can hold")
    return fault, _LENIENT.raw_decode(text, at)[1]


def may_go_on(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the text is no JSON only because it ends too early."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(text) - LONGEST_LITERAL


def unique_keys(pairs: list[tuple[str, Any]]) -> Record:
    """For `object_pairs_hook`. Raises: Refused for a key that is given twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise Refused(f"key '{next(key for key, count in counts.items() if count > 1)}' is given twice")
    return value


def no_constant(name: str) -> Any:
    """For `parse_constant`. Raises: Refused: NaN and infinities are no JSON."""
    raise Refused(f"{name} is not a JSON number")


_STRICT = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=no_constant)
_LENIENT = json.JSONDecoder(parse_int=str)
