"""The retrieval sets of a task: queries read for overlap, the prepared set written, BM25 on it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable
from pathlib import Path

from adaptkit.data.beir import RetrievalSet, read_set, retrieval_folder, scored_split, splits
from adaptkit.data.dedup import deduplicate
from adaptkit.data.drawing import draw, draw_hash
from adaptkit.data.readers import DataConfig, Dataset, Row
from adaptkit.embed.examples import MOST_BESIDE, examples_of_set, hold_out
from adaptkit.embed.retrieval_metrics import ranked, retrieval_row
from adaptkit.errors import DataError
from adaptkit.run import write_jsonl, write_text
from adaptkit.study.task import CorpusConfig, CorpusRows
from adaptkit.study.task_answers import Rows
from adaptkit.study.task_size import BYTES_PER_TOKEN, TaskSize

DEV_SHARE = 0.1
SAMPLE = 200


def read_queries(corpus: CorpusConfig) -> CorpusRows:
    """Training queries, dev queries among them, and the test queries to judge on: those that repeat others
    left out, then drawn by hash.

    Raises: DataError for sets that cannot be read, and for a split by time, which a set has no need of.
    """
    train, test = _folders(corpus)
    if corpus.split == "time":
        fix = "leave out `split`: qrels/ says which queries are the test"
        raise DataError("a retrieval set has its own splits", where=str(train), fix=fix)
    learnt = [_read(train, name, corpus.train) for name in _train_splits(corpus)]
    tested = _read(test, scored_split(test), corpus.test or corpus.train)
    distinct = _distinct(tested)
    items = draw(_rows([distinct]), corpus.test_items)
    drawn = f"{len(items):,} of {len(distinct.queries):,} queries, by content hash, in proportion to groups"
    num_repeated = len(tested.queries) - len(distinct.queries)
    return CorpusRows(
        _dataset(_rows(learnt), learnt),
        _dataset(items, [tested]),
        num_test_rows=len(tested.queries),
        num_test_duplicates=num_repeated,
        drawn=f"{drawn}, from the split '{scored_split(test)}'",
    )


def write_sets(folder: Path, corpus: CorpusConfig, rows: CorpusRows) -> None:
    """The prepared set: its documents, and the train, dev and test queries that were kept or drawn."""
    named, tested = _folders(corpus)
    kept = {row.id for row in rows.train.rows}
    parts = {name: _read(named, name, corpus.train).with_queries(kept) for name in _train_splits(corpus)}
    if "dev" not in parts:
        parts["train"], parts["dev"] = _divided(parts["train"])
    drawn = draw(_rows([parts["dev"]]), corpus.dev_items)
    parts["dev"] = parts["dev"].with_queries({row.id for row in drawn})
    whole = _read(tested, scored_split(tested), corpus.test or corpus.train)
    _check_ids(parts["train"], whole)
    parts["test"] = whole.with_queries({row.id for row in rows.test.rows})
    documents = {name: text for part in parts.values() for name, text in part.documents.items()}
    queries = {name: text for part in parts.values() for name, text in part.queries.items()}
    write_jsonl(folder / "corpus.jsonl", ({"_id": name, "text": text} for name, text in documents.items()))
    write_jsonl(folder / "queries.jsonl", ({"_id": name, "text": text} for name, text in queries.items()))
    for name, part in parts.items():
        lines = (
            f"{query}\t{document}\t{grade}\n"
            for query, of in part.grades.items()
            for document, grade in of.items()
        )
        write_text(folder / "qrels" / f"{name}.tsv", "query-id\tcorpus-id\tscore\n" + "".join(lines))


def _check_ids(learnt: RetrievalSet, tested: RetrievalSet) -> None:
    """Raises: DataError for an id that stands for one text in training and for another in the test."""
    for ours, theirs in ((learnt.documents, tested.documents), (learnt.queries, tested.queries)):
        for name in ours.keys() & theirs.keys():
            if ours[name] != theirs[name]:
                what = f"the id '{name}' is given twice, to another text at {learnt.where[name]}"
                fix = "give every text an id of its own, in both sets"
                raise DataError(what, where=tested.where[name], fix=fix)


def bm25_rows(folder: Path) -> tuple[Rows, float]:
    """Item rows of BM25 on the test split, and the seconds that answering took."""
    from adaptkit.data.bm25 import Bm25, content_terms

    tested = read_set(folder, "test")
    index = Bm25(list(tested.documents.values()))
    questions = [content_terms(text) for text in tested.queries.values()]
    names, begun = list(tested.documents), time.perf_counter()
    rows = []
    for query, tokens in zip(tested.queries, questions, strict=True):
        rows.append(retrieval_row(query, ranked(index.scores(tokens), names), tested.grades[query]))
    return rows, time.perf_counter() - begun


def set_size(corpus: CorpusConfig, max_length: int, batch_rows: int) -> TaskSize:
    """How much the questions and documents of a retrieval set give to read."""
    train, test = _folders(corpus)
    learnt = _read(train, "train", corpus.train)
    tested = _read(test, scored_split(test), corpus.test or corpus.train)
    examples = examples_of_set(learnt)
    sample = heapq.nsmallest(SAMPLE, examples, key=lambda row: draw_hash("\n".join(row.texts)))
    pairs = [text for row in sample for text in row.texts]
    documents, questions = list(tested.documents.values()), list(tested.queries.values())
    per_document, per_question = (_mean_tokens(texts, max_length) for texts in (documents, questions))
    num_dev = min(corpus.dev_items or len(learnt.queries), round(DEV_SHARE * len(learnt.queries)))
    num_items = min(corpus.test_items or len(questions), len(questions))
    searched = min(len(learnt.documents), num_dev + MOST_BESIDE)
    per_text = _mean_tokens(pairs, max_length)
    return TaskSize(
        num_rows=len(examples),
        row_tokens=2 * per_text,
        text_tokens=per_text,
        batch_rows=batch_rows,
        dev_tokens=num_dev * per_question + searched * per_document,
        test_tokens=num_items * per_question + len(documents) * per_document,
        num_items=num_items,
        num_bytes=float(sum(len(text.encode()) for text in documents + questions)),
        num_documents=len(documents),
        num_dev=num_dev,
    )


def set_texts(corpus: CorpusConfig) -> list[str]:
    """Documents and training queries of a retrieval set."""
    learnt = _read(_folders(corpus)[0], "train", corpus.train)
    return [*learnt.documents.values(), *learnt.queries.values()]


def _mean_tokens(texts: list[str], max_length: int) -> float:
    return sum(min(len(text.encode()) / BYTES_PER_TOKEN, max_length) for text in texts) / len(texts)


def _folders(corpus: CorpusConfig) -> tuple[Path, Path]:
    """The folders that training and test queries come from."""
    return _folder(corpus.train), _folder(corpus.test or corpus.train)


def _folder(data: DataConfig) -> Path:
    folder = retrieval_folder(data)
    if folder is None:
        fix = "give the one folder that holds corpus.jsonl, queries.jsonl and qrels/"
        raise DataError("is no retrieval set", where=data.files[0], fix=fix)
    return folder


def _train_splits(corpus: CorpusConfig) -> list[str]:
    """train, and dev where that is not the test split."""
    train, test = _folders(corpus)
    spare = "dev" in splits(train) and (train != test or scored_split(test) != "dev")
    return ["train", "dev"] if spare else ["train"]


def _read(folder: Path, split: str, data: DataConfig) -> RetrievalSet:
    return read_set(folder, split, data.max_bytes, data.on_bad_row, data.columns, data.protect)


def _rows(parts: Iterable[RetrievalSet]) -> list[Row]:
    """Queries as rows: what overlap is looked for in, and what is drawn from."""
    return [
        Row({"text": text, **_group(part, name)}, part.where[name], name)
        for part in parts
        for name, text in part.queries.items()
    ]


def _group(part: RetrievalSet, query: str) -> dict[str, str]:
    return {"group": part.groups[query]} if query in part.groups else {}


def _dataset(rows: list[Row], parts: list[RetrievalSet]) -> Dataset:
    # splits of one set share their documents, whose faults count once
    skipped = list(dict.fromkeys(line for part in parts for line in part.skipped))
    return Dataset(rows, "text", {"text": "text"}, skipped=skipped)


def _distinct(tested: RetrievalSet) -> RetrievalSet:
    """The queries without those that ask for the same answers in the same, or nearly the same, words."""
    by_answers: dict[tuple[str, ...], list[str]] = {}
    for query in sorted(tested.queries, key=lambda name: (tested.queries[name], name)):
        answers = sorted(name for name, grade in tested.grades[query].items() if grade > 0)
        by_answers.setdefault(tuple(answers), []).append(query)
    repeated: set[str] = set()
    for names in by_answers.values():
        rows = [Row({"text": tested.queries[name]}, tested.where[name], name) for name in names]
        kept, _ = deduplicate(Dataset(rows, "text", {"text": "text"}))
        repeated |= set(names) - {row.id for row in kept.rows}
    return tested.with_queries(set(tested.queries) - repeated)


def _divided(found: RetrievalSet) -> tuple[RetrievalSet, RetrievalSet]:
    """Training and dev queries: those whose answers hang together stay on one side."""
    _, held = hold_out(examples_of_set(found), DEV_SHARE)
    places = {row.where for row in held}
    dev = {query for query in found.queries if found.where[query] in places}
    return found.with_queries(set(found.queries) - dev), found.with_queries(dev)
