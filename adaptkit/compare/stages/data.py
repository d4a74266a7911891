"""The study's data, prepared once: read, deduplicated, decontaminated, split, and held-out documents cut to
passages.

Every later stage reads the files written here. A held-out document gives one passage of at most
PASSAGE_BYTES, drawn
by its hash: items stay independent, and scoring costs the same for short tickets and long articles.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from adaptkit.data.dedup import deduplicate
from adaptkit.data.files import find_files
from adaptkit.data.overlap import OverlapReport, overlap, remove_overlap
from adaptkit.data.readers import DataConfig, Dataset, Row, read, split, take
from adaptkit.errors import DataError
from adaptkit.run import Run, digest, file_digest, write_jsonl
from adaptkit.study.config import CorpusConfig, StudyConfig

PASSAGE_BYTES = 1024
TEST_SHARE, DEV_SHARE = 0.1, 0.05
MAX_TEST_PASSAGES, MAX_DEV_PASSAGES, MAX_DEV_ROWS = 200, 60, 300
WANT = {"classify": "labelled", "label_words": "labelled", "generate": "sft", "retrieve": "queries"}


def data_configs(config: StudyConfig) -> dict[str, DataConfig]:
    """Every data set of a study by its label."""
    named = {"domain": config.domain, "general": config.general, **{task.name: task for task in config.tasks}}
    return {
        f"{name}.{part}": data
        for name, corpus in named.items()
        for part in ("train", "test")
        if (data := getattr(corpus, part))
    }


def input_digests(config: StudyConfig) -> dict[str, str]:
    """sha256 of every file a study reads, and of its base's weights: what its folder's name depends on."""
    digests = {}
    for label, data in data_configs(config).items():
        files, _ = find_files(data.files)
        digests[label] = digest([file_digest(file) for file in files])
    if config.base:
        from adaptkit.models import find

        folder = find(config.base)
        digests["base"] = digest(
            {
                p.name: file_digest(p)
                for p in sorted(folder.iterdir())
                if p.suffix in (".safetensors", ".json")
            }
        )
    return digests


def prepare_data(config: StudyConfig, root: Path) -> tuple[Run, dict[str, Any]]:
    """Write the prepared files and return their run with the facts the report tells.

    Raises: DataError for rows that cannot be used, and where a split would be empty.
    """
    fields = {label: data.model_dump(mode="json") for label, data in data_configs(config).items()}
    fields["kinds"] = {task.name: task.kind for task in config.tasks}
    run = Run.open(root, "data", fields | {"fractions": config.fractions}, input_digests(config))
    if not run.finished:
        facts = _prepare(config, run)
        run.finish(facts=facts)
    return run, run.manifest()["facts"]


def _prepare(config: StudyConfig, run: Run) -> dict[str, Any]:
    facts: dict[str, Any] = {"overlap": {}, "duplicates": {}, "labels": {}}
    wants = {"domain": "text", "general": "text", **{task.name: WANT[task.kind] for task in config.tasks}}
    named = {"domain": config.domain, "general": config.general, **{task.name: task for task in config.tasks}}
    parts = {name: _parts(name, corpus, wants[name], facts) for name, corpus in named.items()}
    tests = {name: test for name, (_, test) in parts.items()}
    for name, (train, test) in parts.items():
        # Text is checked against every test, labelled rows against their own: other tasks' rows are not text
        # to train on.
        against = tests if wants[name] == "text" else {name: test}
        train = _decontaminated(train, against, name, facts["overlap"])
        facts[name] = {"train": _fact(train), "test": _fact(test)}
        if name in ("domain", "general"):
            _write_corpus(run, name, train, test, config.fractions)
        elif wants[name] == "queries":
            from adaptkit.compare.stages.retrieve import write_sets

            write_sets(run.path / name, named[name], train, test)
        else:
            facts["labels"][name] = train.labels
            _write_task(run, name, train, test)
    return facts


def _parts(name: str, corpus: CorpusConfig, want: str, facts: dict[str, Any]) -> tuple[Dataset, Dataset]:
    """Training rows without duplicates, and test rows: the ones named, or a share held out."""
    if want == "queries":
        from adaptkit.compare.stages.retrieve import read_queries

        return read_queries(corpus)
    train, duplicates = deduplicate(read(corpus.train, want))
    facts["duplicates"][name] = duplicates.as_json()
    return (train, read(corpus.test, want)) if corpus.test else split(train, TEST_SHARE, seed=1)


def _decontaminated(train: Dataset, tests: dict[str, Dataset], name: str, facts: dict[str, Any]) -> Dataset:
    """`train` without the rows that hold n-grams of a test item; what was found is counted in `facts`."""
    for test_name, test in tests.items():
        found = overlap(train, test)
        train = remove_overlap(train, found, side="train")
        facts[f"{name} against {test_name}"] = {
            **found.as_json(),
            "contaminated": len(found.contaminated),
            "action": _action(found),
        }
    return train


def _action(found: OverlapReport) -> str:
    if not found.contaminated:
        return "none found"
    if not found.train_ids:
        return "kept: no single training row holds a tenth of an item"
    return f"{len(found.train_ids)} training rows removed"


def _fact(dataset: Dataset) -> dict[str, Any]:
    return {key: value for key, value in dataset.manifest().items() if key != "skipped"}


def _write_corpus(run: Run, name: str, train: Dataset, test: Dataset, fractions: list[float]) -> None:
    train, dev = split(train, DEV_SHARE)
    write_jsonl(run.path / f"{name}.dev.jsonl", map(_passage, dev.rows[:MAX_DEV_PASSAGES]))
    write_jsonl(run.path / f"{name}.test.jsonl", map(_passage, test.rows[:MAX_TEST_PASSAGES]))
    for fraction in fractions if name == "domain" else [1.0]:
        part = take(train, fraction)
        write_jsonl(
            train_path(run.path, name, fraction), ({"text": row.text, "from": row.where} for row in part.rows)
        )


def train_path(folder: Path, name: str, fraction: float = 1.0) -> Path:
    return folder / (f"{name}.train.jsonl" if fraction == 1 else f"{name}.train.{fraction:g}.jsonl")


def _passage(row: Row) -> dict[str, str]:
    """One passage of a document, starting at a paragraph drawn by the document's hash, cut at a character
    boundary."""
    raw = row.text.encode()
    starts = [0] + [i + 1 for i in range(len(raw) - PASSAGE_BYTES // 2) if raw[i] == 10]
    start = starts[int.from_bytes(hashlib.sha256(raw).digest()[:4]) % len(starts)]
    return {"text": raw[start : start + PASSAGE_BYTES].decode(errors="ignore"), "from": row.where}


def _write_task(run: Run, name: str, train: Dataset, test: Dataset) -> None:
    if unknown := sorted(set(test.labels) - set(train.labels)):
        raise DataError(
            f"labels {unknown} stand in the test rows of '{name}' and in no training row",
            where=test.rows[0].where,
            fix="train on every label, or drop those rows",
        )
    rest, dev = split(train, min(0.2, MAX_DEV_ROWS / len(train.rows)))
    for part, dataset in (("train", rest), ("dev", dev), ("test", test)):
        write_jsonl(
            run.path / f"{name}.{part}.jsonl", ({**row.values, "from": row.where} for row in dataset.rows)
        )


def read_prepared(path: Path, want: str = "text") -> Dataset:
    return read(DataConfig(files=[str(path)]), want)


def folder_digest(path: Path) -> str:
    files = sorted(p for p in path.rglob("*") if p.suffix in (".jsonl", ".tsv"))
    return digest({str(p.relative_to(path)): file_digest(p) for p in files})


def documents(path: Path) -> list[tuple[str, str]]:
    """(id, text) of prepared held-out passages."""
    return [(row.id, row.text) for row in read_prepared(path).rows]
