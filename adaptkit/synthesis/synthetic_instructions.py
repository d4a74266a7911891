"""Instructions with their answers from a passage: rows for fine-tuning a model that writes.

As in Self-Instruct (arXiv 2212.10560), but each answer must be supported by the passage it came from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from adaptkit.finetune.prompt_passages import support
from adaptkit.synthesis.generators import Written
from adaptkit.synthesis.kind import BEYOND, COPIED, CUT, RowsKind, filled, stands_in, without_thoughts
from adaptkit.synthesis.synthetic_rows import Candidate, Passage, Request

_TURN = re.compile(
    r"^\W*(?:\d{1,3}[.):]\s*)?\W*(instruction|question|task|answer|response)\s*\d*\W*:\W*", re.I | re.M
)
_ASKING = ("instruction", "question", "task")


class Instructions(RowsKind):
    """Pairs of a prompt and its completion, which `finetune` and kind `generate` read.

    Args:
        least_support: share of the answer's content words that must stand in the passage.
    """

    name, roles = "instructions", ("prompt", "completion")
    tokens_per_row = 160
    default_prompt = """\
Write {count} different questions or tasks that somebody who does not have the text below might give to an
assistant, each with a complete answer that is taken from the text alone. Keep to this form:

Instruction: the question or task, understood without the text
Answer: the answer

Text:
{text}

Instruction:"""

    def __init__(self, count: int, *, prompt: str | None = None, least_support: float = 0.5):
        super().__init__(count, prompt)
        self.rows_per_answer, self.least_support = count, least_support
        self.judge = f"at least {least_support:.0%} of the answer's content words stand in the passage"

    def requests(self, passage: Passage) -> list[Request]:
        parts = {"count": str(self.count), "text": passage.text}
        return [Request(passage, filled(self.prompt, parts))]

    def candidates(self, request: Request, written: Written) -> list[Candidate]:
        pairs = pairs_of(written.text)
        rows = []
        for number, (prompt, completion) in enumerate(pairs):
            fault = ""
            if number >= self.count:
                fault = BEYOND
            elif written.cut and number == len(pairs) - 1:
                fault = CUT
            elif stands_in(prompt, request.passage.text):
                fault = COPIED
            values = {"prompt": prompt, "completion": completion}
            rows.append(Candidate(request, values, f"{prompt}\n{completion}", fault))
        return rows

    def round_trip(self, candidates: Sequence[Candidate]) -> list[str]:
        shares = [support(row.values["completion"], [row.request.passage.text]) for row in candidates]
        return ["not supported by their passage" if share < self.least_support else "" for share in shares]


def pairs_of(answer: str) -> list[tuple[str, str]]:
    """(instruction, answer) of every instruction that an answer follows; the first may stand without its
    name, as a request ends in it."""
    pieces = _TURN.split(f"Instruction: {_without_first_name(without_thoughts(answer))}")
    turns = list(zip(pieces[1::2], pieces[2::2], strict=True))
    pairs = []
    for (name, asked), (next_name, answered) in zip(turns, turns[1:], strict=False):
        if (
            name.lower() in _ASKING
            and next_name.lower() not in _ASKING
            and asked.strip()
            and answered.strip()
        ):
            pairs.append((asked.strip(), answered.strip()))
    return pairs


def _without_first_name(answer: str) -> str:
    """An answer without the name of its first instruction, if it has written that once more."""
    found = _TURN.match(answer.lstrip())
    if found is None or found[1].lower() not in _ASKING:
        return answer
    return answer.lstrip()[found.end() :]
