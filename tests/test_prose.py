"""Every sentence of the report's prose: said where it is true, and not said where it is false."""

from __future__ import annotations

import pytest
from tiny_results import TICKET, baseline_of, results_of

from adaptkit.report import prose
from adaptkit.study.record import PriceRecord
from adaptkit.study.results import Cost
from adaptkit.study.verdict import judge

AHEAD, BEHIND = [1.70, 1.7005, 1.6995], [1.80, 1.8005, 1.7995]
GAIN = {"continued": BEHIND, "scratch": AHEAD}
KEPT = {"continued": AHEAD, "scratch": BEHIND}
SAME = {"continued": BEHIND, "scratch": [1.7997, 1.8002, 1.80]}
NOISY = {"continued": BEHIND, "scratch": [1.70, 1.86, 1.79]}
JOB = {"task": TICKET, "num_items": 2000}
GOOD, POOR = [0.90, 0.9005, 0.8995], [0.60, 0.6005, 0.5995]


def said(function, scores, **options):
    results = results_of(scores, **options)
    return function(judge(results), results)


# What to do


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        (GAIN, "Pretrain a small model of your own."),
        (KEPT, "Keep pretraining the generic model on your text."),
        (
            {"continued-lora": AHEAD, "scratch": BEHIND},
            "Keep pretraining the generic model on your text, with adapters.",
        ),
        ({"generic": AHEAD, "scratch": BEHIND}, "Leave the generic model as it is."),
        ({"continued": BEHIND, "distilled": AHEAD}, "Distil a smaller model of your own."),
        (
            {"continued": BEHIND, "mixed": AHEAD},
            "Pretrain a small model of your own, with general text mixed in.",
        ),
        (SAME, "Keep pretraining the generic model on your text."),
        (NOISY, "Not settled: the generic model, pretrained on your text, or a small model of your own."),
        ({"continued": BEHIND}, "Nothing to decide yet: there is only one arm."),
        (
            {"continued": [1.8], "scratch": [1.7]},
            "Not settled: a small model of your own, or the generic model, pretrained on your text.",
        ),
    ],
)
def test_headline_on_text(scores, sentence):
    assert said(prose.headline, scores) == sentence


NOTHING_ADDED = " Pretraining on your text adds nothing that matters."


@pytest.mark.parametrize(
    ("arm", "sentence"),
    [
        ("generic+prompt", f"Use the generic model as it is.{NOTHING_ADDED}"),
        ("generic+rag", f"Use the generic model, and let it look things up in your text.{NOTHING_ADDED}"),
        (
            "generic+rag-lora",
            "Fine-tune the generic model with adapters, and let it look things up in your text."
            f"{NOTHING_ADDED}",
        ),
        ("generic+probe", f"Use the features of the generic model as they are.{NOTHING_ADDED}"),
        ("generic+lora", f"Fine-tune the generic model with adapters.{NOTHING_ADDED}"),
        ("generic+qlora", f"Fine-tune the generic model with 4-bit adapters.{NOTHING_ADDED}"),
        ("generic+full", f"Fine-tune the generic model.{NOTHING_ADDED}"),
        ("generic+other", f"Use the generic model.{NOTHING_ADDED}"),
        ("placebo+full", "Train the generic model for longer. Your text is not what helps."),
    ],
)
def test_headline_on_a_job_that_needs_no_pretraining(arm, sentence):
    assert said(prose.headline, {arm: GOOD, "continued+full": POOR}, **JOB) == sentence


def test_headline_on_a_job_that_is_not_settled():
    scores = {"generic+full": [0.80, 0.86, 0.74], "continued+full": [0.83, 0.77, 0.88]}
    assert said(prose.headline, scores, **JOB) == (
        "Not settled: the generic model, fine-tuned, "
        "or the generic model, pretrained on your text, fine-tuned."
    )
    assert prose.in_plain_words(baseline_of("tfidf")) == "word counts"


