"""The command that audits what was trained: can its answers be trusted?

adaptkit audit runs/STUDY          confidence, and which items people should decide
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli.arguments import find_run
from adaptkit.cli.console import Outcome, command
from adaptkit.errors import DataError

if TYPE_CHECKING:
    from adaptkit.audit.confidence import ArmConfidence
    from adaptkit.study.record import StudyRecord

app = typer.Typer()


class Audit(StrEnum):
    """What can be audited."""

    CONFIDENCE = "confidence"


Only = Annotated[list[Audit] | None, typer.Option(help="Only this audit; may be repeated.")]
Accuracy = Annotated[
    float | None,
    typer.Option(
        help="Wanted of the items that are answered; half as many errors as on all if not given.",
        min=0,
        max=1,
    ),
]
NO_PROBABILITIES = "no answers here are one label each with probabilities"


@command(
    app,
    "audit",
    [
        "adaptkit audit runs/tickets-5e6f7a8b",
        "adaptkit audit tickets --task queue --accuracy 0.97",
        "adaptkit audit runs/finetune-1a2b3c4d --only confidence --json",
    ],
)
def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN|STUDY", help="A finished fine-tuning or study.")],
    only: Only = None,
    task: Annotated[str | None, typer.Option(help="Of a study, only this task.")] = None,
    accuracy: Accuracy = None,
) -> Outcome:
    """Say how far a classifier's confidence can be trusted, and which items people should decide.

    Every figure with its interval, and below the table what it can and cannot say. Temperature and thresholds
    are fitted on development items and judged on test items (docs/audits.md).
    """
    from adaptkit.study.record import is_study, read_study

    folder = find_run(run)
    if is_study(folder):
        audits = _of_study(folder, read_study(folder), task, accuracy)
    elif task is not None:
        raise DataError("--task picks from a study, and this is none", where=str(folder), fix="leave it out")
    else:
        audits = _of_run(folder, accuracy)
    if not audits:
        fix = "audit a classifier: kind classify, label_words or pairs"
        raise DataError(NO_PROBABILITIES, where=str(folder), fix=fix)
    return Outcome(_view(audits), {"confidence": [dataclasses.asdict(one) for one in audits]})


def _of_study(
    folder: Path, record: StudyRecord, task: str | None, accuracy: float | None
) -> list[ArmConfidence]:
    from adaptkit.audit.confidence import audit_confidence
    from adaptkit.errors import nearest
    from adaptkit.study.results import collect

    names = [one.name for one in record.tasks]
    if task is not None and task not in names:
        what = f"the study has no task '{task}'{nearest(task, names)}"
        raise DataError(what, where=str(folder), fix=f"choose from {', '.join(names)}")
    results = collect(folder)
    chosen = names if task is None else [task]
    return [one for name in chosen for one in audit_confidence(results, name, accuracy=accuracy)]


def _of_run(folder: Path, accuracy: float | None) -> list[ArmConfidence]:
    """Audit a single fine-tuning: its test items, each drawn alone."""
    from adaptkit.audit.confidence import audit_rows, dev_rows
    from adaptkit.data.score_table import with_probabilities
    from adaptkit.run import Run, read_jsonl
    from adaptkit.run_record import read_record
    from adaptkit.seal import check
    from adaptkit.study.calibration import MIN_ITEMS

    opened = Run(folder)
    suite = read_record(opened).suite
    path = opened.items(suite)
    if not suite or not path.is_file():
        return []
    check(path)
    rows = with_probabilities(list(read_jsonl(path)))
    if len(rows) < MIN_ITEMS:
        what = f"{len(rows)} test items with one label and its probability; an audit needs {MIN_ITEMS}"
        raise DataError(what, where=str(path), fix="name test data in the config, and train again")
    return [audit_rows(folder.name, suite, [(rows, dev_rows(opened, suite))], None, accuracy=accuracy)]


def _view(audits: Sequence[ArmConfidence]) -> tuple[Any, ...]:
    """One table and the sentences of each task."""
    from rich.table import Table

    from adaptkit.report.confidence_section import confidence_cells, confidence_columns, lead, notes

    parts: list[Any] = []
    for task in dict.fromkeys(one.task for one in audits):
        of_task = [one for one in audits if one.task == task]
        table = Table(title=f"{task}: what people should decide", title_justify="left")
        table.add_column("arm", overflow="fold")
        for name in confidence_columns(of_task[0]):
            table.add_column(name, justify="right")
        for one in of_task:
            table.add_row(one.arm, *confidence_cells(one))
        best = max(of_task, key=lambda one: one.accuracy.mean)
        parts += [table, lead(best), *(f"- {sentence}" for sentence in notes(best)), ""]
    return tuple(parts)
