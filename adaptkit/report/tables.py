"""Build the tables of scores: every arm on every task, every metric of a labelled task, the terminal's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from adaptkit.report.charts_money import count_text, usd
from adaptkit.report.prose import duration, memory_text
from adaptkit.report.svg import chip
from adaptkit.study.base_cost import VIEWS, base_costs, cheapest_by_view
from adaptkit.study.exit_plan import MONTHS, PaysFrom, exit_plan
from adaptkit.study.front import FrontRow, front
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import BASELINE, Results, is_language, task_title
from adaptkit.study.scores import METRICS, f1_of_fields
from adaptkit.study.statistics import Interval
from adaptkit.study.task_verdict import TaskVerdict
from adaptkit.study.verdict_line import flops_text, interval_text

if TYPE_CHECKING:
    import rich.table

T = TypeVar("T")
ORIGIN_ORDER = (
    BASELINE,
    "generic",
    "continued",
    "continued-lora",
    "continued-vocabulary",
    "mixed",
    "scratch",
    "distilled",
    "tapt",
    "placebo",
    "api",
)
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
    """Every arm on every task, with intervals and what its score cost: on the primary task, or the first that
    it was scored on."""
    best = {task.name: _best_arm(results, task) for task in results.tasks}
    rows = []
    for arm in ordered_arms(results):
        cells = tuple(_arm_score(results, task, arm.name, best[task.name]) for task in results.tasks)
        marker = chip(arm.origin, arm.adaptation or "")
        rows.append(TableRow(arm.name, marker, arm.describe, cells, _costs(results, arm.name)))
    columns = tuple(f"{task_title(task)} {_arrow(task.higher_is_better)}" for task in results.tasks)
    return Table("All arms", columns, tuple(rows), COST_COLUMNS)


def _arrow(higher_is_better: bool) -> str:
    return "\u2191" if higher_is_better else "\u2193"


def _best_arm(results: Results, task: TaskRecord) -> str:
    names = [arm.name for arm in results.scored_arms(task.name)]
    sign = 1 if task.higher_is_better else -1
    return max(names, key=lambda name: sign * results.replicates(task.name).mean(name), default="")


def _arm_score(results: Results, task: TaskRecord, arm: str, best: str) -> Score | None:
    if not results.of(task.name, arm):
        return None
    interval = results.interval(task.name, arm)
    return _score(interval, arm == best)


def _score(interval: Interval, best: bool = False) -> Score:
    return Score(f"{interval.mean:.3f}", f"{interval.low:.3f} to {interval.high:.3f}", best)


def _costs(results: Results, arm: str) -> tuple[str, ...]:
    tasks = [results.primary, *results.tasks]
    scored = next((task.name for task in tasks if results.of(task.name, arm)), None)
    if scored is None:
        return ("",) * len(COST_COLUMNS)
    cost = results.cost(scored, arm)
    if not cost.flops and not cost.seconds:
        return ("none", "none", "", "")
    flops = flops_text(cost.flops) if cost.flops else "none"
    memory = memory_text(cost.peak_memory_bytes) if cost.peak_memory_bytes else ""  # word counts measure none
    speed = f"{cost.tokens_per_s:,.0f}" if cost.tokens_per_s else ""
    return (flops, duration(cost.seconds), memory, speed)


def detail_tables(results: Results) -> list[Table]:
    """Per labelled task: every metric that its item rows hold the columns of."""
    tables = []
    for task in results.tasks:
        if is_language(task) or not results.scored_arms(task.name):
            continue
        metrics = [name for name in METRICS if has_columns(results, task, name)]
        rows = []
        for arm in (arm for arm in ordered_arms(results) if results.of(task.name, arm.name)):
            cells = tuple(_score(results.interval(task.name, arm.name, metric)) for metric in metrics)
            rows.append(TableRow(arm.name, chip(arm.origin, arm.adaptation or ""), arm.describe, cells))
        columns = tuple(f"{METRICS[m].title} {_arrow(METRICS[m].higher_is_better)}" for m in metrics)
        tables.append(Table(task.name, columns, tuple(rows)))
        tables += field_tables(results, task)
    return tables


def field_tables(results: Results, task: TaskRecord) -> list[Table]:
    """Of a task that extracts fields: the F1 of each field, mean over seeds."""
    if not has_columns(results, task, "field_f1"):
        return []
    arms = [arm for arm in ordered_arms(results) if results.of(task.name, arm.name)]
    scores = {arm.name: [f1_of_fields(cell.rows) for cell in results.of(task.name, arm.name)] for arm in arms}
    names = sorted({name for seeds in scores.values() for seed in seeds for name in seed})
    rows = []
    for arm in arms:
        seeds = scores[arm.name]
        means = [sum(seed.get(name, 0.0) for seed in seeds) / len(seeds) for name in names]
        num_seeds = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
        cells = tuple(Score(f"{mean:.3f}", num_seeds) for mean in means)
        rows.append(TableRow(arm.name, chip(arm.origin, arm.adaptation or ""), arm.describe, cells))
    return [Table(f"{task.name}, F1 of each field", tuple(names), tuple(rows))]


def has_columns(results: Results, task: TaskRecord, metric: str) -> bool:
    """Whether a task's item rows hold what a metric reads."""
    cells = [cell for cell in results.cells if cell.task == task.name]
    return all(column in cell.rows[0] for cell in cells for column in METRICS[metric].columns)


