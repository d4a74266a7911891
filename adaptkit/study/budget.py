"""One budget for every arm: what the user grants per arm, task and seed, in FLOPs, and how it is divided.

It pays for everything that the pipeline for a task needs. An arm that starts from the base as it is may
spend all of it on the task; one whose origin is trained on text first spends `1 - task_share` there, and the
rest on the task. An arm of the text ledger spends the share for text; in a study without tasks that is
all of it.

Learning-rate trials are part of each of these shares. They run once per arm on the first seed, so every
seed's run gives up its part of them:

    run = granted * (1 - num_trials * trial_share / seeds)

Scoring a candidate on development data is paid from the same FLOPs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from adaptkit.config import Config, Count, Magnitude, Share, in_unit
from adaptkit.errors import BudgetError
from adaptkit.study.arms import Origin
from adaptkit.trainer import steps

MIN_STEPS = 8
MIN_RUN_SHARE = 0.25
"""Of what is granted: where tuning leaves less for the runs themselves, the study is refused."""


class PriceConfig(Config):
    """What an hour of this machine costs, with where and when that was read."""

    usd_per_hour: Annotated[Magnitude, in_unit("US dollars per hour")] = Field(gt=0, le=1e6)
    """US dollars per hour."""
    source: str
    """Where the price was read."""
    date: str
    """When it was read, YYYY-MM-DD."""


class BudgetConfig(Config):
    """What one arm may spend per task and seed, tuning trials included."""

    amount: Annotated[Magnitude, in_unit("as `unit` says")] = Field(gt=0)
    """Budget per arm, task and seed, in `unit`: training on text and on the task together."""
    unit: Literal["flops", "tokens", "seconds", "usd"] = "flops"
    """Unit of `amount`; tokens, seconds and dollars become FLOPs of the base model on this machine."""
    task_share: Share = Field(0.2, lt=1)
    """Share of the budget that arms which are trained on text keep for the labelled task."""
    trials: Annotated[Count, in_unit("trials")] = Field(3, ge=1, le=100)
    """Learning rates of the grid, per arm; one more follows where the grid points. 1 tries nothing. Arms
    without training try as many prompt formats or regularisations."""
    trial_share: Share = Field(0.15, gt=0, le=1)
    """What one trial may spend, as a share of what is granted."""
    total: Annotated[Magnitude, in_unit("as `unit` says")] = 0.0
    """Refuse a study predicted to cost more than this in all, in `unit`; 0 is no limit."""
    price: PriceConfig | None = None
    """Needed for a budget in dollars; otherwise only shown."""

    @model_validator(mode="after")
    def _sensible(self) -> BudgetConfig:
        if self.unit == "usd" and self.price is None:
            raise ValueError("a budget in usd needs `price` with usd_per_hour, source and date")
        return self


@dataclass(frozen=True)
class Budget:
    """A budget in FLOPs per arm, task and seed.

    Attributes:
        flops: what a pipeline may spend in all.
        text: what a training on text may take of it.
        trials: learning rates of the grid.
    """

    flops: float
    text: float
    trials: int
    trial_share: float
    num_seeds: int

    @property
    def num_trials(self) -> int:
        """Trainings that only tune: the grid and the one that follows from it."""
        return self.trials + 1 if self.trials > 1 else 0

    @property
    def settings_tried(self) -> int:
        """Settings that each arm may try."""
        return max(1, self.num_trials)

    @property
    def run_share(self) -> float:
        """What of a grant is left for the run of each seed."""
        return 1 - self.num_trials * self.trial_share / self.num_seeds

    def on_task(self, origin: Origin) -> float:
        """What an arm may spend on a labelled task itself."""
        return self.flops - self.text if origin.learns_text else self.flops

    def trial(self, granted: float) -> float:
        """What one trial may spend of a grant."""
        return granted * self.trial_share

    def run(self, granted: float) -> float:
        """What the run of one seed may spend of a grant."""
        return granted * self.run_share


def grant(
    config: BudgetConfig, *, flops_per_token: float, flops_per_second: float, num_seeds: int, has_tasks: bool
) -> Budget:
    """Turn the amount of a config into FLOPs and divide it.

    Args:
        flops_per_token: training FLOPs per token of the base model, all weights.
        flops_per_second: measured training speed of this machine.
    Raises: BudgetError where the trials alone eat a seed's share.
    """
    flops = to_flops(config.amount, config, flops_per_token, flops_per_second)
    text = flops * (1 - config.task_share) if has_tasks else flops
    budget = Budget(flops, text, config.trials, config.trial_share, num_seeds)
    if budget.run_share < MIN_RUN_SHARE:
        trials = f"{budget.num_trials} trials of {config.trial_share:.0%}"
        fix = "lower budget.trials or budget.trial_share, or add seeds"
        raise BudgetError(f"{trials} leave too little for the runs themselves", where="budget", fix=fix)
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
            fix="fewer arms, seeds, trials or sizes, less budget.amount or forecast.share, more budget.total",
        )


def steps_within(flops: float, flops_per_step: float, *, what: str, needs: float = 0.0) -> int:
    """Optimizer steps that `flops` buy.

    Args:
        needs: how many times as much would do, where that is not a matter of steps alone.
    Raises: BudgetError below MIN_STEPS: a learning-rate schedule needs some steps to mean anything.
    """
    needs = needs or times_too_small(flops, flops_per_step)
    fix = f"grant at least {needs:.1f} times as much, or use a smaller model or batch"
    return steps.steps_within(
        flops, flops_per_step, fix=fix, least=MIN_STEPS, what=what, where="budget.amount"
    )


def times_too_small(flops: float, flops_per_step: float, scoring: float = 0.0) -> float:
    """How many times `flops` pay for the fewest steps that mean anything and for `scoring`; rounded up."""
    return math.ceil(10 * (MIN_STEPS * flops_per_step + scoring) / max(flops, 1)) / 10


def check_steps(num_steps: int, flops: float, *, what: str) -> int:
    """The same number of steps, counted on real batches.

    Raises: BudgetError where they are too few to mean anything.
    """
    if num_steps < MIN_STEPS:
        fix = "raise budget.amount or budget.trial_share, or lower trainer.global_batch_size"
        bought = f"{what}: {flops:.2e} FLOPs buy {num_steps} steps; at least {MIN_STEPS} needed"
        raise BudgetError(bought, where="budget.amount", fix=fix)
    return num_steps
