"""What stands between a passage and a synthetic row: the request, and what its answer says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Passage:
    """A part of a document, at most `data.drawing.PASSAGE_BYTES` bytes."""

    document: str
    text: str


@dataclass(frozen=True)
class Request:
    """What a generator is asked.

    Attributes:
        label: what the row that it writes is to be labelled; empty for kinds without labels.
    """

    passage: Passage
    words: str
    label: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.words.encode("utf-8", "backslashreplace")).hexdigest()


@dataclass(frozen=True)
class Candidate:
    """A row before it is filtered.

    Attributes:
        values: the row's content by role.
        compared: the text that duplicates are found by.
        fault: why its form alone forbids it; empty where it does not.
    """

    request: Request
    values: dict[str, str]
    compared: str
    fault: str = ""
