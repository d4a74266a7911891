"""What an audit asks: the models of a run or of an arm's seeds, and the model before adaptation.

subjects = subjects_of_run(Run("runs/pretrain-1a2b3c4d"))   # the base, if it can be had, then the run's own
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.run import Run
from adaptkit.run_record import RunRecord, local_base, read_record

BASE = "base"


@dataclass(frozen=True)
class Subject:
    """What is audited: a model, or the models of an arm's seeds.

    Attributes:
        folders: one model for each seed.
        passes: over the audited text; None where that is not known.
    """

    name: str
    describe: str
    folders: tuple[Path, ...]
    passes: float | None = None


def subjects_of_run(run: Run, passes: float | None = None) -> list[Subject]:
    """The base that a finished run started from, where it can be had, and the model that it made."""
    record = read_record(run)
    subjects = [Subject(run.path.name, _made(record), (run.model,), passes)]
    base = _base(run, record)
    if base is not None:
        subjects.insert(0, Subject(BASE, record.base, (base,), 0.0))
    return subjects


def _made(record: RunRecord) -> str:
    if not record.base:
        return "from scratch"
    return "continued by adapters" if record.adapter else "continued, all weights"


def _base(run: Run, record: RunRecord) -> Path | None:
    folder = local_base(run.path, record.base)
    if folder is not None or not record.base:
        return folder
    try:
        return models.find(record.base)
    except ModelError:
        return None
