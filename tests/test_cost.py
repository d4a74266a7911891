"""A budget in FLOPs: the steps it pays for are those that the training then spends it on, whatever is padded
or frozen."""

from __future__ import annotations

import pytest
from tiny_training import settings, task

from adaptkit.errors import BudgetError
from adaptkit.run import Run
from adaptkit.trainer import cost
from adaptkit.trainer.cost import affordable_steps
from adaptkit.trainer.trainer import Trainer

TASKS = ["pretrain", "lora", "masked", "classify"]


def spent(folder, name: str, num_steps: int, **asked) -> float:
    model, objective, rows = task(name)
    return (
        Trainer(model, objective, rows, settings(num_steps=num_steps, **asked), run=Run(folder)).fit().flops
    )


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("microbatch_size", [0, 2])
def test_the_affordable_steps_spend_the_budget_and_one_more_would_break_it(tmp_path, name, microbatch_size):
    asked = {"microbatch_size": microbatch_size}
    budget = spent(tmp_path / "measured", name, 7, **asked)
    for flops, steps in [(budget, 7), (budget * 1.0001, 7), (budget * 0.9999, 6)]:
        assert affordable_steps(*task(name), settings(**asked), flops) == steps


def test_adapters_buy_more_steps_with_the_same_budget():
    full, lora = (affordable_steps(*task(name), settings(), 1e9) for name in ("pretrain", "lora"))
    assert lora > full


def test_what_ends_first_ends_it():
    model, objective, rows = task("pretrain")
    config = settings(global_batch_size=8)
    assert affordable_steps(model, objective, rows, config, 1e15, epochs=2) == round(2 * len(rows) / 8)
    budget = affordable_steps(model, objective, rows, config, 1e9)
    assert affordable_steps(model, objective, rows, config, 1e9, epochs=1e6) == budget


def test_a_long_training_is_planned_from_its_first_steps(monkeypatch):
    counted = affordable_steps(*task("pretrain"), settings(), 3e9)
    monkeypatch.setattr(cost, "COUNTED_STEPS", 10)
    assert counted > 50 and affordable_steps(*task("pretrain"), settings(), 3e9) == pytest.approx(
        counted, rel=0.05
    )


def test_a_budget_below_one_step_is_refused():
    with pytest.raises(BudgetError, match=r"1.00e\+01 FLOPs buy 0 steps"):
        affordable_steps(*task("pretrain"), settings(), 10)
