"""A study small enough for a test: made-up prose as general text, the same read backwards as domain text, one
task."""

from __future__ import annotations

import json
import random
from pathlib import Path

from adaptkit.config import load
from adaptkit.study.config import StudyConfig

WHO = (
    "the engine",
    "a small model",
    "our patient",
    "the second trial",
    "every nurse",
    "the old library",
    "one editor",
)
DOES = ("reads", "measures", "improves", "forgets", "compares", "records", "explains")
WHAT = (
    "the dose",
    "a long report",
    "seven samples",
    "the missing page",
    "each answer",
    "the final score",
    "a blood test",
)

STUDY = """
name: tiny
base_flops: 1e10
domain: {train: {files: [FOLDER/domain.jsonl]}}
general: {train: {files: [FOLDER/general.jsonl]}}
tasks:
  - {name: mood, train: {files: [FOLDER/mood.jsonl]}, max_epochs: 3}
arms: [generic+prompt, generic+probe, generic+lora, scratch+full]
budget: {amount: 1e11, trials: 2, trial_share: 0.15, task_share: 0.3}
seeds: 2
size: {params: 130k, seq_len: 64}
tokenizer: {vocab_size: 512}
trainer: {global_batch_size: 8, warmup_fraction: 0.2}
jobs: 2
"""


def write_texts(folder: Path) -> None:
    """general.jsonl, domain.jsonl and mood.jsonl, the same in every run."""
    for seed, (name, turn) in enumerate({"general": str, "domain": backwards}.items()):
        rng = random.Random(seed)
        rows = [
            {"text": turn(" ".join(_sentence(rng, DOES) for _ in range(rng.randint(4, 12))))}
            for _ in range(300)
        ]
        _write(folder / f"{name}.jsonl", rows)
    rng = random.Random(2)
    moods = {"good": ("improves", "explains"), "bad": ("forgets", "records")}
    labels = [rng.choice(sorted(moods)) for _ in range(240)]
    _write(
        folder / "mood.jsonl",
        [{"text": backwards(_sentence(rng, moods[label])), "label": label} for label in labels],
    )


def study_config(folder: Path, *overrides: str) -> StudyConfig:
    """The tiny study on the texts in `folder`."""
    path = folder / "study.yaml"
    path.write_text(STUDY.replace("FOLDER", str(folder)))
    return load(StudyConfig, path, list(overrides)).config


def backwards(text: str) -> str:
    return " ".join(word[::-1] for word in text.split())


def _sentence(rng: random.Random, verbs: tuple[str, ...]) -> str:
    return f"{rng.choice(WHO)} {rng.choice(verbs)} {rng.choice(WHAT)} in room {rng.randrange(1000)}."


def _write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
