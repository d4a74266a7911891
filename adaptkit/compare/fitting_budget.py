"""The budget that fits a machine and a text: what can be run in the time there is, and is not wasted.

    fit = fitting_budget(measure_study(config), seconds=600)

Plans are made for amounts on a grid, and the largest is taken that ends in time. More than TEXT_EPOCHS passes
over the text buy next to nothing (arXiv 2305.16264: 4 are nearly as good as new text, 16 still help, 40 do
not), so that is a ceiling of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from adaptkit.compare.plan import Measured, Plan
from adaptkit.errors import BudgetError
from adaptkit.study.budget import to_flops
from adaptkit.study.task_size import BYTES_PER_TOKEN

TEXT_EPOCHS, MOST_EPOCHS = 16, 40
"""Passes over the text that a suggested budget pays for at most, and from where on a budget is doubted."""
LONG_S = 86400.0
"""A study that takes longer is doubted."""
STEPS_OF_TEN = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
AMOUNTS = tuple(step * 10.0**power for power in range(2, 22) for step in STEPS_OF_TEN)
"""Amounts that are tried, in the unit of the study's budget."""


@dataclass(frozen=True)
class FittingBudget:
    """A budget, and what kept it from being larger.

    Attributes:
        amount: in the unit of the study's budget.
        seconds: predicted wall time of the whole study.
        bound: `time`; `text` where more passes over it would be waste; `least` where even the smallest budget
            that trains anything takes longer than there is.
        epochs: passes over the domain text of a model that keeps training on it.
    """

    amount: float
    seconds: float
    bound: Literal["time", "text", "least"]
    epochs: float


def fitting_budget(measured: Measured, seconds: float) -> FittingBudget:
    """The largest budget whose study ends within `seconds` and does not wear out its text.

    Raises: BudgetError where no amount lets anything train.
    """
    low, high = -1, len(AMOUNTS)  # AMOUNTS[low] ends in time or trains nothing, AMOUNTS[high] takes too long
    while high - low > 1:
        middle = (low + high) // 2
        taken = study_seconds(measured, AMOUNTS[middle])
        low, high = (middle, high) if taken is None or taken <= seconds else (low, middle)
    best = max(low, 0)
    bound: Literal["time", "text", "least"] = "time"
    while text_epochs(measured, AMOUNTS[best]) > TEXT_EPOCHS and trains(measured, AMOUNTS[best - 1]):
        best, bound = best - 1, "text"
    if not trains(measured, AMOUNTS[best]):
        best, bound = _smallest_that_trains(measured, best), "least"
    amount = AMOUNTS[best]
    return FittingBudget(amount, study_seconds(measured, amount) or 0.0, bound, text_epochs(measured, amount))


@dataclass(frozen=True)
class Room:
    """What a larger budget would have room for.

    Attributes:
        arms: those that it takes in.
        amount: the smallest that takes in all of them, in the unit of the study's budget.
        seconds: predicted wall time of the whole study under it.
    """

    arms: tuple[str, ...]
    amount: float
    seconds: float


def room_for_more(measured: Measured, amount: float) -> Room | None:
    """The arms that a budget leaves out and a larger one takes in; None where there are none."""
    never = _left_out(measured, AMOUNTS[-1])
    missing = tuple(arm for arm in _left_out(measured, amount) if arm not in never)
    if not missing:
        return None
    larger = (each for each in AMOUNTS if each > amount)
    enough = next(each for each in larger if not set(missing).intersection(_left_out(measured, each)))
    return Room(missing, enough, study_seconds(measured, enough) or 0.0)


def _left_out(measured: Measured, amount: float) -> tuple[str, ...]:
    """Arms that are left out of the whole study under a budget."""
    rows = measured.under(amount).decide().left_out
    return tuple(dict.fromkeys(row.arm for row in rows if not row.task))


def out_of_proportion(plan: Plan) -> list[str]:
    """A sentence on a study that takes days, and on one that wears out its text, each with what would not."""
    measured = plan.measured
    sentences = []
    seconds = plan.seconds_left(set())
    if seconds > LONG_S:
        fit = fitting_budget(measured, LONG_S)
        if fit.seconds < seconds:
            days = f"about {seconds / 86400:.1f} days on this machine"
            sentences.append(f"{days}; budget.amount={fit.amount:g} takes {_duration(fit.seconds)}")
    epochs = text_epochs(measured, measured.config.budget.amount)
    if epochs > MOST_EPOCHS:
        fit = fitting_budget(measured, math.inf)
        wear = (
            f"the budget pays for {epochs:,.0f} passes over your text, and more than {TEXT_EPOCHS} buy next"
        )
        sentences.append(f"{wear} to nothing; budget.amount={fit.amount:g} pays for {fit.epochs:.2g}")
    return sentences


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"


def study_seconds(measured: Measured, amount: float) -> float | None:
    """Predicted wall time of the study under a budget; None where it buys too little to train anything."""
    study = measured.under(amount)
    try:
        return study.plan(study.decide()).seconds_left(set())
    except BudgetError:
        return None


def trains(measured: Measured, amount: float) -> bool:
    """Whether a budget is enough for any training."""
    return study_seconds(measured, amount) is not None


def text_epochs(measured: Measured, amount: float) -> float:
    """Passes over the domain text that a model of the base's size makes under a budget, seed by seed."""
    config, machine = measured.config, measured.machine
    flops = to_flops(amount, config.budget, machine.flops_per_token, machine.flops_per_second)
    share = 1 - config.budget.task_share if config.tasks else 1.0
    tokens = measured.costs.texts.domain / BYTES_PER_TOKEN
    return flops * share / (machine.flops_per_token * tokens)


def _smallest_that_trains(measured: Measured, start: int) -> int:
    for number in range(start, len(AMOUNTS)):
        if trains(measured, AMOUNTS[number]):
            return number
    measured.under(AMOUNTS[-1]).decide()  # says what is missing
    return len(AMOUNTS) - 1
