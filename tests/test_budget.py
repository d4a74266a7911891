"""The budget: what is granted, what is split, what is refused."""

import pytest

from adaptkit.errors import BudgetError
from adaptkit.study.budget import Budget, BudgetConfig, check_steps, check_total, grant, steps_within

SPEED = {"flops_per_token": 6e6, "flops_per_second": 3e10}


def granted(num_seeds: int = 3, num_tasks: int = 1, **fields) -> Budget:
    return grant(
        BudgetConfig(**{"amount": 1e12, **fields}), **SPEED, num_seeds=num_seeds, num_tasks=num_tasks
    )


def test_every_flop_of_the_budget_is_spent_once():
    budget = granted(task_share=0.25, trials=3, trial_share=0.2)
    trials = 3 * (budget.language_trial + budget.task_trial)
    main = 3 * (budget.language_main + budget.task_main)
    assert trials + main == pytest.approx(3 * 1e12)


def test_no_labelled_task_leaves_everything_to_language():
    assert granted(num_tasks=0).language == 1e12


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


def test_one_trial_costs_nothing_extra():
    budget = granted(trials=1)
    assert budget.language_main == budget.language
    assert budget.learning_rates(1e-3) == [1e-3]


def test_learning_rates_are_geometric_around_the_centre():
    assert granted(trials=3).learning_rates(3e-4) == pytest.approx([1e-4, 3e-4, 9e-4])


def test_trials_that_eat_the_budget_are_refused():
    with pytest.raises(BudgetError, match="leave too little"):
        granted(trials=5, trial_share=0.5, num_seeds=1)


def test_a_plan_over_the_total_is_refused():
    config = BudgetConfig(amount=1e12, total=1e13)
    check_total(config, 9.9e12, **SPEED)
    with pytest.raises(BudgetError, match="limit is 1.00e\\+13"):
        check_total(config, 1.1e13, **SPEED)


def test_too_few_steps_are_refused_with_the_factor_that_would_do():
    assert steps_within(100.0, 10.0, what="x") == 10
    with pytest.raises(BudgetError, match="at least 2.0 times as much"):
        steps_within(40.0, 10.0, what="x")


def test_too_few_counted_steps_are_refused():
    assert check_steps(8, 1e9, what="continued") == 8
    with pytest.raises(BudgetError, match=r"continued: 1.00e\+09 FLOPs buy 7 steps; at least 8 needed"):
        check_steps(7, 1e9, what="continued")
