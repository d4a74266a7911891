"""Every arm on all axes, and which ones another arm dominates."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_study import DAMAGE, write_study
from tiny_results import LANGUAGE, TICKET, results_of

from adaptkit.study.front import front
from adaptkit.study.record import BaseRecord, MachineRecord
from adaptkit.study.results import Cost, collect

MACHINE = MachineRecord(flops_per_second=1e9, device="cpu", cores=2)
SMALL = {"num_documents": 40, "num_rows": 60}


def costs(**seconds: float) -> dict[str, Cost]:
    return {name.replace("_", "+"): Cost(flops=1e12, seconds=value) for name, value in seconds.items()}


# The front


def test_an_arm_is_dominated_where_another_is_nowhere_worse_and_somewhere_better():
    scores = {"generic+lora": [0.7] * 3, "generic+full": [0.8] * 3, "continued+full": [0.8] * 3}
    times = costs(generic_lora=100, generic_full=100, continued_full=50)
    results = results_of(scores, task=TICKET, costs=times)
    assert {row.arm.name: row.dominated_by for row in front(results, TICKET)} == {
        "generic+full": "continued+full",  # as good, and twice as long to train
        "continued+full": None,
        "generic+lora": "generic+full",
    }


def test_an_arm_that_is_better_on_one_axis_is_not_dominated():
    scores = {"generic+lora": [0.7] * 3, "generic+full": [0.8] * 3}
    results = results_of(scores, task=TICKET, costs=costs(generic_lora=50, generic_full=100))
    assert all(row.dominated_by is None for row in front(results, TICKET))


def test_equal_arms_do_not_dominate_each_other():
    results = results_of({"generic+lora": [0.7] * 3, "generic+full": [0.7] * 3}, task=TICKET)
    assert all(row.dominated_by is None for row in front(results, TICKET))


def test_an_axis_that_is_known_of_one_only_shields_it():
    """What is known of an arm and not of the other cannot be compared, so nothing is claimed."""
    scores = {"generic+prompt": [0.7] * 3, "generic+full": [0.8] * 3}
    times = costs(generic_prompt=100, generic_full=50)
    options = {"task": TICKET, "costs": times, "machine": MACHINE, "base": BaseRecord(model="b", params=1000)}
    rows = {row.arm.name: row for row in front(results_of(scores, **options), TICKET)}
    assert rows["generic+prompt"].owned.latency_s is not None
    assert rows["generic+full"].owned.latency_s is None, "no run says how large it is"
    assert rows["generic+prompt"].dominated_by is None
    bare = {row.arm.name: row for row in front(results_of(scores, task=TICKET, costs=times), TICKET)}
    assert bare["generic+prompt"].dominated_by == "generic+full"


@pytest.mark.parametrize(("task", "first"), [(TICKET, "scratch"), (LANGUAGE, "continued")])
def test_the_front_stands_best_score_first(task, first):
    rows = front(results_of({"continued": [0.4] * 2, "scratch": [0.6] * 2}, task=task), task)
    assert rows[0].arm.name == first


def test_what_is_forgotten_stands_beside_each_arm_of_an_origin_that_was_measured(tmp_path: Path):
    results = collect(write_study(tmp_path, **SMALL))
    rows = {row.arm.name: row for row in front(results, results.task("rct_role"))}
    assert rows["scratch+full"].forgotten == pytest.approx(DAMAGE["scratch"], abs=0.15)
    assert rows["generic+full"].forgotten == 0.0 and rows["tfidf"].forgotten is None
    del results.forgetting["scratch"]
    rows = {row.arm.name: row for row in front(results, results.task("rct_role"))}
    assert rows["scratch+full"].forgotten is None
