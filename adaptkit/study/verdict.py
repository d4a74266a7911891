"""Decide per task whether a pretrained arm beats the best generic one, beyond the margin and the placebo.

Either side, the arms whose origin was pretrained (continued, scratch, distilled) and the generic ones, sends
the arm that is best on development data. It meets the other side's best on the *test* data: an opponent
picked so can only make winning harder, and a development split too small to rank arms can cost a win but not
invent one.

P, the pretrained arm sent, wins only if the interval of P - G lies wholly beyond the margin and, where a
placebo arm exists (the base trained on as much *general* text), that of P - placebo does too: else more
training, not the domain text, explains the gain. The generic arm sent wins if the interval lies beyond the
margin the other way. Everything else is a tie between P and the best generic arm, and a tie means: do not
pretrain.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from adaptkit.errors import EXIT_TIE, EXIT_WINNER
from adaptkit.study.power import distance_to_margin, items_too_few, seeds_to_settle
from adaptkit.study.record import TaskRecord
from adaptkit.study.results import Results, is_language, task_title
from adaptkit.study.statistics import Comparison, reverse

PRETRAINED = ("continued", "scratch", "distilled")
Winner = Literal["pretrained", "generic", "tie"]


@dataclass(frozen=True)
class TaskVerdict:
    """The answer for one task.

    Attributes:
        outcome: which side won, or tie.
        candidate, generic, placebo: the arms compared; None where the study has none.
        versus_generic, versus_placebo: candidate minus that arm.
        reason: why it is a tie, one clause; empty for a win.
        seeds_needed: seeds per arm that would settle an undecided tie at the variances seen; None if no
            number up to 50 would.
        picked_on: where the arms that may win are from: `dev`, or `test` where runs recorded no development
            score (optimistic).
    """

    task: str
    metric: str
    title: str
    outcome: Winner
    candidate: str | None
    generic: str | None
    placebo: str | None
    versus_generic: Comparison | None
    versus_placebo: Comparison | None
    reason: str
    seeds_needed: int | None
    picked_on: str

    @property
    def winner(self) -> str | None:
        """The arm that won; None for a tie."""
        return {"pretrained": self.candidate, "generic": self.generic, "tie": None}[self.outcome]

    @property
    def loser(self) -> str | None:
        """The arm that the winner beat; None for a tie."""
        return {"pretrained": self.generic, "generic": self.candidate, "tie": None}[self.outcome]

    @property
    def from_winners_side(self) -> Comparison | None:
        """Winner minus loser; for a tie candidate minus generic."""
        if self.versus_generic is not None and self.outcome == "generic":
            return reverse(self.versus_generic)
        return self.versus_generic


@dataclass(frozen=True)
class Verdict:
    """All tasks' answers; the primary one decides the line and the exit code."""

    line: str
    exit_code: int
    winner: str | None
    primary: str
    confidence: float
    tasks: tuple[TaskVerdict, ...]

    @property
    def main(self) -> TaskVerdict:
        return next(task for task in self.tasks if task.task == self.primary)

    def as_json(self) -> dict[str, Any]:
        """verdict.json."""
        return dataclasses.asdict(self)


def judge(results: Results) -> Verdict:
    """The verdict of every task of a study."""
    tasks = tuple(judge_task(results, task) for task in results.tasks)
    main = next(task for task in tasks if task.task == results.primary.name)
    return Verdict(
        line=verdict_line(main, results),
        exit_code=EXIT_WINNER if main.winner else EXIT_TIE,
        winner=main.winner,
        primary=main.task,
        confidence=results.confidence,
        tasks=tasks,
    )


def judge_task(results: Results, task: TaskRecord) -> TaskVerdict:
    """Pick the arms, compare them, decide."""
    sides = _sides(results, task)
    placebo = _best(results, task, sides.placebo, sides.picked_on)
    duel = _duel(results, task, sides, placebo)
    versus_generic = _compare(results, task, duel.candidate, duel.generic, duel.generic)
    versus_placebo = _compare(results, task, duel.candidate, placebo, duel.generic)
    return TaskVerdict(
        task=task.name,
        metric=task.metric,
        title=task_title(task),
        outcome=duel.outcome,
        candidate=duel.candidate,
        generic=duel.generic,
        placebo=placebo,
        versus_generic=versus_generic,
        versus_placebo=versus_placebo,
        reason=duel.reason,
        seeds_needed=_seeds_needed(duel.outcome, versus_generic, versus_placebo),
        picked_on=sides.picked_on,
    )


@dataclass(frozen=True)
class _Sides:
    """The distinct arms of a task by side, and the data by which each side picks its best."""

    pretrained: list[str]
    generic: list[str]
    placebo: list[str]
    picked_on: str


@dataclass(frozen=True)
class _Duel:
    """Which two arms met, and how it ended."""

    candidate: str | None
    generic: str | None
    outcome: Winner
    reason: str = ""


def _sides(results: Results, task: TaskRecord) -> _Sides:
    origins = {name: results.arm(name).origin for name in results.distinct_arms(task.name)}
    pretrained = [name for name, origin in origins.items() if origin in PRETRAINED]
    generic = [name for name, origin in origins.items() if origin == "generic"]
    placebo = [name for name, origin in origins.items() if origin == "placebo"]
    names = [*pretrained, *generic, *placebo]
    all_have_dev = all(results.dev(task.name, name) is not None for name in names)
    return _Sides(pretrained, generic, placebo, "dev" if all_have_dev else "test")


