"""Cut the few megabytes that the studies of the truth table read, and train the generic base they share.

Each slice holds whole documents, drawn by a hash of their text, so that the same files give the same slices.
The base learns one half of the general text; domain text without shift is drawn from the other half.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from adaptkit.config import Config, load
from adaptkit.data.offline_corpus import offline_corpus
from adaptkit.disk import whole_folder
from adaptkit.errors import ConfigError
from adaptkit.run import read_json, read_jsonl, write_json

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
MB = 1_000_000
BASE_BYTES, TEXT_BYTES, SMALL_BYTES, TEST_BYTES = 6 * MB, 1.6 * MB, 0.3 * MB, 0.5 * MB
LABELLED_ROWS, TEST_ROWS, FEW_ROWS = 6_000, 800, 400
CODE_BYTES, NUM_FUNCTIONS = 2_200_000, 3_000
TEST_SHARE = 0.15
"""Of code and functions, which have no test of their own."""
FULL_BASE, YOUNG_BASE = "2e12", "1e11"
"""FLOPs of the two bases: one text read for most of an epoch, one hardly begun."""

MADE_FROM = "made_from.json"

Row = dict[str, Any]


class TextSource(Config):
    """Files of documents, as JSON lines with `text` and perhaps `source`."""

    train: str
    test: str


class LabelSource(Config):
    """Files of labelled rows, as JSON lines."""

    train: str
    test: str
    text: list[str] = ["text"]
    """Fields that are joined to the text."""
    label: str = "label"
    """Field of the label."""
    group: str = ""
    """Field that says what belongs together; empty where nothing does."""


class Sources(Config):
    """What the studies are made from; code comes from the installed packages where it is not named."""

    general_text: TextSource
    domain_text: TextSource
    domain_labels: LabelSource
    second_labels: LabelSource
    general_labels: LabelSource
    code_text: TextSource | None = None
    code_labels: LabelSource | None = None


def prepare(data: Path, sources_path: Path, out: Path) -> None:
    """Write out/data and out/bases, unless they are there.

    Raises: ConfigError where those that are there were made from other files.
    """
    sources = load(Sources, sources_path).config
    made_from = {"data": str(data), "sources": sources.model_dump()}
    if not (out / "data").exists():
        with whole_folder(out / "data") as folder:
            _texts(data, sources, folder)
            _labels(data, sources, folder)
            _code(data, sources, folder, out / "corpus")
            write_json(folder / MADE_FROM, made_from)
    elif read_json(out / "data" / MADE_FROM) != made_from:
        raise ConfigError("holds slices of other files", where=str(out), fix="give another --out")
    for name, flops in (("full", FULL_BASE), ("young", YOUNG_BASE)):
        if not (out / "bases" / name).exists():
            _base(out, name, flops)


def environment() -> dict[str, str]:
    """For a process that runs adaptkit from this checkout, on one thread and without a GPU."""
    path = [str(REPOSITORY), str(REPOSITORY / "kernels/torch-ext"), os.environ.get("PYTHONPATH", "")]
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **own, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _texts(data: Path, sources: Sources, folder: Path) -> None:
    test = _documents(data / sources.general_text.test)
    first, second = _halves(_documents(data / sources.general_text.train))
    _write(folder / "base_text.jsonl.gz", _at_most(first, BASE_BYTES))
    _write(folder / "general.jsonl.gz", _at_most(first, TEXT_BYTES))
    _write(folder / "general_test.jsonl.gz", _at_most(test, TEST_BYTES))
    _write(folder / "other_half.jsonl.gz", _at_most(second, TEXT_BYTES))
    largest = _largest_source(second)
    _write(folder / "one_source.jsonl.gz", _at_most(_of_source(second, largest), TEXT_BYTES))
    _write(folder / "one_source_test.jsonl.gz", _at_most(_of_source(test, largest), TEST_BYTES))
    domain = _documents(data / sources.domain_text.train)
    _write(folder / "domain.jsonl.gz", _at_most(domain, TEXT_BYTES))
    _write(folder / "domain_small.jsonl.gz", _at_most(domain, SMALL_BYTES))
    domain_test = _documents(data / sources.domain_text.test)
    _write(folder / "domain_test.jsonl.gz", _at_most(domain_test, TEST_BYTES))


def _labels(data: Path, sources: Sources, folder: Path) -> None:
    for name in ("domain_labels", "second_labels", "general_labels"):
        _labels_of(data, getattr(sources, name), name, folder)
    few = _labelled(data / sources.domain_labels.train, sources.domain_labels)
    _write(folder / "few_labels.jsonl.gz", few[:FEW_ROWS])


def _labels_of(data: Path, source: LabelSource, name: str, folder: Path) -> None:
    _write(folder / f"{name}.jsonl.gz", _labelled(data / source.train, source)[:LABELLED_ROWS])
    _write(folder / f"{name}_test.jsonl.gz", _labelled(data / source.test, source)[:TEST_ROWS])


def _code(data: Path, sources: Sources, folder: Path, cache: Path) -> None:
    """The code that is named, else that of the installed packages, of which modules are kept for the test."""
    corpus = None
    if sources.code_text is None or sources.code_labels is None:
        corpus = offline_corpus(cache, 20_000, CODE_BYTES, NUM_FUNCTIONS)
    if sources.code_text is not None:
        train, test = _documents(data / sources.code_text.train), _documents(data / sources.code_text.test)
    else:
        assert corpus is not None
        train, test = _split(_documents(corpus.domain), lambda row: row["text"])
    _write(folder / "code.jsonl.gz", _at_most(train, TEXT_BYTES))
    _write(folder / "code_test.jsonl.gz", _at_most(test, TEST_BYTES))
    if sources.code_labels is not None:
        _labels_of(data, sources.code_labels, "code_labels", folder)
        return
    assert corpus is not None
    functions = _labelled(corpus.functions, LabelSource(train="", test="", group="group"))
    train, test = _split(functions, lambda row: row["group"])
    _write(folder / "code_labels.jsonl.gz", train)
    _write(folder / "code_labels_test.jsonl.gz", test[:TEST_ROWS])


def _documents(path: Path) -> list[Row]:
    """Text and source of each document, in the order of a hash."""
    rows = [{"text": row["text"], "source": row.get("source", "")} for row in _read(path)]
    return sorted(rows, key=lambda row: _hash(row["text"]))


def _labelled(path: Path, source: LabelSource) -> list[Row]:
    rows = []
    for row in _read(path):
        text = "\n".join(part for name in source.text for part in _parts(row[name]))
        new = {"text": text, "label": str(row[source.label])}
        if source.group:
            new["group"] = str(row[source.group])
        rows.append(new)
    return sorted(rows, key=lambda row: _hash(row["text"]))


def _parts(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


def _read(path: Path) -> Iterable[Row]:
    if path.suffix != ".gz":
        return read_jsonl(path)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _hash(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone, and is no other part's hash of it."""
    return int(hashlib.sha256(b"truth " + text.encode()).hexdigest()[:12], 16) / 16**12


