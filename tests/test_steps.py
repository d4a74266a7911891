"""Steps that a budget pays for."""

from __future__ import annotations

import pytest

from adaptkit.errors import BudgetError
from adaptkit.trainer.steps import steps_of_epochs, steps_within


def test_as_many_steps_as_the_budget_pays_for() -> None:
    assert steps_within(100.0, 10.0, fix="") == 10 and steps_within(109.9, 10.0, fix="") == 10


def test_too_few_steps_are_refused_with_the_numbers() -> None:
    assert steps_within(80.0, 10.0, fix="", least=8) == 8
    with pytest.raises(
        BudgetError, match=r"the arm: 7.90e\+01 FLOPs buy 7 steps of 1.00e\+01; at least 8"
    ) as no:
        steps_within(79.0, 10.0, fix="raise it", least=8, what="the arm", where="budget.amount")
    assert (no.value.fix, no.value.where) == ("raise it", "budget.amount")
    with pytest.raises(BudgetError, match=r"^.*flops: 5.00e\+00 FLOPs buy 0 steps"):
        steps_within(5.0, 10.0, fix="")


def test_epochs_count_steps_and_make_at_least_one() -> None:
    assert steps_of_epochs(2, 100, 8) == 25 and steps_of_epochs(0.01, 10, 8) == 1
