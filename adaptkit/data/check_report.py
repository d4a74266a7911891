"""What `adaptkit data check` found: the counts of each data set, and what to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.data.check_taught import TaughtCheck
from adaptkit.data.dedup import DedupReport
from adaptkit.data.label_names import alike_labels, shown
from adaptkit.data.overlap import OverlapReport

if TYPE_CHECKING:
    from rich.console import RenderableType

RARE_LABEL = 10  # rows; a label with fewer is noted


@dataclass(frozen=True)
class DatasetReport:
    """One data set, described.

    Attributes:
        kind, roles: what the rows are, and role -> column.
        lengths: UTF-8 bytes of text per row at the quantiles 0, 0.05, 0.5, 0.95, 1.
        labels: label -> rows.
        bad_rows: `file:line: what` of every row that cannot be used.
        guesses: a sentence on each thing that was guessed about files and columns.
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
    guesses: list[str]
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
    untaught: dict[str, list[str]] = field(default_factory=dict)
    """Labels of each held-out set that no training set has."""

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
            notes += _notes_on(d)
        labels = {label for d in self.datasets for label in d.labels}
        notes += [f"labels {shown(names)} differ only in blanks or capitals" for names in _quoted(labels)]
        for name, untaught in self.untaught.items():
            notes.append(f"{name}: no training row has its labels {shown(untaught)}; a run refuses them")
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
            "untaught_labels": self.untaught,
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


def _notes_on(d: DatasetReport) -> list[str]:
    """What needs a decision in one data set."""
    notes = [*d.guesses, *d.taught.notes(d.name)]
    if twins := d.duplicates.num_exact + d.duplicates.num_near:
        notes.append(f"{d.name}: {twins} rows repeat others ({d.duplicates.num_exact} exactly)")
    if d.duplicates.num_conflicts:
        notes.append(f"{d.name}: {d.duplicates.conflict_sentence}")
    if d.ignored_files:
        notes.append(f"{d.name}: {len(d.ignored_files)} files of other formats are not read")
    if rare := [label for label, count in d.labels.items() if count < RARE_LABEL]:
        notes.append(f"{d.name}: labels with fewer than {RARE_LABEL} rows: {shown(rare)}")
    return notes


def _quoted(labels: Iterable[str]) -> list[list[str]]:
    return [[repr(label) for label in group] for group in alike_labels(labels)]


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
