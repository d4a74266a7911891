"""Answer the rows of a fine-tuning by word counts: the score that its model has to beat.

baseline = finetune_baseline(config, run)          # of a finished run; None for free text
baseline.name, baseline.scores
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import adaptkit.study.tasks  # noqa: F401 registers the kinds of task
from adaptkit import models
from adaptkit.data.drawing import draw_from
from adaptkit.data.readers import Dataset
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import read_splits
from adaptkit.finetune.tasks import task_of
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import read_record
from adaptkit.study.task import KINDS, TaskConfig, TaskFiles

MAX_TRAIN_ROWS = 20_000
"""Rows that word counts learn from at most, drawn by hash: a few seconds."""


@dataclass(frozen=True)
class FinetuneBaseline:
    """What answers without a language model reach on the rows that a fine-tuning was scored on.

    Attributes:
        name: of the word counts, as studies call them.
        scores: by the same metrics as the model's.
        most_frequent: the share of the most frequent label; None where rows have no one label.
    """

    name: str
    scores: dict[str, float]
    most_frequent: float | None


def finetune_baseline(config: FinetuneConfig, run: Run) -> FinetuneBaseline | None:
    """Score word counts on the test rows of a finished fine-tuning, or on its dev rows where it has no test.

    Returns: None for a kind of task that word counts do not answer.
    """
    kind = KINDS.get(config.kind)
    if kind is None:
        return None
    splits = read_splits(config)
    judged = splits.get("test", splits["dev"])
    train = draw_from(splits["train"], MAX_TRAIN_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        files = _written({"train": train, "dev": splits["dev"], "test": judged}, Path(folder))
        answered = kind.baseline(TaskConfig(name=config.task, kind=config.kind, train=config.train), files)
    if answered is None:
        return None
    task = task_of(read_record(run), models.load_tokenizer(run.model))
    return FinetuneBaseline(answered.name, task.score(answered.rows), _most_frequent(judged))


def _written(splits: Mapping[str, Dataset], folder: Path) -> TaskFiles:
    """The rows as a study prepares them."""
    for name, dataset in splits.items():
        write_jsonl(folder / f"{name}.jsonl", ({**row.values, "id": row.id} for row in dataset.rows))
    return TaskFiles(folder, folder / "train.jsonl", folder / "dev.jsonl", folder / "test.jsonl")


def _most_frequent(judged: Dataset) -> float | None:
    labels = [row.values["label"] for row in judged.rows if "label" in row.values]
    if not labels:
        return None
    return Counter(labels).most_common(1)[0][1] / len(labels)
