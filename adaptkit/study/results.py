"""Read a finished study back: study.json, and from the runs it names the item scores and costs.

    results = collect("runs/study-1a2b3c4d")
    results.replicates("language").interval("scratch+full")

Scores are always computed again from the per-item rows, never taken from a stored mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.data.score_table import ScoreTable
from adaptkit.errors import DataError
from adaptkit.run import Run, read_json, read_jsonl, read_sealed
from adaptkit.seal import check
from adaptkit.study.forecast_record import WHOLE, Portion
from adaptkit.study.record import (
    ArmRecord,
    ForgettingRecord,
    ScoreRecord,
    StudyRecord,
    TaskRecord,
    read_study,
)
from adaptkit.study.scores import METRICS, score_table, within_metric
from adaptkit.study.statistics import Interval, Replicates, resample

AGAIN = "run the same `adaptkit compare` again: finished stages are skipped"
BASELINE = "baseline"
"""Origin of what answers without a language model."""
GENERAL, CHAT = "general", "chat"
"""Suites that show what a model forgot: general text, and the manners of a chat model."""

ItemRow = dict[str, Any]
"""One line of eval/<suite>.jsonl."""


@dataclass(frozen=True)
class Cost:
    """Sums over the runs behind a score, its share of the tuning included; the peak for memory."""

    flops: float = 0.0
    seconds: float = 0.0
    tokens: float = 0.0
    peak_memory_bytes: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    def plus(self, other: Cost, share: float) -> Cost:
        """Add a share of another run's cost: tuning is done once for all seeds."""
        return Cost(
            self.flops + share * other.flops,
            self.seconds + share * other.seconds,
            self.tokens + share * other.tokens,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
        )


@dataclass(frozen=True)
class Cell:
    """The score of one arm, seed, portion of text and compute, and task, item by item."""

    arm: str
    seed: int
    portion: Portion
    task: str
    run: Path
    suite: str
    rows: list[ItemRow]
    """Sorted by id."""
    dev: float | None
    """The metric on the development split, on which arms are picked."""
    cost: Cost
    paid_by: tuple[Path, ...] = ()
    text_bytes: float | None = None
    """Bytes of domain text that the language model read, each counted once."""
    read_bytes: float | None = None
    """The same with repeats counted."""
    read_labels: float | None = None
    """Labelled rows that a training on a task read, repeats counted."""