def test_headline_where_only_the_question_of_pretraining_is_settled():
    open_arms = {"generic+full": [0.80, 0.805, 0.795], "generic+lora": [0.80, 0.78, 0.82]}
    sentence = said(prose.headline, {**open_arms, "continued+full": [0.5] * 3}, task=TICKET, num_items=400)
    assert sentence == (
        "Pretraining on your text is not needed. Not settled: the generic model, fine-tuned with adapters, "
        "or the generic model, fine-tuned."
    )
    open_texts = {"continued": [1.80, 1.86, 1.74], "continued-lora": [1.80, 1.75, 1.85], "scratch": [2.9] * 3}
    assert said(prose.headline, open_texts).startswith("A model of your own is not needed. Not settled: ")


def test_headline_on_a_job_that_pretraining_or_word_counts_win():
    scores = {"generic+full": POOR, "continued+full": GOOD}
    assert said(prose.headline, scores, **JOB) == "Keep pretraining the generic model on your text."
    assert said(prose.headline, scores, **JOB, baselines={"tfidf": 0.99}) == (
        "Word counts are enough. No language model is needed."
    )


# What was found


def test_meaning_of_a_gain_gives_both_scores():
    assert said(prose.meaning, GAIN) == (
        "scratch scores 1.700 (bits per byte, lower is better); the best by keeping on with the base is "
        "continued with 1.800. Every other arm is behind by more than the margin."
    )
    scores = {"generic+full": POOR, "continued+full": GOOD}
    assert said(prose.meaning, scores, **JOB) == (
        "continued+full scores 0.900 (accuracy on ticket, higher is better); the best without pretraining "
        "on your text is generic+full with 0.600. Every other arm is behind by more than the margin."
    )


def test_meaning_of_enough_names_the_closest_arm_and_who_is_still_in_the_race():
    assert said(prose.meaning, SAME) == (
        "continued scores 1.800 (bits per byte, lower is better). No arm is better by 0.018 or more; the "
        "closest is scratch with 1.800. These may be as good, as no arm beats them by more than the margin: "
        "scratch."
    )


def test_meaning_names_the_best_of_the_other_side_where_nothing_else_does():
    scores = {"generic+full": GOOD, "generic+lora": [0.85] * 3, "continued+full": POOR}
    other_side = " The best with pretraining on your text, continued+full, reaches 0.600."
    assert said(prose.meaning, scores, **JOB).endswith(other_side)
    assert said(prose.meaning, {**scores, "scratch+full": [0.5] * 3}, **JOB).endswith(other_side), "the best"
    assert other_side not in said(prose.meaning, {**scores, "continued+full": [0.8999] * 3}, **JOB)


def test_meaning_where_the_question_is_answered_and_the_best_arm_is_open():
    scores = {"generic+full": [0.80, 0.805, 0.795], "generic+lora": [0.80, 0.78, 0.82]}
    sentence = said(prose.meaning, {**scores, "continued+full": [0.5] * 3}, task=TICKET, num_items=400)
    assert "the study cannot tell whether one of the two is better by 0.010" in sentence


def test_meaning_where_nothing_is_decided():
    assert said(prose.meaning, NOISY).startswith(
        "continued scores 1.800 (bits per byte, lower is better), scratch with 1.783: the study cannot tell "
        "whether one of the two is better by 0.018."
    )
    assert said(prose.meaning, {"continued": BEHIND}).endswith(", and nothing else ran.")


# How sure that is

BASIS = "Based on 3 training runs per arm and 400 test items."


def test_sureness_of_one_contender_and_of_several():
    small = "Differences below 0.017 (1 % of the best score) were declared too small to matter."
    assert said(prose.sureness, GAIN) == (f"With 95% confidence scratch is the best arm. {small} {BASIS}")
    several = said(prose.sureness, SAME)
    assert several.startswith(
        "With 95% confidence the truly best arm is among the 2 contenders, "
        "and continued lies within 0.018 of it."
    )


