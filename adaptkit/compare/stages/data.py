"""The stage that prepares a study's data: reads, deduplicates, decontaminates and splits it.

Every later stage reads the files written here. A held-out document gives one passage of at most
PASSAGE_BYTES, drawn by its hash: items stay independent, and scoring costs the same for short tickets and
long articles.
"""

from __future__ import annotations

import hashlib
from typing import Any

from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import PreparedFiles, Workspace
from adaptkit.data.overlap import OverlapReport, overlap, remove_overlap
from adaptkit.data.readers import Dataset, Row, split, take
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import RecipeKind, RunRecord, SplitRecord, read_record, validated
from adaptkit.study.config import StudyConfig
from adaptkit.study.inputs import data_configs, input_digests
from adaptkit.study.record import CorpusRecord, DataRecord, OverlapRecord
from adaptkit.study.stage_record import PreparedResult
from adaptkit.study.task import CorpusRows, read_corpus

PASSAGE_BYTES = 1024
DEV_SHARE = 0.05
MAX_TEST_PASSAGES, MAX_DEV_PASSAGES = 200, 60
TEXTS = ("domain", "general")


def prepare(workspace: Workspace, stage: Stage, threads: int) -> PreparedResult:
    """Read, deduplicate, decontaminate and split the data, once for all studies of the same data.

    Raises: DataError for rows that cannot be used, and where a split would be empty.
    """
    config = workspace.config
    fields: dict[str, Any] = {
        label: data.model_dump(mode="json") for label, data in data_configs(config).items()
    }
    fields["kinds"] = {task.name: task.kind for task in config.tasks}
    run = Run.open(workspace.root, "data", {**fields, "fractions": config.fractions}, input_digests(config))
    if not run.finished:
        data, labels = write_data(config, PreparedFiles(run.path))
        facts = {"data": data.model_dump(mode="json"), "labels": labels}
        record = RunRecord(recipe=RecipeKind.PREPARE, facts=facts)
        run.finish(record=record.model_dump(mode="json"))
    facts = read_record(run).facts
    data = validated(DataRecord, facts["data"], str(run.manifest_path))
    return PreparedResult(run=run.path.name, data=data, labels=facts["labels"])


def write_data(config: StudyConfig, files: PreparedFiles) -> tuple[DataRecord, dict[str, list[str]]]:
    """Write every data set of a study; what was found in them, and the labels of each task."""
    read = {name: read_corpus(corpus, "text") for name, corpus in _texts(config).items()}
    read |= {task.name: task.task_kind.read(task) for task in config.tasks}
    tests = {name: rows.test for name, rows in read.items()}
    corpora: dict[str, CorpusRecord] = {}
    overlaps: list[OverlapRecord] = []
    labels: dict[str, list[str]] = {}
    for name, rows in read.items():
        # Text is checked against every test, labelled rows against their own: other tasks' rows are not text
        # to train on.
        against = tests if name in TEXTS else {name: rows.test}
        rows = _decontaminated(name, rows, against, overlaps)
        corpora[name] = CorpusRecord(train=_split_record(rows.train), test=_split_record(rows.test))
        if name in TEXTS:
            _write_text(files, name, rows, config.fractions if name == "domain" else [1.0])
        else:
            task = config.task(name)
            task.task_kind.prepare(files.task(name), task, rows)
            labels[name] = rows.train.labels
    duplicates = {name: rows.duplicates for name, rows in read.items() if rows.duplicates}
    return DataRecord(corpora=corpora, overlap=tuple(overlaps), duplicates=duplicates), labels


def _texts(config: StudyConfig) -> dict[str, Any]:
    return {"domain": config.domain, "general": config.general}


def _decontaminated(
    name: str, rows: CorpusRows, tests: dict[str, Dataset], overlaps: list[OverlapRecord]
) -> CorpusRows:
    """Training rows without those that hold n-grams of a test item; what was found is added to `overlaps`."""
    train = rows.train
    for test_name, test in tests.items():
        report = overlap(train, test)
        train = remove_overlap(train, report, side="train")
        counts = report.as_json()
        overlaps.append(OverlapRecord(train=name, test=test_name, action=_action(report), **counts))
    return CorpusRows(train, rows.test, rows.duplicates)


def _action(report: OverlapReport) -> str:
    if not report.contaminated:
        return "none found"
    if not report.train_ids:
        return "kept: no single training row holds a tenth of an item"
    return f"{len(report.train_ids)} training rows removed"


def _split_record(dataset: Dataset) -> SplitRecord:
    return SplitRecord(**{**dataset.manifest(), "skipped": []})


def _write_text(files: PreparedFiles, name: str, rows: CorpusRows, shares: list[float]) -> None:
    train, dev = split(rows.train, DEV_SHARE)
    write_jsonl(files.dev(name), map(passage, dev.rows[:MAX_DEV_PASSAGES]))
    write_jsonl(files.test(name), map(passage, rows.test.rows[:MAX_TEST_PASSAGES]))
    for share in shares:
        part = take(train, share)
        write_jsonl(files.train(name, share), ({"text": row.text, "from": row.where} for row in part.rows))


def passage(row: Row) -> dict[str, str]:
    """One passage of a document: from a paragraph drawn by the document's hash to a whole character."""
    raw = row.text.encode()
    starts = [0] + [i + 1 for i in range(len(raw) - PASSAGE_BYTES // 2) if raw[i] == 10]
    start = starts[int.from_bytes(hashlib.sha256(raw).digest()[:4]) % len(starts)]
    return {"text": raw[start : start + PASSAGE_BYTES].decode(errors="ignore"), "from": row.where}