@dataclass
class Results:
    """Everything a report or a verdict needs."""

    path: Path
    record: StudyRecord
    cells: list[Cell]
    forgetting: dict[str, list[list[ItemRow]]]
    """Arm of the text ledger, or `trained_on` -> per seed the rows on general text."""
    habits: dict[str, list[list[ItemRow]]] = field(default_factory=dict)
    """The same for the replies that show the manners of a model; empty for bases that have none."""
    _replicates: dict[tuple[str, str], Replicates] = field(default_factory=dict)

    @property
    def confidence(self) -> float:
        return self.record.confidence

    @property
    def num_seeds(self) -> int:
        return len(self.record.seeds)

    @property
    def arms(self) -> tuple[ArmRecord, ...]:
        return self.record.arms

    @property
    def tasks(self) -> tuple[TaskRecord, ...]:
        return self.record.tasks

    @property
    def primary(self) -> TaskRecord:
        return self.task(self.record.primary)

    @property
    def language(self) -> TaskRecord | None:
        """The task that is scored in bits per byte; None where no model gives any."""
        return next((task for task in self.tasks if is_language(task)), None)

    @property
    def domain_bytes(self) -> int:
        """Bytes of domain text there were to train on; 0 where that is not recorded."""
        corpus = self.record.data.corpora.get("domain")
        return corpus.train.num_bytes if corpus else 0

    def arm(self, name: str) -> ArmRecord:
        return next(arm for arm in self.arms if arm.name == name)

    def task(self, name: str) -> TaskRecord:
        return next(task for task in self.tasks if task.name == name)

    def of(self, task: str, arm: str, portion: Portion = WHOLE) -> list[Cell]:
        """The cells of an arm on a task, by seed."""
        cells = [cell for cell in self.cells if (cell.task, cell.arm, cell.portion) == (task, arm, portion)]
        return sorted(cells, key=lambda cell: cell.seed)

    def portions(self, task: str, arm: str) -> list[Portion]:
        """What an arm was scored with on a task, the largest last."""
        portions = {cell.portion for cell in self.cells if cell.task == task and cell.arm == arm}
        return sorted(portions, key=lambda portion: (portion.compute, portion.text, portion.labels))

    def scored_arms(self, task: str) -> list[ArmRecord]:
        return [arm for arm in self.arms if self.of(task, arm.name)]

    def replicates(self, task: str, metric: str | None = None) -> Replicates:
        """Bootstrap of every arm on a task, baselines among them."""
        metric = metric or self.task(task).metric
        if (task, metric) not in self._replicates:
            names = [arm.name for arm in self.scored_arms(task)]
            tables = {name: tables_of(self.of(task, name), metric) for name in names}
            self._replicates[task, metric] = resample(tables, self.clusters(task))
        return self._replicates[task, metric]

    def interval(self, task: str, arm: str, metric: str | None = None) -> Interval:
        """An arm's score on a task with its interval, which ends where the metric does."""
        metric = metric or self.task(task).metric
        return within_metric(metric, self.replicates(task, metric).interval(arm, self.confidence))

    def clusters(self, task: str) -> list[tuple[str, str]] | None:
        """Per test item the document or group it belongs to; None where nothing says so."""
        return self.clusters_of(task, next(cell for cell in self.cells if cell.task == task).rows)

    def clusters_of(self, test_set: str, rows: Sequence[ItemRow]) -> list[tuple[str, str]] | None:
        """The same for the rows of any test set, `general` among them."""
        record = self.record.data.test_sets.get(test_set)
        if record is None:
            return None
        return [record.cluster_of(str(row["id"])) for row in rows]

    def cost(self, task: str, arm: str) -> Cost:
        """Mean over seeds of what the arm's score on a task took."""
        costs = [cell.cost for cell in self.of(task, arm)]
        if not costs:
            return Cost()
        return Cost(*(sum(part) / len(part) for part in zip(*map(astuple, costs), strict=True)))

    def dev(self, task: str, arm: str) -> float | None:
        """Mean over seeds of the development score; None when a seed has none."""
        cells = self.of(task, arm)
        values = [cell.dev for cell in cells if cell.dev is not None]
        return sum(values) / len(values) if cells and len(values) == len(cells) else None


def trained_on(origin: str, task: str | None) -> str:
    """What a model is called by the text that it learnt: `continued`, or `tapt on queue`."""
    return origin if task is None else f"{origin} on {task}"


def is_language(task: TaskRecord) -> bool:
    """Whether a task is to predict the domain text itself."""
    return task.kind == "language"


def task_title(task: TaskRecord) -> str:
    """`bits per byte`, or `accuracy on rct_role`."""
    metric = METRICS[task.metric].title if task.metric in METRICS else task.metric
    return metric if is_language(task) else f"{metric} on {task.name}"


def tables_of(cells: Sequence[Cell], metric: str) -> list[ScoreTable]:
    """One score table per cell."""
    return [score_table(metric, cell.rows) for cell in cells]


def collect(study_path: str | Path) -> Results:
    """Read a study's run directory and every run it names.

    Raises: DataError that names the run or file which is missing, unfinished or does not fit the others.
    """
    path = Path(study_path)
    record = read_study(path)
    _check_names(path, record)
    reader = _Reader(path.parent, record)
    results = Results(
        path=path,
        record=record,
        cells=[reader.cell(score) for score in record.scores],
        forgetting=_forgetting(record.forgetting, reader, GENERAL),
        habits=_forgetting(record.forgetting, reader, CHAT),
    )
    for task in results.tasks:
        cells = [cell for cell in results.cells if cell.task == task.name]
        _check_same_items(task.name, cells)
    return results


