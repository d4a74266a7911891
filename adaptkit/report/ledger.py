"""What a study spent beside what it was granted, which arms it left out, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.report.prose import duration
from adaptkit.study.account_record import SpendRecord
from adaptkit.study.results import Results
from adaptkit.study.verdict_line import flops_text

CLOSE = 1.5
"""A prediction within this factor of what it took is called close."""


@dataclass(frozen=True)
class SpendRow:
    """One arm on one task: FLOPs granted and spent per seed, and why some stayed unspent."""

    arm: str
    task: str
    granted: str
    spent: str
    share: str
    reason: str


def spend_rows(results: Results) -> list[SpendRow]:
    """Every arm on every task that it was granted a budget for."""
    return [_spend_row(spend) for spend in results.record.spends]


def _spend_row(spend: SpendRecord) -> SpendRow:
    return SpendRow(
        arm=spend.arm,
        task=spend.task,
        granted=flops_text(spend.granted),
        spent=flops_text(spend.spent) if spend.spent else "none",
        share=f"{spend.spent / spend.granted:.0%}" if spend.granted else "",
        reason=spend.reason,
    )


def left_out_sentences(results: Results) -> list[str]:
    """Arms that could not run, with the reason, and those that the user took out."""
    sentences = []
    for record in results.record.left_out:
        where = f" on {record.task}" if record.task else ""
        sentences.append(f"{record.arm}{where} did not run: {record.reason}.")
    if results.record.without:
        sentences.append(f"Taken out by name: {', '.join(results.record.without)}.")
    return sentences


def time_sentence(results: Results) -> str:
    """How long the study took beside the prediction; empty where that was not kept."""
    plan = results.record.plan
    if plan is None or not plan.predicted_seconds or not plan.taken_seconds:
        return ""
    ratio = plan.taken_seconds / plan.predicted_seconds
    judged = "close to"
    if not 1 / CLOSE <= ratio <= CLOSE:
        judged = f"{ratio:.1f} times" if ratio > 1 else f"{ratio:.0%} of"
    taken, predicted = duration(plan.taken_seconds), duration(plan.predicted_seconds)
    return f"It took {taken}, {judged} the {predicted} that were predicted."
