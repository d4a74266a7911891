"""Read retrieval sets in BEIR's layout: documents, queries, and which documents answer which query.

<folder>/corpus.jsonl[.gz]  _id, title, text     queries*.jsonl[.gz]  _id, text     qrels/<split>.tsv

A query may name the group that it belongs to, in a field `group`; `columns: {group: FIELD}` names another,
and `{group: none}` gives it up. An id stands for one text: a document's is given once, a query's may be
repeated in another file with the same text. The qrels begin with their column names, query-id, corpus-id and
score.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adaptkit.data.files import format_of, records
from adaptkit.data.guesses import NONE
from adaptkit.data.readers import DataConfig
from adaptkit.data.records import Fault, Record
from adaptkit.errors import ConfigError, DataError

TEST_SPLITS = ("test", "dev")
COLUMNS = ("query-id", "corpus-id", "score")
OnBadRow = Literal["stop", "skip"]


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries that have a relevant one, and grades.

    Attributes:
        documents, queries: id -> text; a document's title stands before its text.
        grades: query id -> document id -> grade; above 0 is relevant.
        where: id of a document or query -> `file:line`.
        groups: query id -> group, of the queries that name one.
        num_unjudged: queries without a relevant document, which are left out.
        skipped: one `file:line: what` for each line left out by `on_bad_row: skip`.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]
    where: dict[str, str]
    groups: dict[str, str] = field(default_factory=dict)
    num_unjudged: int = 0
    skipped: list[str] = field(default_factory=list)

    def with_queries(self, ids: set[str]) -> RetrievalSet:
        """The same documents with fewer queries."""
        queries = {query: text for query, text in self.queries.items() if query in ids}
        grades = {query: self.grades[query] for query in queries}
        return dataclasses.replace(self, queries=queries, grades=grades)


def is_set(folder: str | Path) -> bool:
    """Whether a folder is laid out as a retrieval set."""
    return (Path(folder) / "qrels").is_dir()


def retrieval_folder(config: DataConfig) -> Path | None:
    """The folder of the retrieval set that a data config names, if it names one."""
    if len(config.files) != 1:
        return None
    folder = Path(config.files[0]).expanduser()
    if not is_set(folder):
        return None
    return folder


def splits(folder: str | Path) -> list[str]:
    """Names of the splits that a set has grades for."""
    return sorted(path.stem for path in (Path(folder) / "qrels").glob("*.tsv"))


def scored_split(folder: str | Path) -> str:
    """`test`, or `dev` where there is no test split.

    Raises: DataError where there is neither.
    """
    names = splits(folder)
    for name in TEST_SPLITS:
        if name in names:
            return name
    what = f"has none of the splits {', '.join(TEST_SPLITS)}"
    raise DataError(what, where=f"{folder}/qrels", fix="name a split")


def read_set(
    folder: str | Path,
    split: str,
    max_bytes: int = 0,
    on_bad_row: OnBadRow = "stop",
    columns: Mapping[str, str] | None = None,
    protect: Sequence[str] = (),
) -> RetrievalSet:
    """One split of a retrieval set.

    Args:
        max_bytes: keep at most this many bytes of documents, those that answer the split's queries first,
            each by hash of their ids, and the queries that they answer.
        on_bad_row: stop at the first line that cannot be used, or leave such lines out and list them.
        columns: the field that says which group a query belongs to, {"group": field}; `none` reads none.
        protect: refused, as nothing of a set is masked.
    Raises: ConfigError for `protect`, or another role in `columns`: the layout names the rest. DataError at
        `file:line` for a row that lacks an id or text, for an id or a judgement given twice and a grade for
        what is not there; for qrels without their columns; where no query has an answer.
    """
    folder = Path(folder)
    if split not in splits(folder):
        names = ", ".join(splits(folder)) or "none"
        raise DataError(f"no qrels/{split}.tsv", where=str(folder), fix=f"choose one of the splits: {names}")
    if protect:
        fix = "leave `protect` out, and mask the set's files before"
        raise ConfigError("nothing of a retrieval set is masked", where=f"protect of {folder}", fix=fix)
    reader = _Reader(on_bad_row, _group_field(columns or {}))
    documents = reader.texts(_files(folder, "corpus"))
    queries = reader.texts(_files(folder, "queries"), reader.groups, again=True)
    grades = reader.grades(folder / "qrels" / f"{split}.tsv", documents, queries)
    if max_bytes:
        answers = {name for graded in grades.values() for name, grade in graded.items() if grade > 0}
        documents = _sample(documents, answers, max_bytes)
        grades = {
            query: {name: grade for name, grade in graded.items() if name in documents}
            for query, graded in grades.items()
        }
    judged = {
        query: graded for query, graded in grades.items() if any(grade > 0 for grade in graded.values())
    }
    if not judged:
        what, fix = "no query has a relevant document", "give grades above 0 to what answers a query"
        raise DataError(what, where=f"{folder}/qrels/{split}.tsv", fix=fix)
    judged_queries = {query: queries[query] for query in judged}
    num_unjudged = len(grades) - len(judged)
    return RetrievalSet(
        documents, judged_queries, judged, reader.where, reader.groups, num_unjudged, reader.skipped
    )


def titled_text(record: Record, text: str) -> str:
    """What is encoded of a record: its title, if there is one, stands before its text."""
    title = record.get("title")
    if not title:
        return text
    return f"{title}\n{text}"


def _group_field(columns: Mapping[str, str]) -> str:
    """The field that names a query's group: `group`, another, or `none`."""
    others = sorted(set(columns) - {"group"})
    if others:
        fix = "name the fields as BEIR does (_id, title, text), and leave the role out of columns"
        raise ConfigError(f"a retrieval set has no role '{others[0]}'", where="columns", fix=fix)
    return columns.get("group", "group")


