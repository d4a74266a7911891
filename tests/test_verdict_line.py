"""Every sentence that the one line can say, word for word, and how its numbers are written. Home of
study.task_verdict."""

from __future__ import annotations

import dataclasses

import pytest
from tiny_results import TICKET, results_of

from adaptkit.study.controls import JOB_CONTROLS, TEXT_CONTROLS, WORD_COUNTS
from adaptkit.study.task_verdict import Power, TaskVerdict
from adaptkit.study.verdict import judge
from adaptkit.study.verdict_line import (
    NOTHING_SETTLES,
    flops_text,
    interval_text,
    margin_text,
    number,
    place,
    verdict_line,
    what_settles,
)

PLACEBO = next(control for control in JOB_CONTROLS if control.name == "placebo+full")


def verdict(outcome="gain", **fields) -> TaskVerdict:
    """A verdict on a job: continued+full against generic+full, +0.048 [+0.028, +0.068]."""
    scores = {"generic+full": [0.6] * 3, "continued+full": [0.9, 0.901, 0.899]}
    main = judge(results_of(scores, task=TICKET)).main
    assert main.pair is not None
    pair = dataclasses.replace(main.pair, difference=0.048, low=0.028, high=0.068)
    values = {"outcome": outcome, "pair": pair, "missing": (), "settled": True, "margin": 0.01, **fields}
    return dataclasses.replace(main, **values)


def on_text(outcome="gain", **fields) -> TaskVerdict:
    names = {"ledger": "text", "task": "language", "title": "bits per byte"}
    return verdict(outcome, **{**names, "recommended": "scratch", "rival": "continued", **fields})


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            verdict(),
            "continued+full on ticket: +0.048 [+0.028, +0.068] over the best without pretraining "
            "(generic+full), also over placebo+full",
        ),
        (
            on_text(contenders=("scratch",)),
            "scratch on bits per byte: +0.048 [+0.028, +0.068] over keeping on with the base (continued), "
            "also over placebo",
        ),
        (
            verdict(missing=(PLACEBO,)),
            "continued+full on ticket: +0.048 [+0.028, +0.068] over the best without pretraining "
            "(generic+full); not tried: placebo+full",
        ),
        (
            verdict(settled=False, contenders=("continued+full", "scratch+full", "mixed+full")),
            "continued+full on ticket: +0.048 [+0.028, +0.068] over the best without pretraining "
            "(generic+full), also over placebo+full; not told apart from scratch+full, mixed+full",
        ),
        (
            verdict("enough"),
            "continued+full is enough on ticket: no arm is better by 0.010 "
            "(closest generic+full +0.048 [+0.028, +0.068])",
        ),
        (
            verdict("no gain", recommended="tfidf", rival="generic+full", missing=(WORD_COUNTS, PLACEBO)),
            "tfidf is enough on ticket: no arm is better by 0.010 (closest generic+full "
            "+0.048 [+0.028, +0.068]); not tried: word counts, placebo+full",
        ),
        (
            verdict("no gain", settled=False, recommended="generic+lora"),
            "no pretraining on ticket: every arm with it is behind; not told apart: generic+lora and "
            "generic+full (+0.048 [+0.028, +0.068])",
        ),
        (
            on_text("no gain", settled=False, recommended="continued-lora"),
            "no model of one's own on bits per byte: every arm with it is behind; not told apart: "
            "continued-lora and continued (+0.048 [+0.028, +0.068])",
        ),
        (verdict("enough", pair=None), "continued+full on ticket: the only arm"),
        (
            verdict("undecided", power=Power(7, 900), missing=TEXT_CONTROLS),
            "undecided on ticket between continued+full and generic+full (+0.048 [+0.028, +0.068]): "
            "about 7 seeds or 900 test items would settle it",
        ),
        (verdict("undecided", pair=None), "undecided on ticket: continued+full is the only arm"),
    ],
)
def test_every_line_word_for_word(given, line):
    assert verdict_line(given) == f"VERDICT: {line}"


def test_contenders_beside_a_settled_gain_are_not_named():
    line = verdict_line(verdict(contenders=("continued+full", "scratch+full")))
    assert "not told apart" not in line


@pytest.mark.parametrize(
    ("power", "sentence"),
    [
        (Power(7, 12_000), "about 7 seeds or 12,000 test items would settle it"),
        (Power(7, None), "about 7 seeds would settle it"),
        (Power(None, 900), "about 900 test items would settle it"),
        (Power(None, None), NOTHING_SETTLES),
        (None, NOTHING_SETTLES),
    ],
)
def test_what_would_settle_an_open_question(power, sentence):
    assert what_settles(verdict("undecided", power=power)) == sentence
    assert what_settles(verdict("undecided", power=power, reason="one seed")) == "one seed"


def test_a_place_is_a_task_or_the_metric_of_text():
    assert (place(verdict()), place(on_text())) == ("ticket", "bits per byte")


def test_numbers_get_a_fourth_decimal_where_the_interval_is_narrow():
    pair = verdict().pair
    narrow = dataclasses.replace(pair, difference=-0.0312, low=-0.0341, high=-0.0283)
    assert interval_text(pair) == "+0.048 [+0.028, +0.068]"
    assert interval_text(narrow) == "-0.0312 [-0.0341, -0.0283]"
    narrow = dataclasses.replace(pair, difference=0.0662, low=0.0641, high=0.0683)
    assert interval_text(narrow) == "+0.0662 [+0.0641, +0.0683]"
    assert number(0.5, pair) == "0.500" and number(0.5, narrow, "+") == "+0.5000"
    assert number(-1e-9, pair, "+") == "+0.000" and number(-1e-9, narrow) == "0.0000"
    assert margin_text(verdict(margin=0.0125)) in ("0.013", "0.012")


@pytest.mark.parametrize(("flops", "text"), [(0, "0"), (3.1e14, "3.1e14"), (2e9, "2.0e9"), (5.0, "5.0e0")])
def test_flops_are_short(flops, text):
    assert flops_text(flops) == text
