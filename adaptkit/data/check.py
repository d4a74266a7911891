"""Check data before anything trains on it: `adaptkit data check FILES`.

report = check(["train.jsonl", "test.jsonl"])
report.ok, report.as_json(); rich.print(report.render())
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.data.beir import read_set, retrieval_folder, splits
from adaptkit.data.check_taught import TaughtCheck, check_taught
from adaptkit.data.dedup import DedupReport, deduplicate
from adaptkit.data.overlap import OverlapReport, overlap
from adaptkit.data.readers import DataConfig, Dataset, Row, describe_files, read
from adaptkit.data.tokenizers import bytes_per_token, train_tokenizer
from adaptkit.errors import DataError
from adaptkit.models import load_tokenizer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

HELD_OUT = {"test", "dev", "valid", "validation", "heldout", "eval"}
"""A set is not for training if its name holds one of these as a whole word."""
DOCUMENTS = " documents"
"""How the documents of a retrieval set are named: what queries are about, and nothing to be kept apart."""
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
SAMPLE_BYTES = 1_000_000  # text on which bytes per token are estimated
VOCAB_SIZE = 8192
RARE_LABEL = 10  # rows; a label with fewer is noted


@dataclass(frozen=True)
class DatasetReport:
    """One data set, described.

    Attributes:
        kind, roles: what the rows are, and role -> column.
        lengths: UTF-8 bytes of text per row at the quantiles 0, 0.05, 0.5, 0.95, 1.
        labels: label -> rows.
        bad_rows: `file:line: what` of every row that cannot be used.
        tokens: estimated tokens; `bytes_per_token` with the tokenizer named by `tokenizer`.
        taught: what training on the base of that name would refuse, or read otherwise than it looks.
    """

    name: str
    kind: str
    roles: dict[str, str]
    files: list[dict[str, Any]]
    ignored_files: list[str]
    rows: int
    num_bytes: int
    digest: str
    lengths: dict[str, int]
    labels: dict[str, int]
    licences: dict[str, int]
    bad_rows: list[str]
    duplicates: DedupReport
    bytes_per_token: float
    tokens: int
    tokenizer: str
    taught: TaughtCheck = field(default_factory=TaughtCheck)


@dataclass(frozen=True)
class CheckReport:
    """All data sets, the overlap of each held-out one with the others, and what to look at."""

    datasets: list[DatasetReport]
    overlaps: dict[str, OverlapReport] = field(default_factory=dict)  # "test in train"
    guessed: list[str] = field(default_factory=list)
    """Data sets that count as held out because of their names."""

    @property
    def ok(self) -> bool:
        """Would a run with `on_bad_row: stop` accept these files?"""
        return not any(dataset.bad_rows or dataset.taught.refused for dataset in self.datasets)

    @property
    def notes(self) -> list[str]:
        """One sentence for each thing that needs a decision."""
        notes = [
            f"{d.name}: {len(d.bad_rows)} bad rows stop a run; mend them or set on_bad_row: skip"
            for d in self.datasets
            if d.bad_rows
        ]
        for d in self.datasets:
            notes += d.taught.notes(d.name)
            twins = d.duplicates.num_exact + d.duplicates.num_near
            if twins:
                notes.append(f"{d.name}: {twins} rows repeat others ({d.duplicates.num_exact} exactly)")
            if d.ignored_files:
                notes.append(f"{d.name}: {len(d.ignored_files)} files of unknown formats are not read")
            rare = [label for label, count in d.labels.items() if count < RARE_LABEL]
            if rare:
                notes.append(f"{d.name}: labels with fewer than {RARE_LABEL} rows: {', '.join(rare[:8])}")
        notes += [f"{name}: taken as held out, guessed from its name" for name in self.guessed]
        for pair, report in self.overlaps.items():
            if report.contaminated:
                count = f"{len(report.contaminated)} of {report.num_test_items} items"
                notes.append(f"{pair}: {count} stand in it too; scores on them mean nothing")
        return notes

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, for `--json`."""
        overlaps = {pair: report.as_json() for pair, report in self.overlaps.items()}
        return {
            "ok": self.ok,
            "datasets": [asdict(d) for d in self.datasets],
            "overlaps": overlaps,
            "held_out_by_name": self.guessed,
            "notes": self.notes,
        }

    def render(self) -> RenderableType:
        """Tables and notes for `rich.print`."""
        from rich.console import Group
        from rich.markup import escape

        bad = [line for d in self.datasets for line in _limited([*d.bad_rows, *d.taught.refused], 10)]
        verdict = "[green]ready[/green]" if self.ok else "[red]rows need mending[/red]"
        lines = [
            *(f"[red]{escape(line)}[/red]" for line in bad),
            *(f"- {escape(note)}" for note in self.notes),
            verdict,
        ]
        return Group(self._table(), *([self._overlap_table()] if self.overlaps else []), *lines)

    def _table(self) -> RenderableType:
        from rich.table import Table

        table = Table(title="Data", title_justify="left")
        table.add_column("")
        for d in self.datasets:
            table.add_column(d.name, overflow="fold")
        for title, show in _LINES:
            cells = [show(d) for d in self.datasets]
            if any(cells):
                table.add_row(title, *cells)
        return table

    def _overlap_table(self) -> RenderableType:
        from rich.table import Table

        columns = ("held out in training", "items", "contaminated", "share", "any shared run")
        table = Table(*columns, title="Overlap", title_justify="left")
        for pair, report in self.overlaps.items():
            numbers = (
                report.num_test_items,
                len(report.contaminated),
                f"{report.share:.1%}",
                report.num_touched,
            )
            table.add_row(pair, *map(str, numbers))
        return table


