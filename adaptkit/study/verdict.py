"""The verdict: does a pretrained arm beat the best generic one, on each task, beyond the margin and beyond
the placebo?

Either side, the arms whose origin was pretrained (continued, scratch, distilled) and the generic ones, sends
the arm that is best on development data. It meets the other side's best on the *test* data: an opponent
picked so can only make winning harder, and a development split too small to rank arms can cost a win but not
invent one.

P, the pretrained arm sent, wins only if the interval of P - G lies wholly beyond the margin and, where a
placebo arm exists (the base trained on as much *general* text), that of P - placebo does too: else more
training, not the domain text, explains the gain. The generic arm sent wins if the interval lies beyond the
margin the other way. Everything else
is a tie, told of P and the best generic arm, and a tie means: do not pretrain.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from adaptkit.errors import EXIT_TIE, EXIT_WINNER
from adaptkit.study.results import Results, TaskInfo
from adaptkit.study.statistics import Comparison, distance_to_margin, items_too_few, seeds_to_settle

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
        return {"pretrained": self.candidate, "generic": self.generic, "tie": None}[self.outcome]


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


def judge_task(results: Results, task: TaskInfo) -> TaskVerdict:
    """Pick the arms, compare them, decide."""
    arms = {name: results.arm(name).origin for name in results.distinct_arms(task.name)}
    sides = {
        "candidate": [name for name, origin in arms.items() if origin in PRETRAINED],
        "generic": [name for name, origin in arms.items() if origin == "generic"],
        "placebo": [name for name, origin in arms.items() if origin == "placebo"],
    }
    picked_on = (
        "dev"
        if all(results.dev(task.name, name) is not None for side in sides.values() for name in side)
        else "test"
    )
    placebo = _best(results, task, sides["placebo"], picked_on)
    candidate, generic, outcome, reason = _duel(results, task, sides, placebo, picked_on)
    versus_generic = _compare(results, task, candidate, generic, generic)
    versus_placebo = _compare(results, task, candidate, placebo, generic)
    return TaskVerdict(
        task=task.name,
        metric=task.metric,
        title=task.title,
        outcome=outcome,
        candidate=candidate,
        generic=generic,
        placebo=placebo,
        versus_generic=versus_generic,
        versus_placebo=versus_placebo,
        reason=reason,
        seeds_needed=_seeds_needed(outcome, versus_generic, versus_placebo),
        picked_on=picked_on,
    )


def _duel(
    results: Results, task: TaskInfo, sides: dict[str, list[str]], placebo: str | None, picked_on: str
) -> tuple[str | None, str | None, Winner, str]:
    """(pretrained arm, generic arm, outcome, why a tie): what generic arm wins over, else what the pretrained
    one met."""
    sent = {side: _best(results, task, sides[side], picked_on) for side in ("candidate", "generic")}
    hardest = {side: _best(results, task, sides[side], "test") for side in sent}
    met = _compare(results, task, hardest["candidate"], sent["generic"], sent["generic"])
    if met is not None and min(met.num_seeds) > 1 and met.outcome == "loss":
        return hardest["candidate"], sent["generic"], "generic", ""
    candidate, generic = sent["candidate"], hardest["generic"]
    pairs = [_compare(results, task, candidate, name, generic) for name in (generic, placebo)]
    behind = f"it is behind, but development data take {sent['generic']}, not surely ahead of {hardest['candidate']}"
    return candidate, generic, *_decide({"candidate": candidate, "placebo": placebo}, *pairs, behind)


def absolute_margin(results: Results, task: TaskInfo, generic: str | None) -> float:
    """The margin in the metric's units: on language it is a share of the generic arm's score."""
    if task.kind != "language" or generic is None:
        return task.margin
    return task.margin * abs(results.replicates(task.name).mean(generic))


def _best(results: Results, task: TaskInfo, names: list[str], picked_on: str) -> str | None:
    if not names:
        return None
    sign = 1.0 if task.higher_is_better else -1.0

    def quality(name: str) -> float:
        dev = results.dev(task.name, name) if picked_on == "dev" else None
        return sign * (results.replicates(task.name).mean(name) if dev is None else dev)

    return max(names, key=quality)


def _compare(
    results: Results, task: TaskInfo, arm: str | None, against: str | None, generic: str | None
) -> Comparison | None:
    if arm is None or against is None:
        return None
    return results.replicates(task.name).compare(
        arm,
        against,
        margin=absolute_margin(results, task, generic),
        higher_is_better=task.higher_is_better,
        confidence=results.confidence,
    )


def _decide(
    picks: dict[str, str | None], generic: Comparison | None, placebo: Comparison | None, behind: str
) -> tuple[Winner, str]:
    if generic is None:
        missing = "pretrained" if picks["candidate"] is None else "generic"
        return "tie", f"the study has no {missing} arm to compare"
    if min(generic.num_seeds) < 2:
        return "tie", "one seed cannot tell skill from luck: run at least 3"
    if generic.outcome == "loss":
        return "tie", behind
    if generic.outcome == "win":
        if placebo is None or placebo.outcome == "win":
            return "pretrained", ""
        told = f"the placebo may explain it; {picks['placebo']}, trained as long on general text, is not beaten beyond the margin"
        return "tie", f"{told} ({interval_text(placebo)})"
    if generic.equivalent:
        return "tie", "the whole interval lies inside the margin"
    return "tie", _undecided(generic)


def _undecided(comparison: Comparison) -> str:
    seeds = seeds_to_settle(comparison)
    if seeds is not None:
        return f"the interval is too wide to decide; about {seeds} seeds would settle it if the difference stays as it is"
    if distance_to_margin(comparison) < 0.25 * comparison.margin:
        return "the difference sits on the margin; no reasonable number of seeds would settle it"
    if items_too_few(comparison):
        return f"the interval is too wide to decide; more seeds alone will not do: test on more than {comparison.num_items:,} items"
    return "the interval is too wide to decide; seeds differ so much that even 50 would not settle it"


def _seeds_needed(outcome: Winner, generic: Comparison | None, placebo: Comparison | None) -> int | None:
    if outcome != "tie" or generic is None:
        return None
    open_question = placebo if generic.outcome == "win" and placebo is not None else generic
    return None if open_question.equivalent else seeds_to_settle(open_question)


def verdict_line(verdict: TaskVerdict, results: Results) -> str:
    """The one line that a terminal, a log and CI read."""
    pair = verdict.versus_generic
    if pair is None:
        return f"VERDICT: TIE: do not pretrain: {verdict.reason}"
    effort = f"{max(pair.num_seeds)} seed{'s' if max(pair.num_seeds) > 1 else ''}{_flops_each(results)}"
    if verdict.winner:
        loser, told = (
            (verdict.generic, pair) if verdict.outcome == "pretrained" else (verdict.candidate, reverse(pair))
        )
        return (
            f"VERDICT: {verdict.winner} WINS over {loser} on {verdict.title}  {interval_text(told)}, {effort}"
        )
    difference = f"{verdict.candidate} - {verdict.generic} on {verdict.title}  {interval_text(pair)}"
    return f"VERDICT: TIE: do not pretrain: {difference}, margin {number(pair.margin, pair)}, {effort}: {verdict.reason}"


def _flops_each(results: Results) -> str:
    flops = results.study.get("budget", {}).get("flops_per_seed")
    return f", {flops_text(flops)} FLOPs each" if flops else ""


def flops_text(flops: float) -> str:
    """`3.1e14`."""
    return f"{flops:.1e}".replace("e+", "e").replace("e0", "e") if flops else "0"


def interval_text(comparison: Comparison) -> str:
    """`-0.031 [-0.044, -0.018]`."""
    difference, low, high = (
        number(v, comparison, "+") for v in (comparison.difference, comparison.low, comparison.high)
    )
    return f"{difference} [{low}, {high}]"


def number(value: float, comparison: Comparison, sign: str = "") -> str:
    """Three decimals, four where the interval is narrower than a hundredth."""
    return f"{value:{sign}.{4 if comparison.high - comparison.low < 0.01 else 3}f}"


def reverse(comparison: Comparison) -> Comparison:
    """The same comparison told from the other arm's side."""
    opposite = {"win": "loss", "loss": "win", "tie": "tie"}[comparison.outcome]
    return dataclasses.replace(
        comparison,
        difference=-comparison.difference,
        low=-comparison.high,
        high=-comparison.low,
        outcome=opposite,
        seed_variances=comparison.seed_variances[::-1],
        num_seeds=comparison.num_seeds[::-1],
    )
