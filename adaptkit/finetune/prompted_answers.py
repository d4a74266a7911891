"""Answer free-text tasks by prompts: an instruction and a few answered examples, nothing trained.

The format of the prompt is chosen on the dev split among exactly `trials` formats. A base with a chat
template is asked through it, the turns of a conversation as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from adaptkit.data.drawing import draw_from
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.score_table import ItemRow, Score
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers
from adaptkit.finetune.generation import generate
from adaptkit.finetune.prompt_examples import drawn_examples
from adaptkit.finetune.prompt_formats import Choices, Format, formats, num_examples
from adaptkit.finetune.prompt_template import Prompt, context_length, cut, fit, question_and_answer
from adaptkit.finetune.prompt_words import TaskWords
from adaptkit.finetune.prompted_labels import blocks, writer_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_DEV_ROWS = 64
"""Rows, drawn by hash, that each format is tried on: writing answers is the expensive part."""


def answer_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    dev: Dataset,
    test: Dataset,
    *,
    score: Score,
    metric: str,
    words: TaskWords | None = None,
    examples: int | None = None,
    trials: int = 3,
    seed: int = 0,
    max_new_tokens: int = 64,
) -> FrozenAnswers:
    """Choose a format on dev among `trials`, answer the test split with it.

    Args:
        model: causal language model.
        train: rows with answers, which the examples are drawn from by `seed`.
        score: item rows -> metrics; `metric` names the one to choose by, larger is better.
        words: the task's instruction; made if not given.
        examples: answered examples in a prompt; None takes two.
    Raises: DataError for rows without an answer.
    """
    meter = ForwardMeter()
    with meter.running():
        count = num_examples(examples, 0)
        shots = drawn_examples(train, (dev, test), count, seed)
        prompter = _Prompter(model, tokenizer, shots, words or TaskWords(), max_new_tokens, meter)
        judges = draw_from(dev, MAX_DEV_ROWS).rows
        choices = Choices(bool(tokenizer.chat_template), described=False, examples=count, labels=False)
        tried = [(fmt, score(prompter.rows(judges, fmt))) for fmt in formats(trials, choices)]
        best, scores = max(tried, key=lambda pair: pair[1][metric])
        rows = prompter.rows(test.rows, best)
    trial_rows = [{**asdict(fmt), **result} for fmt, result in tried]
    chosen = {**asdict(best), "prompt": prompter.prompt(best).shown()}
    return FrozenAnswers(rows, scores, chosen, trial_rows, meter.cost(model))


class _Prompter:
    """Answers rows under a format, always with the same examples."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        shots: Sequence[Row],
        words: TaskWords,
        max_new_tokens: int,
        meter: ForwardMeter,
    ):
        self.model, self.tokenizer, self.words, self.meter = model, tokenizer, words, meter
        self.max_new_tokens = max_new_tokens
        pairs = map(question_and_answer, shots)
        self.examples = [(question.whole, self._short(answer)) for question, answer in pairs]

    def prompt(self, fmt: Format) -> Prompt:
        """The prompts of a format."""
        return fit(
            writer_of(self.tokenizer, fmt),
            self.tokenizer,
            blocks(self.words, (), fmt),
            self.examples[: fmt.shots],
            context=context_length(self.model),
            answer_tokens=self.max_new_tokens,
        )

    def rows(self, rows: Sequence[Row], fmt: Format) -> list[ItemRow]:
        """An item row with reference and prediction for each row."""
        prompt = self.prompt(fmt)
        pairs = [question_and_answer(row) for row in rows]
        prompts = [prompt.ids(question) for question, _ in pairs]
        continuations = generate(self.model, self.tokenizer, prompts, self.max_new_tokens)
        lengths = [len(ids) + len(written) for ids, written in zip(prompts, continuations, strict=True)]
        self.meter.forward(self.model, sum(lengths), float(np.mean(lengths)))
        return [
            {"id": row.id, "reference": reference, "prediction": prompt.writer.first_part(written)}
            for row, (_, reference), written in zip(rows, pairs, continuations, strict=True)
        ]

    def _short(self, answer: str) -> str:
        """An answer as long as the model may write itself."""
        return cut(self.tokenizer, answer, self.max_new_tokens)
