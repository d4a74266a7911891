"""Reading data: files in, checked rows out, and nothing skipped without being counted.

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
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from adaptkit.config import Config, Count
from adaptkit.data.files import Fault, Record, find_files, format_of, records
from adaptkit.data.roles import RowReader, describe_columns, detect, unknown_role
from adaptkit.errors import DataError
from adaptkit.run import file_digest

Want = Literal["text", "labelled", "sft", "pairs"]
SAMPLE_RECORDS = 100  # records looked at to find the roles


class DataConfig(Config):
    """Which files, what their columns mean, and what to do about rows that cannot be used."""

    files: list[str]
    """Files, folders or globs: .txt .jsonl .parquet .csv .tsv, plain, .gz or .zst."""
    columns: dict[str, str] = {}
    """Role -> column name, or several columns joined as `a+b`; roles not named here are found by column name."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """Stop at the first row that cannot be used, or leave such rows out and count them."""
    max_bytes: Count = 0
    """Keep at most this many UTF-8 bytes of text: whole rows, sampled by hash; 0 keeps all."""


@dataclass(frozen=True)
class Row:
    """One checked row: values by role, where it stands, and an id that depends on nothing but its content."""

    values: dict[str, Any]
    where: str
    id: str

    @property
    def text(self) -> str:
        """All text that a model may see of this row, one piece a line; not the label."""
        if "messages" in self.values:
            return "\n".join(message["content"] for message in self.values["messages"])
        return "\n".join(
            v for role, v in self.values.items() if isinstance(v, str) and role not in ("label", "group")
        )


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
        raise DataError(
            complaint, where="columns", fix="name roles such as text, label, prompt, completion, messages"
        )
    files, ignored = find_files(config.files)
    faults = _Faults(config.on_bad_row)
    stream = _numbered(files)
    head = list(islice(stream, SAMPLE_RECORDS))
    kind, roles = _roles(head, config, want, faults)
    licences: Counter[str] = Counter()
    kept = _Sample(config.max_bytes)
    reader = RowReader(roles, config.columns)
    for where, record, typed in _chained(head, stream):
        values = record if isinstance(record, Fault) else reader.values(record, typed)
        if isinstance(values, Fault):
            faults.add(where, values)
            continue
        kept.add(Row(values, where, content_id(values)), _licence(record))
    rows, licences = kept.rows()
    if not rows:
        raise DataError(
            "no usable row",
            where=str(files[0]),
            fix="; ".join(faults.found[:3]) or "check that the files are not empty",
        )
    described = [{"name": str(f), "num_bytes": f.stat().st_size, "sha256": file_digest(f)} for f in files]
    return Dataset(
        _distinct(rows),
        kind,
        roles,
        described,
        faults.found,
        dict(licences),
        [str(p) for p in ignored],
        kept.num_seen if kept.num_seen > len(rows) else 0,
    )


class _Faults:
    """Rows that cannot be used: raised, or collected."""

    def __init__(self, policy: str):
        self.policy, self.found = policy, list[str]()

    def add(self, where: str, fault: Fault) -> None:
        if self.policy == "stop":
            raise DataError(fault.what, where=where, fix=f"{fault.fix}, or set on_bad_row: skip")
        self.found.append(f"{where}: {fault.what}")


Numbered = tuple[str, "Record | Fault", bool]


def _numbered(files: list[Path]) -> Iterator[Numbered]:
    for file in files:
        typed = format_of(file) not in (".csv", ".tsv")
        for line, record in records(file):
            yield f"{file}:{line}", record, typed


def _chained(head: list[Numbered], rest: Iterator[Numbered]) -> Iterator[Numbered]:
    yield from head
    yield from rest


def _roles(
    head: list[Numbered], config: DataConfig, want: Want | None, faults: _Faults
) -> tuple[str, dict[str, str]]:
    good = [(where, record) for where, record, _ in head if not isinstance(record, Fault)]
    if not good:
        _report(head, faults)
        raise DataError(
            "no usable row",
            where=head[0][0] if head else config.files[0],
            fix="check that the files are not empty",
        )
    samples = [record for _, record in good]
    found = detect(samples, config.columns, want)
    if found is None:
        asked = (
            f"; asked for {', '.join(f'{r}={c}' for r, c in config.columns.items())}"
            if config.columns
            else ""
        )
        if config.on_bad_row == "stop":
            _report(head, faults)
        raise DataError(
            f"no {want or 'known'} roles in columns {describe_columns(samples)}{asked}",
            where=good[0][0],
            fix="set columns, for example {text: abstract, label: outcome}; `adaptkit data check` lists the roles",
        )
    return found


def _report(head: list[Numbered], faults: _Faults) -> None:
    for where, record, _ in head:
        if isinstance(record, Fault):
            faults.add(where, record)


class _Sample:
    """Rows within a byte limit: the longest prefix in order of content hash, so that neither file nor row
    order matters.

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
    """16 hex digits of the sha256 of a row's values; the group it belongs to does not count."""
    content = json.dumps(
        {role: value for role, value in values.items() if role != "group"}, sort_keys=True, ensure_ascii=False
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _distinct(rows: list[Row]) -> list[Row]:
    """Number repeated ids, so that scores can be paired by id."""
    seen: Counter[str] = Counter()
    distinct = []
    for row in rows:
        seen[row.id] += 1
        distinct.append(row if seen[row.id] == 1 else dataclasses.replace(row, id=f"{row.id}-{seen[row.id]}"))
    return distinct


def split(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """(rest, held out): about `fraction` of the rows held out, by hash of each row's group, or of its text.

    Stable when rows are reordered or others are added; equal texts, and rows of one group, stay on one side.
    Raises: DataError when a side would be empty.
    """
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in dataset.rows:
        sides[_unit_hash(f"{seed}:{row.values.get('group') or row.text}") < fraction].append(row)
    if not sides[0] or not sides[1]:
        raise DataError(
            f"{len(dataset.rows)} rows cannot be split with {fraction:g} held out",
            where=dataset.rows[0].where if dataset.rows else None,
            fix="give more rows, or name a separate file for the held-out part",
        )
    return dataset.with_rows(sides[0]), dataset.with_rows(sides[1])


def take(dataset: Dataset, fraction: float) -> Dataset:
    """The first share of rows in hash order, kept in file order: `take(d, 0.25)` lies inside `take(d, 0.5)`."""
    if fraction >= 1:
        return dataset
    ids = sorted(row.id for row in dataset.rows)
    chosen = set(ids[: max(1, round(fraction * len(ids)))])
    return dataset.with_rows(row for row in dataset.rows if row.id in chosen)


def _unit_hash(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
