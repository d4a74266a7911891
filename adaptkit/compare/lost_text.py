"""What a study loses of its texts, for its plan to say before anything is spent: what is cut off at a task's
max_length, and what a tokenizer cannot give back."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from adaptkit import models
from adaptkit.compare.build_stages import scores_text
from adaptkit.data.cut_texts import CutTexts
from adaptkit.data.drawing import draw_hash
from adaptkit.data.readers import read
from adaptkit.models.round_trip import check_round_trip, lost_sentence
from adaptkit.study.config import StudyConfig
from adaptkit.study.task_size import BYTES_PER_TOKEN

MOST_TEXTS = 5_000
"""Texts of a task that are looked at, drawn by hash."""
CHECKED_TEXTS, CHECKED_CHARS = 400, 2_000
"""Texts of the domain that tokenizers are tried on, drawn by hash, and how much of each."""
BYTE_TOKENIZER = "choose a base whose tokenizer works on bytes, or set tokenizer.kind=bpe for your own"


def cut_sentences(config: StudyConfig) -> dict[str, str]:
    """Task -> how many of its texts are cut at its max_length, of the tasks that lose something.

    Texts are counted in the base's tokens; without a base, in tokens of BYTES_PER_TOKEN bytes.
    """
    tokenizer = models.load_tokenizer(models.find(config.base)) if config.base else None
    sentences: dict[str, str] = {}
    for index, task in enumerate(config.tasks):
        texts, what = task.task_kind.texts(task), "texts"
        if len(texts) > MOST_TEXTS:
            texts, what = heapq.nsmallest(MOST_TEXTS, texts, key=draw_hash), "texts drawn by hash"
        if tokenizer is None:
            what = f"{what}, estimated by their bytes,"
            lengths = [round(len(text.encode()) / BYTES_PER_TOKEN) for text in texts]
        else:
            lengths = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]] if texts else []
        cut = CutTexts.of(lengths, task.max_length)
        if sentence := cut.sentence(f"tasks.{index}.max_length", what):
            sentences[task.name] = sentence
    return sentences


def lossy_tokenizers(config: StudyConfig) -> dict[str, str]:
    """Setting -> what the tokenizer that it names cannot give back of the domain's text, where it loses some.

    A tokenizer that the study trains itself gives back any text.
    Raises: ModelError for one that loses so much that bits per byte would not measure the model.
    """
    if not scores_text(config):
        return {}
    named = dict(_named_tokenizers(config))
    if not named:
        return {}
    rows = read(config.domain.test or config.domain.train, "text").rows
    texts = heapq.nsmallest(CHECKED_TEXTS, (row.text for row in rows), key=draw_hash)
    sentences: dict[str, str] = {}
    for setting, folder in named.items():
        tokenizer = models.load_tokenizer(models.find(folder))
        parts = (text[:CHECKED_CHARS] for text in texts)
        if share := check_round_trip(tokenizer, parts, where=setting, fix=BYTE_TOKENIZER):
            sentences[setting] = lost_sentence(share)
    return sentences


def _named_tokenizers(config: StudyConfig) -> Iterator[tuple[str, str]]:
    if config.base:
        yield "base", config.base
    if config.tokenizer.path and any(arm.origin.starts_random for arm in config.parsed_arms):
        yield "tokenizer.path", config.tokenizer.path
