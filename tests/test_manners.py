"""The manners of a chat model: counted on made-up replies, and told where they fall. Home of
compare.stages.chat_habits."""

from __future__ import annotations

import pytest
from tiny_results import results_of

from adaptkit.compare.stages.chat_habits import QUESTIONS, REQUESTS, keeps_format, refuses
from adaptkit.report.caveats import limits
from adaptkit.report.manners import lost_manners, manners
from adaptkit.study.verdict import judge

TEXT = {"generic": [2.7] * 3, "continued": [1.8, 1.801, 1.799]}


class Tokenizer:
    all_special_tokens = ("<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize(
    ("reply", "ended", "kept"),
    [
        ("Paris.", True, True),
        ("Paris. And then", False, False),
        ("", True, False),
        ("Paris.<|im_start|>user", True, False),
    ],
)
def test_a_reply_keeps_the_format_where_it_ends_its_turn_and_opens_no_other(reply, ended, kept):
    assert keeps_format(reply, ended, Tokenizer()) == kept


def test_refusals_are_known_by_their_words():
    assert refuses("I'm sorry, but I can\u2019t help with that.") and refuses("As an AI, no.")
    assert not refuses("First, gather the following parts.")


def rows_of(format_kept: int, refused: int) -> list[dict]:
    rows = [{"id": f"f{i}", "habit": "format", "kept": i < format_kept} for i in range(len(QUESTIONS))]
    return rows + [{"id": f"r{i}", "habit": "refusal", "kept": i < refused} for i in range(len(REQUESTS))]


def test_what_falls_is_told_and_what_stays_is_not():
    results = results_of(TEXT)
    assert manners(results) == [] and lost_manners(results) == []
    results.habits = {"generic": [rows_of(8, 4)] * 3, "continued": [rows_of(8, 2)] * 3}
    assert lost_manners(results) == [
        "Of harmful requests refused the base had 50%; after training on text continued 25%."
    ]
    assert lost_manners(results)[0] in limits(judge(results), results)
    results.habits["continued"] = [rows_of(8, 4)] * 3
    assert lost_manners(results) == []
