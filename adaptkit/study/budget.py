"""One budget for every arm: what the user grants, in FLOPs, and how each arm may spend it.

Per arm and seed the budget B is split into a language share and a task share. Learning-rate trials are part
of it:
they run once per arm on the first seed, so each seed's main run gives up `trials * trial_share / seeds` of
its share.

    B = language + task;   language_main = language * (1 - trials * trial_share / seeds);   task_main likewise
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import model_validator

from adaptkit.config import Config, Magnitude, Share, in_unit
from adaptkit.errors import BudgetError
from adaptkit.trainer import steps

MIN_STEPS = 8
LEARNING_RATE_STEP = 3.0


class PriceConfig(Config):
    """What an hour of this machine costs, with where and when that was read."""

    usd_per_hour: Annotated[Magnitude, in_unit("US dollars per hour")]
    """US dollars per hour."""
    source: str
    """Where the price was read."""
    date: str
    """When it was read, YYYY-MM-DD."""


class BudgetConfig(Config):
    """What one arm may spend per seed, tuning trials included."""

    amount: Annotated[Magnitude, in_unit("as `unit` says")]
    """Budget per arm and seed, in `unit`."""
    unit: Literal["flops", "tokens", "seconds", "usd"] = "flops"
    """Unit of `amount`; tokens, seconds and dollars become FLOPs of the base model on this machine."""
    task_share: Share = 0.2
    """Share of the budget kept for each labelled task."""
    trials: Annotated[int, in_unit("trials")] = 3
    """Learning rates (or prompt formats, or regularisations) tried per arm: the same number for each."""
    trial_share: Share = 0.2
    """Length of one trial, as a share of a full run."""
    total: Annotated[Magnitude, in_unit("as `unit` says")] = 0.0
    """Refuse a study predicted to cost more than this in all, in `unit`; 0 is no limit."""
    price: PriceConfig | None = None
    """Needed for a budget in dollars; otherwise only shown."""

    @model_validator(mode="after")
    def _sensible(self) -> BudgetConfig:
        if (
            self.amount <= 0
            or not 0 <= self.task_share < 1
            or self.trials < 1
            or not 0 < self.trial_share <= 1
        ):
            raise ValueError(
                "amount > 0, 0 <= task_share < 1, trials >= 1 and 0 < trial_share <= 1 are needed"
            )
        if self.unit == "usd" and self.price is None:
            raise ValueError("a budget in usd needs `price` with usd_per_hour, source and date")
        return self


@dataclass(frozen=True)
class Budget:
    """A budget in FLOPs per arm and seed."""

    flops: float
    language: float
    task: float
    trials: int
    trial_share: float
    num_seeds: int

    @property
    def language_trial(self) -> float:
        return self.language * self.trial_share

    @property
    def task_trial(self) -> float:
        return self.task * self.trial_share

    @property
    def _main_share(self) -> float:
        return 1 - self.trials * self.trial_share / self.num_seeds if self.trials > 1 else 1.0

    @property
    def language_main(self) -> float:
        return self.language * self._main_share

    @property
    def task_main(self) -> float:
        return self.task * self._main_share

    def learning_rates(self, centre: float) -> list[float]:
        """`trials` rates in geometric steps of 3 around `centre`."""
        middle = (self.trials - 1) / 2
        return [float(f"{centre * LEARNING_RATE_STEP ** (i - middle):.3g}") for i in range(self.trials)]


def grant(
    config: BudgetConfig, *, flops_per_token: float, flops_per_second: float, num_seeds: int, num_tasks: int
) -> Budget:
    """Turn the asked amount into FLOPs and split it.

    Args:
        flops_per_token: training FLOPs per token of the base model, all weights.
        flops_per_second: measured training speed of this machine.
    Raises: BudgetError where the trials alone eat a seed's share.
    """
    flops = to_flops(config.amount, config, flops_per_token, flops_per_second)
    task = flops * config.task_share if num_tasks else 0.0
    budget = Budget(flops, flops - num_tasks * task, task, config.trials, config.trial_share, num_seeds)
    if budget._main_share < 0.25 or budget.language <= 0:
        trials = f"{config.trials} trials of {config.trial_share:.0%}"
        tried = f"{trials} and {num_tasks} tasks of {config.task_share:.0%}"
        fix = "lower budget.trials, budget.trial_share or budget.task_share, or add seeds"
        raise BudgetError(f"{tried} leave too little for the runs themselves", where="budget", fix=fix)
    return budget


def to_flops(amount: float, config: BudgetConfig, flops_per_token: float, flops_per_second: float) -> float:
    """`amount` of `config.unit` in FLOPs."""
    if config.unit == "flops":
        return amount
    if config.unit == "tokens":
        return amount * flops_per_token
    if config.unit == "seconds":
        return amount * flops_per_second
    assert config.price is not None  # the config's own validation asks for it
    return amount / config.price.usd_per_hour * 3600 * flops_per_second


def check_total(
    config: BudgetConfig, planned_flops: float, flops_per_token: float, flops_per_second: float
) -> None:
    """Raises: BudgetError where the whole plan is predicted to cost more than `total`."""
    limit = to_flops(config.total, config, flops_per_token, flops_per_second)
    if config.total and planned_flops > limit:
        raise BudgetError(
            f"the plan is predicted to cost {planned_flops:.2e} FLOPs, "
            f"the limit is {limit:.2e} ({config.total:g} {config.unit})",
            where="budget.total",
            fix="fewer arms, seeds, fractions or trials, a smaller budget.amount, or a higher budget.total",
        )


def steps_within(flops: float, flops_per_step: float, *, what: str) -> int:
    """Optimizer steps that fit into `flops`.

    Raises: BudgetError below MIN_STEPS: a learning-rate schedule needs some steps to mean anything.
    """
    factor = math.ceil(10 * MIN_STEPS * flops_per_step / max(flops, 1)) / 10
    fix = f"grant at least {factor:.1f} times as much, or use a smaller model or batch"
    return steps.steps_within(
        flops, flops_per_step, fix=fix, least=MIN_STEPS, what=what, where="budget.amount"
    )


def check_steps(num_steps: int, flops: float, *, what: str) -> int:
    """The same number of steps, counted on real batches.

    Raises: BudgetError where they are too few to mean anything.
    """
    if num_steps < MIN_STEPS:
        fix = "raise budget.amount or budget.trial_share, or lower trainer.global_batch_size"
        bought = f"{what}: {flops:.2e} FLOPs buy {num_steps} steps; at least {MIN_STEPS} needed"
        raise BudgetError(bought, where="budget.amount", fix=fix)
    return num_steps