def _check_names(path: Path, record: StudyRecord) -> None:
    """Every score belongs to an arm and a task that the study lists."""
    arms, tasks = {arm.name for arm in record.arms}, {task.name for task in record.tasks}
    for score in record.scores:
        if score.arm not in arms or score.task not in tasks:
            what = f"a score of '{score.arm}' on '{score.task}' names an arm or a task that is not listed"
            raise DataError(what, where=str(path), fix=AGAIN)
    if record.primary not in tasks:
        what = f"the task that decides, '{record.primary}', is not listed"
        raise DataError(what, where=str(path), fix=AGAIN)


def _forgetting(
    records: Sequence[ForgettingRecord], reader: _Reader, suite: str
) -> dict[str, list[list[ItemRow]]]:
    rows: dict[str, list[list[ItemRow]]] = {}
    of_suite = (record for record in records if record.suite == suite)
    for record in sorted(of_suite, key=lambda record: record.seed):
        rows.setdefault(trained_on(record.arm, record.task), []).append(reader.rows(record.run, record.suite))
    return rows


def _check_same_items(task: str, cells: Sequence[Cell]) -> None:
    """Pairing needs every arm, seed and portion scored on the same items."""
    if not cells:
        return
    ids = [row["id"] for row in cells[0].rows]
    for cell in cells[1:]:
        if [row["id"] for row in cell.rows] != ids:
            scored = f"'{task}' was scored on {len(cell.rows)} items"
            what = f"{scored} that are not the {len(ids)} of {cells[0].run.name}"
            where = str(Run(cell.run).items(cell.suite))
            raise DataError(what, where=where, fix=f"delete that run directory and {AGAIN}")


class _Reader:
    """Reads runs beside the study's folder, each suite once."""

    def __init__(self, root: Path, record: StudyRecord):
        self.root = root
        self.num_seeds = len(record.seeds)
        self.metrics = {task.name: task.metric for task in record.tasks}
        self._rows: dict[tuple[str, str], list[ItemRow]] = {}

    def run(self, name: str) -> Run:
        run = Run(self.root / name)
        if not run.path.is_dir():
            what = "this run directory is missing, and the study names it"
            raise DataError(what, where=str(run.path), fix=AGAIN)
        return run

    def rows(self, name: str, suite: str) -> list[ItemRow]:
        """Item rows of a suite, sorted by id; the same list for the same suite."""
        if (name, suite) not in self._rows:
            path = self.run(name).items(suite)
            if not path.exists():
                what = f"the per-item scores of suite '{suite}' are missing"
                raise DataError(what, where=str(path), fix=AGAIN)
            check(path)
            self._rows[name, suite] = sorted(read_jsonl(path), key=lambda row: str(row["id"]))
        return self._rows[name, suite]

    def cell(self, score: ScoreRecord) -> Cell:
        run = self.run(score.run)
        check(run.scores(score.suite))
        scores = read_json(run.scores(score.suite)) if run.scores(score.suite).exists() else {}
        paid_by = tuple(self.run(name).path for name in score.paid_by)
        tuned_by = tuple(self.run(name).path for name in score.tuned_by)
        return Cell(
            arm=score.arm,
            seed=score.seed,
            portion=score.portion,
            task=score.task,
            run=run.path,
            suite=score.suite,
            rows=self.rows(score.run, score.suite),
            dev=scores.get("dev", {}).get(self.metrics[score.task]),
            cost=total_cost(paid_by).plus(total_cost(tuned_by), 1 / self.num_seeds),
            paid_by=paid_by,
            text_bytes=score.text_bytes,
            read_bytes=score.read_bytes,
            read_labels=score.read_labels,
        )


def total_cost(runs: Sequence[Path]) -> Cost:
    """Sum of the runs' cost.json.

    Raises: DataError that names the run without one.
    """
    rows = []
    for path in runs:
        if not Run(path).cost_path.exists():
            raise DataError("this run has no cost.json: it did not end", where=str(path), fix=AGAIN)
        rows.append(read_sealed(Run(path).cost_path))
    return Cost(
        flops=sum(row.get("flops") or 0.0 for row in rows),
        seconds=sum(row.get("seconds") or 0.0 for row in rows),
        tokens=sum(row.get("tokens") or 0.0 for row in rows),
        peak_memory_bytes=max((row.get("peak_memory_bytes") or 0.0 for row in rows), default=0.0),
    )
