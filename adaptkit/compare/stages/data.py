"""The stage that prepares a study's data: reads, deduplicates, draws, cuts out overlap and splits.

Every later stage reads the files written here. What is judged on is drawn first, so that overlap is looked
for in exactly that; what was done is counted in the study's record.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import Workspace, rows_of
from adaptkit.data.canaries import CanaryConfig, canary_record, plant, planted_sentence
from adaptkit.data.cutting import Removal, cut_overlap, drop_overlap
from adaptkit.data.dedup import deduplicate
from adaptkit.data.drawing import draw_passages
from adaptkit.data.readers import DataConfig, Dataset, Row
from adaptkit.data.readers import read as read_data
from adaptkit.data.splitting import hold_out
from adaptkit.errors import DataError
from adaptkit.notices import tell
from adaptkit.run import Run, write_jsonl
from adaptkit.run_lock import hold
from adaptkit.run_record import RecipeKind, RunRecord, SplitRecord, read_record, validated
from adaptkit.study.config import StudyConfig
from adaptkit.study.corpus_rows import read_corpus
from adaptkit.study.data_counts import cut_record, shift_record, test_set_record
from adaptkit.study.data_record import CorpusRecord, CutRecord, DataRecord, ShiftRecord, TestSetRecord
from adaptkit.study.inputs import corpora, data_configs, prepared_digests
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.rag import COLLECTION
from adaptkit.study.stage_record import PreparedResult
from adaptkit.study.task import CorpusConfig, CorpusRows

MAX_DEV_SHARE = 0.05
TEXTS = {"domain": "language", "general": "general"}
"""The text corpora, and what their passages are judged as."""


def prepare(workspace: Workspace, stage: Stage, threads: int) -> PreparedResult:
    """Read, deduplicate, draw, decontaminate and split the data, once for all studies of the same data.

    Raises: DataError for rows that cannot be used, and where a split would be empty.
    """
    config = workspace.config
    run = Run.open(workspace.root, "data", identity(config), prepared_digests(config))
    if not run.finished:
        hold(run, wait=True)
    if not run.finished:
        run.update_manifest(study=workspace.path.name)
        data, labels = write_data(config, PreparedFiles(run.path))
        facts = {"data": data.model_dump(mode="json"), "labels": labels}
        record = RunRecord(recipe=RecipeKind.PREPARE, facts=facts)
        run.finish(record=record.model_dump(mode="json"))
    facts = read_record(run).facts
    data = validated(DataRecord, facts["data"], str(run.manifest_path))
    return PreparedResult(run=run.path.name, data=data, labels=facts["labels"])


def identity(config: StudyConfig) -> dict[str, Any]:
    """The settings that prepared data depends on, beside its files."""
    fields: dict[str, Any] = {
        label: data.identity(lambda key, files: None) for label, data in data_configs(config).items()
    }
    settings = {"split", "test_items", "dev_items"}
    for name, corpus in corpora(config).items():
        fields[f"{name}.drawing"] = corpus.model_dump(mode="json", include=settings)
    if config.canaries is not None:
        fields["canaries"] = config.canaries.model_dump(mode="json")
    fields["kinds"] = {task.name: task.kind for task in config.tasks}
    return fields


def write_data(config: StudyConfig, files: PreparedFiles) -> tuple[DataRecord, dict[str, list[str]]]:
    """Write every data set of a study; what was found in them, and the labels of each task."""
    named = corpora(config)
    read = {name: read_corpus(named[name], "text") for name in TEXTS}
    read |= {task.name: task.task_kind.read(task) for task in config.tasks}
    cuts: list[CutRecord] = []
    records: dict[str, CorpusRecord] = {}
    test_sets: dict[str, TestSetRecord] = {}
    shifts: dict[str, ShiftRecord] = {}
    labels: dict[str, list[str]] = {}
    for name, rows in read.items():
        clean, removals = _decontaminated(name, rows, read)
        for test, removal in removals.items():
            cuts.append(cut_record(name, rows.train, test, read[test], removal))
        if (shift := shift_record(rows, same_files=named[name].test is None)) is not None:
            shifts[name] = shift
        records[name] = CorpusRecord(train=_split_record(clean.train), test=_split_record(clean.test))
        if name in TEXTS:
            planted = config.canaries if name == "domain" else None
            clusters = _write_text(files, name, named[name], clean, planted)
        else:
            task = config.task(name)
            task.task_kind.prepare(files.task(name), task, clean)
            clusters = task.task_kind.clusters(files.task(name), clean)
            labels[name] = clean.train.labels
        test_sets[TEXTS.get(name, name)] = test_set_record(rows, clusters)
    duplicates = {name: rows.duplicates for name, rows in read.items() if rows.duplicates}
    if config.rag is not None and config.rag.collection is not None:
        collection = _write_collection(files, config.rag.collection, read)
        cuts += collection.cuts
        duplicates |= {COLLECTION: collection.duplicates} if collection.duplicates else {}
    data = DataRecord(
        corpora=records,
        duplicates=duplicates,
        cuts=tuple(cuts),
        test_sets=test_sets,
        shifts=shifts,
        canaries=canary_record(config.canaries) if config.canaries else None,
    )
    return data, labels


@dataclass(frozen=True)
class _Collection:
    """What was taken out of a collection of the user's own."""

    duplicates: dict[str, int]
    cuts: list[CutRecord]


