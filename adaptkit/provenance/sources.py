"""Say where the rows of a data set came from, file by file, and what was taken out of them and why.

Rows are counted as they were trained on: those of a study in its prepared data, those of a run of its own as
its recipe read them, as long as their digest is the one that the run recorded.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptkit.data.readers import Row
from adaptkit.export.papers.lineage import Prepared
from adaptkit.provenance.record import DataSetRecord, FileState, RemovedRecord, SourceRecord
from adaptkit.provenance.split_rows import SplitRows, prepared_rows
from adaptkit.run import Run, file_digest
from adaptkit.run_record import CanaryRecord, SplitRecord
from adaptkit.study.data_record import CorpusRecord, CutRecord, DataRecord
from adaptkit.study.prepared_files import PreparedFiles

Tokens = Mapping[str, int]
"""Content id of a row -> tokens of its text."""


@dataclass(frozen=True)
class Counted:
    """What the rows of a data set hold, by the file that they came from."""

    rows: Counter[str]
    num_bytes: Counter[str]
    tokens: Counter[str]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Row]], tokens: Tokens | None) -> Counted:
        """Args: rows: pairs of a file's name and a row of it."""
        counted = cls(Counter(), Counter(), Counter())
        for file, row in rows:
            counted.rows[file] += 1
            counted.num_bytes[file] += len(row.text.encode())
            if tokens is not None:
                counted.tokens[file] += tokens.get(row.id, 0)
        return counted


def state_of(entry: Mapping[str, Any]) -> FileState:
    """Hold a source file against what was recorded of it."""
    path = Path(str(entry["name"])).expanduser()
    if not path.is_file():
        return "not here"
    return "verified" if file_digest(path) == entry["sha256"] else "changed"


def source_records(files: Sequence[Mapping[str, Any]], counted: Counted | None) -> tuple[SourceRecord, ...]:
    """One record for each file; without counts where they are None, and of files that share their name."""
    names = Counter(Path(str(entry["name"])).name for entry in files)
    records = []
    for entry in files:
        facts: dict[str, Any] = {}
        name = Path(str(entry["name"])).name
        if counted is not None and names[name] == 1:
            total, total_tokens = counted.num_bytes.total(), counted.tokens.total()
            facts = {"rows": counted.rows[name], "text_bytes": counted.num_bytes[name]}
            facts["share"] = counted.num_bytes[name] / total if total else None
            if total_tokens:
                facts["tokens"] = counted.tokens[name]
                facts["token_share"] = counted.tokens[name] / total_tokens
        shown = {key: entry[key] for key in ("name", "num_bytes", "sha256")}
        records.append(SourceRecord(**shown, state=state_of(entry), **facts))
    return tuple(records)


def data_of_study(
    run: Run, prepared: Prepared, tokens: Mapping[str, tuple[str, Tokens]]
) -> list[DataSetRecord]:
    """All data sets of a study's prepared data.

    Args:
        tokens: digest of training rows -> the run whose tokenizer counted, and tokens by content id.
    """
    files, found = PreparedFiles(run.path), []
    for name, corpus in prepared.data.corpora.items():
        train, test = corpus.train, corpus.test
        rows = prepared_rows(files.train(name), train.kind)
        tokens_of = tokens.get(rows.digest) if rows is not None else None
        counted = None if rows is None else Counted.of(_by_file(rows), tokens_of[1] if tokens_of else None)
        found.append(
            DataSetRecord(
                name=name,
                part="train",
                held_by=prepared.run,
                kind=train.kind,
                rows=train.documents if rows is None else len(rows.rows),
                num_bytes=train.num_bytes if rows is None else rows.num_bytes,
                digest=train.digest if rows is None else rows.digest,
                licences=train.licences,
                sources=source_records(train.files, counted),
                removed=tuple(removed_of_study(name, prepared.data, rows)),
                tokens_by=tokens_of[0] if tokens_of else "",
            )
        )
        found.append(_as_recorded(name, "test", prepared.run, test))
    return found


def _by_file(rows: SplitRows) -> list[tuple[str, Row]]:
    placed = zip(rows.origins, rows.rows, strict=True)
    return [(Path(replace(row, where=where).file).name, row) for where, row in placed]


