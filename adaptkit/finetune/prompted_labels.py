"""The `prompt` arm: labels scored by the language model itself, from a few examples in the prompt, nothing
trained.

Label log-likelihoods are calibrated with content-free inputs (Zhao et al. 2021, arXiv 2102.09690): a model
that would say "positive" after an empty text is not believed that much when it says so after a real one.
Template, number of shots and length normalisation are chosen on the dev split among exactly `trials`
settings.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit import models
from adaptkit.data.labels import check_labels, label_rows, label_scores
from adaptkit.errors import DataError
from adaptkit.finetune.choice_likelihood import score_choices
from adaptkit.finetune.frozen_answers import Meter, Outcome
from adaptkit.finetune.prompt_template import SHORTEST_TEXT, Template, context_length, opening

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from adaptkit.data import Dataset

TEMPLATES = ("{text}\nLabel:", "Text: {text}\nThis is", "Q: {text}\nA:")
SHOTS = (4, 0, 8, 2, 16)
SHOTS_MASKED = (0, 2, 1, 4, 3)  # a masked LM reads the examples anew for every item, so they are few
CONTENT_FREE = ("N/A", "", "[MASK]")


@dataclass(frozen=True)
class Format:
    """One way to prompt: the text with its label's place at the end, the examples before it, how labels are
    compared."""

    template: str
    shots: int
    normalised: bool
    lower: bool


def formats(trials: int, shots: Sequence[int] = SHOTS) -> list[Format]:
    """The first `trials` settings of one fixed list; the four dials turn at different speeds, so all
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
) -> Outcome:
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
    meter = Meter()
    with meter.running():
        prompter = _Prompter(model, tokenizer, train, label_names, seed, meter)
        settings = formats(trials, SHOTS if models.unwrap(model).can_generate() else SHOTS_MASKED)
        tried = [
            (fmt, label_scores(label_rows(dev, label_names, prompter.probabilities(dev, fmt))))
            for fmt in settings
        ]
        best, scores = max(tried, key=lambda pair: pair[1][metric])
        rows = label_rows(test, label_names, prompter.probabilities(test, best))
    notes = [{**asdict(fmt), **result} for fmt, result in tried]
    return Outcome(rows, scores, asdict(best), notes, meter.cost(model))


class _Prompter:
    """Scores texts under a format with shots drawn once per number of shots."""

    def __init__(
        self, model: Any, tokenizer: Any, train: Dataset, label_names: Sequence[str], seed: int, meter: Meter
    ):
        if not train.rows:
            raise DataError("no rows to draw examples from", fix="give a training split")
        self.model, self.tokenizer, self.label_names, self.meter = model, tokenizer, list(label_names), meter
        self.order = _balanced_order(train, seed)

    def probabilities(self, dataset: Dataset, fmt: Format) -> np.ndarray:
        """Calibrated probabilities [num_rows, num_labels]."""
        builder = Template(self.tokenizer, fmt.template, context_length(self.model))
        choices = [builder.answer(_spoken(name, fmt.lower)) for name in self.label_names]
        longest = max(map(len, choices))
        start = opening(self.tokenizer)
        shots = self.order[: fmt.shots]
        while shots and builder.room(start, len(shots), longest) < SHORTEST_TEXT:
            shots = shots[:-1]
        room = builder.room(start, len(shots), longest)
        texts = builder.encode([row.values["text"] for row in shots])
        prefix = list(start)
        for row, text in zip(shots, texts, strict=True):
            prefix += (
                builder.query(text, room)
                + choices[self.label_names.index(row.values["label"])]
                + builder.separator
            )
        room = builder.room(prefix, 0, longest)
        queries = [
            builder.query(t, room)
            for t in builder.encode([*CONTENT_FREE, *(row.values["text"] for row in dataset.rows)])
        ]
        found = score_choices(self.model, self.tokenizer, prefix, queries, choices)
        self.meter.forward(self.model, found.tokens_read, len(prefix) + np.mean([len(q) for q in queries]))
        return calibrate(found.scores(fmt.normalised), len(CONTENT_FREE))


def calibrate(scores: np.ndarray, num_content_free: int) -> np.ndarray:
    """Probabilities of the later rows, divided by the mean probabilities of the first `num_content_free` and
    renormalised."""
    chances = softmax(scores)
    return softmax(
        np.log(chances[num_content_free:] + 1e-30) - np.log(chances[:num_content_free].mean(axis=0) + 1e-30)
    )


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _spoken(label: str, lower: bool) -> str:
    return (label.lower() if lower else label).replace("_", " ")


def _balanced_order(train: Dataset, seed: int) -> list[Any]:
    """Up to `max(SHOTS)` rows drawn by seed, the labels taking turns in an order that changes each round."""
    rng = random.Random(seed)
    by_label: dict[str, list[Any]] = {}
    for row in rng.sample(train.rows, len(train.rows)):
        by_label.setdefault(row.values["label"], []).append(row)
    order: list[Any] = []
    while len(order) < max(SHOTS) and any(by_label.values()):
        order += [
            by_label[label].pop() for label in rng.sample(sorted(by_label), len(by_label)) if by_label[label]
        ]
    return order[: max(SHOTS)]