def _write_collection(files: PreparedFiles, named: DataConfig, read: dict[str, CorpusRows]) -> _Collection:
    """Write what passages are looked up in, without repeats and without what stands in any test.

    Raises: DataError where nothing is left.
    """
    whole, repeated = deduplicate(read_data(named, "text"))
    items = {test: [*of.test.rows, *of.documents] for test, of in read.items()}
    clean, removals = cut_overlap(whole, items)
    if not clean.rows:
        fix = "give text to look things up in that is not the test itself"
        raise DataError("holds nothing that is not in a test", where=COLLECTION, fix=fix)
    cuts = [cut_record(COLLECTION, whole, test, read[test], removals[test]) for test in removals]
    lost = sum(cut.bytes_cut for cut in cuts)
    tell(f"{COLLECTION}: {lost:,} of {whole.num_bytes:,} bytes stand in tests and were cut out")
    write_jsonl(files.train(COLLECTION), map(_line, clean.rows))
    return _Collection(repeated.counts, cuts)


def _decontaminated(
    name: str, rows: CorpusRows, read: dict[str, CorpusRows]
) -> tuple[CorpusRows, dict[str, Removal]]:
    """Training rows without what they share with a test, and what went for each test.

    Text is checked against every test, labelled rows against their own: other tasks' rows are not text to
    train on. Of a text's test, the documents that the passages come from are looked for as well.
    """
    against = read if name in TEXTS else {name: rows}
    items = {test: [*of.test.rows, *of.documents] for test, of in against.items()}
    clean = cut_overlap if name in TEXTS else drop_overlap
    train, removals = clean(rows.train, items)
    return dataclasses.replace(rows, train=train), removals


def _split_record(dataset: Dataset) -> SplitRecord:
    return SplitRecord(**{**dataset.manifest(), "skipped": []})


def _write_text(
    files: PreparedFiles, name: str, corpus: CorpusConfig, rows: CorpusRows, planted: CanaryConfig | None
) -> dict[str, str]:
    """Write a text's parts, canaries among the training rows; returns what each test passage belongs to."""
    train, tuning = hold_out(rows.train, corpus.dev_items, MAX_DEV_SHARE)
    dev = draw_passages(tuning, corpus.dev_items)
    for path, part in ((files.dev(name), dev), (files.test(name), rows.test)):
        write_jsonl(path, ({**_line(row), "group": row.cluster} for row in part.rows))
    if planted is not None:
        train = plant(train, planted)
        tell(f"{name}: {planted_sentence(planted, train.num_bytes)}")
    write_jsonl(files.train(name), map(_line, train.rows))
    return {row.id: row.cluster for row in rows_of(files.test(name)).rows}


def _line(row: Row) -> dict[str, str]:
    return {"text": row.text, "from": Path(row.where).name}
