"""A finished study, read back: study.json and the run directories it names, as dataclasses.

    results = collect("runs/study-1a2b3c4d")
    results.replicates("language").interval("scratch+full")

Scores are always recomputed from the per-item rows, never taken from a stored mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.data.score_table import ScoreTable
from adaptkit.errors import DataError
from adaptkit.run import Run, read_json, read_jsonl
from adaptkit.study.scores import METRICS, score_table
from adaptkit.study.statistics import Replicates, resample

AGAIN = "run the same `adaptkit compare` again: finished stages are skipped"
_STANDS_FOR_OTHERS = ("full", "lora", "qlora", "prompt", "probe")


@dataclass(frozen=True)
class ArmInfo:
    """One strategy: `origin+adaptation`."""

    name: str
    origin: str
    adaptation: str
    describe: str = ""


@dataclass(frozen=True)
class TaskInfo:
    """What an arm is scored on, and how its score is read."""

    name: str
    kind: str
    metric: str
    higher_is_better: bool
    margin: float
    """Relative for language (share of the generic arm's score), absolute otherwise."""
    labels: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """`bits per byte`, or `accuracy on rct_role`."""
        metric = METRICS[self.metric].title if self.metric in METRICS else self.metric
        return metric if self.kind == "language" else f"{metric} on {self.name}"


@dataclass(frozen=True)
class Cost:
    """What the runs behind a score took, its share of the tuning included: sums over them, the peak for
    memory."""

    flops: float = 0.0
    seconds: float = 0.0
    tokens: float = 0.0
    peak_memory_bytes: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    def plus(self, other: Cost, share: float) -> Cost:
        """With a share of what another run took: tuning is done once for all seeds."""
        return Cost(
            self.flops + share * other.flops,
            self.seconds + share * other.seconds,
            self.tokens + share * other.tokens,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
        )


@dataclass(frozen=True)
class Cell:
    """One arm, one seed, one share of the domain text, one task."""

    arm: str
    seed: int
    fraction: float
    task: str
    run: Path
    suite: str
    rows: list[dict[str, Any]]
    """Item rows, sorted by id."""
    dev: float | None
    """The metric on the development split, on which arms are picked."""
    cost: Cost
    paid_by: tuple[Path, ...] = ()
    text_bytes: float | None = None
    """Bytes of domain text that the language model read, each counted once."""


@dataclass
class Results:
    """Everything a report or a verdict needs."""

    path: Path
    study: dict[str, Any]
    arms: list[ArmInfo]
    tasks: list[TaskInfo]
    cells: list[Cell]
    forgetting: dict[str, list[list[dict[str, Any]]]]
    """Arm -> per seed the language rows on general text."""
    baselines: list[Cell]
    _replicates: dict[tuple, Replicates] = field(default_factory=dict)

    @property
    def confidence(self) -> float:
        return float(self.study.get("confidence", 0.95))

    def arm(self, name: str) -> ArmInfo:
        return next(arm for arm in self.arms if arm.name == name)

    def task(self, name: str) -> TaskInfo:
        return next(task for task in self.tasks if task.name == name)

    @property
    def primary(self) -> TaskInfo:
        return self.task(self.study["primary"])

    def of(self, task: str, arm: str, fraction: float | None = None) -> list[Cell]:
        """The cells of an arm on a task, by seed; at its largest share of the data unless told."""
        cells = [cell for cell in self.cells if cell.task == task and cell.arm == arm]
        if not cells:
            return []
        share = max(cell.fraction for cell in cells) if fraction is None else fraction
        return sorted((cell for cell in cells if cell.fraction == share), key=lambda cell: cell.seed)

    def scored_arms(self, task: str) -> list[ArmInfo]:
        return [arm for arm in self.arms if self.of(task, arm.name)]

    def distinct_arms(self, task: str) -> dict[str, list[ArmInfo]]:
        """Arms that differ on a task, each with those that share its runs.

        On language all adaptations of one origin are the same model: they are one entry, named after `full`
            where there is one.
        """
        groups: dict[tuple, list[ArmInfo]] = {}
        for arm in self.scored_arms(task):
            groups.setdefault(tuple((str(c.run), c.suite) for c in self.of(task, arm.name)), []).append(arm)
        ordered = (sorted(group, key=lambda arm: _rank(arm.adaptation)) for group in groups.values())
        return {group[0].name: group for group in ordered}

    def replicates(self, task: str, metric: str | None = None) -> Replicates:
        """Bootstrap of every arm on a task, and of its baselines as `baseline:<name>`."""
        metric = metric or self.task(task).metric
        if (task, metric) not in self._replicates:
            tables = {name: tables_of(self.of(task, name), metric) for name in self.distinct_arms(task)}
            tables |= {
                f"baseline:{cell.arm}": [score_table(metric, cell.rows)]
                for cell in self.baselines
                if cell.task == task
            }
            self._replicates[task, metric] = resample(tables)
        return self._replicates[task, metric]

    def label(self, task: str, arm: str) -> str:
        """How figures name a distinct arm: its origin alone where all adaptations share one model."""
        group = self.distinct_arms(task)[arm]
        if len(group) == 1:
            return arm
        return "generic, untouched" if group[0].origin == "generic" else f"{group[0].origin} (all)"

    def same_as(self, task: str, arm: str) -> str:
        """The arm whose runs stand for `arm` on a task (itself, mostly)."""
        return next(
            name for name, group in self.distinct_arms(task).items() if any(a.name == arm for a in group)
        )

    def cost(self, task: str, arm: str) -> Cost:
        """Mean over seeds of what the arm's score on a task took."""
        costs = [cell.cost for cell in self.of(task, arm)]
        return (
            Cost(*(sum(getattr(c, name) for c in costs) / len(costs) for name in Cost.__dataclass_fields__))
            if costs
            else Cost()
        )

    def dev(self, task: str, arm: str) -> float | None:
        """Mean over seeds of the development score; None when a seed has none."""
        values = [cell.dev for cell in self.of(task, arm)]
        return sum(values) / len(values) if values and None not in values else None


def _rank(adaptation: str) -> int:
    return (
        _STANDS_FOR_OTHERS.index(adaptation) if adaptation in _STANDS_FOR_OTHERS else len(_STANDS_FOR_OTHERS)
    )


def tables_of(cells: Sequence[Cell], metric: str) -> list[ScoreTable]:
    return [score_table(metric, cell.rows) for cell in cells]


def collect(study_path: str | Path) -> Results:
    """Read a study's run directory and every run it names.

    Raises: DataError that names the run or file which is missing, unfinished or does not fit the others.
    """
    path = Path(study_path)
    if not (path / "study.json").exists():
        raise DataError(
            "no study.json here", where=str(path), fix="give the run directory of a study that has ended"
        )
    study = read_json(path / "study.json")
    reader = _Reader(path.parent)
    try:
        results = Results(
            path=path,
            study=study,
            arms=[
                ArmInfo(a["name"], a["origin"], a["adaptation"], a.get("describe", "")) for a in study["arms"]
            ],
            tasks=[_task(task, study) for task in study["tasks"]],
            cells=[reader.cell(row, study) for row in study["results"]],
            forgetting=_forgetting(study, reader),
            baselines=[reader.baseline(row) for row in study.get("baselines", [])],
        )
    except KeyError as error:
        raise DataError(f"study.json lacks {error}", where=str(path / "study.json"), fix=AGAIN) from None
    for task in results.tasks:
        _check_same_items(
            task.name, [cell for cell in [*results.cells, *results.baselines] if cell.task == task.name]
        )
    return results


def _task(task: dict[str, Any], study: dict[str, Any]) -> TaskInfo:
    margin = float(study.get("margin", {}).get(task["name"], 0.01))
    return TaskInfo(
        task["name"],
        task["kind"],
        task["metric"],
        task["higher_is_better"],
        margin,
        tuple(task.get("labels", ())),
    )


def _forgetting(study: dict[str, Any], reader: _Reader) -> dict[str, list[list[dict[str, Any]]]]:
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for row in sorted(study.get("forgetting", []), key=lambda row: row["seed"]):
        found.setdefault(row["arm"], []).append(reader.rows(row["run"], row["suite"]))
    return found


def _check_same_items(task: str, cells: Sequence[Cell]) -> None:
    """Pairing needs every arm, seed and share scored on the same items."""
    if not cells:
        return
    ids = [row["id"] for row in cells[0].rows]
    for cell in cells[1:]:
        if [row["id"] for row in cell.rows] != ids:
            raise DataError(
                f"'{task}' was scored on {len(cell.rows)} items that are not the {len(ids)} of {cells[0].run.name}",
                where=str(Run(cell.run).items(cell.suite)),
                fix=f"delete that run directory and {AGAIN}",
            )


class _Reader:
    """Reads runs beside the study's folder, each suite once."""

    def __init__(self, root: Path):
        self.root = root
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def run(self, name: str) -> Run:
        run = Run(self.root / name)
        if not run.path.is_dir():
            raise DataError(
                "this run directory is missing, and the study names it", where=str(run.path), fix=AGAIN
            )
        return run

    def rows(self, name: str, suite: str) -> list[dict[str, Any]]:
        if (name, suite) not in self._rows:
            path = self.run(name).items(suite)
            if not path.exists():
                raise DataError(
                    f"the per-item scores of suite '{suite}' are missing", where=str(path), fix=AGAIN
                )
            self._rows[name, suite] = sorted(read_jsonl(path), key=lambda row: str(row["id"]))
        return self._rows[name, suite]

    def cell(self, row: dict[str, Any], study: dict[str, Any]) -> Cell:
        run = self.run(row["run"])
        metric = next(task["metric"] for task in study["tasks"] if task["name"] == row["task"])
        scores = read_json(run.scores(row["suite"])) if run.scores(row["suite"]).exists() else {}
        paid_by, tuned_by = (
            tuple(self.run(name).path for name in row.get(key, [])) for key in ("paid_by", "tuned_by")
        )
        return Cell(
            arm=row["arm"],
            seed=row["seed"],
            fraction=float(row["fraction"]),
            task=row["task"],
            run=run.path,
            suite=row["suite"],
            rows=self.rows(row["run"], row["suite"]),
            dev=scores.get("dev", {}).get(metric),
            cost=total_cost(paid_by).plus(total_cost(tuned_by), 1 / len(study["seeds"])),
            paid_by=paid_by,
            text_bytes=row.get("text_bytes"),
        )

    def baseline(self, row: dict[str, Any]) -> Cell:
        rows = self.rows(row["run"], row["suite"])
        return Cell(
            row["name"], 0, 1.0, row["task"], self.run(row["run"]).path, row["suite"], rows, None, Cost()
        )


def total_cost(runs: Sequence[Path]) -> Cost:
    """Sum of the runs' cost.json.

    Raises: DataError that names the run without one.
    """
    rows = []
    for path in runs:
        if not Run(path).cost_path.exists():
            raise DataError("this run has no cost.json: it did not end", where=str(path), fix=AGAIN)
        rows.append(read_json(Run(path).cost_path))
    return Cost(
        flops=sum(row.get("flops") or 0.0 for row in rows),
        seconds=sum(row.get("seconds") or 0.0 for row in rows),
        tokens=sum(row.get("tokens") or 0.0 for row in rows),
        peak_memory_bytes=max((row.get("peak_memory_bytes") or 0.0 for row in rows), default=0.0),
    )
