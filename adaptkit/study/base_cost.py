"""Count the base's own cost in three ways: not at all, shared among studies, in full.

An arm that starts from a base uses what somebody paid to make it; one from random weights does not. Which way
is right depends on who pays, so a report shows all three and says whether the cheapest contender changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.study.controls import OWN
from adaptkit.study.record import ArmRecord
from adaptkit.study.results import BASELINE, Results


@dataclass(frozen=True)
class BaseCosts:
    """FLOPs behind an arm, per seed, with the base counted in three ways.

    Attributes:
        free: the arm's own.
        shared: plus the base's, divided by the number of studies that use it; None where it is not known.
        inclusive: plus all of the base's; None where it is not known.
    """

    arm: str
    free: float
    shared: float | None
    inclusive: float | None


VIEWS = ("free", "shared", "inclusive")


def base_costs(results: Results, task: str) -> list[BaseCosts]:
    """The three counts of every arm of a task."""
    return [_of_arm(results, task, arm) for arm in results.scored_arms(task)]


def _of_arm(results: Results, task: str, arm: ArmRecord) -> BaseCosts:
    own = results.cost(task, arm.name).flops
    if not uses_base(arm):
        return BaseCosts(arm.name, own, own, own)
    base = results.record.base.flops
    if not base:
        return BaseCosts(arm.name, own, None, None)
    shared = base / results.record.decision.base_studies
    return BaseCosts(arm.name, own, own + shared, own + base)


def uses_base(arm: ArmRecord) -> bool:
    """Whether an arm starts from the base; a student does, by its teacher."""
    return arm.origin != BASELINE and arm.origin not in OWN - {"distilled"}


def cheapest_by_view(costs: Sequence[BaseCosts], contenders: Sequence[str]) -> dict[str, str]:
    """View -> the contender with the fewest FLOPs in it; views that are not known are left out."""
    rows = [row for row in costs if row.arm in contenders]
    cheapest = {}
    for view in VIEWS:
        totals = {row.arm: getattr(row, view) for row in rows}
        if totals and None not in totals.values():
            cheapest[view] = min(totals, key=lambda arm: totals[arm])
    return cheapest
