"""What a study cannot tell: each sentence, a study where it holds, and one where it does not."""

from __future__ import annotations

import pytest
from tiny_results import LANGUAGE, TICKET, results_of

from adaptkit.report.caveats import limits, rates_at_the_edge, share_read, unbeaten_baselines
from adaptkit.study.controls import TEXT_CONTROLS
from adaptkit.study.forecast_record import ForecastRecord, Portion, PredictionRecord
from adaptkit.study.record import TrialRecord, TuningRecord
from adaptkit.study.verdict import judge

ALL = {
    "generic": [2.70] * 3,
    "continued": [1.80, 1.8005, 1.7995],
    "continued-lora": [1.90, 1.9005, 1.8995],
    "scratch": [1.70, 1.7005, 1.6995],
    "placebo": [2.60, 2.6005, 2.5995],
}
PREDICTED = PredictionRecord(arm="scratch", mean=1.7, low=1.6, high=1.8)
FORECAST = {
    "forecast": ForecastRecord(portions=(Portion(compute=0.25),), flops=1.0, predictions=(PREDICTED,))
}


def limits_of(scores, **options):
    results = results_of(scores, **options)
    return limits(judge(results), results)


LIMITS = {
    "One seed: intervals cover the choice of test items, not the luck of training. Nothing can be decided.": (
        {arm: seeds[:1] for arm, seeds in ALL.items()},
        {},
        {},
    ),
    "Two seeds: how much trainings differ is hardly measured; a 95 % interval can cover as little as 88 %.": (
        {arm: seeds[:2] for arm, seeds in ALL.items()},
        {},
        {},
    ),
    "The budget paid for reading 40.0% of the domain text: what the rest would add is the next question.": (
        ALL,
        {"text_bytes": 400_000.0},
        {"text_bytes": 500_000.0},
    ),
    "299 test items are few: this is the main reason why intervals are wide.": (
        ALL,
        {"num_items": 299},
        {"num_items": 300},
    ),
    "No labelled task was scored: bits per byte tells how well text is modelled, "
    "not how well a job is done.": (ALL, {}, {"task": TICKET}),
    "One amount of text and compute: nothing is said about how the answer changes with more of them.": (
        ALL,
        {"forecast": ForecastRecord(portions=(), flops=0.0)},
        FORECAST,
    ),
    "words, without any language model, scores 1.600 on bits per byte: better than every language model.": (
        ALL,
        {"baselines": {"words": 1.6}},
        {"baselines": {"words": 1.75}},
    ),
}


@pytest.mark.parametrize("sentence", LIMITS)
def test_a_limit_is_told_where_it_holds_and_only_there(sentence):
    scores, holds, otherwise = LIMITS[sentence]
    where_not = ALL
    if otherwise.get("task") is TICKET:
        where_not = {f"{arm}+full": [1 - seed / 4 for seed in seeds] for arm, seeds in ALL.items()}
    assert sentence in limits_of(scores, **holds)
    ending = sentence[-20:]  # whatever numbers it would begin with
    assert not [limit for limit in limits_of(where_not, **otherwise) if limit.endswith(ending)]


@pytest.mark.parametrize("control", TEXT_CONTROLS, ids=lambda control: control.name)
def test_a_missing_control_is_a_limit(control):
    sentence = f"Without {control.name} the study cannot exclude {control.excludes}."
    assert sentence in limits_of({arm: seeds for arm, seeds in ALL.items() if arm != control.name})
    assert not any("cannot exclude" in limit for limit in limits_of(ALL))


def test_the_last_limit_holds_of_every_study():
    sentence = (
        "One model size and one budget: at others the answer may be different, "
        "which a larger study would show."
    )
    for scores in (ALL, {"continued": [1.8, 1.81, 1.79]}):
        assert limits_of(scores)[-1] == sentence


def test_a_good_study_has_few_limits():
    assert len(limits_of(ALL, **FORECAST)) == 2, "no labelled task, one size"


def test_a_baseline_is_unbeaten_in_the_task_s_own_direction():
    scores = {"generic+lora": [0.70, 0.71, 0.69], "scratch+full": [0.80, 0.81, 0.79]}
    results = results_of(scores, task=TICKET, baselines={"words": 0.85, "letters": 0.6})
    assert unbeaten_baselines(judge(results), results) == [
        "words, without any language model, scores 0.850 on accuracy on ticket: "
        "better than every language model."
    ]


def tuned(*dev: float) -> TuningRecord:
    trials = tuple(TrialRecord(run="t", learning_rate=10.0**i, dev=value) for i, value in enumerate(dev))
    return TuningRecord(title="scratch", arm="scratch", task="language", trials=trials, rate=1e-3)


@pytest.mark.parametrize(
    ("dev", "edge"),
    [((1.0, 1.1, 1.2), "lowest"), ((1.2, 1.1, 1.0), "highest"), ((1.2, 1.0, 1.1), None), ((1.0,), None)],
)
def test_a_best_learning_rate_at_the_edge_of_those_tried_is_told(dev, edge):
    results = results_of(ALL, tuning=(tuned(*dev),))
    edge_is_best = f"Of the learning rates tried, the {edge} was best for scratch"
    sentence = f"{edge_is_best}: a rate outside those tried may be better."
    assert rates_at_the_edge(results) == ([sentence] if edge else [])
    assert (sentence in limits(judge(results), results)) == bool(edge)


def test_a_study_without_trials_says_that_no_rate_was_tuned():
    results = results_of(ALL)
    budget = results.record.budget
    untuned = results_of(ALL, budget=budget.model_copy(update={"trials": 1}))
    assert [
        line for line in limits(judge(untuned), untuned) if line not in limits(judge(results), results)
    ] == [
        "No learning rate was tuned: each arm trained at the one that its size and kind suggest. "
        "An arm that is far behind, from scratch first of all, may need another."
    ]


def test_the_share_read_is_that_of_the_arm_that_read_most():
    assert share_read(results_of(ALL, text_bytes=250_000.0)) == 0.25
    assert share_read(results_of(ALL)) is None
    assert share_read(results_of(ALL, task=LANGUAGE, text_bytes=0.0)) is None
