"""What each kind of stage does, by name. Every function runs in a process of its own and returns JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adaptkit.compare.stages.data import prepare_data
from adaptkit.compare.stages.language import base, language, tokenizer
from adaptkit.compare.stages.task import baseline, task
from adaptkit.compare.workspace import StudyFolder


def prepare(folder: StudyFolder, threads: int) -> dict[str, Any]:
    """Read, deduplicate, decontaminate and split the data."""
    run, facts = prepare_data(folder.config, folder.root)
    return {
        "run": run.path.name,
        "facts": {k: v for k, v in facts.items() if k != "labels"},
        "labels": facts["labels"],
    }


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": prepare,
    "tokenizer": tokenizer,
    "base": base,
    "language": language,
    "task": task,
    "baseline": baseline,
}
