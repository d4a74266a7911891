"""Say the answer for a board: what was found, how sure it is and what it takes, without names of arms."""

from __future__ import annotations

from adaptkit.report.prose import duration, in_plain_words, memory_text
from adaptkit.report.tables import milliseconds
from adaptkit.study.front import front
from adaptkit.study.results import Results
from adaptkit.study.task_verdict import TaskVerdict, Verdict
from adaptkit.study.verdict_line import what_settles

MOST_NAMED = 3
"""Ways that are named one by one; further ones are counted."""


def finding(verdict: Verdict, results: Results) -> str:
    """What was measured, and what the two ways in question reached."""
    main, scores = verdict.main, results.replicates(verdict.main.task)

    def reached(name: str) -> str:
        return f"{in_plain_words(results.arm(name))} {scores.mean(name):.3f}"

    better = "higher" if main.higher_is_better else "lower"
    text = f"Measured by {main.title} ({better} is better): {reached(main.recommended)}"
    if main.rival is None:
        return f"{text}. Nothing else was tried."
    return f"{text}; {reached(main.rival)}. {_difference(main)}{_others(main, results)}"


def _difference(main: TaskVerdict) -> str:
    if len(main.contenders) == 1:
        return "All else that was tried is behind by more than the smallest difference worth acting on."
    if not main.settled:
        return "The study cannot tell which of the two is better."
    if main.outcome == "gain":
        return "That difference is more than luck explains, and large enough to act on."
    gained = 0.0 if main.pair is None else main.pair.difference * (1 if main.higher_is_better else -1)
    if gained < 0:
        return "The second did worse here, and luck hides no advantage that is large enough to act on."
    return "The second is not better by enough to act on."


def _others(main: TaskVerdict, results: Results) -> str:
    """Ways that may be as good as those two."""
    names = [name for name in main.contenders if name not in (main.recommended, main.rival)]
    if not names:
        return ""
    words = [in_plain_words(results.arm(name)) for name in names]
    listed = "; ".join(words[:MOST_NAMED])
    if len(words) > MOST_NAMED:
        listed += f"; and {len(words) - MOST_NAMED} more"
    return f" May be as good: {listed}."


def sureness(verdict: Verdict, results: Results) -> str:
    """How sure the answer is, and what it rests on."""
    main = verdict.main
    if main.pair is None:
        return "Not sure at all: there is nothing to compare with."
    tried = f"all were tried on {main.pair.num_items:,} test items."
    if results.num_seeds < 2:
        return f"Not sure: one training of each model cannot show how much of a score is luck; {tried}"
    basis = f"Each model was trained {results.num_seeds} times; {tried}"
    if not main.decided:
        reason = what_settles(main)
        return f"Not sure enough: {reason}. {basis}"
    level = f"{verdict.confidence:.0%}"
    if len(main.contenders) == 1:
        return f"Sure: with {level} confidence this is the best of all that was tried. {basis}"
    claim = f"the best of all that was tried is one of these {len(main.contenders)} ways"
    return f"Sure of this much: with {level} confidence {claim}. {basis}"


def effort(verdict: Verdict, results: Results) -> str:
    """What the recommended way takes: to train, and to run."""
    main = verdict.main
    cost = results.cost(main.task, main.recommended)
    text = "Nothing to train."
    if cost.seconds:
        time = f"About {duration(cost.seconds)}" if cost.seconds >= 1 else "Less than a second"
        text = f"{time} of training on this study's machine, trials included."
    rows = front(results, results.task(main.task))
    owned = next(row.owned for row in rows if row.arm.name == main.recommended)
    parts = []
    if owned.latency_s is not None:
        parts.append(f"{milliseconds(owned.latency_s)} for an answer")
    if owned.memory_bytes is not None:
        parts.append(f"{memory_text(owned.memory_bytes)} of memory")
    if owned.usd_per_1k is not None:
        parts.append(f"${owned.usd_per_1k:.2g} for 1,000 answers")
    return f"{text} To run: {', '.join(parts)}." if parts else text
