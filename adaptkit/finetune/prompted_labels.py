"""Label texts by prompts: the language model itself scores the labels after a few examples, nothing trained.

An answer is one of the labels and nothing else: each is scored by its likelihood behind the prompt. Where one
label begins as another does to its end ("no", "no reply"), the token that closes an answer is scored with
them, so that the short one is not likelier for being short.

Likelihoods are calibrated, in one of two ways that compete as formats do. With content-free inputs (Zhao et
al. 2021, arXiv 2102.09690): a model that would say "positive" after an empty text is not believed that much
when it says so after a real one. Or by what it says on average to development texts, their labels unread
(Zhou et al. 2023, arXiv 2309.17249), beside the shares that the labels have in the training rows. The format
is chosen on the dev split among exactly `trials`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from adaptkit import models
from adaptkit.data.label_names import check_labels
from adaptkit.data.labels import label_rows, label_scores
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.score_table import Score
from adaptkit.errors import DataError
from adaptkit.finetune.choice_likelihood import score_choices, softmax
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers, goodness
from adaptkit.finetune.prompt_chat import ChatWriter
from adaptkit.finetune.prompt_examples import drawn_examples
from adaptkit.finetune.prompt_formats import MASKED_EXAMPLES, Choices, Format, num_examples
from adaptkit.finetune.prompt_passages import Finder, Setting, asked_with_passages, settings
from adaptkit.finetune.prompt_template import (
    PlainWriter,
    Prompt,
    Question,
    Sections,
    Writer,
    context_length,
    fit,
    opening,
    shared_prefix,
)
from adaptkit.finetune.prompt_words import TaskWords, written_labels
from adaptkit.notices import tell

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts that say nothing; of a masked language model's own mask, if it has one, the last is one token."""


def prompt_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    dev: Dataset,
    test: Dataset,
    label_names: Sequence[str],
    *,
    words: TaskWords | None = None,
    examples: int | None = None,
    trials: int = 3,
    seed: int = 0,
    metric: str = "accuracy",
    max_length: int = 0,
    finder: Finder | None = None,
    score: Score = label_scores,
) -> FrozenAnswers:
    """Choose a prompt format on dev, label the test split with it.

    Args:
        model: causal or masked language model.
        train: labelled rows the examples are drawn from.
        words: the task's instruction and what its labels mean; made from the labels if not given.
        examples: examples in a prompt; None takes one of each label, within bounds.
        trials: formats compared on the dev split.
        seed: of the examples.
        metric: what the choice is made by, one of `score`.
        max_length: tokens of each text at most; 0 is what the model reads.
        finder: looks up passages for each text; None asks without any.
        score: item rows of the dev split -> metrics.
    """
    for split in (dev, test):
        check_labels(split, label_names)
    meter = ForwardMeter()
    with meter.running():
        words = words or TaskWords()
        count = num_examples(examples, len(label_names))
        if not models.unwrap(model).can_generate():
            count = min(count, MASKED_EXAMPLES)
        prompter = _Prompter(model, tokenizer, label_names, words, max_length, meter)
        prompter.finder = finder
        prompter.shares = label_shares(train, label_names)
        prompter.examples = drawn_examples(train, (dev, test), count, seed)
        if not train.rows:
            raise DataError("no rows to draw examples from", fix="give a training split")
        tried = []
        for setting in settings(trials, prompter.choices(len(prompter.examples)), finder):
            dev_rows = label_rows(dev, label_names, prompter.probabilities(dev, setting))
            tried.append((setting, score(dev_rows), dev_rows))
        best, scores, dev_rows = max(tried, key=lambda trial: goodness(trial[1], metric))
        rows = label_rows(test, label_names, prompter.probabilities(test, best))
        meter.flops += finder.flops if finder is not None else 0.0
    trial_rows = [{**setting.fields, **result} for setting, result, _ in tried]
    chosen = {**best.fields, "prompt": prompter.prompt(best).shown()}
    return FrozenAnswers(rows, scores, chosen, trial_rows, meter.cost(model), dev_rows)