def check(
    configs: Mapping[str, DataConfig] | Sequence[str | DataConfig],
    *,
    tokenizer: PreTrainedTokenizerFast | str | Path | None = None,
) -> CheckReport:
    """Read and count everything, and estimate tokens; nothing but a throw-away tokenizer is trained.

    Args:
        configs: name -> config; or a list of files, folders or configs, named by their files. Bad rows are
            collected whatever `on_bad_row` says. A folder in BEIR's layout is read as its documents and the
            queries of each split. Sets whose name has the word test, dev, valid, validation, heldout or eval
            are compared with all others.
        tokenizer: a base's, to estimate tokens with and to say what training on it would refuse; by default
            an 8k BPE is trained on a sample of the training sets, for the estimate alone.
    Raises: DataError for files that cannot be read at all or show no known roles.
    """
    read_sets: dict[str, Dataset] = {}
    guessed, by_layout = list[str](), list[str]()
    for name, config in _named(configs).items():
        skipping = config.model_copy(update={"on_bad_row": "skip"})
        folder = retrieval_folder(skipping)
        if folder is None:
            read_sets[name] = read(skipping)
            guessed += [name] if is_held_out(name) else []
        else:
            parts = _retrieval_parts(name, folder)
            read_sets |= parts
            by_layout += [part for part in parts if part.rpartition(" ")[2] in HELD_OUT]
    held_out = [*guessed, *by_layout]
    training = [name for name in read_sets if name not in held_out] or list(read_sets)
    measure, label = _tokenizer(tokenizer, [read_sets[name] for name in training])
    base = None if tokenizer is None else measure
    reports = [_describe(name, dataset, measure, label, base) for name, dataset in read_sets.items()]
    overlaps = {
        f"{test} in {train}": overlap(read_sets[train], read_sets[test])
        for test in held_out
        for train in training
        if test != train and not (test in by_layout and train.endswith(DOCUMENTS))
    }
    return CheckReport(reports, overlaps, guessed)


def is_held_out(name: str) -> bool:
    """Whether a name has a word for held-out data: `dev.jsonl`, `ticket-test.csv`, but not `attest.csv`."""
    words = re.findall(r"[^\W_]+", Path(name).name.lower())
    return bool(HELD_OUT & {*words, *map("".join, pairwise(words))})


def _retrieval_parts(name: str, folder: Path) -> dict[str, Dataset]:
    """The documents of a retrieval set, and the queries of each split, with the lines that cannot be used."""
    parts: dict[str, Dataset] = {}
    listed: set[str] = set()
    for split in splits(folder):
        chosen = read_set(folder, split, on_bad_row="skip")
        bad = [line for line in chosen.skipped if line not in listed]
        listed |= set(bad)
        if not parts:
            files = describe_files(path for path in sorted(folder.rglob("*")) if path.is_file())
            parts[f"{name}{DOCUMENTS}"] = _texts(chosen.documents, chosen.where, files=files)
        parts[f"{name} queries {split}"] = _texts(chosen.queries, chosen.where, skipped=bad)
    if not parts:
        raise DataError("no qrels/*.tsv", where=str(folder), fix="lay the set out as BEIR does")
    return parts


def _texts(texts: Mapping[str, str], where: Mapping[str, str], **facts: Any) -> Dataset:
    rows = [Row({"text": text}, where[name], name) for name, text in texts.items()]
    return Dataset(rows, "text", {"text": "text"}, **facts)


