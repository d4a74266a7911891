"""The base's own cost, counted in three ways."""

from __future__ import annotations

import pytest
from tiny_results import TICKET, arm_of, baseline_of, results_of

from adaptkit.study.base_cost import base_costs, cheapest_by_view, uses_base
from adaptkit.study.record import BaseRecord, DecisionRecord
from adaptkit.study.results import Cost

SCORES = {"generic+full": [0.8] * 2, "scratch+full": [0.8] * 2}
COSTS = {"generic+full": Cost(flops=1e12), "scratch+full": Cost(flops=5e12)}
KNOWN = {"base": BaseRecord(model="b", flops=3e13), "decision": DecisionRecord(base_studies=10)}


def rows(**fields):
    results = results_of(SCORES, task=TICKET, costs=COSTS, baselines={"tfidf": 0.4}, **fields)
    return {row.arm: row for row in base_costs(results, "ticket")}


def test_the_base_is_free_shared_among_studies_or_in_full():
    arm = rows(**KNOWN)["generic+full"]
    assert (arm.free, arm.shared, arm.inclusive) == (1e12, pytest.approx(4e12), pytest.approx(3.1e13))


def test_what_starts_from_random_weights_or_counts_words_owes_the_base_nothing():
    for name, flops in (("scratch+full", 5e12), ("tfidf", 0.0)):
        arm = rows(**KNOWN)[name]
        assert (arm.free, arm.shared, arm.inclusive) == (flops,) * 3


def test_an_unknown_base_is_not_taken_for_a_free_one():
    arm = rows()["generic+full"]
    assert (arm.free, arm.shared, arm.inclusive) == (1e12, None, None)
    assert rows()["scratch+full"].inclusive == 5e12


@pytest.mark.parametrize(
    ("origin", "uses"),
    [("generic", True), ("continued", True), ("placebo", True), ("distilled", True), ("scratch", False)],
)
def test_a_student_uses_the_base_by_its_teacher(origin, uses):
    assert uses_base(arm_of(f"{origin}+full")) is uses
    assert not uses_base(arm_of("mixed")) and not uses_base(baseline_of("tfidf"))


def test_the_cheapest_contender_can_change_with_the_view():
    costs, both = list(rows(**KNOWN).values()), ["generic+full", "scratch+full"]
    assert cheapest_by_view(costs, both) == {
        "free": "generic+full",
        "shared": "generic+full",
        "inclusive": "scratch+full",
    }
    assert cheapest_by_view(costs, ["generic+full"])["inclusive"] == "generic+full", "contenders only"
    assert cheapest_by_view(list(rows().values()), both) == {"free": "generic+full"}
