"""Documents as an encoding and an index keep them: a line each, with the passages that stand for it.

    {"id": "PMC7", "title": "", "text": "...", "fields": {"year": 2019}, "passages": [[0, 912], [760, 1504]]}

A document has a row of vectors for each passage, in order. A passage is named by characters of the text,
`text[start:end]`, as Python counts them. Texts stay on disk until a hit shows them. Imports no torch.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.data.beir import titled_text
from adaptkit.data.files import records
from adaptkit.data.records import Fault
from adaptkit.errors import DataError
from adaptkit.notices import Tell, tell
from adaptkit.run import write_jsonl

FILE, OLD_FILE = "documents.jsonl", "ids.jsonl"
"""What holds them, and what held their ids in earlier releases."""
LONGEST_VALUE = 500
"""Characters of a field that is kept to filter by."""
_ID_NAMES = ("_id", "id")
_NO_FIELDS = frozenset((*_ID_NAMES, "title", "text"))

Span = tuple[int, int]
Value = str | int | float | bool


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        fields: what else a record says of it: values, or lists of values.
        spans: its passages, [start, end) in characters of `text`; none before it is cut.
        where: `file:line` that it was read from; empty for one that comes from an index.
    """

    id: str
    text: str
    title: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    where: str = ""

    def passage(self, span: Span) -> str:
        """What is encoded, and read by words, of a passage: the title stands before each."""
        return titled_text({"title": self.title}, self.text[span[0] : span[1]])

    def passages(self) -> list[str]:
        return [self.passage(span) for span in self.spans]

    def same_text(self, other: Document) -> bool:
        """Whether both are encoded alike."""
        return (self.title, self.text) == (other.title, other.text)

    def as_json(self) -> dict[str, Any]:
        row = {"id": self.id, "title": self.title, "text": self.text, "fields": dict(self.fields)}
        return row | {"passages": [list(span) for span in self.spans]}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Document:
        """A line of either file: that of an earlier release holds an id, and at best how a text begins."""
        spans = tuple((int(start), int(end)) for start, end in row.get("passages", [[0, 0]]))
        title, text = str(row.get("title") or ""), str(row.get("text") or "")
        return cls(str(row["id"]), text, title, row.get("fields", {}), spans)


class StoredDocuments(Sequence[Document]):
    """The documents of a file, which stays readable when the file is deleted; none without a file.

    Attributes:
        ids, fields, spans: of each document, in order.
    """

    def __init__(self, path: Path | None = None):
        self.ids: list[str] = []
        self.fields: list[Mapping[str, Any]] = []
        self.spans: list[tuple[Span, ...]] = []
        self._starts = [0]
        self._lines: bytes | mmap.mmap = b""
        if path is not None and path.stat().st_size:
            with path.open("rb") as file:
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                for line in file:
                    document = Document.of(json.loads(line))
                    self.ids.append(document.id)
                    self.fields.append(document.fields)
                    self.spans.append(document.spans)
                    self._starts.append(self._starts[-1] + len(line))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: Any) -> Any:
        return Document.of(json.loads(self._lines[self._starts[place] : self._starts[place + 1]]))


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    write_jsonl(path, (document.as_json() for document in documents))


def read_documents(files: Sequence[Path], tell: Tell = tell) -> Iterator[Document]:
    """Every record, as the files stream by: `_id` or `id`, else `file:line`; other fields are kept where
    they are values or lists of values, and named once where they are not.

    Raises: DataError at `file:line` for a record without text.
    """
    left_out: set[str] = set()
    for file in files:
        for line, record in records(file):
            where = f"{file}:{line}"
            if isinstance(record, Fault):
                raise DataError(record.what, where=where, fix=record.fix)
            text = record.get("text")
            if not isinstance(text, str):
                fix = "give rows with `text`, and `_id` or `id`"
                raise DataError("no column 'text'", where=where, fix=fix)
            name = next((str(record[key]) for key in _ID_NAMES if key in record), f"{file.name}:{line}")
            fields = {}
            for key, value in record.items():
                if key in _NO_FIELDS or value is None:
                    continue
                if _can_be_kept(value):
                    fields[key] = value
                elif key not in left_out:
                    left_out.add(key)
                    what = f"the field '{key}' is not kept to filter by: it is no value, or a long one"
                    tell(f"{what} (first at {where})")
            yield Document(name, text, str(record.get("title") or ""), fields, where=where)


def _can_be_kept(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(each, Value) and len(str(each)) <= LONGEST_VALUE for each in values)
