"""Read data: files in, checked rows out, and nothing skipped without being counted.

dataset = read(DataConfig(files=["corpus/*.jsonl.gz"]), want="text")
dataset.rows[0].values["text"], dataset.rows[0].where, dataset.digest
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from adaptkit import notices
from adaptkit.config import Config, Count, in_unit
from adaptkit.data.byte_sample import ByteSample
from adaptkit.data.column_roles import SOFT, RowReader
from adaptkit.data.column_suggestions import guess_in_words
from adaptkit.data.files import find_files, records, values_are_typed
from adaptkit.data.guesses import FACTS, NONE, Guesses
from adaptkit.data.message_fields import message_text
from adaptkit.data.personal_data import Masker, Personal
from adaptkit.data.records import Fault, Record
from adaptkit.data.shapes import describe_columns, detect, unknown_role
from adaptkit.errors import DataError
from adaptkit.notices import Tell
from adaptkit.run import file_digest

Want = Literal[
    "text", "labelled", "sft", "pairs", "multi_label", "spans", "scored", "labelled_pairs", "extract"
]
SAMPLE_RECORDS = 100  # records looked at to find the roles
MOST_RECORDS = 10_000  # looked through to find so many that can be read
MAX_NAME_CHARS = 60
"""Longer names of columns are most likely a row of text where the names should stand."""
_PLACE = re.compile(r"(:\d+){1,2}$")


class DataConfig(Config):
    """Which files, what their columns mean, and what to do about rows that cannot be used."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"files"})

    files: list[str]
    """Files, folders or globs: .txt .jsonl .json .ndjson .parquet .csv .tsv, plain, .gz, .zst, .xz or
    .bz2."""
    columns: dict[str, str] = {}
    """Role -> column name, or several joined as `a+b`; roles not named here are found by column name. `none`
    gives a role up: {group: none}."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """Stop at the first row that cannot be used, or leave such rows out and count them."""
    max_bytes: Annotated[Count, in_unit("bytes")] = 0
    """Keep at most this many UTF-8 bytes of text: whole rows, sampled by hash; 0 keeps all."""
    protect: list[Personal] = []
    """Personal data to mask in the texts that are read, counted and never shown: email, phone (needs
    `phonenumbers`), iban, card."""
    protect_region: str = ""
    """Country, by two letters, whose phone numbers are known without their country's code, too."""


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
    def labels(self) -> tuple[str, ...]:
        """The labels of the row, each once: its one label, all of several, or those of its spans."""
        if "label" in self.values:
            return (str(self.values["label"]),)
        if "spans" in self.values:
            return tuple(sorted({span["label"] for span in self.values["spans"]}))
        return tuple(self.values.get("labels", ()))

    @property
    def cluster(self) -> str:
        """What the row belongs to: its `group`, or itself."""
        return str(self.values.get("group") or self.id)

    @property
    def file(self) -> str:
        """The file that it stands in."""
        return _PLACE.sub("", self.where)


@dataclass(frozen=True)
class Dataset:
    """Rows of one kind, with where they came from.

    Attributes:
        kind: text, labelled, multi_label, spans, scored, extract, labelled_pairs, sft, messages, pairs or
            prompts.
        roles: role -> column as found in the files.
        skipped: one `file:line: what` for each row left out by `on_bad_row: skip`.
        files: name, num_bytes and sha256 of each file read.
        licences: licence -> rows that state it ("not stated" for the others).
        ignored: files of named folders that have no readable format.
        num_sampled_from: rows before `max_bytes` cut the set; 0 where it did not.
        masked: kind of personal data -> file -> how often it was masked.
        notes: a sentence on each thing that was guessed about files and columns.
    """

    rows: list[Row]
    kind: str
    roles: dict[str, str]
    files: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    licences: dict[str, int] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    num_sampled_from: int = 0
    notes: list[str] = field(default_factory=list)
    masked: dict[str, dict[str, int]] = field(default_factory=dict)

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
        return sorted({label for row in self.rows for label in row.labels})

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
            "masked": self.masked,
        }


