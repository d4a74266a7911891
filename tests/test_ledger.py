"""What a study spent, left out and took: each sentence where it holds and only there. Home of
study.account_record."""

from __future__ import annotations

import pytest
from tiny_results import results_of

from adaptkit.report.ledger import left_out_sentences, spend_rows, time_sentence
from adaptkit.study.account_record import LeftOutRecord, PlanRecord, SpendRecord

TEXT = {"continued": [1.8, 1.801, 1.799], "scratch": [1.7, 1.701, 1.699]}


def study(**fields):
    return results_of(TEXT, **fields)


def test_unspent_budget_is_shown_with_its_reason():
    spends = (
        SpendRecord(arm="continued", task="language", granted=1e14, spent=9.9e13),
        SpendRecord(arm="generic", task="language", granted=1e14, spent=0.0, reason="nothing is trained"),
    )
    full, none = spend_rows(study(spends=spends))
    assert (full.granted, full.spent, full.share, full.reason) == ("1.0e14", "9.9e13", "99%", "")
    assert (none.spent, none.share, none.reason) == ("none", "0%", "nothing is trained")


def test_arms_left_out_are_named_with_the_reason():
    left_out = (
        LeftOutRecord(arm="scratch+full", task="ticket", reason="the budget is too small"),
        LeftOutRecord(arm="distilled", reason="its base is masked"),
    )
    assert left_out_sentences(study(left_out=left_out, without=("placebo",))) == [
        "scratch+full on ticket did not run: the budget is too small.",
        "distilled did not run: its base is masked.",
        "Taken out by name: placebo.",
    ]
    assert left_out_sentences(study()) == []


@pytest.mark.parametrize(
    ("taken", "sentence"),
    [
        (600.0, "It took 10.0 min, close to the 10.0 min that were predicted."),
        (901.0, "It took 15.0 min, 1.5 times the 10.0 min that were predicted."),
        (300.0, "It took 5.0 min, 50% of the 10.0 min that were predicted."),
        (0.0, ""),
    ],
)
def test_the_time_taken_stands_beside_the_prediction(taken, sentence):
    plan = PlanRecord(predicted_seconds=600.0, taken_seconds=taken, stages_at_once=2)
    assert time_sentence(study(plan=plan)) == sentence
    assert time_sentence(study()) == ""