def _halves(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    return rows[::2], rows[1::2]


def _split(rows: list[Row], key: Callable[[Row], str]) -> tuple[list[Row], list[Row]]:
    """Rows to learn and rows to test on; what has one key stays together."""
    test = [row for row in rows if _hash(key(row)) >= 1 - TEST_SHARE]
    return [row for row in rows if _hash(key(row)) < 1 - TEST_SHARE], test


def _at_most(rows: Iterable[Row], num_bytes: float) -> Iterator[Row]:
    total = 0
    for row in rows:
        if total >= num_bytes:
            return
        total += len(row["text"].encode())
        yield row


def _largest_source(rows: list[Row]) -> str:
    sizes: Counter[str] = Counter()
    for row in rows:
        sizes[row["source"]] += len(row["text"])
    return sizes.most_common(1)[0][0]


def _of_source(rows: list[Row], source: str) -> list[Row]:
    return [row for row in rows if row["source"] == source]


def _write(path: Path, rows: Iterable[Row]) -> None:
    """JSON lines, packed; the same bytes for the same rows."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(text.encode())
    path.write_bytes(buffer.getvalue())


def _base(out: Path, name: str, flops: str) -> None:
    """Pretrain a generic base on half of the general text; only its model folder is kept."""
    root = out / "base_runs"
    words = [str(HERE / "base.yaml"), f"flops={flops}", f"name={name}", "--root", str(root.name), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "adaptkit", "pretrain", *words],
        cwd=out,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    run = next(root.glob(f"{name}-*"))
    shutil.copytree(run / "model", out / "bases" / name)
    write_json(out / "bases" / f"{name}.json", json.loads(done.stdout))