def _duel(results: Results, task: TaskRecord, sides: _Sides, placebo: str | None) -> _Duel:
    """See first whether the generic arm wins, then whether the pretrained one does.

    Either side sends its best on development data against the other side's best on test data.
    """
    candidate = _best(results, task, sides.pretrained, sides.picked_on)
    hardest_pretrained = _best(results, task, sides.pretrained, "test")
    generic = _best(results, task, sides.generic, sides.picked_on)
    hardest_generic = _best(results, task, sides.generic, "test")
    met = _compare(results, task, hardest_pretrained, generic, generic)
    if met is not None and min(met.num_seeds) > 1 and met.outcome == "loss":
        return _Duel(hardest_pretrained, generic, "generic")
    pair = _compare(results, task, candidate, hardest_generic, hardest_generic)
    if pair is None:
        missing = "pretrained" if candidate is None else "generic"
        return _Duel(candidate, hardest_generic, "tie", f"the study has no {missing} arm to compare")
    if pair.outcome == "loss" and min(pair.num_seeds) > 1:
        taken = f"development data take {generic}, not surely ahead of {hardest_pretrained}"
        return _Duel(candidate, hardest_generic, "tie", f"it is behind, but {taken}")
    versus_placebo = _compare(results, task, candidate, placebo, hardest_generic)
    reason = _why_no_win(pair, versus_placebo, placebo)
    return _Duel(candidate, hardest_generic, "tie" if reason else "pretrained", reason)


def absolute_margin(results: Results, task: TaskRecord, generic: str | None) -> float:
    """The margin in the metric's units: on language it is a share of the generic arm's score."""
    if not is_language(task) or generic is None:
        return task.margin
    return task.margin * abs(results.replicates(task.name).mean(generic))


def _best(results: Results, task: TaskRecord, names: list[str], picked_on: str) -> str | None:
    if not names:
        return None
    sign = 1.0 if task.higher_is_better else -1.0

    def quality(name: str) -> float:
        dev = results.dev(task.name, name) if picked_on == "dev" else None
        return sign * (results.replicates(task.name).mean(name) if dev is None else dev)

    return max(names, key=quality)


def _compare(
    results: Results, task: TaskRecord, arm: str | None, against: str | None, generic: str | None
) -> Comparison | None:
    """`arm` minus `against` with the margin taken from `generic`; None where one of the two is missing."""
    if arm is None or against is None:
        return None
    return results.replicates(task.name).compare(
        arm,
        against,
        margin=absolute_margin(results, task, generic),
        higher_is_better=task.higher_is_better,
        confidence=results.confidence,
    )


def _why_no_win(generic: Comparison, placebo: Comparison | None, placebo_arm: str | None) -> str:
    """Why a pretrained arm that is not behind does not win, one clause; empty if it wins."""
    if min(generic.num_seeds) < 2:
        return "one seed cannot tell skill from luck: run at least 3"
    if generic.outcome == "win":
        if placebo is None or placebo.outcome == "win":
            return ""
        trained = f"{placebo_arm}, trained as long on general text, is not beaten beyond the margin"
        return f"the placebo may explain it; {trained} ({interval_text(placebo)})"
    if generic.equivalent:
        return "the whole interval lies inside the margin"
    return _undecided(generic)


def _undecided(comparison: Comparison) -> str:
    seeds = seeds_to_settle(comparison)
    if seeds is not None:
        settled = f"about {seeds} seeds would settle it if the difference stays as it is"
        return f"the interval is too wide to decide; {settled}"
    if distance_to_margin(comparison) < 0.25 * comparison.margin:
        return "the difference sits on the margin; no reasonable number of seeds would settle it"
    if items_too_few(comparison):
        items = f"more seeds alone will not do: test on more than {comparison.num_items:,} items"
        return f"the interval is too wide to decide; {items}"
    return "the interval is too wide to decide; seeds differ so much that even 50 would not settle it"


def _seeds_needed(outcome: Winner, generic: Comparison | None, placebo: Comparison | None) -> int | None:
    if outcome != "tie" or generic is None:
        return None
    open_question = placebo if generic.outcome == "win" and placebo is not None else generic
    return None if open_question.equivalent else seeds_to_settle(open_question)


def verdict_line(verdict: TaskVerdict, results: Results) -> str:
    """The one line that a terminal, a log and CI read."""
    pair = verdict.from_winners_side
    if pair is None:
        return f"VERDICT: TIE: do not pretrain: {verdict.reason}"
    seeds, flops = max(pair.num_seeds), results.record.budget.flops_per_seed
    effort = f"{seeds} seed{'s' if seeds > 1 else ''}"
    if flops:
        effort += f", {flops_text(flops)} FLOPs each"
    numbers = f"on {verdict.title}  {interval_text(pair)}"
    if verdict.winner:
        return f"VERDICT: {verdict.winner} WINS over {verdict.loser} {numbers}, {effort}"
    difference = f"{verdict.candidate} - {verdict.generic} {numbers}, margin {number(pair.margin, pair)}"
    return f"VERDICT: TIE: do not pretrain: {difference}, {effort}: {verdict.reason}"


def flops_text(flops: float) -> str:
    """`3.1e14`."""
    return f"{flops:.1e}".replace("e+", "e").replace("e0", "e") if flops else "0"


def interval_text(comparison: Comparison) -> str:
    """`-0.031 [-0.044, -0.018]`."""
    difference = number(comparison.difference, comparison, "+")
    low, high = number(comparison.low, comparison, "+"), number(comparison.high, comparison, "+")
    return f"{difference} [{low}, {high}]"


def number(value: float, comparison: Comparison, sign: str = "") -> str:
    """Three decimals, four where the interval is narrower than a hundredth."""
    return f"{value:{sign}.{4 if comparison.high - comparison.low < 0.01 else 3}f}"