def test_sureness_where_the_question_is_answered_and_the_best_arm_is_open():
    scores = {"generic+full": [0.80, 0.805, 0.795], "generic+lora": [0.80, 0.78, 0.82]}
    scores["continued+full"] = [0.5, 0.505, 0.495]
    sentence = said(prose.sureness, scores, task=TICKET, num_items=400)
    assert sentence.startswith(
        "With 95% confidence the truly best arm is among the 2 contenders. Which of them is best is open. "
    )


def test_sureness_of_an_open_question_says_what_would_settle_it():
    sentence = said(prose.sureness, NOISY)
    assert sentence.startswith("Not sure enough: ") and sentence.endswith(f"would settle it. {BASIS}")


def test_sureness_counts_the_documents_behind_the_items():
    results = results_of(GAIN)
    verdict = judge(results)
    assert verdict.main.pair is not None and "documents" not in prose.sureness(verdict, results)


def test_sureness_of_one_seed_and_of_one_arm():
    assert said(prose.sureness, {"continued": [1.8], "scratch": [1.7]}) == (
        "Not sure: one training run cannot show how much luck is in a score. "
        "The intervals cover the test items only."
    )
    assert said(prose.sureness, {"continued": BEHIND}) == "Not at all: there is nothing to compare with."


# What it costs


def test_price_tag_names_both_arms_and_takes_the_dearer_one():
    costs = {"continued": Cost(), "scratch": Cost(flops=3.1e14, seconds=1800, peak_memory_bytes=9e8)}
    both = "scratch: 30.0 min, 3.1e14 FLOPs, 0.9 GB of memory; continued: no training"
    chosen = "Among the contenders the recommended arm is the simplest to own"
    assert said(prose.price_tag, GAIN, costs=costs) == (
        f"{both}. Costs are per seed, tuning trials included. "
        f"{chosen} (give a price to choose the cheapest instead)."
    )
    price = PriceRecord(usd_per_hour=3.0, source="a list", date="2026-11-01")
    dollars = "At 3 USD an hour (a list, 2026-11-01) the more expensive one costs 1.50 USD per training"
    assert said(prose.price_tag, GAIN, costs=costs, price=price) == (
        f"{both}. {dollars}. Costs are per seed, tuning trials included. "
        f"{chosen} (give your traffic to choose the cheapest instead)."
    )


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
    ("scores", "options", "text", "compared"),
    [
        (GAIN, {}, "a model of one's own pays", "scratch minus continued"),
        (KEPT, {}, "the base is enough", "scratch minus continued"),
        (NOISY, {}, "undecided", "scratch minus continued"),
        (
            {"generic+full": POOR, "continued+full": GOOD},
            JOB,
            "pretraining pays",
            "continued+full minus generic+full",
        ),
        (
            {"generic+full": GOOD, "continued+full": POOR},
            JOB,
            "pretraining is not needed",
            "continued+full minus generic+full",
        ),
    ],
)
def test_a_row_of_the_verdict_table(scores, options, text, compared):
    main = judge(results_of(scores, **options)).main
    assert prose.outcome_text(main) == text and prose.difference_text(main) == compared
    share = ["(1 % of the best score)"] if main.ledger == "text" else []
    assert (
        prose.margin_text(main).startswith("\u00b10.01")
        and prose.margin_text(main).split(" ", 1)[1:] == share
    )


def test_a_row_without_anything_to_compare():
    main = judge(results_of({"continued": BEHIND})).main
    assert (prose.difference_text(main), prose.margin_text(main)) == ("", "")


def test_a_baseline_that_counts_no_words_goes_by_what_it_looks_at():
    arm = baseline_of("word-features")
    assert prose.in_plain_words(arm) == "spelling and known names of words"
    enough = "Spelling and known names of words are enough. No language model is needed."
    assert prose.advice_for(arm) == enough
    assert prose.in_plain_words(baseline_of("tfidf")) == "word counts"