def _as_recorded(name: str, part: str, held_by: str, split: SplitRecord) -> DataSetRecord:
    """A data set by its record alone."""
    return DataSetRecord(
        name=name,
        part=part,
        held_by=held_by,
        kind=split.kind,
        rows=split.documents,
        num_bytes=split.num_bytes,
        digest=split.digest,
        licences=split.licences,
        sources=source_records(split.files, None),
    )


def data_of_run(
    run: Run, part: str, split: SplitRecord, rows: SplitRows | None, tokens: tuple[str, Tokens] | None
) -> DataSetRecord:
    """A data set that a run read from files of the user's."""
    name = run.path.resolve().name
    record = _as_recorded(name, part, name, split)
    removed = [RemovedRecord(why=why, rows=count) for why, count in _reading(split, None).items()]
    if rows is None or not rows.exact:
        return record.model_copy(update={"removed": tuple(removed)})
    counted = Counted.of(_by_file(rows), tokens[1] if tokens else None)
    facts = {"sources": source_records(split.files, counted), "removed": tuple(removed)}
    return record.model_copy(update={**facts, "tokens_by": tokens[0] if tokens else ""})


def _reading(split: SplitRecord, num_kept: int | None) -> dict[str, int | None]:
    """What reading left out: reason -> rows.

    Args:
        num_kept: rows that were kept; None where that is the number that the split states.
    """
    reasons: dict[str, int | None] = {}
    if split.num_skipped:
        reasons["could not be used (on_bad_row: skip)"] = split.num_skipped
    if split.num_sampled_from:
        kept = split.documents if num_kept is None else num_kept
        reasons["sampled out by hash (max_bytes)"] = split.num_sampled_from - kept
    return reasons


def removed_of_study(name: str, data: DataRecord, rows: SplitRows | None) -> Iterable[RemovedRecord]:
    """What went of one corpus between its files and its training rows, in the order in which it went.

    Args:
        rows: the training rows; None where they are not here.
    """
    corpus, duplicates = data.corpora[name], data.duplicates.get(name, {})
    for why, count in _reading(corpus.train, duplicates.get("num_rows")).items():
        yield RemovedRecord(why=why, rows=count)
    if removed := duplicates.get("num_exact", 0) + duplicates.get("num_near", 0):
        what = f"repeats another row ({duplicates['num_exact']} exactly, {duplicates['num_near']} nearly)"
        yield RemovedRecord(why=what, rows=removed, num_bytes=duplicates["removed_bytes"])
    test = data.test_sets.get("language" if name == "domain" else name)
    if test is not None and corpus.test.files == corpus.train.files:
        yield RemovedRecord(why="held out to be judged on", rows=test.num_rows)
    for cut in data.cuts:
        if cut.train == name and (cut.num_documents_touched or cut.bytes_cut):
            yield _cut(cut)
    if rows is not None:
        yield _tuned_on(corpus, rows, data.canaries if name == "domain" else None)


def _tuned_on(corpus: CorpusRecord, rows: SplitRows, planted: CanaryRecord | None) -> RemovedRecord:
    """What was held out for tuning: the difference between what was left before and what is trained on."""
    count, num_bytes = corpus.train.documents - len(rows.rows), corpus.train.num_bytes - rows.num_bytes
    if planted is not None:
        count, num_bytes = count + planted.num_texts, num_bytes + planted.num_bytes
    why = "held out to tune on, or of one group with such rows"
    return RemovedRecord(why=why, rows=count if count >= 0 else None, num_bytes=num_bytes)


def _cut(cut: CutRecord) -> RemovedRecord:
    what = "rows that stand" if cut.whole_rows else "sentences that stand"
    why = f"{what} in the test of {cut.test}"
    return RemovedRecord(why=why, rows=cut.num_documents_touched, num_bytes=cut.bytes_cut)


def added_sentences(data: DataRecord) -> list[str]:
    """What stands in training rows that no file holds, and what was masked in them."""
    sentences = []
    if data.canaries is not None:
        planted = f"{data.canaries.num_texts:,} copies of made-up secrets ({data.canaries.num_bytes:,} bytes)"
        sentences.append(f"domain: {planted} were planted to measure what models keep")
    for name, corpus in data.corpora.items():
        counts: dict[str, int] = defaultdict(int)
        for kind, by_file in corpus.train.masked.items():
            counts[kind] += sum(by_file.values())
        if counts:
            listed = ", ".join(f"{count:,} of kind {kind}" for kind, count in counts.items())
            sentences.append(f"{name}: personal data was masked where it was read: {listed}")
    return sentences