@dataclass(frozen=True)
class DecisionRow:
    """One arm in the table that makes the decision.

    Attributes:
        standing: recommended, contender, or behind.
        difference: to the recommended arm, in intervals that hold together.
        dominated_by: an arm that is nowhere worse and somewhere better.
    """

    name: str
    chip: str
    describe: str
    standing: str
    score: Score
    difference: str
    training: str
    usd_per_1k: str
    latency: str
    memory: str
    forgotten: str
    dominated_by: str | None


def decision_table(results: Results, verdict: TaskVerdict) -> list[DecisionRow]:
    """Every arm of a task on all axes, the recommended one first, then contenders, then the rest by score."""
    rows = front(results, results.task(verdict.task))
    order = {name: number for number, name in enumerate(verdict.contenders)}
    rows.sort(key=lambda row: order.get(row.arm.name, len(order)))
    rows.sort(key=lambda row: row.arm.name != verdict.recommended)
    return [_decision_row(results, verdict, row) for row in rows]


def _decision_row(results: Results, verdict: TaskVerdict, row: FrontRow) -> DecisionRow:
    name, owned = row.arm.name, row.owned
    standing = "behind"
    if name == verdict.recommended:
        standing = "recommended"
    elif name in verdict.contenders:
        standing = "contender"
    return DecisionRow(
        name=name,
        chip=chip(row.arm.origin, row.arm.adaptation or ""),
        describe=row.arm.describe,
        standing=standing,
        score=_score(row.score, name == verdict.best),
        difference=_or_blank(verdict.differences.get(name), interval_text),
        training=flops_text(results.cost(verdict.task, name).flops),
        usd_per_1k=_or_blank(owned.usd_per_1k, "${:.2g}".format),
        latency=_or_blank(owned.latency_s, milliseconds),
        memory=_or_blank(owned.memory_bytes, memory_text),
        forgotten=_or_blank(row.forgotten, "{:+.3f}".format),
        dominated_by=row.dominated_by,
    )


@dataclass(frozen=True)
class ExitRow:
    """One arm that could replace an API, in words.

    Attributes:
        difference: its score minus the API's, with its interval.
        month, api_month: bills of a month, training left out.
        paid_back: when owning has cost less in all.
        pays_from: the traffic from which owning costs less every month.
        bills: what owning and the API have cost in all after each of the months.
    """

    arm: str
    api: str
    difference: str
    training: str
    month: str
    api_month: str
    paid_back: str
    pays_from: str
    bills: tuple[tuple[str, str], ...]


def exit_table(results: Results, verdict: TaskVerdict) -> list[ExitRow]:
    """Staying with the API against owning each other arm, the soonest paid back first."""
    rows = []
    for option in exit_plan(results, results.task(verdict.task)):
        paid_back = "never"
        if math.isfinite(option.paid_back):
            paid_back = f"after {option.paid_back:.1f} months"
        pair = option.difference
        rows.append(
            ExitRow(
                arm=option.arm,
                api=option.api,
                difference=f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]",
                training=usd(option.training_usd),
                month=usd(option.own_usd),
                api_month=usd(option.api_usd),
                paid_back=paid_back,
                pays_from=pays_from_words(option.pays_from),
                bills=tuple((usd(own), usd(api)) for own, api in map(option.after, MONTHS)),
            )
        )
    return rows


def pays_from_words(traffic: PaysFrom) -> str:
    """`from 1.2 M a month [1.1 M, 1.4 M]`; without an interval where no server's speed was measured."""
    if math.isinf(traffic.requests):
        return "never, at these prices"
    amount = f"from {count_text(traffic.requests)} a month"
    if traffic.low is None or traffic.high is None:
        return f"about {amount}; no interval, as its speed is not measured (adaptkit bench)"
    high = "never" if math.isinf(traffic.high) else count_text(traffic.high)
    return f"{amount} [{count_text(traffic.low)}, {high}]"


def _or_blank(value: T | None, show: Callable[[T], str]) -> str:
    if value is None:
        return ""
    return show(value)


def milliseconds(seconds: float) -> str:
    """`0.4 ms`, `12 ms`, `1.3 s`."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    if seconds >= 0.01:
        return f"{1000 * seconds:.0f} ms"
    return f"{1000 * seconds:.2g} ms"


def base_cost_table(results: Results, verdict: TaskVerdict) -> list[tuple[str, str, str, str]]:
    """(arm, FLOPs with the base free, shared, in full) of every arm of a task."""

    def cell(flops: float | None) -> str:
        return "not known" if flops is None else flops_text(flops)

    rows = base_costs(results, verdict.task)
    return [(row.arm, cell(row.free), cell(row.shared), cell(row.inclusive)) for row in rows]


def base_cost_sentence(results: Results, verdict: TaskVerdict) -> str:
    """Whether the cheapest contender to train depends on how the base is counted."""
    cheapest = cheapest_by_view(base_costs(results, verdict.task), verdict.contenders)
    if len(cheapest) < len(VIEWS):
        how = "give `decision.base_tokens`, the tokens that it was trained on"
        return f"What making the base took is not known: {how}."
    if len(set(cheapest.values())) == 1:
        return f"However the base is counted, {cheapest['free']} is the contender that costs least to train."
    words = {"free": "with the base free", "shared": "shared among studies", "inclusive": "in full"}
    turns = ", ".join(f"{name} {words[view]}" for view, name in cheapest.items())
    return f"Which contender costs least to train depends on how the base is counted: {turns}."


def terminal_table(results: Results, recommended: str) -> rich.table.Table:
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
        name = Text(row.name, style="bold green" if row.name == recommended else "")
        scores = [
            Text.assemble((cell.value, "bold" if cell.best else ""), (f"\n{cell.interval}", "dim"))
            if cell
            else "-"
            for cell in row.cells
        ]
        table.add_row(name, *scores, *row.costs[:2])
    return table