class _Prompter:
    """Scores the labels of texts under a setting, always with the same examples."""

    examples: Sequence[Row] = ()
    finder: Finder | None = None
    shares: np.ndarray
    """Of the labels in the training rows."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        words: TaskWords,
        max_length: int,
        meter: ForwardMeter,
    ):
        self.model, self.tokenizer, self.label_names, self.meter = model, tokenizer, list(label_names), meter
        self.words, self.max_length = words, max_length
        self._leaning: dict[Setting, np.ndarray] = {}
        self.causal = models.unwrap(model).can_generate()

    def choices(self, num_shots: int) -> Choices:
        """What formats may differ in."""
        return Choices(
            chat=self.causal and bool(self.tokenizer.chat_template),
            described=any(self.words.descriptions.values()),
            examples=num_shots,
            cased=written_labels(self.label_names, lower=True) != written_labels(self.label_names),
        )

    def prompt(self, setting: Setting) -> Prompt:
        """The prompts of a setting."""
        fmt = setting.fmt
        writer = writer_of(self.tokenizer, fmt)
        written = dict(zip(self.label_names, written_labels(self.label_names, fmt.lower), strict=True))
        return fit(
            writer,
            self.tokenizer,
            blocks(self.words, self.label_names, fmt),
            [(row.text, written[row.values["label"]]) for row in self.examples[: fmt.shots]],
            context=context_length(self.model),
            answer_tokens=max(map(len, self._answers(writer, fmt))),
            max_length=self.max_length,
            passages=setting.num_passages,
        )

    def probabilities(self, dataset: Dataset, setting: Setting) -> np.ndarray:
        """Calibrated probabilities [num_rows, num_labels]; for texts that say nothing nothing is looked up.

        What the first rows that a setting is tried on are answered on average is its leaning.
        """
        prompt, fmt = self.prompt(setting), setting.fmt
        choices = self._answers(prompt.writer, fmt)
        questions = [Question(row.text) for row in dataset.rows]
        asked = asked_with_passages(prompt, questions, dataset.rows, self.finder, setting)
        rows = [prompt.ids(question) for question in [*map(Question, CONTENT_FREE), *asked]]
        if not self.causal and self.tokenizer.mask_token:
            rows[len(CONTENT_FREE) - 1] = self._with_mask(prompt)
        prefix = shared_prefix(rows)
        queries = [ids[len(prefix) :] for ids in rows]
        likelihoods = score_choices(self.model, self.tokenizer, prefix, queries, choices)
        mean_length = float(np.mean([len(ids) for ids in rows]))
        self.meter.forward(self.model, likelihoods.tokens_read, mean_length)
        items = [len(ids) for ids in rows[len(CONTENT_FREE) :]]
        self.meter.tokens_per_item = float(np.mean(items) + np.mean([len(ids) for ids in choices]))
        scores = likelihoods.scores(fmt.normalised)
        if fmt.calibration == "empty":
            return calibrate(scores, len(CONTENT_FREE))
        chances = softmax(scores[len(CONTENT_FREE) :])
        leaning = self._leaning.setdefault(setting, chances.mean(axis=0))
        return softmax(np.log(chances + 1e-30) - np.log(leaning + 1e-30) + np.log(self.shares))

    def _answers(self, writer: Writer, fmt: Format) -> list[list[int]]:
        """Token ids of each label behind a prompt, such that no label begins as another does to its end."""
        answers = [writer.answer(name) for name in written_labels(self.label_names, fmt.lower)]
        if self.causal and begin_alike(answers):
            answers = [[*ids, *writer.ending()] for ids in answers]
        if len(set(map(tuple, answers))) < len(answers):
            tell("the base writes two of the labels with the same tokens: a prompt cannot tell them apart")
        return answers

    def _with_mask(self, prompt: Prompt) -> list[int]:
        """The prompt whose text is the model's own mask."""
        mask = Question(str(self.tokenizer.mask_token))
        text = prompt.writer.text(Sections(prompt.block, prompt.examples, mask))
        inner: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return opening(self.tokenizer) + inner


def writer_of(tokenizer: PreTrainedTokenizerBase, fmt: Format) -> Writer:
    """What writes the prompts of a format."""
    return ChatWriter(tokenizer) if fmt.style == "chat" else PlainWriter(tokenizer, fmt.wording)


def blocks(words: TaskWords, label_names: Sequence[str], fmt: Format) -> list[str]:
    """The instruction under a format, the fullest first; a prompt that has no room takes the next."""
    if not fmt.instruction:
        return []
    described = [True, False] if fmt.descriptions else [False]
    full = [words.block(label_names, described=each, lower=fmt.lower) for each in described]
    return [*full, words.asked(label_names)]


def begin_alike(answers: Sequence[Sequence[int]]) -> bool:
    """Whether one of these rows of tokens is the beginning of another."""
    ordered = sorted(map(list, answers))
    return any(later[: len(row)] == row for row, later in zip(ordered, ordered[1:], strict=False))


def label_shares(train: Dataset, label_names: Sequence[str]) -> np.ndarray:
    """The share of each label, each counted once more than it stands there."""
    counts = np.ones(len(label_names))
    for row in train.rows:
        counts[list(label_names).index(row.values["label"])] += 1
    return counts / counts.sum()


def calibrate(scores: np.ndarray, num_content_free: int) -> np.ndarray:
    """Probabilities of the later rows, divided by the mean probabilities of the first `num_content_free` and
    renormalised."""
    chances = softmax(scores)
    empty_text = chances[:num_content_free].mean(axis=0)
    return softmax(np.log(chances[num_content_free:] + 1e-30) - np.log(empty_text + 1e-30))
