"""The retrieval sets of a task: queries read for overlap, the prepared set written, BM25 on it."""

from __future__ import annotations

import time
from pathlib import Path

from adaptkit.data.readers import DataConfig, Dataset, Row
from adaptkit.embed.examples import MOST_BESIDE, examples_of_set, hold_out, retrieval_folder
from adaptkit.embed.retrieval import RetrievalSet, read_set, scored_split, splits
from adaptkit.embed.retrieval_metrics import ranked, retrieval_row
from adaptkit.errors import DataError
from adaptkit.run import write_jsonl, write_text
from adaptkit.study.task import BYTES_PER_TOKEN, CorpusConfig, Rows, TaskSize

DEV_SHARE = 0.1
SAMPLE = 200


def read_queries(corpus: CorpusConfig) -> tuple[Dataset, Dataset]:
    """Training and test queries of a retrieval set, as rows that overlap is looked for in; dev queries are
    among the first."""
    train, test = _folders(corpus)
    learnt = [read_set(train, name, corpus.train.max_bytes) for name in _train_splits(corpus)]
    tested = read_set(test, scored_split(test), (corpus.test or corpus.train).max_bytes)
    return _queries(learnt), _queries([tested])


def write_sets(folder: Path, corpus: CorpusConfig, train: Dataset) -> None:
    """The prepared set: its documents, and the train, dev and test queries that were kept."""
    named, tested = _folders(corpus)
    kept = {row.id for row in train.rows}
    parts = {
        name: read_set(named, name, corpus.train.max_bytes).with_queries(kept)
        for name in _train_splits(corpus)
    }
    if "dev" not in parts:
        parts["train"], parts["dev"] = _divided(parts["train"])
    parts["test"] = read_set(tested, scored_split(tested), (corpus.test or corpus.train).max_bytes)
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


def bm25_rows(folder: Path) -> tuple[Rows, float]:
    """Item rows of BM25 (Robertson and Zaragoza 2009) on the test split, and the seconds that answering took:
    k1 1.5, b 0.75, English stop words, no stemming."""
    import bm25s

    tested = read_set(folder, "test")
    index = bm25s.BM25()
    words = bm25s.tokenize(list(tested.documents.values()), stopwords="en", show_progress=False)
    index.index(words, show_progress=False)
    questions = bm25s.tokenize(
        list(tested.queries.values()), stopwords="en", return_ids=False, show_progress=False
    )
    names, begun = list(tested.documents), time.perf_counter()
    rows = [
        retrieval_row(query, ranked(index.get_scores(tokens), names), tested.grades[query])
        for query, tokens in zip(tested.queries, questions, strict=True)
    ]
    return rows, time.perf_counter() - begun


def set_size(corpus: CorpusConfig, max_length: int, batch_rows: int) -> TaskSize:
    """How much the questions and documents of a retrieval set give to read."""
    train, test = _folders(corpus)
    learnt = read_set(train, "train", corpus.train.max_bytes)
    tested = read_set(test, scored_split(test), (corpus.test or corpus.train).max_bytes)
    examples = examples_of_set(learnt)
    pairs = [text for row in examples[:SAMPLE] for text in row.texts]
    documents, questions = list(tested.documents.values()), list(tested.queries.values())
    per_document, per_question = (_mean_tokens(texts, max_length) for texts in (documents, questions))
    num_dev = round(DEV_SHARE * len(learnt.queries))
    searched = min(len(learnt.documents), num_dev + MOST_BESIDE)
    per_text = _mean_tokens(pairs, max_length)
    return TaskSize(
        num_rows=len(examples),
        row_tokens=2 * per_text,
        text_tokens=per_text,
        batch_rows=batch_rows,
        dev_tokens=num_dev * per_question + searched * per_document,
        test_tokens=len(questions) * per_question + len(documents) * per_document,
        num_items=len(questions),
        num_bytes=float(sum(len(text.encode()) for text in documents + questions)),
        num_documents=len(documents),
    )


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


def _queries(parts: list[RetrievalSet]) -> Dataset:
    rows = [
        Row({"text": text}, found.where[name], name)
        for found in parts
        for name, text in found.queries.items()
    ]
    return Dataset(rows, "text", {"text": "text"})


def _divided(found: RetrievalSet) -> tuple[RetrievalSet, RetrievalSet]:
    """Training and dev queries: those whose answers hang together stay on one side."""
    _, held = hold_out(examples_of_set(found), DEV_SHARE)
    places = {row.where for row in held}
    dev = {query for query in found.queries if found.where[query] in places}
    return found.with_queries(set(found.queries) - dev), found.with_queries(dev)
