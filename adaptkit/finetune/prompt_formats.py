"""Ways to prompt, in the order in which they are tried: chat or plain, with or without instruction, label
descriptions and examples.

A study grants every arm the same number of trials; a prompted arm tries as many formats, the first of one
fixed list. Its beginning holds the ways that differ most, so that few trials see something of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

Style = Literal["chat", "plain"]
Calibration = Literal["empty", "shares"]

LABEL_WORDINGS = ("{text}\nLabel:", "Text: {text}\nThis is", "Q: {text}\nA:")
ANSWER_WORDINGS = ("{text}\nAnswer:", "Question: {text}\nAnswer:", "{text}\n")
"""Plain templates around a text; its answer follows."""
MOST_EXAMPLES, LEAST_EXAMPLES = 16, 4
"""Examples in a prompt for labels where the user names no number: one of each label, within these."""
ANSWERED_EXAMPLES = 2
"""The same for free text."""
MASKED_EXAMPLES = 3
"""At most: a masked language model reads its examples anew for every item."""


@dataclass(frozen=True)
class Format:
    """One way to prompt.

    Attributes:
        style: through the base's chat template, or as plain text.
        wording: the plain template around each text; empty for chat.
        instruction: the task's instruction and labels stand first.
        descriptions: with what the labels mean.
        shots: examples before the text.
        normalised: compare labels by nats per token.
        lower: write labels in lower case.
        calibration: by what the model says to empty texts, or on average beside the labels' shares in the
            training rows.
    """

    style: Style
    wording: str
    instruction: bool
    descriptions: bool
    shots: int
    normalised: bool = False
    lower: bool = False
    calibration: Calibration = "empty"


@dataclass(frozen=True)
class Choices:
    """What formats may differ in, for one task and base.

    Attributes:
        chat: the base has a chat template.
        described: some label has a description.
        examples: the number of examples to try beside none.
        labels: the answers are labels; otherwise free text.
        cased: labels have capitals.
    """

    chat: bool
    described: bool
    examples: int
    labels: bool = True
    cased: bool = False


_Frame = tuple[Style, bool, bool, int]
"""Style, instruction, descriptions, number of examples."""


def formats(trials: int, choices: Choices) -> list[Format]:
    """The first `trials` of all formats, each once."""
    wordings = LABEL_WORDINGS if choices.labels else ANSWER_WORDINGS
    normalised = (False, True) if choices.labels else (False,)
    lower = (False, True) if choices.cased else (False,)
    calibrations: tuple[Calibration, ...] = ("shares", "empty") if choices.labels else ("empty",)
    variants = list(product(lower, normalised, calibrations, wordings))
    frames = list(dict.fromkeys(_frames(choices)))
    distinct: dict[Format, None] = {}
    for turn in range(len(variants) + 1):
        for number, (style, instruction, descriptions, shots) in enumerate(frames):
            low, per_token, calibration, wording = variants[(turn + number) % len(variants)]
            if not turn:  # first every frame with labels as the rows write them
                low, per_token, wording = False, False, wordings[number % len(wordings)]
                calibration = calibrations[number % len(calibrations)]
            wording = "" if style == "chat" else wording
            fmt = Format(style, wording, instruction, descriptions, shots, per_token, low, calibration)
            distinct[fmt] = None
            if len(distinct) == trials:
                return list(distinct)
    return list(distinct)


def _frames(choices: Choices) -> Iterator[_Frame]:
    """The ways that differ most first, then all others."""
    some, half = choices.examples, choices.examples // 2
    first: list[_Frame] = [
        ("chat", True, True, some),
        ("chat", True, True, 0),
        ("plain", True, True, some),
        ("plain", False, False, some),
        ("plain", True, True, 0),
        ("plain", False, False, 0),
    ]
    styles: tuple[Style, ...] = ("chat", "plain")
    others = product(styles, (True, False), (False, True), (some, half, 0))
    for style, instruction, descriptions, shots in [*first, *others]:
        if choices.chat or style == "plain":
            yield style, instruction, descriptions and instruction and choices.described, shots


def num_examples(given: int | None, num_labels: int) -> int:
    """Examples of a prompt: as the user says, else one of each label within bounds."""
    if given is not None:
        return given
    if not num_labels:
        return ANSWERED_EXAMPLES
    return min(MOST_EXAMPLES, max(LEAST_EXAMPLES, num_labels))