class _Reader:
    """Reads the files of a set: lines that cannot be used are raised, or listed."""

    def __init__(self, on_bad_row: OnBadRow, group_field: str):
        self._stop, self._group_field = on_bad_row == "stop", group_field
        self.where: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.skipped: list[str] = []

    def texts(
        self, files: list[Path], groups: dict[str, str] | None = None, *, again: bool = False
    ) -> dict[str, str]:
        """id -> text of all records; what they belong to goes into `groups`.

        Args:
            again: whether another file may repeat an id with the same text.
        """
        texts: dict[str, str] = {}
        places: dict[str, str] = {}
        for file in files:
            for place, record in self._records(file):
                name, text = _id_of(record), record.get("text")
                if name is None or not isinstance(text, str):
                    self._refuse(place, Fault("a row needs _id and text", "write both as strings"))
                    continue
                text = titled_text(record, text)
                first = places.setdefault(name, place)
                if first != place:
                    elsewhere = first.rpartition(":")[0] != str(file)
                    if not (again and elsewhere and text == texts[name]):
                        what = f"the id '{name}' is given twice, first at {first}"
                        self._refuse(place, Fault(what, "give every text an id of its own"))
                    continue
                texts[name], self.where[name] = text, place
                group = record.get(self._group_field)
                if groups is not None and self._group_field != NONE and group is not None:
                    groups[name] = str(group)
        return texts

    def grades(
        self, file: Path, documents: dict[str, str], queries: dict[str, str]
    ) -> dict[str, dict[str, int]]:
        """Query id -> document id -> grade."""
        grades: dict[str, dict[str, int]] = {}
        for number, (place, record) in enumerate(self._records(file)):
            if not number:
                _check_columns(file, record)
            query, document, grade = (record.get(name) for name in COLUMNS)
            if query not in queries or document not in documents:
                missing = document if query in queries else query
                self._refuse(place, Fault(f"'{missing}' is not in the set", "add it, or remove this line"))
                continue
            value = _whole(str(grade))
            if value is None:
                self._refuse(place, Fault(f"grade '{grade}' is no whole number", "write a number"))
                continue
            if grades.setdefault(str(query), {}).setdefault(str(document), value) != value:
                what = f"'{document}' has another grade for '{query}' above"
                self._refuse(place, Fault(what, "judge each pair once"))
        return grades

    def _records(self, file: Path) -> Iterator[tuple[str, Record]]:
        for line, record in records(file):
            if isinstance(record, Fault):
                self._refuse(f"{file}:{line}", record)
            else:
                yield f"{file}:{line}", record

    def _refuse(self, place: str, fault: Fault) -> None:
        if self._stop:
            raise DataError(fault.what, where=place, fix=f"{fault.fix}, or set on_bad_row: skip")
        self.skipped.append(f"{place}: {fault.what}")


def _id_of(record: Record) -> str | None:
    """The id of a document or query as text; None without one."""
    name = record.get("_id")
    if isinstance(name, bool) or not isinstance(name, str | int):
        return None
    return str(name)


def _whole(grade: str) -> int | None:
    """A grade as a number: 1 and 1.0 are the same; None for what is none."""
    try:
        value = float(grade)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _check_columns(file: Path, record: Record) -> None:
    """Raises: DataError for qrels whose first line does not name the columns."""
    missing = [name for name in COLUMNS if name not in record]
    if not missing:
        return
    what = f"the column {missing[0]} is missing"
    if len(missing) > 1:
        what = f"the columns {', '.join(missing[:-1])} and {missing[-1]} are missing"
    cells = list(record)
    if len(cells) == 1:  # blanks instead of tabs
        cells = cells[0].split()
    if len(cells) in (3, 4) and _whole(cells[-1]) is not None:
        layout = "TREC's format" if len(cells) == 4 else "judgements alone"
        what = f"{what}: this is {layout}, without column names"
    fix = f"begin the file with the line {'<tab>'.join(COLUMNS)}, and write these three columns"
    raise DataError(what, where=f"{file}:1", fix=fix)


def _sample(documents: dict[str, str], answers: set[str], max_bytes: int) -> dict[str, str]:
    """As many documents as fit into `max_bytes`: answers first, each by hash of their names."""

    def order(name: str) -> tuple[bool, bytes]:
        return name not in answers, hashlib.sha256(name.encode()).digest()

    sampled, left = set[str](), max_bytes
    for name in sorted(documents, key=order):
        left -= len(documents[name].encode())
        if left < 0:
            break
        sampled.add(name)
    return {name: text for name, text in documents.items() if name in sampled}


def _files(folder: Path, kind: str) -> list[Path]:
    files = sorted(path for path in folder.glob(f"{kind}*.jsonl*") if format_of(path) == ".jsonl")
    if not files:
        raise DataError(f"no {kind}.jsonl", where=str(folder), fix="lay the set out as BEIR does")
    return files
