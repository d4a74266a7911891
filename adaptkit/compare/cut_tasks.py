"""What the tasks of a study lose of their texts, for its plan to say before anything is spent."""

from __future__ import annotations

import heapq

from adaptkit import models
from adaptkit.data.cut_texts import CutTexts
from adaptkit.data.drawing import draw_hash
from adaptkit.study.config import StudyConfig
from adaptkit.study.task_size import BYTES_PER_TOKEN

MOST_TEXTS = 5_000
"""Texts of a task that are looked at, drawn by hash."""


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
