"""The budget: what is granted per arm, task and seed, how it is divided, what is refused."""

import pytest

from adaptkit.errors import BudgetError
from adaptkit.study.arms import Origin
from adaptkit.study.budget import (
    Budget,
    BudgetConfig,
    check_steps,
    check_total,
    grant,
    steps_within,
    times_too_small,
)

SPEED = {"flops_per_token": 6e6, "flops_per_second": 3e10}


def granted(num_seeds: int = 3, has_tasks: bool = True, **fields) -> Budget:
    return grant(
        BudgetConfig(**{"amount": 1e12, **fields}), **SPEED, num_seeds=num_seeds, has_tasks=has_tasks
    )


@pytest.mark.parametrize("origin", Origin)
def test_every_pipeline_may_spend_the_whole_budget(origin):
    budget = granted(task_share=0.25)
    text = budget.text if origin.learns_text else 0.0
    assert text + budget.on_task(origin) == pytest.approx(1e12)
    assert budget.on_task(origin) == pytest.approx(2.5e11 if origin.learns_text else 1e12)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_trials_and_runs_add_up_to_what_is_granted(num_seeds):
    budget = granted(num_seeds=num_seeds, trials=3, trial_share=0.15)
    assert budget.num_trials == budget.settings_tried == 4
    tuning = budget.num_trials * budget.trial(1e12) / num_seeds
    assert tuning + budget.run(1e12) == pytest.approx(1e12)


def test_without_labelled_tasks_everything_is_for_text():
    assert granted(has_tasks=False).text == 1e12


@pytest.mark.parametrize(
    ("unit", "amount", "flops"),
    [
        ("flops", 1e12, 1e12),
        ("tokens", 1e6, 6e12),
        ("seconds", 100.0, 3e12),
        ("usd", 2.0, 2 / 4 * 3600 * 3e10),
    ],
)
def test_units_become_flops(unit, amount, flops):
    price = {"usd_per_hour": 4.0, "source": "a price list", "date": "2026-11-01"}
    assert granted(unit=unit, amount=amount, price=price).flops == pytest.approx(flops)


def test_dollars_need_a_price():
    with pytest.raises(ValueError, match="price"):
        BudgetConfig(amount=5.0, unit="usd")


def test_a_single_rate_needs_no_trial():
    budget = granted(trials=1)
    assert (budget.num_trials, budget.settings_tried, budget.run(1e12)) == (0, 1, 1e12)


def test_trials_that_eat_the_budget_are_refused():
    with pytest.raises(BudgetError, match="leave too little"):
        granted(trials=3, trial_share=0.2, num_seeds=1)


def test_a_plan_over_the_total_is_refused():
    config = BudgetConfig(amount=1e12, total=1e13)
    check_total(config, 9.9e12, **SPEED)
    with pytest.raises(BudgetError, match="limit is 1.00e\\+13"):
        check_total(config, 1.1e13, **SPEED)


def test_too_few_steps_are_refused_with_the_factor_that_would_do():
    assert steps_within(100.0, 10.0, what="x") == 10
    with pytest.raises(BudgetError, match="at least 2.0 times as much"):
        steps_within(40.0, 10.0, what="x")


def test_what_scoring_takes_is_needed_beside_the_steps():
    assert times_too_small(100.0, 10.0) == 0.8
    assert times_too_small(100.0, 10.0, scoring=120.0) == 2.0


def test_too_few_counted_steps_are_refused():
    assert check_steps(8, 1e9, what="continued") == 8
    with pytest.raises(BudgetError, match=r"continued: 1.00e\+09 FLOPs buy 7 steps; at least 8 needed"):
        check_steps(7, 1e9, what="continued")
