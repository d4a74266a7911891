"""Answer free-text tasks by prompts: an instruction and a few answered examples, nothing trained.

The format of the prompt is chosen on the dev split among exactly `trials` formats, and with a finder the
passages that stand in it with them. A base with a chat template is asked through it, the turns of a
conversation as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from adaptkit.data.drawing import draw_from
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.score_table import ItemRow, Score
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers
from adaptkit.finetune.generation import generate
from adaptkit.finetune.prompt_examples import drawn_examples
from adaptkit.finetune.prompt_formats import Choices, num_examples
from adaptkit.finetune.prompt_passages import Finder, Setting, asked_with_passages, passage_facts, settings
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
    finder: Finder | None = None,
) -> FrozenAnswers:
    """Choose a format on dev among `trials`, answer the test split with it.

    Args:
        model: causal language model.
        train: rows with answers, which the examples are drawn from by `seed`.
        score: item rows -> metrics; `metric` names the one to choose by, larger is better.
        words: the task's instruction; made if not given.
        examples: answered examples in a prompt; None takes two.
        finder: looks up passages for each question; None asks without any.
    Raises: DataError for rows without an answer.
    """
    meter = ForwardMeter()
    with meter.running():
        count = num_examples(examples, 0)
        shots = drawn_examples(train, (dev, test), count, seed)
        prompter = _Prompter(model, tokenizer, shots, words or TaskWords(), max_new_tokens, meter, finder)
        judges = draw_from(dev, MAX_DEV_ROWS).rows
        choices = Choices(bool(tokenizer.chat_template), described=False, examples=count, labels=False)
        tried = [
            (setting, score(prompter.rows(judges, setting))) for setting in settings(trials, choices, finder)
        ]
        best, scores = max(tried, key=lambda pair: pair[1][metric])
        rows = prompter.rows(test.rows, best)
        meter.flops += finder.flops if finder is not None else 0.0
    trial_rows = [{**setting.fields, **result} for setting, result in tried]
    chosen = {**best.fields, "prompt": prompter.prompt(best).shown()}
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
        finder: Finder | None,
    ):
        self.model, self.tokenizer, self.words, self.meter = model, tokenizer, words, meter
        self.max_new_tokens, self.finder = max_new_tokens, finder
        pairs = map(question_and_answer, shots)
        self.examples = [(question.whole, self._short(answer)) for question, answer in pairs]

    def prompt(self, setting: Setting) -> Prompt:
        """The prompts of a setting."""
        fmt = setting.fmt
        return fit(
            writer_of(self.tokenizer, fmt),
            self.tokenizer,
            blocks(self.words, (), fmt),
            self.examples[: fmt.shots],
            context=context_length(self.model),
            answer_tokens=self.max_new_tokens,
            passages=setting.num_passages,
        )

    def rows(self, rows: Sequence[Row], setting: Setting) -> list[ItemRow]:
        """An item row with reference and prediction for each row, and with what was looked up for it."""
        prompt = self.prompt(setting)
        pairs = [question_and_answer(row) for row in rows]
        asked = asked_with_passages(prompt, [question for question, _ in pairs], rows, self.finder, setting)
        prompts = [prompt.ids(question) for question in asked]
        continuations = generate(self.model, self.tokenizer, prompts, self.max_new_tokens)
        lengths = [len(ids) + len(written) for ids, written in zip(prompts, continuations, strict=True)]
        self.meter.forward(self.model, sum(lengths), float(np.mean(lengths)))
        self.meter.tokens_per_item = float(np.mean(lengths))
        items: list[ItemRow] = []
        for row, pair, of, written in zip(rows, pairs, asked, continuations, strict=True):
            question, reference = pair
            item = {"id": row.id, "reference": reference, "prediction": prompt.writer.first_part(written)}
            if setting.lookup is not None:
                item |= passage_facts(question.whole, of.passages, reference, item["prediction"])
            items.append(item)
        return items

    def _short(self, answer: str) -> str:
        """An answer as long as the model may write itself."""
        return cut(self.tokenizer, answer, self.max_new_tokens)
