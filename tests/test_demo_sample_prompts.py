"""Prompts to begin with: the first words of held-out texts as they stand there, and what follows in them."""

from __future__ import annotations

import pytest

from adaptkit.demo.sample_prompts import FOLLOWING_WORDS, MOST, SamplePrompts, shortened

PROSE = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen " + "more " * 20
CODE = "def f(x):\n    return x + 1  # one more than was given to it\n\n\ndef g(x):\n    return f(f(x))\n"
IMPORTS = "import os\nimport sys\n\nfrom pathlib import Path\n\nROOT = Path(__file__)\nHERE = 1\nTHERE = 2\n"
LINES = [(CODE, "def f(x):\n    return x + 1"), (IMPORTS, "import os\nimport sys\n\nfrom")]


def test_a_prompt_is_the_first_words_of_a_passage_with_what_follows() -> None:
    samples = SamplePrompts([("a", PROSE), ("b", "no")])
    start = samples.next(chat=False)
    assert start == PROSE.partition(" more")[0] and samples.next(chat=False) == start
    assert samples.following(start).split() == ["more"] * 20
    short = SamplePrompts([("a", "my password is refused; a customer is waiting")])
    assert short.following(short.next(chat=False)).strip() == "a customer is waiting"
    assert samples.following("something of the visitor's own") == ""


@pytest.mark.parametrize(("text", "kept"), LINES)
def test_prompts_of_code_keep_their_lines(text: str, kept: str) -> None:
    samples = SamplePrompts([("a", text)])
    start = samples.next(chat=False)
    assert start.startswith(kept) and text.startswith(start)
    assert samples.following(start)


def test_chat_asks_the_studys_questions_and_continuing_its_texts() -> None:
    samples = SamplePrompts([("a", PROSE)], [("What helps?", "Sleep."), ("What hurts?", "Noise.")])
    assert [samples.next(chat=True) for _ in range(3)] == ["What helps?", "What hurts?", "What helps?"]
    assert samples.next(chat=False).startswith("one two") and samples.following("What hurts?") == "Noise."
    assert SamplePrompts([("a", PROSE)]).next(chat=True).startswith("one two")
    assert SamplePrompts([], [("What helps?", "Sleep.")]).next(chat=False) == "What helps?"


def test_without_texts_there_is_no_prompt() -> None:
    samples = SamplePrompts()
    assert not samples and samples.next(chat=True) == samples.next(chat=False) == ""


def test_not_more_is_kept_than_is_shown() -> None:
    samples = SamplePrompts([(str(i), f"{i} {PROSE}") for i in range(30)])
    assert len({samples.next(chat=False) for _ in range(30)}) == MOST
    long = shortened("word " * 500)
    assert len(long.split()) == FOLLOWING_WORDS + 1 and long.endswith("\u2026")
