"""The one line that a terminal, a log and CI read, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.study.controls import Control
from adaptkit.study.statistics import Comparison
from adaptkit.study.task_verdict import TaskVerdict

PLACEBO = "placebo"
NOTHING_SETTLES = "neither 50 seeds nor 100,000 test items alone would settle it"


def verdict_line(verdict: TaskVerdict) -> str:
    """`VERDICT: tfidf is enough on queue: no arm is better by 0.010 (closest continued+full -0.04 [...])`."""
    sentences = {"gain": _gain, "no gain": _enough, "enough": _enough, "undecided": _undecided}
    return f"VERDICT: {sentences[verdict.outcome](verdict)}{_missing(verdict)}"


def place(verdict: TaskVerdict) -> str:
    """`queue`, or `bits per byte` for text."""
    return verdict.title if verdict.ledger == "text" else verdict.task


def _gain(verdict: TaskVerdict) -> str:
    assert verdict.pair is not None
    over = "the best without domain text" if verdict.own_text else "the best without pretraining"
    if verdict.ledger == "text":
        over = "keeping on with the base"
    line = f"{verdict.recommended} on {place(verdict)}: {interval_text(verdict.pair)} over {over}"
    line += f" ({verdict.rival})"
    if not any(control.name.startswith(PLACEBO) for control in verdict.missing):
        line += _over_placebo(verdict)
    others = [name for name in verdict.contenders if name != verdict.recommended]
    if others and not verdict.settled:
        line += f"; not told apart from {_listed(others)}"
    return line


def _over_placebo(verdict: TaskVerdict) -> str:
    """Said only where the recommended arm itself beats the placebo: another contender may have."""
    placebo = PLACEBO
    if verdict.ledger == "jobs":
        placebo = f"{PLACEBO}+full"
    pair = verdict.differences.get(placebo)
    if pair is not None and pair.outcome != "loss":
        return ""
    return f", also over {placebo}"


def _enough(verdict: TaskVerdict) -> str:
    where = place(verdict)
    if verdict.pair is None:
        return f"{verdict.recommended} on {where}: the only arm"
    if verdict.settled:
        line = f"{verdict.recommended} is enough on {where}: no arm is better by {margin_text(verdict)}"
        return f"{line} (closest {verdict.rival} {interval_text(verdict.pair)})"
    side = "no model of one's own"
    if verdict.ledger == "jobs":
        side = "no domain text" if verdict.own_text else "no pretraining"
    between = f"{verdict.recommended} and {verdict.rival} ({interval_text(verdict.pair)})"
    return f"{side} on {where}: every arm with it is behind; not told apart: {between}"


def _undecided(verdict: TaskVerdict) -> str:
    where = place(verdict)
    if verdict.pair is None:
        return f"undecided on {where}: {verdict.recommended} is the only arm"
    between = f"{verdict.recommended} and {verdict.rival} ({interval_text(verdict.pair)})"
    return f"undecided on {where} between {between}: {what_settles(verdict)}"


def what_settles(verdict: TaskVerdict) -> str:
    """`about 7 seeds or 900 test items would settle it`."""
    if verdict.reason:
        return verdict.reason
    power = verdict.power
    if power is None or (power.seeds is None and power.items is None):
        return NOTHING_SETTLES
    ways = []
    if power.seeds is not None:
        ways.append(f"{power.seeds} seeds")
    if power.items is not None:
        ways.append(f"{power.items:,} test items")
    return f"about {' or '.join(ways)} would settle it"


def _missing(verdict: TaskVerdict) -> str:
    """What a decided line cannot exclude, because the arm that would tell did not run."""
    if not verdict.missing or not verdict.decided:
        return ""
    return f"; not tried: {_listed([control.name for control in verdict.missing])}"


def exclusions(missing: Sequence[Control]) -> list[str]:
    """`Without placebo+full the study cannot exclude that ...`, a sentence for each missing control."""
    return [f"Without {control.name} the study cannot exclude {control.excludes}." for control in missing]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def margin_text(verdict: TaskVerdict) -> str:
    """The margin in the metric's units, three decimals."""
    return f"{verdict.margin:.3f}"


def flops_text(flops: float) -> str:
    """`3.1e14`."""
    return f"{flops:.1e}".replace("e+", "e").replace("e0", "e") if flops else "0"


def interval_text(comparison: Comparison) -> str:
    """`-0.031 [-0.044, -0.018]`."""
    difference = number(comparison.difference, comparison, "+")
    low, high = number(comparison.low, comparison, "+"), number(comparison.high, comparison, "+")
    return f"{difference} [{low}, {high}]"


def number(value: float, comparison: Comparison, sign: str = "") -> str:
    """Three decimals, four where the interval is narrower than a hundredth; nothing has no minus."""
    decimals = 4 if comparison.high - comparison.low < 0.01 else 3
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"
