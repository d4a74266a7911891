"""Build the tables of scores: every arm on every task, every metric of a labelled task, the terminal's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptkit.report.prose import duration, memory_text
from adaptkit.report.svg import chip
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import Results, is_language, task_title
from adaptkit.study.scores import METRICS
from adaptkit.study.statistics import Interval
from adaptkit.study.verdict import flops_text

if TYPE_CHECKING:
    import rich.table

ORIGIN_ORDER = ("generic", "continued", "scratch", "distilled", "placebo")
COST_COLUMNS = ("FLOPs", "time", "peak memory", "tokens/s")


@dataclass(frozen=True)
class Score:
    """A table cell: value, interval, and whether it is the column's best."""

    value: str
    interval: str
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """One arm of a table; `cells` follow the table's columns, None where the arm was not scored."""

    name: str
    chip: str
    describe: str
    cells: tuple[Score | None, ...]
    costs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Column headings, rows, and what the numbers mean."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    cost_columns: tuple[str, ...] = ()


def ordered_arms(results: Results) -> list[ArmRecord]:
    """Arms grouped by origin; an unknown origin comes last."""
    order = {origin: i for i, origin in enumerate(ORIGIN_ORDER)}
    return sorted(results.arms, key=lambda arm: order.get(arm.origin, len(order)))


def main_table(results: Results) -> Table:
    """Every arm on every task, with intervals and what the primary task's score cost."""
    best = {task.name: _best_arm(results, task) for task in results.tasks}
    rows = []
    for arm in ordered_arms(results):
        cells = tuple(_arm_score(results, task, arm.name, best[task.name]) for task in results.tasks)
        marker = chip(arm.origin, arm.adaptation)
        rows.append(TableRow(arm.name, marker, arm.describe, cells, _costs(results, arm.name)))
    for name in dict.fromkeys(cell.arm for cell in results.baselines):
        cells = tuple(_baseline_score(results, task, name) for task in results.tasks)
        describe, costs = "for reference; no language model", ("",) * len(COST_COLUMNS)
        rows.append(TableRow(name, chip("baseline", ""), describe, cells, costs))
    columns = tuple(f"{task_title(task)} {_arrow(task.higher_is_better)}" for task in results.tasks)
    return Table("All arms", columns, tuple(rows), COST_COLUMNS)


def _arrow(higher_is_better: bool) -> str:
    return "\u2191" if higher_is_better else "\u2193"


def _best_arm(results: Results, task: TaskRecord) -> str:
    names = list(results.distinct_arms(task.name))
    sign = 1 if task.higher_is_better else -1
    return max(names, key=lambda name: sign * results.replicates(task.name).mean(name), default="")


def _arm_score(results: Results, task: TaskRecord, arm: str, best: str) -> Score | None:
    if not results.of(task.name, arm):
        return None
    name = results.same_as(task.name, arm)
    interval = results.replicates(task.name).interval(name, results.confidence)
    return _score(task.metric, interval, name == best)


def _baseline_score(results: Results, task: TaskRecord, name: str) -> Score | None:
    if not any(cell.arm == name and cell.task == task.name for cell in results.baselines):
        return None
    return _score(task.metric, results.replicates(task.name).interval(f"baseline:{name}", results.confidence))


def _score(metric: str, interval: Interval, best: bool = False) -> Score:
    """Rounded; an interval that t stretched past what the metric can be ends there."""
    low, high = max(interval.low, 0.0), min(interval.high, METRICS[metric].most)
    return Score(f"{interval.mean:.3f}", f"{low:.3f} to {high:.3f}", best)


def _costs(results: Results, arm: str) -> tuple[str, ...]:
    if not results.of(results.primary.name, arm):
        return ("",) * len(COST_COLUMNS)
    cost = results.cost(results.primary.name, arm)
    if not cost.flops and not cost.seconds:
        return ("none", "none", "", "")
    memory, speed = memory_text(cost.peak_memory_bytes), f"{cost.tokens_per_s:,.0f}"
    return (flops_text(cost.flops), duration(cost.seconds), memory, speed)


def detail_tables(results: Results) -> list[Table]:
    """Per labelled task: every metric that its item rows hold the columns of."""
    tables = []
    for task in results.tasks:
        if is_language(task) or not results.scored_arms(task.name):
            continue
        metrics = [name for name in METRICS if has_columns(results, task, name)]
        rows = []
        for arm in (arm for arm in ordered_arms(results) if results.of(task.name, arm.name)):
            name = results.same_as(task.name, arm.name)
            intervals = [results.replicates(task.name, m).interval(name, results.confidence) for m in metrics]
            cells = tuple(_score(m, interval) for m, interval in zip(metrics, intervals, strict=True))
            rows.append(TableRow(arm.name, chip(arm.origin, arm.adaptation), arm.describe, cells))
        columns = tuple(f"{METRICS[m].title} {_arrow(METRICS[m].higher_is_better)}" for m in metrics)
        tables.append(Table(task.name, columns, tuple(rows)))
    return tables


def has_columns(results: Results, task: TaskRecord, metric: str) -> bool:
    """Whether a task's item rows hold what a metric reads."""
    cells = [cell for cell in [*results.cells, *results.baselines] if cell.task == task.name]
    return all(column in cell.rows[0] for cell in cells for column in METRICS[metric].columns)


def terminal_table(results: Results, winner: str | None) -> rich.table.Table:
    """Every arm on every task with its interval, and what the primary score cost, for the terminal."""
    from rich.table import Table as RichTable
    from rich.text import Text

    main = main_table(results)
    title = f"{results.record.name}: {results.confidence:.0%} intervals over seeds and items"
    table = RichTable(title=title, title_justify="left")
    table.add_column("arm", no_wrap=True)
    for column in main.columns:
        table.add_column(column, justify="right")
    for column in main.cost_columns[:2]:
        table.add_column(column, justify="right", style="dim")
    for row in main.rows:
        name = Text(row.name, style="bold green" if row.name == winner else "")
        scores = [
            Text.assemble((cell.value, "bold" if cell.best else ""), (f"\n{cell.interval}", "dim"))
            if cell
            else "-"
            for cell in row.cells
        ]
        table.add_row(name, *scores, *row.costs[:2])
    return table
