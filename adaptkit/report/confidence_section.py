"""The section on confidence: what a classifier's probabilities are worth, and what people should decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.audit.confidence import DEV, HALVES, ArmConfidence, Handed, audit_confidence
from adaptkit.report.charts import Figure
from adaptkit.report.charts_confidence import answered_curves
from adaptkit.report.figures import best_of_each_origin
from adaptkit.report.svg import chip
from adaptkit.report.tables import has_columns
from adaptkit.study.results import BASELINE, Results
from adaptkit.study.statistics import Interval
from adaptkit.study.task_verdict import Verdict

COLUMNS = ("temperature", "confidence minus accuracy", "after scaling", "all items right")
LONG_WAY = 0.05
"""Of a share that was aimed at: test items are handed over this much more or less often than meant."""


@dataclass(frozen=True)
class ConfidenceRow:
    """One arm: its cells in words, in the order of the section's columns."""

    arm: str
    chip: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ConfidenceSection:
    """One task.

    Attributes:
        lead: what handing over gains with the arm that is recommended, or is best.
        notes: what these figures can and cannot say.
    """

    task: str
    lead: str
    columns: tuple[str, ...]
    rows: tuple[ConfidenceRow, ...]
    figure: Figure
    notes: tuple[str, ...]
    audits: tuple[ArmConfidence, ...]


def confidence_sections(
    results: Results, verdict: Verdict, *, accuracy: float | None = None
) -> list[ConfidenceSection]:
    """A section for each task whose answers are one label with probabilities.

    The best arm of each origin, the recommended arm, and word counts.
    """
    sections = []
    for of_task in verdict.tasks:
        task = results.task(of_task.task)
        if not results.scored_arms(task.name) or not has_columns(results, task, "ece"):
            continue
        names = {pick.arm.name for pick in best_of_each_origin(results, task.name)}
        names |= {arm.name for arm in results.scored_arms(task.name) if arm.origin == BASELINE}
        names.add(of_task.recommended)
        audits = audit_confidence(results, task.name, accuracy=accuracy, arms=sorted(names))
        if audits:
            best = max(audits, key=lambda audit: audit.accuracy.mean)
            shown = next((audit for audit in audits if audit.arm == of_task.recommended), best)
            sections.append(_section(results, task.name, audits, shown))
    return sections


def _section(
    results: Results, task: str, audits: Sequence[ArmConfidence], shown: ArmConfidence
) -> ConfidenceSection:
    arms = {arm.name: arm for arm in results.arms}
    rows = [
        ConfidenceRow(
            audit.arm, chip(arms[audit.arm].origin, arms[audit.arm].adaptation or ""), confidence_cells(audit)
        )
        for audit in audits
    ]
    return ConfidenceSection(
        task=task,
        lead=lead(shown),
        columns=confidence_columns(shown),
        rows=tuple(rows),
        figure=answered_curves(task, audits, arms, shown.arm),
        notes=tuple(notes(shown)),
        audits=tuple(audits),
    )


def confidence_columns(audit: ArmConfidence) -> tuple[str, ...]:
    """Headings of the table, the arm's name left out."""
    steps = (f"right, without the {100 * (step.aimed or 0):.0f} % most doubtful" for step in audit.handed)
    return (*COLUMNS, *steps)


def confidence_cells(audit: ArmConfidence) -> tuple[str, ...]:
    """The cells of an arm, in the order of the columns."""
    return (
        f"{audit.temperature:.2f}",
        _signed(audit.excess_before),
        _signed(audit.excess_after),
        _shares(audit.accuracy),
        *(_shares(step.accuracy) for step in audit.handed),
    )


def lead(audit: ArmConfidence) -> str:
    """`Hand 12 % of the items to people, and 97 % of the rest are right`, with both intervals."""
    wanted = audit.wanted
    if wanted is None:
        reached = f"No threshold makes {_percent(audit.wanted_accuracy)} of {audit.arm}'s answers right"
        return f"{reached} on {audit.fitted_on}; of all items {_shares(audit.accuracy)} are right."
    if wanted.share.mean == 0:
        return f"{audit.arm} may answer every item: {_shares(audit.accuracy)} are right, which was wanted."
    handed = f"Hand {_shares(wanted.share)} of the items to people, and of the rest {audit.arm} gets"
    aim = f"{_percent(audit.wanted_accuracy)} was aimed at; of all items {_shares(audit.accuracy)} are right"
    return f"{handed} {_shares(wanted.accuracy)} right ({aim})."


def notes(audit: ArmConfidence) -> list[str]:
    """What the figures of an arm can and cannot say."""
    where = f"{audit.num_fitted:,} {DEV}, and judged on {audit.num_items:,} test items"
    if audit.fitted_on == HALVES:
        where = f"each half of the {audit.num_items:,} test items, and judged on the other half"
    sentences = [f"Temperature and thresholds were fitted on {where}."]
    if audit.fitted_on == HALVES:
        sentences.append("The runs kept no answers to development items, so an export of them has none.")
    if _gain_not_shown(audit):
        sentences.append(
            f"That handing over by the confidence of {audit.arm} gains more than handing over at random is "
            "not shown: the interval of the gain holds 0."
        )
    missed = [step for step in audit.handed if abs(step.share.mean - (step.aimed or 0)) > LONG_WAY]
    if missed:
        step = missed[0]
        meant = f"A threshold for {100 * (step.aimed or 0):.0f} % handed over {_shares(step.share)}"
        sentences.append(
            f"{meant} of the test items: the test is easier or harder than what it was set on, or both are "
            "small."
        )
    if audit.excess_after.low > 0:
        sentences.append(f"After scaling {audit.arm} is still too sure on the test items.")
    sentences.append(
        "This holds for items like those of the test. Where texts change, measure again: confidence says "
        "nothing of texts unlike all that was learnt from, and nothing about which errors are dear."
    )
    return sentences


def _gain_not_shown(audit: ArmConfidence) -> bool:
    steps: list[Handed] = [audit.wanted] if audit.wanted is not None else [*audit.handed]
    return all(step.gain.low <= 0 for step in steps)


def _shares(interval: Interval) -> str:
    ends = f"{100 * interval.low:.1f}, {100 * interval.high:.1f}"
    return f"{_percent(interval.mean)} [{ends}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
