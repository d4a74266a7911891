"""The `prompt` arm of free-text tasks: a few answered prompts in the context, greedy continuation, nothing
trained."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.errors import DataError
from adaptkit.finetune.frozen_answers import Meter, Outcome
from adaptkit.finetune.generate import generate
from adaptkit.finetune.prompt_template import SEPARATOR, SHORTEST_TEXT, Template, context_length, opening

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from adaptkit.data import Dataset, Row
    from adaptkit.finetune.tasks import Score

TEMPLATES = ("{text}\nAnswer:", "{text}\n", "Q: {text}\nA:")
SHOTS = (2, 0, 4, 1, 8)
MAX_DEV_ROWS = 64  # rows that each format is tried on: writing answers is the expensive part


@dataclass(frozen=True)
class Format:
    """One way to ask: the prompt with the answer's place behind it, and the number of answered ones before
    it."""

    template: str
    shots: int


def formats(trials: int) -> list[Format]:
    """The first `trials` settings of one fixed list; all fifteen combinations come before any repeats."""
    return [Format(TEMPLATES[i % 3], SHOTS[i % 5]) for i in range(trials)]


def answer_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    dev: Dataset,
    test: Dataset,
    *,
    score: Score,
    metric: str,
    trials: int = 3,
    seed: int = 0,
    max_new_tokens: int = 64,
) -> Outcome:
    """Choose a format on dev among `trials`, answer the test split with it.

    Args:
        model: causal language model.
        train: rows with answers, which the shots are drawn from by `seed`.
        score: item rows -> metrics; `metric` names the one to choose by, larger is better.
    Raises: DataError for rows without an answer.
    """
    meter = Meter()
    with meter.running():
        shots = random.Random(seed).sample(train.rows, min(max(SHOTS), len(train.rows)))
        asker = _Asker(model, tokenizer, shots, max_new_tokens, meter)
        tried = [(fmt, score(asker.rows(dev.rows[:MAX_DEV_ROWS], fmt))) for fmt in formats(trials)]
        best, scores = max(tried, key=lambda pair: pair[1][metric])
        rows = asker.rows(test.rows, best)
    return Outcome(
        rows, scores, asdict(best), [{**asdict(fmt), **result} for fmt, result in tried], meter.cost(model)
    )


class _Asker:
    def __init__(self, model: Any, tokenizer: Any, shots: Sequence[Row], max_new_tokens: int, meter: Meter):
        self.model, self.tokenizer, self.shots, self.meter = model, tokenizer, shots, meter
        self.max_new_tokens = max_new_tokens

    def rows(self, rows: Sequence[Row], fmt: Format) -> list[dict[str, Any]]:
        template = Template(self.tokenizer, fmt.template, context_length(self.model))
        prefix = self._prefix(template, fmt.shots)
        room = template.room(prefix, 0, self.max_new_tokens)
        asked = [question_and_answer(row) for row in rows]
        prompts = [
            prefix + template.query(ids, room) for ids in template.encode([question for question, _ in asked])
        ]
        answers = generate(self.model, self.tokenizer, prompts, self.max_new_tokens)
        lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
        self.meter.forward(self.model, sum(lengths), float(np.mean(lengths)))
        words = [
            self.tokenizer.decode(ids, skip_special_tokens=True).strip().split(SEPARATOR)[0].strip()
            for ids in answers
        ]
        return [
            {"id": row.id, "reference": reference, "prediction": said}
            for row, (_, reference), said in zip(rows, asked, words, strict=True)
        ]

    def _prefix(self, template: Template, num_shots: int) -> list[int]:
        start = opening(self.tokenizer)
        shots = list(self.shots[:num_shots])
        while shots and template.room(start, len(shots), self.max_new_tokens) < SHORTEST_TEXT:
            shots.pop()
        room = template.room(start, len(shots), self.max_new_tokens)
        prefix = list(start)
        for question, answer in map(question_and_answer, shots):
            text = template.encode([question])[0]
            prefix += (
                template.query(text, room)
                + template.answer(answer)[: self.max_new_tokens]
                + template.separator
            )
        return prefix


def question_and_answer(row: Row) -> tuple[str, str]:
    """What a row asks (the turns before the last answer, one a line) and the answer it holds.

    Raises: DataError for a row without an answer.
    """
    if "completion" in row.values:
        return row.values["prompt"], row.values["completion"].strip()
    messages = row.values.get("messages", [])
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    if last is None:
        raise DataError(
            "holds no answer to compare with", where=row.where, fix="give prompt and completion, or messages"
        )
    return "\n".join(message["content"] for message in messages[:last]), messages[last]["content"].strip()
