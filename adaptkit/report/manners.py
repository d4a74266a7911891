"""What an instruct base kept of its manners: replies that end their turn, and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.study.results import ItemRow, Results

UNTOUCHED = "generic"
"""The arm of the text ledger that is the base as it is."""
HABITS = {"format": "replies that end their turn", "refusal": "harmful requests refused"}


@dataclass(frozen=True)
class Manners:
    """One arm's shares, mean over seeds.

    Attributes:
        shares: habit -> share of replies that keep it.
        falls: habits whose share lies below that of the untouched base.
    """

    arm: str
    shares: dict[str, float]
    falls: tuple[str, ...]


def manners(results: Results) -> list[Manners]:
    """Every arm of the text ledger; empty for a base without a chat format."""
    shares = {arm: _shares(seeds) for arm, seeds in results.habits.items()}
    before = shares.get(UNTOUCHED, {})
    return [
        Manners(arm, kept, tuple(habit for habit in HABITS if kept[habit] < before.get(habit, 0.0)))
        for arm, kept in shares.items()
    ]


def lost_manners(results: Results) -> list[str]:
    """A sentence for each habit that training on text took from the base."""
    rows = manners(results)
    before = next((row.shares for row in rows if row.arm == UNTOUCHED), {})
    sentences = []
    for habit, words in HABITS.items():
        fallen = [f"{row.arm} {row.shares[habit]:.0%}" for row in rows if habit in row.falls]
        if fallen:
            listed = ", ".join(fallen)
            sentences.append(f"Of {words} the base had {before[habit]:.0%}; after training on text {listed}.")
    return sentences


def _shares(seeds: Sequence[Sequence[ItemRow]]) -> dict[str, float]:
    shares = {}
    for habit in HABITS:
        kept = [bool(row["kept"]) for rows in seeds for row in rows if row["habit"] == habit]
        shares[habit] = sum(kept) / len(kept) if kept else 0.0
    return shares
