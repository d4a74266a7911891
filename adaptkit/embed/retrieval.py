"""Read retrieval sets in BEIR's layout, and rank their documents with an encoder.

<folder>/corpus.jsonl[.gz]  _id, title, text     queries*.jsonl[.gz]  _id, text     qrels/<split>.tsv
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.data.files import Fault, format_of, records
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.retrieval_metrics import DEPTH, ranked, retrieval_row
from adaptkit.errors import DataError

QUERY_BLOCK = 256
TEST_SPLITS = ("test", "dev")


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries that have a relevant one, and grades.

    Attributes:
        documents, queries: id -> text; a document's title stands before its text.
        grades: query id -> document id -> grade; above 0 is relevant.
        where: id of a document or query -> `file:line`.
        num_unjudged: queries without a relevant document, which are left out.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]
    where: dict[str, str]
    num_unjudged: int = 0

    def with_queries(self, ids: set[str]) -> RetrievalSet:
        """The same documents with fewer queries."""
        queries = {query: text for query, text in self.queries.items() if query in ids}
        grades = {query: self.grades[query] for query in queries}
        return dataclasses.replace(self, queries=queries, grades=grades)


def is_set(folder: str | Path) -> bool:
    """Whether a folder is laid out as a retrieval set."""
    return (Path(folder) / "qrels").is_dir()


def splits(folder: str | Path) -> list[str]:
    """Names of the splits that a set has grades for."""
    return sorted(path.stem for path in (Path(folder) / "qrels").glob("*.tsv"))


def read_set(folder: str | Path, split: str, max_bytes: int = 0) -> RetrievalSet:
    """One split of a retrieval set.

    Args:
        max_bytes: keep at most this many bytes of documents, those that answer the split's queries first,
            each by hash of their ids, and the queries that they answer.
    Raises: DataError at `file:line` for a row that lacks an id or text, or a grade for what is not there.
    """
    folder = Path(folder)
    if split not in splits(folder):
        names = ", ".join(splits(folder)) or "none"
        raise DataError(f"no qrels/{split}.tsv", where=str(folder), fix=f"choose one of the splits: {names}")
    where: dict[str, str] = {}
    documents = _texts(_files(folder, "corpus"), where)
    queries = _texts(_files(folder, "queries"), where)
    grades = _grades(folder / "qrels" / f"{split}.tsv", documents, queries)
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
    judged_queries = {query: queries[query] for query in judged}
    return RetrievalSet(documents, judged_queries, judged, where, len(grades) - len(judged))


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


def titled_text(record: Mapping[str, Any], text: str) -> str:
    """What is encoded of a record: its title, if there is one, stands before its text."""
    title = record.get("title")
    if not title:
        return text
    return f"{title}\n{text}"


def retrieval_rows(
    encoder: Encoder, retrieval_set: RetrievalSet, dimensions: int = 0
) -> list[dict[str, Any]]:
    """Item rows of every query, ranked by the exact product of vectors; prompts `query` and `document` where
    there are any."""
    prompts = {name: encoder.layout.prompt_if_any(name) for name in ("query", "document")}
    names, texts = list(retrieval_set.documents), list(retrieval_set.documents.values())
    documents_ND = encoder.encode(texts, prompt=prompts["document"], dimensions=dimensions)
    queries, questions = list(retrieval_set.queries), list(retrieval_set.queries.values())
    queries_QD = encoder.encode(questions, prompt=prompts["query"], dimensions=dimensions)
    rows = []
    for start in range(0, len(queries), QUERY_BLOCK):
        scores_QN = queries_QD[start : start + QUERY_BLOCK] @ documents_ND.T
        for query, scores_N in zip(queries[start:], scores_QN, strict=False):
            ranking = ranked(scores_N, names, DEPTH)
            rows.append(retrieval_row(query, ranking, retrieval_set.grades[query]))
    return rows


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


def _texts(files: list[Path], where: dict[str, str]) -> dict[str, str]:
    """id -> text of all records; their places go into `where`."""
    texts: dict[str, str] = {}
    for file in files:
        for line, record in records(file):
            place = f"{file}:{line}"
            if isinstance(record, Fault):
                raise DataError(record.what, where=place, fix=record.fix)
            name, text = record.get("_id"), record.get("text")
            if not isinstance(name, str) or not isinstance(text, str):
                raise DataError("a row needs _id and text", where=place, fix="write both as strings")
            texts[name], where[name] = titled_text(record, text), place
    return texts


def _grades(file: Path, documents: dict[str, str], queries: dict[str, str]) -> dict[str, dict[str, int]]:
    """Query id -> document id -> grade."""
    grades: dict[str, dict[str, int]] = {}
    for line, record in records(file):
        place = f"{file}:{line}"
        if isinstance(record, Fault):
            raise DataError(record.what, where=place, fix=record.fix)
        query, document, grade = (record.get(name) for name in ("query-id", "corpus-id", "score"))
        if query not in queries or document not in documents:
            missing = document if query in queries else query
            raise DataError(f"'{missing}' is not in the set", where=place, fix="add it, or remove this line")
        try:
            grades.setdefault(str(query), {})[str(document)] = int(str(grade))
        except ValueError:
            what = f"grade '{grade}' is no whole number"
            raise DataError(what, where=place, fix="write a number") from None
    return grades
