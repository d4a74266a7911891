"""Scores of a finished study by a column of its data: is the winner worse on some, and was it so before?

    tasks = grouped_scores(Path("runs/tickets-5e6f7a8b"), by="region")
    tasks[0].groups[0].name, tasks[0].groups[0].change

The column is read from the files that the study read, as they were: a test item knows the line that it came
from. Rows that belong together (`group`) are drawn together, so a column may cut across documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit.audit.bias_record import GroupedTaskRecord, GroupRecord, GroupScoreRecord
from adaptkit.audit.group_gaps import ItemGroups, gap_freedom, gap_table, group_items, part_table
from adaptkit.audit.record import FigureRecord
from adaptkit.data.files import records
from adaptkit.data.readers import DataConfig, Want, read
from adaptkit.data.records import Fault
from adaptkit.errors import DataError, nearest
from adaptkit.notices import silent
from adaptkit.report.figures import best_of_each_origin
from adaptkit.run import file_digest, read_jsonl
from adaptkit.run_record import SplitRecord
from adaptkit.seal import check
from adaptkit.study.arms import Origin
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.results import BASELINE, Results, collect, is_language, tables_of, task_title
from adaptkit.study.scores import METRICS
from adaptkit.study.statistics import Interval, resample
from adaptkit.study.task import KINDS
from adaptkit.study.task_verdict import Verdict
from adaptkit.study.tasks.rows import RowKind
from adaptkit.study.verdict import judge

FEW_VALUES = 50
"""A `source` or `group` column with more values names documents, not groups."""


@dataclass(frozen=True)
class _Shown:
    """The arms that are told of on a task."""

    before: str | None
    after: str
    control: str | None

    @property
    def names(self) -> list[str]:
        return [name for name in (self.before, self.after, self.control) if name is not None]


def grouped_scores(
    folder: Path, by: str | None = None, *, task: str | None = None
) -> tuple[GroupedTaskRecord, ...]:
    """Every task that has the column, and enough items of two groups or more.

    Args:
        by: a column of the data files; None takes the column that is the `source` of rows, or their `group`,
            where it has few values.
        task: only this one.
    Raises: DataError where no task has such a column, and for files that have changed or are gone.
    """
    results = collect(folder)
    verdict = judge(results)
    names = [each.name for each in results.tasks]
    if task is not None and task not in names:
        what = f"the study has no task '{task}'{nearest(task, names)}"
        raise DataError(what, where=str(folder), fix=f"choose from {', '.join(names)}")
    found: list[GroupedTaskRecord] = []
    seen: set[str] = set()
    for name in names if task is None else [task]:
        column, values = _values(results, name, by, seen)
        if values:
            cell = next(cell for cell in results.cells if cell.task == name)
            items = [values.get(str(row["id"])) for row in cell.rows]
            record = _grouped(results, verdict, name, column, items)
            if record.groups:
                found.append(record)
    if not found:
        raise _nothing(results, by, seen)
    return tuple(found)


def _nothing(results: Results, by: str | None, seen: set[str]) -> DataError:
    where = str(results.path)
    if by is None:
        what = "no test has a `source` or `group` column that names two groups of 20 items and 5 documents"
        return DataError(what, where=where, fix="name a column of the data files: --by region")
    if by not in seen:
        what = f"no data file of this study has a column '{by}'{nearest(by, seen)}"
        return DataError(
            what, where=where, fix=f"choose from {', '.join(sorted(seen)) or 'columns of JSONL or CSV'}"
        )
    what = f"by '{by}' no test has two groups of 20 items and 5 documents or more"
    return DataError(what, where=where, fix="test on more items, or group more coarsely in another column")


def _values(results: Results, task: str, by: str | None, seen: set[str]) -> tuple[str, dict[str, str]]:
    """(column, test item -> its value); names of columns that were met go into `seen`."""
    corpus = "domain" if is_language(results.task(task)) else task
    path = PreparedFiles(results.path.parent / (results.record.prepared_run or "")).test(corpus)
    if not path.is_file():
        return "", {}
    check(path)
    want: Want = "text"
    if corpus == task:
        kind = KINDS[results.task(task).kind]
        assert isinstance(kind, RowKind)  # no other keeps its test as rows
        want = kind.want
    rows = read(DataConfig(files=[str(path)]), want, tell=silent).rows
    if by is None:
        for role in ("source", "group"):
            values = {row.id: str(row.values[role]) for row in rows if role in row.values}
            if 2 <= len(set(values.values())) <= FEW_VALUES:
                return role, values
        return "", {}
    places = [str(line.get("from", "")) for line in read_jsonl(path)]
    column = _column(results.record.data.corpora[corpus].test, by, set(places), seen)
    known = {row.id: column[place] for row, place in zip(rows, places, strict=True) if place in column}
    return by, known


def _column(test: SplitRecord, by: str, wanted: set[str], seen: set[str]) -> dict[str, str]:
    """`file:line` -> the value that a data file has there.

    Raises: DataError for a file that is gone or is not what the study read.
    """
    values: dict[str, str] = {}
    files = {Path(each["name"]): str(each["sha256"]) for each in test.files}
    names = Counter(path.name for path in files)
    for path, sha256 in files.items():
        if not any(place.startswith(f"{path.name}:") for place in wanted):
            continue
        if names[path.name] > 1:
            what = f"two data files are called {path.name}, so the line of a test item is not known"
            fix = "give them names of their own, and run the study again"
            raise DataError(what, where=str(path), fix=fix)
        if not path.is_file() or file_digest(path) != sha256:
            state = "has changed since the study read it" if path.is_file() else "is no longer there"
            fix = "put it back, and run from the folder that the study was run from"
            raise DataError(f"this data file {state}", where=str(path), fix=fix)
        for place, record in records(path, silent):
            if isinstance(record, Fault):
                continue
            seen.update(record)
            value = record.get(by)
            if f"{path.name}:{place}" in wanted and value not in (None, ""):
                values[f"{path.name}:{place}"] = str(value)
    return values


def _arms(results: Results, verdict: Verdict, task: str) -> _Shown:
    """The best arm on the generic model, the recommended one or the best model, and word counts."""
    of_task = next(each for each in verdict.tasks if each.task == task)
    picks = [pick.arm for pick in best_of_each_origin(results, task)]
    sign = 1 if results.task(task).higher_is_better else -1
    means = {arm.name: sign * results.replicates(task).mean(arm.name) for arm in picks}
    before = next((arm.name for arm in picks if arm.origin == Origin.GENERIC), None)
    baselines = [arm.name for arm in results.scored_arms(task) if arm.origin == BASELINE]
    after = of_task.recommended
    if after in baselines and means:
        after = max(means, key=lambda name: means[name])
    if before == after:
        others = {name: mean for name, mean in means.items() if name != before}
        if others:  # the base won: what the best adapted model would have changed
            after = max(others, key=lambda name: others[name])
        else:
            before = None
    control = baselines[0] if baselines and baselines[0] != after else None
    return _Shown(before, after, control)


def _grouped(
    results: Results, verdict: Verdict, task: str, column: str, values: Sequence[str | None]
) -> GroupedTaskRecord:
    shown = _arms(results, verdict, task)
    clusters: Sequence[Hashable] = results.clusters(task) or range(len(values))
    groups = group_items(values, clusters)
    level = 1 - (1 - results.confidence) / max(1, len(groups.inside) - (len(groups.inside) == 2))
    return GroupedTaskRecord(
        task=task,
        title=task_title(results.task(task)),
        higher_is_better=results.task(task).higher_is_better,
        column=column,
        before=shown.before,
        after=shown.after,
        control=shown.control,
        level=level,
        groups=tuple(_group(results, task, shown, name, groups, clusters, level) for name in groups.inside),
        left_out=groups.left_out,
        num_missing=groups.num_missing,
    )


def _group(
    results: Results,
    task: str,
    shown: _Shown,
    name: str,
    groups: ItemGroups,
    clusters: Sequence[Hashable],
    level: float,
) -> GroupRecord:
    metric = results.task(task).metric
    inside_N = groups.inside[name]
    other_N = groups.known & ~inside_N
    tables = {arm: tables_of(results.of(task, arm), metric) for arm in shown.names}
    freedom = gap_freedom(inside_N, other_N, clusters)
    gaps = resample(
        {
            arm: [gap_table(table, inside_N, other_N, clusters) for table in seeds]
            for arm, seeds in tables.items()
        },
        item_freedom=freedom,
    )
    scores = resample(
        {arm: [part_table(table, inside_N, clusters) for table in seeds] for arm, seeds in tables.items()},
        item_freedom=freedom,
    )
    change = None
    if shown.before is not None:
        found = gaps.compare(shown.after, shown.before, margin=0.0, higher_is_better=True, confidence=level)
        change = FigureRecord(mean=found.difference, low=found.low, high=found.high)
    known = METRICS.get(metric)
    least, most = (known.least, known.most) if known else (-np.inf, np.inf)
    return GroupRecord(
        name=name,
        num_items=int(inside_N.sum()),
        num_clusters=len({clusters[place] for place in np.flatnonzero(inside_N).tolist()}),
        arms=tuple(
            GroupScoreRecord(
                arm=arm,
                score=_within(scores.interval(arm, level), least, most),
                gap=_within(gaps.interval(arm, level), least - most, most - least),
            )
            for arm in shown.names
        ),
        change=change,
    )


def _within(interval: Interval, least: float, most: float) -> FigureRecord:
    return FigureRecord(mean=interval.mean, low=max(least, interval.low), high=min(most, interval.high))
