"""Read data: files in, checked rows out, and nothing skipped without being counted.

dataset = read(DataConfig(files=["corpus/*.jsonl.gz"]), want="text")
dataset.rows[0].values["text"], dataset.rows[0].where, dataset.digest
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from adaptkit.config import Config, Count, in_unit
from adaptkit.data.column_roles import FACTS, RowReader, describe_columns, detect, unknown_role
from adaptkit.data.files import Fault, Record, find_files, format_of, records
from adaptkit.data.message_fields import message_text
from adaptkit.errors import DataError
from adaptkit.run import file_digest

Want = Literal["text", "labelled", "sft", "pairs"]
SAMPLE_RECORDS = 100  # records looked at to find the roles


class DataConfig(Config):
    """Which files, what their columns mean, and what to do about rows that cannot be used."""

    files: list[str]
    """Files, folders or globs: .txt .jsonl .parquet .csv .tsv, plain, .gz or .zst."""
    columns: dict[str, str] = {}
    """Role -> column name, or several joined as `a+b`; roles not named here are found by column name."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """Stop at the first row that cannot be used, or leave such rows out and count them."""
    max_bytes: Annotated[Count, in_unit("bytes")] = 0
    """Keep at most this many UTF-8 bytes of text: whole rows, sampled by hash; 0 keeps all."""


@dataclass(frozen=True)
class Row:
    """One checked row: values by role, `file:line`, and an id that depends on nothing but its content."""

    values: dict[str, Any]
    where: str
    id: str

    @property
    def text(self) -> str:
        """All text that a model may see of this row, one piece a line; not the label."""
        if "messages" in self.values:
            inputs = [self.values[name] for name in ("tools", "documents") if name in self.values]
            said = [json.dumps(value, ensure_ascii=False) for value in inputs]
            return "\n".join([*said, *map(message_text, self.values["messages"])])
        seen = {role: value for role, value in self.values.items() if role not in ("label", *FACTS)}
        return "\n".join(value for value in seen.values() if isinstance(value, str))

    @property
    def cluster(self) -> str:
        """What the row belongs to: its `group`, or itself."""
        return str(self.values.get("group") or self.id)

    @property
    def file(self) -> str:
        """The file that it stands in."""
        return self.where.rpartition(":")[0]


@dataclass(frozen=True)
class Dataset:
    """Rows of one kind, with where they came from.

    Attributes:
        kind: text, labelled, sft, messages, pairs or prompts.
        roles: role -> column as found in the files.
        skipped: one `file:line: what` for each row left out by `on_bad_row: skip`.
        files: name, num_bytes and sha256 of each file read.
        licences: licence -> rows that state it ("not stated" for the others).
        ignored: files of named folders that have no readable format.
        num_sampled_from: rows before `max_bytes` cut the set; 0 where it did not.
    """

    rows: list[Row]
    kind: str
    roles: dict[str, str]
    files: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    licences: dict[str, int] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    num_sampled_from: int = 0

    @cached_property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all rows' text."""
        return sum(len(row.text.encode()) for row in self.rows)

    @cached_property
    def digest(self) -> str:
        """sha256 of the kind and the rows' content, in order."""
        return hashlib.sha256("\n".join([self.kind, *(row.id for row in self.rows)]).encode()).hexdigest()

    @property
    def labels(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted({row.values["label"] for row in self.rows if "label" in row.values})

    def with_rows(self, rows: Iterable[Row]) -> Dataset:
        """The same data set, with fewer rows or in another order."""
        return dataclasses.replace(self, rows=list(rows))

    def manifest(self) -> dict[str, Any]:
        """What a run records about its data."""
        return {
            "kind": self.kind,
            "roles": self.roles,
            "documents": len(self.rows),
            "num_bytes": self.num_bytes,
            "digest": self.digest,
            "files": self.files,
            "licences": self.licences,
            "num_skipped": len(self.skipped),
            "skipped": self.skipped[:100],
            "num_sampled_from": self.num_sampled_from,
        }


def read(config: DataConfig, want: Want | None = None) -> Dataset:
    """Read, check and sample the rows of `config`.

    Args:
        want: the use; decides between roles when the columns allow several (text + label read as plain text).
    Raises: DataError at `file:line` for the first row that cannot be used, unless `on_bad_row` is skip.
    """
    if complaint := unknown_role(config.columns):
        fix = "name roles such as text, label, prompt, completion, messages"
        raise DataError(complaint, where="columns", fix=fix)
    files, ignored = find_files(config.files)
    faults = _Faults(config.on_bad_row)
    stream = _numbered(files)
    head = list(islice(stream, SAMPLE_RECORDS))
    kind, roles = _roles(head, config, want, faults)
    sample = _Sample(config.max_bytes)
    reader = RowReader(roles, config.columns)
    for where, record, typed in chain(head, stream):
        values = record if isinstance(record, Fault) else reader.values(record, typed)
        if isinstance(values, Fault):
            faults.add(where, values)
            continue
        sample.add(Row(values, where, content_id(values)), _licence(record))
    rows, licences = sample.rows()
    if not rows:
        fix = "; ".join(faults.lines[:3]) or "check that the files are not empty"
        raise DataError("no usable row", where=str(files[0]), fix=fix)
    return Dataset(
        distinct_ids(rows),
        kind,
        roles,
        describe_files(files),
        faults.lines,
        dict(licences),
        [str(p) for p in ignored],
        sample.num_seen if sample.num_seen > len(rows) else 0,
    )


def describe_files(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Name, size and sha256 of each file."""
    return [{"name": str(f), "num_bytes": f.stat().st_size, "sha256": file_digest(f)} for f in files]


class _Faults:
    """Rows that cannot be used: raised, or collected."""

    def __init__(self, policy: str):
        self.policy = policy
        self.lines: list[str] = []  # `file:line: what`

    def add(self, where: str, fault: Fault) -> None:
        if self.policy == "stop":
            raise DataError(fault.what, where=where, fix=f"{fault.fix}, or set on_bad_row: skip")
        self.lines.append(f"{where}: {fault.what}")


Numbered = tuple[str, "Record | Fault", bool]  # file:line, what stands there, whether values carry types


def _numbered(files: list[Path]) -> Iterator[Numbered]:
    for file in files:
        typed = format_of(file) not in (".csv", ".tsv")
        for line, record in records(file):
            yield f"{file}:{line}", record, typed


def _roles(
    head: list[Numbered], config: DataConfig, want: Want | None, faults: _Faults
) -> tuple[str, dict[str, str]]:
    good = [(where, record) for where, record, _ in head if not isinstance(record, Fault)]
    if not good:
        _report(head, faults)
        where = head[0][0] if head else config.files[0]
        raise DataError("no usable row", where=where, fix="check that the files are not empty")
    samples = [record for _, record in good]
    kind_and_roles = detect(samples, config.columns, want)
    if kind_and_roles is None:
        if config.on_bad_row == "stop":
            _report(head, faults)
        what = f"no {want or 'known'} roles in columns {describe_columns(samples)}"
        if config.columns:
            what += f"; asked for {', '.join(f'{role}={column}' for role, column in config.columns.items())}"
        example = "set columns, for example {text: abstract, label: outcome}"
        fix = f"{example}; `adaptkit data check` lists the roles"
        raise DataError(what, where=good[0][0], fix=fix)
    return kind_and_roles


def _report(head: list[Numbered], faults: _Faults) -> None:
    for where, record, _ in head:
        if isinstance(record, Fault):
            faults.add(where, record)


class _Sample:
    """Rows within a byte limit: the first by content hash, so that the order of files and rows is no matter.

    Rows beyond the limit are forgotten as the files stream by; once a hash has been pushed out, larger ones
    stay out.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes, self.num_bytes, self.num_seen = max_bytes, 0, 0
        self._kept: list[tuple[int, int, int, Row, str]] = []
        self._threshold: int | None = None

    def add(self, row: Row, licence: str) -> None:
        self.num_seen += 1
        if not self.max_bytes:
            self._kept.append((0, self.num_seen, 0, row, licence))
            return
        key, size = -int(row.id, 16), len(row.text.encode())
        if self._threshold is not None and key <= self._threshold:
            return
        heapq.heappush(self._kept, (key, -self.num_seen, size, row, licence))
        self.num_bytes += size
        while self.num_bytes > self.max_bytes and len(self._kept) > 1:
            self._threshold, _, size, *_ = heapq.heappop(self._kept)
            self.num_bytes -= size

    def rows(self) -> tuple[list[Row], Counter[str]]:
        ordered = sorted(self._kept, key=lambda item: abs(item[1]))
        return [item[3] for item in ordered], Counter(item[4] for item in ordered)


def _licence(record: Record | Fault) -> str:
    value = record.get("licence") or record.get("license") if isinstance(record, dict) else None
    return value if isinstance(value, str) else "not stated"


def content_id(values: dict[str, Any]) -> str:
    """16 hex digits of the sha256 of a row's values; its group, source and time do not count."""
    counted = {role: value for role, value in values.items() if role not in FACTS}
    content = json.dumps(counted, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def distinct_ids(rows: Iterable[Row]) -> list[Row]:
    """Number repeated ids, so that scores can be paired by id."""
    seen: Counter[str] = Counter()
    distinct = []
    for row in rows:
        seen[row.id] += 1
        distinct.append(row if seen[row.id] == 1 else dataclasses.replace(row, id=f"{row.id}-{seen[row.id]}"))
    return distinct


def split(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split off about `fraction` of the rows, by hash of each row's group or text; returns (rest, held out).

    Stable when rows are reordered or others are added; equal texts, and rows of one group, stay on one side.
    Raises: DataError when a side would be empty.
    """
    rest: list[Row] = []
    held_out: list[Row] = []
    for row in dataset.rows:
        key = f"{seed}:{row.values.get('group') or row.text}"
        side = held_out if _unit_hash(key) < fraction else rest
        side.append(row)
    if not rest or not held_out:
        what = f"{len(dataset.rows)} rows cannot be split with {fraction:g} held out"
        where = dataset.rows[0].where if dataset.rows else None
        fix = "give more rows, or name a separate file for the held-out part"
        raise DataError(what, where=where, fix=fix)
    return dataset.with_rows(rest), dataset.with_rows(held_out)


def take(dataset: Dataset, fraction: float) -> Dataset:
    """The first share of rows by content hash, in file order; `take(d, 0.25)` lies inside `take(d, 0.5)`."""
    if fraction >= 1:
        return dataset
    ids = sorted(row.id for row in dataset.rows)
    chosen = set(ids[: max(1, round(fraction * len(ids)))])
    return dataset.with_rows(row for row in dataset.rows if row.id in chosen)


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