def _named(configs: Mapping[str, DataConfig] | Sequence[str | DataConfig]) -> dict[str, DataConfig]:
    if isinstance(configs, Mapping):
        return dict(configs)
    if not configs:
        raise DataError("no files are named", where="FILES", fix="give files, folders or globs")
    listed = [DataConfig(files=[c]) if isinstance(c, str) else c for c in configs]
    short = [Path(c.files[0]).name for c in listed]
    return {name if short.count(name) == 1 else c.files[0]: c for name, c in zip(short, listed, strict=True)}


def _tokenizer(
    tokenizer: PreTrainedTokenizerFast | str | Path | None, datasets: list[Dataset]
) -> tuple[PreTrainedTokenizerFast, str]:
    """The tokenizer to estimate tokens with, and what the report calls it."""
    if tokenizer is None:
        trained = train_tokenizer(_sample(datasets, 0), "bpe", VOCAB_SIZE)
        return trained, f"BPE {VOCAB_SIZE}, trained on a sample for this estimate"
    if isinstance(tokenizer, str | Path):
        return load_tokenizer(str(tokenizer)), str(tokenizer)
    return tokenizer, tokenizer.name_or_path or "given"


def _sample(datasets: list[Dataset], half: int) -> list[str]:
    """At most SAMPLE_BYTES of text, in hash order.

    Half 0 trains the estimate's tokenizer, which is tried on half 1.
    """
    rows = sorted((row for dataset in datasets for row in dataset.rows), key=lambda row: row.id)
    texts: list[str] = []
    room = SAMPLE_BYTES
    for row in rows[half::2] or rows:
        texts.append(row.text[:room])
        room -= len(texts[-1])
        if room <= 0:
            break
    return texts


def _describe(
    name: str,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    label: str,
    base: PreTrainedTokenizerFast | None,
) -> DatasetReport:
    lengths = np.quantile([len(row.text.encode()) for row in dataset.rows], QUANTILES, method="nearest")
    ratio = bytes_per_token(tokenizer, _sample([dataset], 1))
    labels = Counter(row.values["label"] for row in dataset.rows if "label" in row.values)
    return DatasetReport(
        name=name,
        kind=dataset.kind,
        roles=dataset.roles,
        files=dataset.files,
        ignored_files=dataset.ignored,
        rows=len(dataset.rows),
        num_bytes=dataset.num_bytes,
        digest=dataset.digest,
        lengths={f"{q:g}": int(length) for q, length in zip(QUANTILES, lengths, strict=True)},
        labels=dict(labels.most_common()),
        licences=dataset.licences,
        bad_rows=dataset.skipped,
        duplicates=deduplicate(dataset)[1],
        bytes_per_token=round(ratio, 3),
        tokens=round(dataset.num_bytes / ratio),
        tokenizer=label,
        taught=check_taught(dataset, base),
    )


def _limited(items: list[str], most: int) -> list[str]:
    return items if len(items) <= most else [*items[:most], f"... and {len(items) - most} more"]


def _counts(counts: dict[str, int]) -> str:
    return "\n".join(_limited([f"{name}: {count:,}" for name, count in counts.items()], 12))


def _roles(roles: dict[str, str]) -> str:
    return "\n".join(role if role == column else f"{role} = {column}" for role, column in roles.items())


# title of a line of the table -> its cell for one data set
_LINES: tuple[tuple[str, Callable[[DatasetReport], str]], ...] = (
    ("kind", lambda d: d.kind),
    ("roles", lambda d: _roles(d.roles)),
    ("files", lambda d: "\n".join(_limited([Path(f["name"]).name for f in d.files], 6))),
    ("rows", lambda d: f"{d.rows:,}"),
    ("bad rows", lambda d: f"{len(d.bad_rows):,}"),
    ("bytes of text", lambda d: f"{d.num_bytes:,}"),
    ("bytes a row (min, 5 %, median, 95 %, max)", lambda d: ", ".join(f"{n:,}" for n in d.lengths.values())),
    ("tokens, estimated", lambda d: f"{d.tokens:,} ({d.bytes_per_token:.2f} bytes each; {d.tokenizer})"),
    ("labels", lambda d: _counts(d.labels)),
    ("licences", lambda d: _counts(d.licences)),
    ("duplicates (exact, near)", lambda d: f"{d.duplicates.num_exact:,}, {d.duplicates.num_near:,}"),
    ("digest", lambda d: d.digest[:16]),
)