def read(config: DataConfig, want: Want | None = None, *, tell: Tell = notices.tell) -> Dataset:
    """Read, check and sample the rows of `config`.

    Args:
        want: the use; decides between roles when the columns allow several (text + label read as plain text).
        tell: takes a sentence on each thing that was guessed.
    Raises: DataError at `file:line` for the first row that cannot be used, unless `on_bad_row` is skip.
    """
    if complaint := unknown_role(config.columns):
        fix = "name roles such as text, label, prompt, completion, messages"
        raise DataError(complaint, where="columns", fix=fix)
    files, ignored = find_files(config.files)
    faults, guesses = _Faults(config.on_bad_row), Guesses(tell)
    stream = _numbered(files, guesses.add)
    head = _head(stream)
    kind, roles = _roles(head, config, want, faults)
    sample: ByteSample[tuple[Row, str]] = ByteSample(config.max_bytes)
    chosen = {role: column for role, column in config.columns.items() if column != NONE}
    samples = [record for _, record, _ in head if not isinstance(record, Fault)]
    soft = kind == "labelled" and config.columns.get(SOFT) != NONE
    reader = RowReader(roles, chosen, samples, soft=soft)
    for where, record, typed in chain(head, stream):
        values = record if isinstance(record, Fault) else reader.values(record, typed)
        if isinstance(values, Fault):
            faults.add(where, values)
            continue
        row = Row(values, where, content_id(values))
        sample.add((row, _licence(record)), row.id, len(row.text.encode()))
    rows = [row for row, _ in sample.kept()]
    if not rows:
        raise faults.first_error(str(files[0]))
    licences = Counter(licence for _, licence in sample.kept())
    rows, masked = _masked(rows, kind, config, tell)
    guesses.about_columns(files, roles, config.columns, samples, [row.values for row in rows])
    return Dataset(
        distinct_ids(rows),
        kind,
        roles,
        describe_files(files),
        faults.lines,
        dict(licences),
        [str(p) for p in ignored],
        sample.num_seen if sample.num_seen > len(rows) else 0,
        guesses.sentences,
        masked,
    )


def _masked(
    rows: list[Row], kind: str, config: DataConfig, tell: Tell
) -> tuple[list[Row], dict[str, dict[str, int]]]:
    """The rows without the personal data that is not wanted, and what was masked, by kind and file.

    Raises: DataError for spans, whose places in the text would change.
    """
    if not config.protect and not config.protect_region:
        return rows, {}
    if kind == "spans":
        what = "masking would move the spans in their texts"
        raise DataError(what, where=rows[0].where, fix="leave `protect` out, or mask before spans are marked")
    masker = Masker(config.protect, config.protect_region)
    values = [masker.values(row.values, row.file) for row in rows]
    tell(f"{config.files[0]}: {masker.sentence}")
    kept = [Row(own, row.where, content_id(own)) for row, own in zip(rows, values, strict=True)]
    return kept, masker.masked


def describe_files(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Name, size and sha256 of each file."""
    return [{"name": str(f), "num_bytes": f.stat().st_size, "sha256": file_digest(f)} for f in files]


class _Faults:
    """Rows that cannot be used: raised, or collected."""

    def __init__(self, policy: str):
        self.policy = policy
        self.lines: list[str] = []  # `file:line: what`
        self._first: tuple[str, Fault] | None = None

    def add(self, where: str, fault: Fault) -> None:
        if self.policy == "stop":
            raise DataError(fault.what, where=where, fix=f"{fault.fix}, or set on_bad_row: skip")
        self._first = self._first or (where, fault)
        self.lines.append(f"{where}: {fault.what}")

    def first_error(self, file: str) -> DataError:
        """What is wrong with files of which no row can be used."""
        if self._first is None:
            return DataError("no usable row", where=file, fix="check that the files are not empty")
        where, fault = self._first
        return DataError(f"{fault.what}; no row can be used", where=where, fix=fault.fix)


Numbered = tuple[str, "Record | Fault", bool]  # file:line, what stands there, whether values carry types


def _numbered(files: list[Path], tell: Tell) -> Iterator[Numbered]:
    for file in files:
        typed = values_are_typed(file)
        for place, record in records(file, tell):
            yield f"{file}:{place}", record, typed


def _head(stream: Iterator[Numbered]) -> list[Numbered]:
    """The first records, until there are SAMPLE_RECORDS that can be read."""
    head: list[Numbered] = []
    num_good = 0
    for numbered in islice(stream, MOST_RECORDS):
        head.append(numbered)
        num_good += not isinstance(numbered[1], Fault)
        if num_good == SAMPLE_RECORDS:
            break
    return head


def _roles(
    head: list[Numbered], config: DataConfig, want: Want | None, faults: _Faults
) -> tuple[str, dict[str, str]]:
    good = [(where, record) for where, record, _ in head if not isinstance(record, Fault)]
    if not good:
        _report(head, faults)
        raise faults.first_error(config.files[0])
    samples = [record for _, record in good]
    kind_and_roles = detect(samples, config.columns, want)
    if kind_and_roles is None:
        if config.on_bad_row == "stop":
            _report(head, faults)
        raise _no_roles(samples, config, want, good[0][0])
    return kind_and_roles


def _no_roles(samples: list[Record], config: DataConfig, want: Want | None, where: str) -> DataError:
    what = f"no {want or 'known'} roles in columns {describe_columns(samples)}"
    if config.columns:
        what += f"; asked for {', '.join(f'{role}={column}' for role, column in config.columns.items())}"
    example = "set columns, for example {text: abstract, label: outcome}"
    if not config.columns and want is None:
        example = guess_in_words(samples) or example
    fix = f"{example}; docs/data.md lists the roles"
    if any(len(str(name)) > MAX_NAME_CHARS for name in samples[0]):
        fix = f"begin the file with a line of column names, or {fix}"
    return DataError(what, where=where, fix=fix)


def _report(head: list[Numbered], faults: _Faults) -> None:
    for where, record, _ in head:
        if isinstance(record, Fault):
            faults.add(where, record)


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
