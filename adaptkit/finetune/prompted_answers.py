"""Answer free-text tasks by prompts: a few answered examples in the context, nothing trained.

The format of the prompt is chosen on the dev split among exactly `trials` settings.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from adaptkit.data.drawing import draw_from
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.score_table import ItemRow, Score
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers
from adaptkit.finetune.generation import generate
from adaptkit.finetune.prompt_template import (
    SEPARATOR,
    SHORTEST_TEXT,
    Template,
    context_length,
    opening,
    question_and_answer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEMPLATES = ("{text}\nAnswer:", "{text}\n", "Q: {text}\nA:")
SHOTS = (2, 0, 4, 1, 8)
MAX_DEV_ROWS = 64
"""Rows, drawn by hash, that each format is tried on: writing answers is the expensive part."""


@dataclass(frozen=True)
class Format:
    """One way to ask: the prompt that the answer follows, and how many answered ones come before it."""

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
) -> FrozenAnswers:
    """Choose a format on dev among `trials`, answer the test split with it.

    Args:
        model: causal language model.
        train: rows with answers, which the shots are drawn from by `seed`.
        score: item rows -> metrics; `metric` names the one to choose by, larger is better.
    Raises: DataError for rows without an answer.
    """
    meter = ForwardMeter()
    with meter.running():
        shots = random.Random(seed).sample(train.rows, min(max(SHOTS), len(train.rows)))
        prompter = _Prompter(model, tokenizer, shots, max_new_tokens, meter)
        judges = draw_from(dev, MAX_DEV_ROWS).rows
        tried = [(fmt, score(prompter.rows(judges, fmt))) for fmt in formats(trials)]
        best, scores = max(tried, key=lambda pair: pair[1][metric])
        rows = prompter.rows(test.rows, best)
    trial_rows = [{**asdict(fmt), **result} for fmt, result in tried]
    return FrozenAnswers(rows, scores, asdict(best), trial_rows, meter.cost(model))


class _Prompter:
    """Answers rows under a format, always with the same shots."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        shots: Sequence[Row],
        max_new_tokens: int,
        meter: ForwardMeter,
    ):
        self.model, self.tokenizer, self.shots, self.meter = model, tokenizer, shots, meter
        self.max_new_tokens = max_new_tokens

    def rows(self, rows: Sequence[Row], fmt: Format) -> list[ItemRow]:
        """An item row with reference and prediction for each row."""
        template = Template(self.tokenizer, fmt.template, context_length(self.model))
        prefix = self._prefix(template, fmt.shots)
        room = template.room(prefix, 0, self.max_new_tokens)
        pairs = [question_and_answer(row) for row in rows]
        questions = template.encode([question for question, _ in pairs])
        prompts = [prefix + template.query(question, room) for question in questions]
        continuations = generate(self.model, self.tokenizer, prompts, self.max_new_tokens)
        lengths = [len(prompt) + len(ids) for prompt, ids in zip(prompts, continuations, strict=True)]
        self.meter.forward(self.model, sum(lengths), float(np.mean(lengths)))
        texts = self.tokenizer.batch_decode(continuations, skip_special_tokens=True)
        return [
            {"id": row.id, "reference": reference, "prediction": _first_part(text)}
            for row, (_, reference), text in zip(rows, pairs, texts, strict=True)
        ]

    def _prefix(self, template: Template, num_shots: int) -> list[int]:
        """The answered examples that fit, as token ids."""
        start = opening(self.tokenizer)
        shots = list(self.shots[:num_shots])
        while shots and template.room(start, len(shots), self.max_new_tokens) < SHORTEST_TEXT:
            shots.pop()
        room = template.room(start, len(shots), self.max_new_tokens)
        prefix = list(start)
        for question, answer in map(question_and_answer, shots):
            prefix += template.query(template.encode([question])[0], room)
            prefix += template.answer(answer)[: self.max_new_tokens] + template.separator
        return prefix


def _first_part(text: str) -> str:
    """A written answer up to the blank line that ends an example."""
    return text.strip().split(SEPARATOR)[0].strip()
