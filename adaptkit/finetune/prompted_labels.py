"""Label texts by prompts: the language model itself scores the labels after a few examples, nothing trained.

Label log-likelihoods are calibrated with content-free inputs (Zhao et al. 2021, arXiv 2102.09690): a model
that would say "positive" after an empty text is not believed that much when it says so after a real one.
Template, number of shots and length normalisation are chosen on the dev split among exactly `trials`
settings.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from adaptkit import models
from adaptkit.data.label_names import check_labels
from adaptkit.data.labels import label_rows, label_scores
from adaptkit.data.readers import Dataset, Row
from adaptkit.errors import DataError
from adaptkit.finetune.choice_likelihood import score_choices, softmax
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers
from adaptkit.finetune.prompt_template import SHORTEST_TEXT, Template, context_length, opening

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEMPLATES = ("{text}\nLabel:", "Text: {text}\nThis is", "Q: {text}\nA:")
SHOTS = (4, 0, 8, 2, 16)
SHOTS_MASKED = (0, 2, 1, 4, 3)
"""A masked LM reads the examples anew for every item, so they are few."""
CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts that say nothing; of a masked language model's own mask, if it has one, the last is one token."""


@dataclass(frozen=True)
class Format:
    """One way to prompt.

    Attributes:
        template: the text with its label's place at the end.
        shots: number of examples before it.
        normalised: compare labels by nats per token.
        lower: write labels in lower case.
    """

    template: str
    shots: int
    normalised: bool
    lower: bool


def formats(trials: int, shots: Sequence[int] = SHOTS) -> list[Format]:
    """The first `trials` settings of one fixed list; its four parts change at different speeds, so that all
    combinations come."""
    return [
        Format(TEMPLATES[i % 3], shots[i % 5], normalised=bool(i % 2), lower=bool(i // 2 % 2))
        for i in range(trials)
    ]


def prompt_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    dev: Dataset,
    test: Dataset,
    label_names: Sequence[str],
    *,
    trials: int = 3,
    seed: int = 0,
    metric: str = "accuracy",
) -> FrozenAnswers:
    """Choose a prompt format on dev, label the test split with it.

    Args:
        model: causal or masked language model.
        train: labelled rows the shots are drawn from.
        trials: settings compared on the dev split.
        seed: of the shots.
        metric: accuracy or macro_f1, what the choice is made by.
    """
    for split in (dev, test):
        check_labels(split, label_names)
    meter = ForwardMeter()
    with meter.running():
        prompter = _Prompter(model, tokenizer, train, label_names, seed, meter)
        shots = SHOTS if models.unwrap(model).can_generate() else SHOTS_MASKED
        settings = formats(trials, shots)
        tried = [
            (fmt, label_scores(label_rows(dev, label_names, prompter.probabilities(dev, fmt))))
            for fmt in settings
        ]
        best, scores = max(tried, key=lambda pair: pair[1][metric])
        rows = label_rows(test, label_names, prompter.probabilities(test, best))
    trial_rows = [{**asdict(fmt), **result} for fmt, result in tried]
    return FrozenAnswers(rows, scores, asdict(best), trial_rows, meter.cost(model))


class _Prompter:
    """Scores the labels of texts under a format; shots are drawn once, and each format takes the first."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        train: Dataset,
        label_names: Sequence[str],
        seed: int,
        meter: ForwardMeter,
    ):
        if not train.rows:
            raise DataError("no rows to draw examples from", fix="give a training split")
        self.model, self.tokenizer, self.label_names, self.meter = model, tokenizer, list(label_names), meter
        self.order = _balanced_order(train, seed)

    def probabilities(self, dataset: Dataset, fmt: Format) -> np.ndarray:
        """Calibrated probabilities [num_rows, num_labels]."""
        template = Template(self.tokenizer, fmt.template, context_length(self.model))
        choices = [template.answer(_label_words(name, fmt.lower)) for name in self.label_names]
        longest = max(map(len, choices))
        prefix = self._prefix(template, fmt.shots, choices)
        room = template.room(prefix, 0, longest)
        texts = template.encode([*CONTENT_FREE, *(row.text for row in dataset.rows)])
        if self.tokenizer.mask_token_id is not None:
            texts[len(CONTENT_FREE) - 1] = [self.tokenizer.mask_token_id]
        queries = [template.query(ids, room) for ids in texts]
        likelihoods = score_choices(self.model, self.tokenizer, prefix, queries, choices)
        mean_length = len(prefix) + float(np.mean([len(query) for query in queries]))
        self.meter.forward(self.model, likelihoods.tokens_read, mean_length)
        return calibrate(likelihoods.scores(fmt.normalised), len(CONTENT_FREE))

    def _prefix(self, template: Template, num_shots: int, choices: list[list[int]]) -> list[int]:
        """The labelled examples that fit, as token ids."""
        longest = max(map(len, choices))
        start = opening(self.tokenizer)
        shots = self.order[:num_shots]
        while shots and template.room(start, len(shots), longest) < SHORTEST_TEXT:
            shots = shots[:-1]
        room = template.room(start, len(shots), longest)
        prefix = list(start)
        texts = template.encode([row.text for row in shots])
        for row, text in zip(shots, texts, strict=True):
            label = choices[self.label_names.index(row.values["label"])]
            prefix += template.query(text, room) + label + template.separator
        return prefix


def calibrate(scores: np.ndarray, num_content_free: int) -> np.ndarray:
    """Probabilities of the later rows, divided by the mean probabilities of the first `num_content_free` and
    renormalised."""
    chances = softmax(scores)
    empty_text = chances[:num_content_free].mean(axis=0)
    return softmax(np.log(chances[num_content_free:] + 1e-30) - np.log(empty_text + 1e-30))


def _label_words(label: str, lower: bool) -> str:
    """A label as it is written in a prompt."""
    if lower:
        label = label.lower()
    return label.replace("_", " ")


def _balanced_order(train: Dataset, seed: int) -> list[Row]:
    """Up to `max(SHOTS)` rows drawn by seed, the labels taking turns in an order that changes each round."""
    rng = random.Random(seed)
    by_label: dict[str, list[Row]] = {}
    for row in rng.sample(train.rows, len(train.rows)):
        by_label.setdefault(row.values["label"], []).append(row)
    order: list[Row] = []
    while len(order) < max(SHOTS) and any(by_label.values()):
        order += [
            by_label[label].pop() for label in rng.sample(sorted(by_label), len(by_label)) if by_label[label]
        ]
    return order[: max(SHOTS)]
