"""Order contenders by what the user prefers: cost, quality, waiting time, what is forgotten, simplicity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from adaptkit.study.ownership import Ownership, ownerships, simplicity
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import Results, trained_on
from adaptkit.study.scores import score_table

PREFERENCES = ("cost", "quality", "latency", "forgetting", "simplicity")


@dataclass(frozen=True)
class Preference:
    """How contenders are ordered.

    Attributes:
        key: sorts arms, the preferred first.
        describe: what they are preferred by, a clause.
    """

    key: Callable[[ArmRecord], tuple[float, ...]]
    describe: str

    @classmethod
    def of(cls, results: Results, task: TaskRecord, prefer: str | None = None) -> Preference:
        """The study's preference, or another; ties go to the simpler arm."""
        prefer = prefer or results.record.decision.prefer
        owned = ownerships(results, task.name)
        if prefer == "quality":
            replicates, sign = results.replicates(task.name), -1.0 if task.higher_is_better else 1.0
            return _preference(lambda arm: sign * replicates.mean(arm.name), "the best score")
        if prefer == "latency":
            return _preference(lambda arm: _or_last(owned[arm.name].latency_s), "the shortest waiting time")
        if prefer == "forgetting":
            return _preference(lambda arm: forgotten(results, arm, task), "the least forgotten general text")
        if prefer == "cost":
            return _cost_preference(results, owned)
        return _preference(lambda arm: 0.0, "the simplest to own")


def _preference(number: Callable[[ArmRecord], float], describe: str) -> Preference:
    return Preference(lambda arm: (number(arm), *simplicity(arm)), describe)


def _cost_preference(results: Results, owned: dict[str, Ownership]) -> Preference:
    """Dollars a month, where price and traffic are known; else the simpler one."""
    bills = {name: ownership.usd_per_month for name, ownership in owned.items()}
    known = [bill for bill in bills.values() if bill is not None]
    if results.record.price is None or not known:
        missing = "a price" if results.record.price is None else "your traffic"
        return _preference(
            lambda arm: 0.0, f"the simplest to own (give {missing} to choose the cheapest instead)"
        )

    traffic = f"{results.record.decision.requests_per_month:,.0f} requests a month"
    return _preference(lambda arm: _or_last(bills[arm.name]), f"the cheapest to own at {traffic}")


def _or_last(number: float | None) -> float:
    """What is not known is never preferred for it."""
    if number is None:
        return math.inf
    return number


def forgotten(results: Results, arm: ArmRecord, task: TaskRecord) -> float:
    """Bits per byte that the model of an arm's origin lost on general text; 0 where that was not measured.

    A labelled task is learnt from the model of its arm's origin: what that forgot is lost to the arm too.
    """
    before, after = (_general_score(results, name) for name in ("generic", text_model(results, arm, task)))
    return 0.0 if before is None or after is None else after - before


def text_model(results: Results, arm: ArmRecord, task: TaskRecord) -> str:
    """What the model that an arm starts a task from is called where it was scored on general text."""
    own = trained_on(arm.origin, task.name)
    return own if own in results.forgetting else arm.origin


def _general_score(results: Results, arm: str) -> float | None:
    rows = results.forgetting.get(arm)
    if not rows:
        return None
    return sum(score_table("bits_per_byte", seed).value for seed in rows) / len(rows)
