"""Audit the language models of a finished study, the arms side by side: what they keep of its domain text,
and what they make of sentences of the user's own.

record = audit_study(Path("runs/tickets-5e6f7a8b"))   # continued by all weights, by adapters, from scratch
"""

from __future__ import annotations

from pathlib import Path

from adaptkit.audit.bias import audit_bias
from adaptkit.audit.bias_record import BiasRecord
from adaptkit.audit.memorisation import NUM_PASSAGES, audit_memorisation
from adaptkit.audit.record import MemorisationRecord
from adaptkit.audit.subjects import Subject
from adaptkit.audit.training_text import audited_text, passes_of
from adaptkit.compare.grouped_scores import grouped_scores
from adaptkit.compare.workspace import rows_of
from adaptkit.config import load
from adaptkit.errors import DataError
from adaptkit.models.folder import find
from adaptkit.run import Run
from adaptkit.run_record import local_base, read_record
from adaptkit.seal import check
from adaptkit.study.arms import Origin
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_record import WHOLE
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.record import ArmRecord, ScoreRecord, StudyRecord, read_study


def audit_study(folder: Path, *, num: int = NUM_PASSAGES) -> MemorisationRecord:
    """Audit every arm of the text ledger, all seeds, on the domain's training and test text.

    The control is the base as it is. An arm on other text (placebo) has read the domain's no time.

    Args:
        num: passages at most: of training and of test text, and of each number of repeats.
    Raises: DataError for a study without causal language models, or whose prepared text is gone.
    """
    record = read_study(folder)
    files = _prepared(folder, record)
    config = load(StudyConfig, Run(folder).config_path).config
    train, held_out = (rows_of(part("domain")) for part in (files.train, files.test))
    text = audited_text(train, held_out, config.size.seq_len, config.canaries, str(folder))
    subjects = language_subjects(folder, record)
    control = control_of(subjects)
    return audit_memorisation(text, subjects, num=num, control=control, confidence=record.confidence)


def audit_study_bias(
    folder: Path,
    *,
    pairs: Path | None = None,
    words: Path | None = None,
    by: str | None = None,
    task: str | None = None,
) -> BiasRecord:
    """Audit the arms for bias: the language models on the user's sentences and words, errors by a column.

    Args:
        by: a column of the data files; without it, and without pairs and words, the source of rows, or their
            group.
        task: for errors, only this one.
    Raises: DataError as `language_subjects` and `grouped_scores` do.
    """
    record = read_study(folder)
    asked = BiasRecord(confidence=record.confidence)
    if pairs is not None or words is not None:
        subjects = language_subjects(folder, record)
        control = control_of(subjects)
        asked = audit_bias(subjects, pairs=pairs, words=words, control=control, confidence=record.confidence)
        if by is None and task is None:
            return asked
    return asked.model_copy(update={"tasks": grouped_scores(folder, by, task=task)})


def _prepared(folder: Path, record: StudyRecord) -> PreparedFiles:
    prepared = folder.parent / (record.prepared_run or "")
    if not record.prepared_run or not prepared.is_dir():
        what = "the text that this study learnt is no longer there"
        raise DataError(what, where=str(prepared), fix="run the same `adaptkit compare` again")
    check(prepared)
    return PreparedFiles(prepared)


def control_of(subjects: list[Subject]) -> str | None:
    """The base as it is; None in a study without it."""
    return next((each.name for each in subjects if each.name == Origin.GENERIC), None)


def language_subjects(folder: Path, record: StudyRecord) -> list[Subject]:
    """The models of the text ledger, all seeds of each arm.

    Raises: DataError for a study without causal language models.
    """
    task = next((task.name for task in record.tasks if task.kind == "language"), None)
    subjects = []
    for arm in record.arms:
        scores = [s for s in record.scores if (s.task, s.arm, s.portion) == (task, arm.name, WHOLE)]
        if arm.ledger == "text" and scores:
            subjects.append(_subject(folder, record, arm, sorted(scores, key=lambda score: score.seed)))
    if not subjects:
        what = "the likelihood of whole texts is asked for, and no model of this study gives any"
        fix = "audit a study of causal language models, or one of its pretrainings alone"
        raise DataError(what, where=str(folder), fix=fix)
    return subjects


def _subject(folder: Path, record: StudyRecord, arm: ArmRecord, scores: list[ScoreRecord]) -> Subject:
    runs = [Run(folder.parent / score.model_run) for score in scores if score.model_run is not None]
    if not runs:  # the base as it is, the same for all seeds
        made = record.base.run
        base = Run(folder.parent / made).model if made else local_base(folder, record.base.model)
        return Subject(arm.name, arm.describe, (base or find(record.base.model),), 0.0)
    passes: float | None = 0.0
    if Origin(arm.origin).learns_domain:
        passes = passes_of(runs[0], read_record(runs[0]))
    return Subject(arm.name, arm.describe, tuple(run.model for run in runs), passes)
