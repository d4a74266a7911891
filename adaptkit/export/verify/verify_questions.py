"""What a model is asked to tell whether it has changed: texts that each catch a fault of their own.

Capitals and accents catch a lost normaliser, blanks and line ends a changed splitter, spelled control tokens
a tokenizer that reads them otherwise, a text beyond the model's window the side and length of its cut, a
conversation the chat template.
"""

from __future__ import annotations

from collections.abc import Callable

from adaptkit.export.parity.evaluation_data import BUILT_IN
from adaptkit.export.verify.record import Questions

ODD = (
    "x",
    "IN CAPITALS, in Title Case and in small letters.",
    "  Two  spaces,\ta tab,\nand a line of its own.\n",
    "A na\u00efve r\u00e9sum\u00e9 from Z\u00fcrich, \u4f60\u597d and \U0001f600.",
    "1234567 + 89.01 = 3,210 (about 42 %).",
    "Spelled out: <s> </s> [CLS] [SEP] <|endoftext|> <|im_end|>.",
)
TALK = (
    ("system", "You answer in one word."),
    ("user", "Is the committee going to meet?"),
    ("assistant", "Yes."),
    ("user", "On which day?"),
)
NUM_OPENINGS, OPENING_WORDS = 4, 5
NEW_TOKENS, LAST_TOKENS = 12, 48
LONGEST = 1024
"""Tokens of the long text at most: more would cost minutes on a CPU."""
BEYOND = 1.25
"""The long text's share of what a model reads, where it is to be cut."""
MARGIN = 4
"""Tokens of a generator's window that stay free: special tokens, and one to generate."""


def make_questions(count_tokens: Callable[[str], int], longest: int, *, writes: bool) -> Questions:
    """Choose what to ask a model.

    Args:
        count_tokens: how many tokens a text has.
        longest: tokens that the model reads at once.
        writes: a generator, which refuses a longer text; others cut it.
    """
    texts: tuple[str, ...] = (*BUILT_IN[:6], *ODD)
    openings = tuple(" ".join(text.split()[:OPENING_WORDS]) for text in BUILT_IN[:NUM_OPENINGS])
    if writes:
        room = longest - MARGIN
        new_tokens = max(1, min(NEW_TOKENS, room // 2))
        texts = tuple(_shortened(text, count_tokens, room) for text in texts)
        openings = tuple(_shortened(text, count_tokens, room - new_tokens) for text in openings)
        long = _shortened(_long_text(count_tokens, min(LONGEST, room)), count_tokens, room)
    else:
        new_tokens = 0
        openings = ()
        most = int(BEYOND * longest) if longest <= LONGEST else LONGEST
        long = _long_text(count_tokens, most)
    return Questions(
        texts=texts, long=long, openings=openings, talk=TALK, new_tokens=new_tokens, last_tokens=LAST_TOKENS
    )


def _shortened(text: str, count_tokens: Callable[[str], int], most: int) -> str:
    """Cut a text until it has no more than so many tokens."""
    while count_tokens(text) > most and len(text) > 1:
        text = text[: max(1, 3 * len(text) // 4)]
    return text


def _long_text(count_tokens: Callable[[str], int], tokens: int) -> str:
    """Write numbered sentences, no two alike, until there are so many tokens."""
    sentences = [f"Number {1}: {BUILT_IN[0]}"]
    per_sentence = max(1, count_tokens(sentences[0]))
    for number in range(2, 2 + tokens // per_sentence * 2):
        sentences.append(f"Number {number}: {BUILT_IN[(number - 1) % len(BUILT_IN)]}")
        if number % 8 == 0 and count_tokens(" ".join(sentences)) >= tokens:
            break
    return " ".join(sentences)
