"""Spans of a text, each with a label (names, doses): a head that tags words, and a probe that does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from adaptkit import models
from adaptkit.data.annotated_rows import SpanRows, WordTokens
from adaptkit.data.annotations import OUTSIDE, spans_from_tags, tags_of, words_of
from adaptkit.data.drawing import draw_order
from adaptkit.data.label_names import check_labels
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.score_table import ItemRow, macro_set_f1_table, micro_f1_table
from adaptkit.errors import DataError
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers
from adaptkit.finetune.probe import strengths
from adaptkit.finetune.task_protocol import Classify, Examples
from adaptkit.model_uses import Use
from adaptkit.models.batching import BATCH_TOKENS, batches_by_length, pad_right
from adaptkit.models.positions import fitting_length
from adaptkit.notices import tell
from adaptkit.trainer.objective import Objective, TokenLabels

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MOST_PROBE_WORDS = 50_000
"""Words that a probe learns from; rows are drawn by hash."""


class Spans(Classify):
    """A tag for every word, read off at its first token; spans are what the tags say."""

    want, use, model_kind = "spans", Use.TAG, "tagger"
    problem_type = None

    @property
    def output_names(self) -> list[str]:
        return tag_names(self.label_names)

    def look_at(self, train: Dataset) -> None:
        check_spans_there(train)
        tell_cut_words(train)

    def objective(self) -> Objective:
        return TokenLabels()

    def source(self, dataset: Dataset) -> Examples:
        check_labels(dataset, self.label_names)
        return SpanRows(dataset, self.tokenizer, self.max_length, self.output_names)

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        tokens = [WordTokens(row, self.tokenizer, self.max_length) for row in dataset.rows]
        names = self.output_names
        outputs = _at_first_tokens(model, lambda batch: model(**batch).logits, tokens, self.tokenizer)
        tags = [[names[number] for number in logits.argmax(-1)] for logits in outputs]
        return [span_row(*parts) for parts in zip(dataset.rows, tokens, tags, strict=True)]

    def score(self, rows: Sequence[ItemRow]) -> dict[str, float]:
        return span_scores(rows)


def tag_names(labels: Sequence[str]) -> list[str]:
    """O, and B- and I- of every label."""
    return [OUTSIDE, *(f"{mark}-{label}" for label in labels for mark in "BI")]


def check_spans_there(train: Dataset) -> None:
    """Raises: DataError where no training row has a span."""
    if not train.labels:
        where = train.rows[0].where if train.rows else None
        raise DataError("no training row has a span", where=where, fix="name the column: {spans: <column>}")


def tell_cut_words(train: Dataset) -> None:
    """Say how many spans begin or end inside a word, and what becomes of them."""
    num_spans, inside = 0, []
    for row in train.rows:
        places = words_of(row.text, row.values.get("tokens"))
        starts, ends = {start for start, _ in places}, {end for _, end in places}
        for span in row.values["spans"]:
            num_spans += 1
            if span["start"] not in starts or span["end"] not in ends:
                inside.append(row.where)
    if inside:
        what = f"{len(inside):,} of {num_spans:,} spans begin or end inside a word (the first at {inside[0]})"
        tell(f"{what}: they are learnt as whole words, and are only found so")


def span_row(row: Row, tokens: WordTokens, tags: Sequence[str]) -> ItemRow:
    """An item row of predicted tags.

    Args:
        tags: of the words that have a token of their own, in order. A word that shares its token goes on with
            that word's span; one that was cut off is outside.
    """
    given = iter(tags)
    of_words: list[str] = []
    for place, shared in zip(tokens.places, tokens.shared, strict=True):
        tag = next(given) if place is not None else OUTSIDE
        if shared and of_words[-1] != OUTSIDE:
            tag = f"I-{of_words[-1][2:]}"
        of_words.append(tag)
    return answer_row(row, spans_from_tags(tokens.words, of_words))


def answer_row(row: Row, predicted: Sequence[dict]) -> ItemRow:
    """An item row of predicted spans; spans are [start, end, label]."""
    spans = row.values["spans"]
    return {"id": row.id, "spans": _as_lists(spans), "predicted_spans": _as_lists(predicted)}


def _as_lists(spans: Sequence[dict]) -> list[list[object]]:
    return [[span["start"], span["end"], span["label"]] for span in spans]


def span_scores(rows: Sequence[ItemRow]) -> dict[str, float]:
    """F1 of whole spans over all rows, and its mean over labels."""
    predicted, actual = (
        [[tuple(span) for span in row[name]] for row in rows] for name in ("predicted_spans", "spans")
    )
    return {
        "entity_f1": micro_f1_table(predicted, actual).value,
        "macro_entity_f1": macro_set_f1_table(predicted, actual, lambda span: span[2]).value,
    }


def probe_spans(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    parts: dict[str, Dataset],
    *,
    trials: int,
    max_length: int,
    metric: str,
) -> FrozenAnswers:
    """Logistic regression on the frozen state of each word's first token; C is chosen on dev.

    Args:
        parts: train, dev and test.
        metric: entity_f1 or macro_entity_f1, what C is chosen by.
    """
    names = tag_names(parts["train"].labels)
    for part in ("dev", "test"):
        check_labels(parts[part], parts["train"].labels)
    max_length = fitting_length(max_length, models.unwrap(model).config)
    read = {**parts, "train": parts["train"].with_rows(_within(parts["train"].rows, MOST_PROBE_WORDS))}
    meter = ForwardMeter()
    with meter.running():
        words = {
            part: [WordTokens(row, tokenizer, max_length) for row in data.rows] for part, data in read.items()
        }
        states = {part: _states(model, of_part, tokenizer, meter) for part, of_part in words.items()}
        truth = [
            names.index(tag)
            for row, of_row in zip(read["train"].rows, words["train"], strict=True)
            for tag, place in zip(tags_of(of_row.words, row.values["spans"]), of_row.places, strict=True)
            if place is not None
        ]
        inputs = np.concatenate(states["train"])
        scaler = StandardScaler().fit(inputs)
        tried = []
        for strength in strengths(trials):
            head = LogisticRegression(C=strength, max_iter=200).fit(scaler.transform(inputs), truth)
            meter.flops += 4.0 * inputs.size * len(names) * float(np.max(head.n_iter_))

            def tags(state: np.ndarray, head: LogisticRegression = head) -> list[str]:
                return [names[number] for number in head.predict(scaler.transform(state))]

            rows = {
                part: [
                    span_row(row, of_row, tags(state) if len(state) else [])
                    for row, of_row, state in zip(read[part].rows, words[part], states[part], strict=True)
                ]
                for part in ("dev", "test")
            }
            tried.append(({"C": strength}, span_scores(rows["dev"]), rows["test"]))
        chosen, dev, rows_of_test = max(tried, key=lambda trial: trial[1][metric])
    settings = [{**setting, **result} for setting, result, _ in tried]
    return FrozenAnswers(rows_of_test, dev, chosen, settings, meter.cost(model))


def _within(rows: Sequence[Row], most: int) -> list[Row]:
    """Rows with about so many words, in the order of their hash."""
    num_words = 0
    chosen = []
    for row in sorted(rows, key=draw_order):
        if num_words >= most:
            break
        num_words += len(row.text.split())
        chosen.append(row)
    return chosen


def _states(
    model: PreTrainedModel,
    tokens: Sequence[WordTokens],
    tokenizer: PreTrainedTokenizerFast,
    meter: ForwardMeter,
) -> list[np.ndarray]:
    """Last hidden states at the first token of each word, float64 [num_words, hidden_size] of each text."""
    backbone = models.unwrap(model).base_model

    def read(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        meter.forward(backbone, batch["input_ids"].numel(), batch["input_ids"].shape[1])
        return backbone(**batch).last_hidden_state

    return _at_first_tokens(model, read, tokens, tokenizer)


def _at_first_tokens(
    model: PreTrainedModel,
    read: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    tokens: Sequence[WordTokens],
    tokenizer: PreTrainedTokenizerFast,
) -> list[np.ndarray]:
    """What `read` gives of each batch at the first token of each word, one array for each text."""
    values: dict[int, np.ndarray] = {}
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for items in batches_by_length([len(text.ids) for text in tokens], BATCH_TOKENS):
            batch = pad_right([tokens[i].ids for i in items], tokenizer.pad_token_id or 0, model.device)
            states_BTD = read(batch).double().cpu()
            for number, index in enumerate(items):
                places = [place for place in tokens[index].places if place is not None]
                values[index] = states_BTD[number, places].numpy()
    model.train(was_training)
    return [values[index] for index in range(len(tokens))]
