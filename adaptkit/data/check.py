"""Check data before anything trains on it: `adaptkit data check FILES`.

report = check(["train.jsonl", "test.jsonl"])
report.ok, report.as_json(); rich.print(report.render())
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.data.dedup import DedupReport, deduplicate
from adaptkit.data.overlap import OverlapReport, overlap
from adaptkit.data.readers import DataConfig, Dataset, read
from adaptkit.data.tokenizers import bytes_per_token, train_tokenizer
from adaptkit.errors import DataError
from adaptkit.models import load_tokenizer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

HELD_OUT = ("test", "dev", "valid", "eval", "held")  # a set whose name holds one of these is not for training
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


@dataclass(frozen=True)
class CheckReport:
    """All data sets, the overlap of each held-out one with the others, and what to look at."""

    datasets: list[DatasetReport]
    overlaps: dict[str, OverlapReport] = field(default_factory=dict)  # "test in train"

    @property
    def ok(self) -> bool:
        """Would a run with `on_bad_row: stop` accept these files?"""
        return not any(dataset.bad_rows for dataset in self.datasets)

    @property
    def notes(self) -> list[str]:
        """One sentence for each thing that needs a decision."""
        notes = [
            f"{d.name}: {len(d.bad_rows)} bad rows stop a run; mend them or set on_bad_row: skip"
            for d in self.datasets
            if d.bad_rows
        ]
        for d in self.datasets:
            twins = d.duplicates.num_exact + d.duplicates.num_near
            if twins:
                notes.append(f"{d.name}: {twins} rows repeat others ({d.duplicates.num_exact} exactly)")
            if d.ignored_files:
                notes.append(f"{d.name}: {len(d.ignored_files)} files of unknown formats are not read")
            rare = [label for label, count in d.labels.items() if count < RARE_LABEL]
            if rare:
                notes.append(f"{d.name}: labels with fewer than {RARE_LABEL} rows: {', '.join(rare[:8])}")
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
            "notes": self.notes,
        }

    def render(self) -> RenderableType:
        """Tables and notes for `rich.print`."""
        from rich.console import Group
        from rich.markup import escape

        bad = [line for d in self.datasets for line in _limited(d.bad_rows, 10)]
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
            collected whatever `on_bad_row` says. Sets named test, dev, valid, eval or held-out are compared
            with all others.
        tokenizer: the one to estimate tokens with; by default an 8k BPE is trained on a sample of the
            training sets.
    Raises: DataError for files that cannot be read at all or show no known roles.
    """
    named = _named(configs)
    read_sets = {
        name: read(config.model_copy(update={"on_bad_row": "skip"})) for name, config in named.items()
    }
    held_out = [name for name in named if any(word in Path(name).name.lower() for word in HELD_OUT)]
    training = [name for name in named if name not in held_out] or list(named)
    measure, label = _tokenizer(tokenizer, [read_sets[name] for name in training])
    reports = [_describe(name, dataset, measure, label) for name, dataset in read_sets.items()]
    pairs = [(test, train) for test in held_out for train in training if test != train]
    return CheckReport(
        reports, {f"{test} in {train}": overlap(read_sets[train], read_sets[test]) for test, train in pairs}
    )


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


def _describe(name: str, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, label: str) -> DatasetReport:
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
