"""Decide per task which arm to take, and whether pretraining on the text is worth it, all arms considered.

On each task the arms that none beats by more than the margin are the contenders (contenders.py: simultaneous
intervals). Among them the one is recommended that the user prefers: the cheapest to own, the best, the
fastest, the one that forgets least, or the simplest. The study asks a question of each task: on a job,
whether pretraining on the domain text beats doing without, and pretraining on
the text of the task's own rows is doing without it; on text, whether a model of one's own beats
keeping on with the base.

    gain        every contender is on the side asked about: it beats the other side by more than the margin
    no gain     every contender is on the other side, or the recommended one is and is shown to be within the
                margin of the best
    enough      both sides have contenders; the recommended one is on the side asked about, and shown to be
                within the margin of the best
    undecided   anything else: more seeds or test items are needed, and how many is said

With the study's confidence the truly best arm is a contender, and an arm called enough lies within the margin
of it; over the labelled tasks together, by Holm's method. Text beside labelled tasks is evidence, judged on
its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.study import contenders
from adaptkit.study.contenders import Field
from adaptkit.study.controls import gains_from_text, missing_controls
from adaptkit.study.power import items_to_settle, seeds_to_settle
from adaptkit.study.preference import Preference
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import Results, is_language, task_title
from adaptkit.study.statistics import Comparison, reverse
from adaptkit.study.task_verdict import Outcome, Power, TaskVerdict, Verdict
from adaptkit.study.verdict_line import verdict_line

OWN_TEXT = "tapt"
"""Origin that is pretrained on the text of a task's own rows."""
ONE_SEED = "one seed cannot tell skill from luck: run at least 3"


def judge(results: Results) -> Verdict:
    """The verdict of every task of a study."""
    jobs = [task for task in results.tasks if not is_language(task)]

    def is_decided(number: int, confidence: float) -> bool:
        return judge_task(results, jobs[number], confidence).decided

    levels = contenders.holm(is_decided, len(jobs), results.confidence)
    confidences = {task.name: level for task, level in zip(jobs, levels, strict=True)}
    tasks = tuple(
        judge_task(results, task, confidences.get(task.name, results.confidence)) for task in results.tasks
    )
    return Verdict(results.primary.name, results.confidence, tasks)


def judge_task(results: Results, task: TaskRecord, confidence: float) -> TaskVerdict:
    """Find the contenders, prefer one, and answer the task's question."""
    arms = {arm.name: arm for arm in results.scored_arms(task.name)}
    margin = absolute_margin(results, task)
    field = contenders.field(
        results.replicates(task.name),
        tuple(arms),
        margin=margin,
        higher_is_better=task.higher_is_better,
        confidence=confidence,
    )
    preference = Preference.of(results, task)
    ordered = sorted(field.contenders, key=lambda name: preference.key(arms[name]))
    enough = sorted(field.enough, key=lambda name: preference.key(arms[name]))
    sides = _Sides(arms, task)
    outcome = _outcome(field, ordered, sides)
    if results.num_seeds == 1 or len(arms) == 1:
        outcome = "undecided"
    recommended = ordered[0]
    if outcome == "gain":
        recommended = _gaining(field, ordered, sides.without)
    rival = _rival(field, recommended, outcome, sides)
    pair = _pair(field, recommended, rival, outcome)
    verdict = TaskVerdict(
        task=task.name,
        ledger="text" if is_language(task) else "jobs",
        metric=task.metric,
        title=task_title(task),
        higher_is_better=task.higher_is_better,
        margin=margin,
        outcome=outcome,
        recommended=recommended,
        preferred_by=preference.describe,
        settled=recommended in field.enough,
        contenders=tuple(ordered),
        best=field.best,
        rival=rival,
        pair=pair,
        safe=enough[0] if enough else None,
        differences=field.seen_from[recommended],
        missing=missing_controls(results, task),
        power=_power(pair, task) if outcome == "undecided" and pair is not None else None,
        confidence=confidence,
        reason=ONE_SEED if results.num_seeds == 1 else "",
        own_text=any(arm.origin == OWN_TEXT for arm in arms.values()),
        margin_share=task.margin if is_language(task) else 0.0,
    )
    return dataclasses.replace(verdict, line=verdict_line(verdict))


def absolute_margin(results: Results, task: TaskRecord) -> float:
    """The margin in the metric's units: on text it is a share of the best arm's score."""
    if not is_language(task):
        return task.margin
    replicates = results.replicates(task.name)
    scores = [replicates.mean(arm.name) for arm in results.scored_arms(task.name)]
    return task.margin * min(scores)


@dataclass(frozen=True)
class _Sides:
    """The arms of a task by the side of its question that they are on."""

    arms: dict[str, ArmRecord]
    task: TaskRecord

    def gains(self, name: str) -> bool:
        return gains_from_text(self.arms[name], self.task)

    @property
    def without(self) -> list[str]:
        return [name for name in self.arms if not self.gains(name)]


def _outcome(field: Field, ordered: Sequence[str], sides: _Sides) -> Outcome:
    gaining = [sides.gains(name) for name in ordered]
    if all(gaining) and sides.without:
        return "gain"
    settled = ordered[0] in field.enough
    if not any(gaining):
        # With nothing on the side asked about, only a settled recommendation is an answer.
        asked = len(sides.without) < len(sides.arms)
        return "no gain" if settled or asked else "undecided"
    if not settled:
        return "undecided"
    return "enough" if gaining[0] else "no gain"


def _gaining(field: Field, ordered: Sequence[str], without: Sequence[str]) -> str:
    """The preferred contender that itself beats every arm of the other side, else the best."""
    return next((name for name in ordered if field.beats(name, without)), field.best)


def _rival(field: Field, recommended: str, outcome: Outcome, sides: _Sides) -> str | None:
    """The arm that the line compares with: of the other side the best, or the one that comes closest to
    beating the recommended one."""
    if outcome == "gain":
        return field.best_of(sides.without)
    others = [name for name in field.arms if name != recommended]
    return max(others, key=lambda name: field.most_worse(recommended, name), default=None)


def _pair(field: Field, recommended: str, rival: str | None, outcome: Outcome) -> Comparison | None:
    if rival is None:
        return None
    pair = field.seen_from[rival][recommended]
    return pair if outcome == "gain" else reverse(pair)


def _power(pair: Comparison, task: TaskRecord) -> Power:
    """What would show that the rival is better by more than the margin, or that it is not."""
    end = pair.margin if task.higher_is_better else -pair.margin
    return Power(seeds_to_settle(pair, end), items_to_settle(pair, end))
