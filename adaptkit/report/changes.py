"""Set two finished studies side by side: what changed in data, arms, budget and answer.

changes = compare_studies("runs/tickets-1a2b3c4d", "runs/tickets-5e6f7a8b")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adaptkit.report.prose import outcome_text
from adaptkit.study.forecast import size_text
from adaptkit.study.record import StudyRecord, TaskRecord
from adaptkit.study.results import Results, collect, tables_of, task_title
from adaptkit.study.scores import METRICS
from adaptkit.study.statistics import Comparison, resample
from adaptkit.study.task_verdict import TaskVerdict, Verdict
from adaptkit.study.verdict import judge
from adaptkit.study.verdict_line import flops_text, interval_text

Part = Literal["data", "arms", "budget", "scores", "answer"]
NONE = "-"
GAINED = {"win": "better", "loss": "worse", "tie": "no difference is shown"}


@dataclass(frozen=True)
class Change:
    """One thing of two studies.

    Attributes:
        part: what it belongs to.
        what: is compared.
        before, after: its value in the first and in the second study, as text.
    """

    part: Part
    what: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True)
class Gain:
    """What an arm scores in the second study minus what it scores in the first, item by item of one test.

    Attributes:
        metric: with the task, in words.
        pair: its paired interval over seeds and items, at the study's confidence for this arm alone.
    """

    task: str
    arm: str
    metric: str
    pair: Comparison

    @property
    def sentence(self) -> str:
        changed = f"{self.arm}: {self.metric} changed by {interval_text(self.pair)}"
        return f"{changed} on the same {self.pair.num_items:,} items: {GAINED[self.pair.outcome]}"


@dataclass(frozen=True)
class SideBySide:
    """Two studies and everything that was compared of them, the unchanged as well.

    Attributes:
        gains: of arms and tasks that both studies scored on the same items.
    """

    before: str
    after: str
    lines: tuple[str, str]
    changes: tuple[Change, ...]
    gains: tuple[Gain, ...] = ()

    @property
    def changed(self) -> list[Change]:
        return [change for change in self.changes if change.changed]


def compare_studies(before: str | Path, after: str | Path) -> SideBySide:
    """Read both studies and compare them.

    Raises: DataError that names the study, run or file which is missing.
    """
    first, second = collect(before), collect(after)
    verdicts = judge(first), judge(second)
    changes = (
        *_data(first.record, second.record),
        *_arms(first.record, second.record),
        *_budget(first.record, second.record),
        *_scores(first, second),
        *_answers(*verdicts),
    )
    lines = verdicts[0].line, verdicts[1].line
    gains = tuple(_gains(first, second))
    return SideBySide(first.path.name, second.path.name, lines, tuple(changes), gains)


def _data(before: StudyRecord, after: StudyRecord) -> Iterator[Change]:
    names = _union(before.data.corpora, after.data.corpora)
    for name in names:
        for part in ("train", "test"):
            yield Change("data", f"{name}, {part}", _split(before, name, part), _split(after, name, part))


def _split(record: StudyRecord, name: str, part: str) -> str:
    corpus = record.data.corpora.get(name)
    if corpus is None:
        return NONE
    split = corpus.train if part == "train" else corpus.test
    return f"{split.documents:,} rows, {size_text(split.num_bytes)}, sha256 {split.digest[:8]}"


def _arms(before: StudyRecord, after: StudyRecord) -> Iterator[Change]:
    ran = [{arm.name for arm in record.arms} for record in (before, after)]
    for name in _union([arm.name for arm in before.arms], [arm.name for arm in after.arms]):
        before_text, after_text = ("ran" if name in names else NONE for names in ran)
        yield Change("arms", name, before_text, after_text)


def _budget(before: StudyRecord, after: StudyRecord) -> Iterator[Change]:
    facts: dict[str, Callable[[StudyRecord], str]] = {
        "FLOPs per task and seed": lambda record: flops_text(record.budget.flops_per_seed),
        "trials": lambda record: str(record.budget.trials),
        "share of the budget for a task": lambda record: f"{record.budget.task_share:.0%}",
        "seeds": lambda record: str(len(record.seeds)),
        "amounts of text": lambda record: ", ".join(f"{share:g}" for share in record.shares),
        "generic model": lambda record: record.base.model,
        "task that decides": lambda record: record.primary,
        "preference": lambda record: record.decision.prefer,
    }
    for what, fact in facts.items():
        yield Change("budget", what, fact(before), fact(after))


def _scores(before: Results, after: Results) -> Iterator[Change]:
    """Scores of arms that both studies ran on a task of the same name and metric."""
    for task, arm in _scored_by_both(before, after):
        first, second = (_score(results, task.name, arm) for results in (before, after))
        yield Change("scores", f"{arm}: {task_title(task)}", first, second)


def _scored_by_both(before: Results, after: Results) -> Iterator[tuple[TaskRecord, str]]:
    for task in before.tasks:
        if (task.name, task.metric) in [(other.name, other.metric) for other in after.tasks]:
            arms = {arm.name for arm in after.scored_arms(task.name)}
            yield from ((task, arm.name) for arm in before.scored_arms(task.name) if arm.name in arms)


def _gains(before: Results, after: Results) -> Iterator[Gain]:
    """Paired differences, where both studies judged on the same items."""
    for task, arm in _scored_by_both(before, after):
        cells = before.of(task.name, arm), after.of(task.name, arm)
        ids = [[row["id"] for row in each[0].rows] for each in cells]
        if ids[0] != ids[1]:
            continue
        tables = {
            which: tables_of(each, task.metric)
            for which, each in zip(("before", "after"), cells, strict=True)
        }
        pair = resample(tables, before.clusters(task.name)).compare(
            "after",
            "before",
            margin=0.0,
            higher_is_better=METRICS[task.metric].higher_is_better,
            confidence=before.confidence,
        )
        yield Gain(task.name, arm, task_title(task), pair)


def _score(results: Results, task: str, arm: str) -> str:
    interval = results.interval(task, arm)
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _answers(before: Verdict, after: Verdict) -> Iterator[Change]:
    for name in _union([task.task for task in before.tasks], [task.task for task in after.tasks]):
        first, second = _answer(before, name), _answer(after, name)
        for what, fact in ANSWERS.items():
            texts = [NONE if verdict is None else fact(verdict) for verdict in (first, second)]
            yield Change("answer", f"{name}: {what}", texts[0], texts[1])


def _answer(verdict: Verdict, task: str) -> TaskVerdict | None:
    return next((answer for answer in verdict.tasks if answer.task == task), None)


ANSWERS: dict[str, Callable[[TaskVerdict], str]] = {
    "answer": outcome_text,
    "recommended": lambda verdict: verdict.recommended,
    "contenders": lambda verdict: ", ".join(verdict.contenders),
    "margin": lambda verdict: f"{verdict.margin:.3f}",
}
"""What is compared of two answers to the same task."""


def _union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Names of both, each once, in order."""
    return list(dict.fromkeys([*first, *second]))
