"""Every sentence of the report's prose: said where it is true, and not said where it is false."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from tiny_results import LANGUAGE, TICKET, results_of

from adaptkit.report import prose
from adaptkit.study.record import PriceRecord, TrialRecord, TuningRecord
from adaptkit.study.results import Cost
from adaptkit.study.verdict import judge

GENERIC, SCRATCH = "generic+lora", "scratch+full"
BEHIND = [1.80, 1.801, 1.799]
AHEAD = [1.70, 1.701, 1.699]
WIN = {GENERIC: BEHIND, SCRATCH: AHEAD}
LOSS = {GENERIC: AHEAD, SCRATCH: BEHIND}
SAME = {GENERIC: BEHIND, SCRATCH: [1.799, 1.80, 1.80]}
NOISY = {GENERIC: BEHIND, SCRATCH: [1.70, 1.86, 1.79]}


def said(function, scores, **options):
    results = results_of(scores, **options)
    return function(judge(results), results)


# What to do


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        (WIN, "Pretrain a small model of your own."),
        ({GENERIC: BEHIND, "continued+full": AHEAD}, "Keep pretraining the generic model on your text."),
        ({GENERIC: BEHIND, "distilled+full": AHEAD}, "Distil a smaller model of your own."),
        ({"generic+prompt": AHEAD, SCRATCH: BEHIND}, "Do not pretrain. Use the generic model as it is."),
        (
            {"generic+probe": AHEAD, SCRATCH: BEHIND},
            "Do not pretrain. Use the features of the generic model as they are.",
        ),
        (LOSS, "Do not pretrain. Fine-tune the generic model with adapters."),
        (
            {"generic+qlora": AHEAD, SCRATCH: BEHIND},
            "Do not pretrain. Fine-tune the generic model with 4-bit adapters.",
        ),
        ({"generic+full": AHEAD, SCRATCH: BEHIND}, "Do not pretrain. Fine-tune the generic model."),
        ({"generic+other": AHEAD, SCRATCH: BEHIND}, "Do not pretrain. Use the generic model."),
        ({GENERIC: BEHIND}, "Nothing to decide yet: one side is missing."),
        ({SCRATCH: BEHIND}, "Nothing to decide yet: one side is missing."),
        ({GENERIC: [1.80], SCRATCH: [1.70]}, "No verdict yet: one seed is not evidence."),
        (WIN | {"placebo+full": AHEAD}, "Do not pretrain. Your text is not what helped."),
        (SAME, "Do not pretrain. It makes no difference that matters."),
        (NOISY, "Not settled. Until it is, do not pretrain."),
    ],
)
def test_headline(scores, sentence):
    assert said(prose.headline, scores) == sentence


def test_headline_where_the_generic_model_is_ahead_but_was_not_the_one_sent():
    scores = {"generic+prompt": [1.90] * 3, GENERIC: [1.70, 1.701, 1.699], SCRATCH: [1.80, 1.801, 1.799]}
    scores["continued+full"] = [1.90, 1.901, 1.899]
    dev = {"generic+prompt": 1.0, GENERIC: 2.0, SCRATCH: 1.0, "continued+full": 2.0}
    assert said(prose.headline, scores, dev=dev) == "Do not pretrain. The generic model does better."


# What was found


def test_meaning_of_a_win_gives_both_scores_and_the_share():
    assert said(prose.meaning, WIN) == (
        "scratch+full reaches 1.700 against 1.800 for generic+lora on bits per byte (lower is better): "
        "5.6% lower."
    )


def test_meaning_where_generic_wins_is_told_from_its_side():
    assert said(prose.meaning, LOSS) == (
        "generic+lora reaches 1.700 against 1.800 for scratch+full on bits per byte (lower is better): "
        "5.6% lower."
    )


def test_meaning_where_more_is_better():
    scores = {GENERIC: [0.70, 0.71, 0.69], SCRATCH: [0.80, 0.81, 0.79]}
    assert said(prose.meaning, scores, task=TICKET) == (
        "scratch+full reaches 0.800 against 0.700 for generic+lora on accuracy on ticket (higher is better): "
        "14.3% higher."
    )


def test_meaning_names_a_beaten_placebo_and_only_a_beaten_one():
    sentence = "Training as long on general text does not do it: scratch+full is also ahead of placebo+full."
    assert said(prose.meaning, WIN | {"placebo+full": [1.79, 1.791, 1.789]}).endswith(sentence)
    assert "general text" not in said(prose.meaning, WIN)
    assert "general text" not in said(prose.meaning, LOSS | {"placebo+full": [1.79, 1.791, 1.789]})


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        (SAME, "scratch+full scores 0.0003 lower than generic+lora on bits per byte (lower is better)."),
        (
            {SCRATCH: BEHIND, GENERIC: [1.799, 1.80, 1.80]},
            "scratch+full scores 0.0003 higher than generic+lora on bits per byte (lower is better).",
        ),
    ],
)
def test_meaning_of_a_tie_says_which_way_it_leans_and_why(scores, sentence):
    assert said(prose.meaning, scores) == (
        f"{sentence} No winner: the whole interval lies inside the margin."
    )


def test_meaning_of_half_a_study():
    assert said(prose.meaning, {GENERIC: BEHIND}) == (
        "This study cannot answer the question: the study has no pretrained arm to compare."
    )


# How sure that is


def test_sureness_of_a_win_is_the_near_end_of_the_interval():
    for scores in (WIN, LOSS):
        results = results_of(scores)
        verdict = judge(results)
        pair = verdict.main.versus_generic
        near = min(abs(pair.low), abs(pair.high))
        assert prose.sureness(verdict) == (
            f"Sure, at 95% confidence: the advantage is at least {near:.4f}, and anything above "
            f"{pair.margin:.4f} was declared worth acting on before the study ran. "
            "Based on 3 training runs per arm and 400 test items."
        )
        assert near < abs(pair.difference)
        assert pair.margin == pytest.approx(0.01 * (1.80 if scores is WIN else 1.70))


def test_sureness_of_a_tie_gives_the_interval():
    results = results_of(NOISY, num_items=1500)
    verdict = judge(results)
    pair = verdict.main.versus_generic
    assert prose.sureness(verdict) == (
        f"The true difference lies between {pair.low:+.3f} and {pair.high:+.3f}, at 95% confidence; "
        "differences below 0.018 were declared too small to matter. "
        "Based on 3 training runs per arm and 1,500 test items."
    )
    assert pair.low < 0 < pair.high


def test_sureness_of_one_seed_and_of_half_a_study():
    one = results_of({GENERIC: [1.8], SCRATCH: [1.7]})
    assert prose.sureness(judge(one)) == (
        "Not sure: one training run cannot show how much luck is in a score. "
        "The interval covers the test items only."
    )
    half = results_of({GENERIC: BEHIND})
    assert prose.sureness(judge(half)) == "Not at all: there is nothing to compare with."


# What it costs


def test_price_tag_names_both_arms_and_takes_the_dearer_one():
    costs = {GENERIC: Cost(), SCRATCH: Cost(flops=3.1e14, seconds=1800, peak_memory_bytes=9e8)}
    both = "scratch+full: 30.0 min, 3.1e14 FLOPs, 0.9 GB of memory; generic+lora: no training"
    assert said(prose.price_tag, WIN, costs=costs) == f"{both}. Each per seed, tuning trials included."
    price = PriceRecord(usd_per_hour=3.0, source="a list", date="2026-11-01")
    dollars = "At 3 USD an hour (a list, 2026-11-01) the dearer one costs 1.50 USD per training"
    assert said(prose.price_tag, WIN, costs=costs, price=price) == (
        f"{both}. {dollars}. Each per seed, tuning trials included."
    )


def test_price_tag_without_arms_to_price():
    assert said(prose.price_tag, {"placebo+full": BEHIND}) == "No training was compared."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "< 1 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (5399, "90.0 min"),
        (5400, "1.5 h"),
        (172799, "48.0 h"),
        (172800, "2.0 days"),
    ],
)
def test_duration(seconds, text):
    assert prose.duration(seconds) == text


@pytest.mark.parametrize(("num_bytes", "text"), [(9.9e7, "99 MB"), (1e8, "0.1 GB"), (2.34e9, "2.3 GB")])
def test_memory(num_bytes, text):
    assert prose.memory_text(num_bytes) == text


def test_cost_text_leaves_out_memory_that_was_not_measured():
    assert prose.cost_text(Cost(flops=2e9, seconds=3)) == "3 s, 2.0e9 FLOPs"
    assert prose.cost_text(Cost(flops=2e9)) == "0 s, 2.0e9 FLOPs"
    assert prose.cost_text(Cost()) == "no training"


# The verdict table


@pytest.mark.parametrize(
    ("scores", "text"),
    [(WIN, "pretraining wins"), (LOSS, "generic wins"), (SAME, "tie"), ({GENERIC: BEHIND}, "not compared")],
)
def test_outcome_and_margin_of_a_row(scores, text):
    main = judge(results_of(scores)).main
    assert prose.outcome_text(main) == text
    margin = prose.margin_text(main.versus_generic)
    assert margin == "" if text == "not compared" else re.fullmatch(r"\u00b10\.01[78]0?", margin)


# What the study cannot tell: each sentence, a study where it holds, and one where it does not

GOOD = {**WIN, "placebo+full": [1.79, 1.791, 1.789]}
AMOUNTS = {"shares": (0.25, 0.5, 1.0)}
NEVER = math.nan
LIMITS = {
    "One seed: intervals cover the choice of test items, not the luck of training. "
    "No winner can be declared.": ({GENERIC: [1.8], SCRATCH: [1.7]}, {}, {}),
    "Two seeds: the spread between trainings is barely measured; "
    "a 95 % interval can cover as little as 88 %.": ({GENERIC: [1.8, 1.81], SCRATCH: [1.7, 1.71]}, {}, {}),
    "The budget paid for reading 40.0% of the domain text: what the rest would add is the next question.": (
        GOOD,
        {"text_bytes": 400_000.0},
        {"text_bytes": 500_000.0},
    ),
    "299 test items are few: intervals are as wide as they are mostly for that reason.": (
        GOOD,
        {"num_items": 299},
        {"num_items": 300},
    ),
    "No placebo arm: a gain may come from more training, not from your text. "
    "The arm placebo+full would tell.": (WIN, {}, {}),
    "Some runs hold no development score: the arms compared were picked on the test data, "
    "which flatters them.": (GOOD, {"dev": {SCRATCH: NEVER}}, {"dev": {SCRATCH: 1.7}}),
    "No labelled task was scored: bits per byte tells how well text is modelled, "
    "not how well a job is done.": (GOOD, {}, {"task": TICKET}),
    "Fewer than three amounts of text: nothing is said about how the answer changes with more data.": (
        GOOD,
        {"shares": (0.5, 1.0)},
        AMOUNTS,
    ),
    "words, without any language model, scores 1.600 on bits per byte: better than every arm.": (
        GOOD,
        {"baselines": {"words": 1.6}},
        {"baselines": {"words": 1.75}},
    ),
}


@pytest.mark.parametrize("sentence", LIMITS)
def test_a_limit_is_told_where_it_holds_and_only_there(sentence):
    scores, holds, otherwise = LIMITS[sentence]
    if otherwise.get("task") is TICKET:
        where_not = {arm: [1 - seed / 4 for seed in seeds] for arm, seeds in GOOD.items()}
    else:
        where_not = GOOD
    assert sentence in said(prose.limits, scores, **holds)
    ending = sentence[-20:]  # whatever numbers it would begin with
    assert not [limit for limit in said(prose.limits, where_not, **otherwise) if limit.endswith(ending)]


def test_the_last_limit_holds_of_every_study():
    sentence = (
        "One model size and one budget: the answer may turn at others, which a larger study would show."
    )
    for scores in (WIN, LOSS, NOISY, {GENERIC: BEHIND}):
        assert said(prose.limits, scores)[-1] == sentence


def test_a_good_study_has_few_limits():
    assert len(said(prose.limits, GOOD, **AMOUNTS)) == 2, "no labelled task, one size"


def test_a_baseline_is_unbeaten_in_the_task_s_own_direction():
    scores = {GENERIC: [0.70, 0.71, 0.69], SCRATCH: [0.80, 0.81, 0.79]}
    sentences = said(prose.unbeaten_baselines, scores, task=TICKET, baselines={"words": 0.85, "letters": 0.6})
    assert sentences == [
        "words, without any language model, scores 0.850 on accuracy on ticket: better than every arm."
    ]


def test_several_verdicts_are_called_several():
    results = results_of(WIN)
    sentence = "2 verdicts at 95% each: that one is wrong is likelier than for one."
    verdict = judge(results)
    both = dataclasses.replace(verdict, tasks=(*verdict.tasks, *verdict.tasks))
    assert sentence in prose.limits(both, results)
    assert not any("likelier" in limit for limit in prose.limits(verdict, results))


def tuned(*dev: float) -> TuningRecord:
    trials = tuple(TrialRecord(run="t", learning_rate=10.0**i, dev=value) for i, value in enumerate(dev))
    return TuningRecord(title="scratch", job="scratch", trials=trials)


@pytest.mark.parametrize(
    ("dev", "edge"),
    [((1.0, 1.1, 1.2), "lowest"), ((1.2, 1.1, 1.0), "highest"), ((1.2, 1.0, 1.1), None), ((1.0,), None)],
)
def test_a_best_learning_rate_at_the_edge_of_those_tried_is_told(dev, edge):
    results = results_of(WIN, tuning=(tuned(*dev),))
    sentence = f"Of the learning rates tried, the {edge} was best for scratch: one beyond may be better."
    assert prose.rates_at_the_edge(results) == ([sentence] if edge else [])
    assert (sentence in prose.limits(judge(results), results)) == bool(edge)


def test_the_share_read_is_that_of_the_arm_that_read_most():
    results = results_of(WIN, text_bytes=250_000.0)
    assert prose.share_read(results) == 0.25
    assert prose.share_read(results_of(WIN)) is None
    assert prose.share_read(results_of(WIN, task=LANGUAGE, text_bytes=0.0)) is None
