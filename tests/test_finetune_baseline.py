"""What word counts reach beside a fine-tuning, on the same rows and by the same metrics."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from adaptkit.config import load
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.run import Run
from adaptkit.study.finetune_baseline import finetune_baseline


def test_word_counts_are_scored_on_the_rows_of_the_model(mood: Run) -> None:
    config = load(FinetuneConfig, mood.config_path).config
    baseline = finetune_baseline(config, mood)
    assert baseline is not None and baseline.name == "tfidf"
    assert baseline.scores["accuracy"] == 1.0, "the verb gives the mood away"
    labels = [json.loads(line)["label"] for line in (mood.path.parent.parent / "mood.test.jsonl").open()]
    most = max(labels.count(label) for label in set(labels))
    assert baseline.most_frequent == pytest.approx(most / len(labels))


def test_free_text_has_none(mood: Run) -> None:
    config = load(FinetuneConfig, mood.config_path, ["kind=sft"]).config
    assert finetune_baseline(config, mood) is None


def test_it_knows_the_kinds_of_task_by_itself() -> None:
    """Imported alone, as a program of the user's does."""
    code = "from adaptkit.study.finetune_baseline import KINDS; assert 'classify' in KINDS, KINDS"
    subprocess.run([sys.executable, "-c", code], check=True)
