"""The command that audits what was trained: can its answers be trusted, what does it keep of its text, whom
is it unfair to?

adaptkit audit runs/STUDY          confidence, and which items people should decide
adaptkit audit runs/PRETRAINING    memorisation: membership, extraction, planted canaries
adaptkit audit RUN --only bias     sentences and word lists of one's own; of a study, error gaps by a column
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
    from rich.table import Table

    from adaptkit.audit.bias_record import BiasRecord
    from adaptkit.audit.confidence import ArmConfidence
    from adaptkit.audit.record import MemorisationRecord
    from adaptkit.study.record import StudyRecord

app = typer.Typer()


class Audit(StrEnum):
    """What can be audited."""

    CONFIDENCE = "confidence"
    MEMORISATION = "memorisation"
    BIAS = "bias"


Only = Annotated[list[Audit] | None, typer.Option(help="Only this audit; may be repeated.")]
Accuracy = Annotated[
    float | None,
    typer.Option(
        help="Wanted of the items that are answered; half as many errors as on all if not given.",
        min=0,
        max=1,
    ),
]
Passages = Annotated[
    int | None,
    typer.Option(help="Training and held-out passages at most; 200 if not given.", min=20, max=10_000),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        help="Sentences that differ in a word: first and second, or template and words; JSONL or CSV."
    ),
]
Words = Annotated[
    Path | None, typer.Option(help="Four word lists in YAML: two of targets, two of attributes; templates.")
]
By = Annotated[str | None, typer.Option(help="Of a study, error gaps by this column of its data files.")]
READ_BY = {
    "--task": (Audit.CONFIDENCE, Audit.BIAS),
    "--accuracy": (Audit.CONFIDENCE,),
    "--passages": (Audit.MEMORISATION,),
    "--pairs": (Audit.BIAS,),
    "--words": (Audit.BIAS,),
    "--by": (Audit.BIAS,),
}
"""Which audits read an option."""
NO_PROBABILITIES = "no answers here are one label each with probabilities"


@command(
    app,
    "audit",
    [
        "adaptkit audit runs/tickets-5e6f7a8b",
        "adaptkit audit tickets --task queue --accuracy 0.97",
        "adaptkit audit runs/finetune-1a2b3c4d --only confidence --json",
        "adaptkit audit runs/pretrain-9c8d7e6f --passages 400",
        "adaptkit audit tickets --only memorisation",
        "adaptkit audit tickets --only bias --by region",
        "adaptkit audit runs/pretrain-9c8d7e6f --only bias --pairs pairs.csv --words regions.yaml",
    ],
)
def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN|STUDY", help="A finished run or study.")],
    only: Only = None,
    task: Annotated[str | None, typer.Option(help="Of a study, only this task.")] = None,
    accuracy: Accuracy = None,
    passages: Passages = None,
    pairs: Pairs = None,
    words: Words = None,
    by: By = None,
) -> Outcome:
    """Say how far confidence can be trusted, what a model keeps of its text, and where it is biased.

    Every figure with its interval, and below the table what it can and cannot say (docs/audits.md). Of a
    classifier, a study's or one of its own: its confidence, and which items people should decide. Of a
    pretraining, and of a study with --only memorisation, which asks its models and takes minutes: membership,
    extraction, and canaries where they were planted. With --only bias: sentences and word lists of your own,
    before and after adaptation, and of a study the error gaps by a column of its data.
    """
    from adaptkit.study.record import is_study

    folder = find_run(run)
    chosen = set(only or [_usual(folder)])
    given: dict[str, object] = {"--task": task, "--accuracy": accuracy, "--passages": passages}
    given |= {"--pairs": pairs, "--words": words, "--by": by}
    _check_options(chosen, folder, given)
    view: tuple[Any, ...] = ()
    found: dict[str, object] = {}
    if Audit.CONFIDENCE in chosen:
        audits = _confidence(folder, task, accuracy)
        view += _view(audits)
        found["confidence"] = [dataclasses.asdict(one) for one in audits]
    if Audit.MEMORISATION in chosen:
        record = _memorisation(folder, passages)
        view += _memorisation_view(record)
        found["memorisation"] = record.model_dump(mode="json")
    if Audit.BIAS in chosen:
        bias = _bias(folder, pairs, words, by, task)
        view += _bias_view(bias)
        found["bias"] = bias.model_dump(mode="json")
    if is_study(folder) and chosen == {Audit.CONFIDENCE}:
        view += ("--only memorisation: what its language models keep of their text",)
        view += ("--only bias --by COLUMN: whether errors fall more on some",)
    return Outcome(view, found)


def _check_options(chosen: set[Audit], folder: Path, given: dict[str, object]) -> None:
    """Refuse what no chosen audit reads.

    Raises: DataError.
    """
    for option, value in given.items():
        readers = READ_BY[option]
        if value is not None and not chosen.intersection(readers):
            what = f"{option}: only the audit of {' and of '.join(readers)} reads this"
            raise DataError(what, where=str(folder), fix=f"leave it out, or add --only {readers[-1]}")


def _usual(folder: Path) -> Audit:
    """What is audited where nothing is asked for."""
    from adaptkit.run import Run
    from adaptkit.run_record import RecipeKind, read_record
    from adaptkit.study.record import is_study

    pretrained = not is_study(folder) and read_record(Run(folder)).recipe is RecipeKind.PRETRAIN
    return Audit.MEMORISATION if pretrained else Audit.CONFIDENCE


def _memorisation(folder: Path, passages: int | None) -> MemorisationRecord:
    from adaptkit.audit.memorisation import NUM_PASSAGES, audit_run
    from adaptkit.audit.record import write_memorisation
    from adaptkit.run import Run
    from adaptkit.study.record import is_study

    run, num = Run(folder), passages or NUM_PASSAGES
    if not is_study(folder):
        record = audit_run(run, num=num)
        write_memorisation(run, record)
        return record
    from adaptkit.compare.audited_study import audit_study
    from adaptkit.report.write import write_report

    record = audit_study(folder, num=num)
    write_memorisation(run, record)
    write_report(folder)
    return record


def _memorisation_view(record: MemorisationRecord) -> tuple[Any, ...]:
    """The tables, the lead and the notes."""
    from adaptkit.report.memorisation_section import lead, memorisation_tables, notes

    parts: list[Any] = []
    for each in memorisation_tables(record):
        parts += [f"{each.title}:", _table(each.columns, each.rows)]
    return (*parts, lead(record), *(f"- {sentence}" for sentence in notes(record)), "")


def _bias(
    folder: Path, pairs: Path | None, words: Path | None, by: str | None, task: str | None
) -> BiasRecord:
    """Ask the models for what files are given; group a study's errors by a column, or where none are."""
    from adaptkit.audit.bias_record import write_bias
    from adaptkit.run import Run
    from adaptkit.study.record import is_study

    if is_study(folder):
        from adaptkit.compare.audited_study import audit_study_bias
        from adaptkit.report.write import write_report

        record = audit_study_bias(folder, pairs=pairs, words=words, by=by, task=task)
        write_bias(Run(folder), record)
        write_report(folder)
        return record
    from adaptkit.audit.bias import audit_run_bias

    if by is not None or task is not None:
        option = "--by" if by is not None else "--task"
        what = f"{option}: errors are told by a column of a study, and this is none"
        raise DataError(what, where=str(folder), fix="leave it out, and give --pairs or --words")
    record = audit_run_bias(Run(folder), pairs=pairs, words=words)
    write_bias(Run(folder), record)
    return record


def _bias_view(record: BiasRecord) -> tuple[Any, ...]:
    """Each part's table, lead and notes."""
    from adaptkit.report.bias_section import parts_of

    shown: list[Any] = []
    for part in parts_of(record):
        notes = (f"- {sentence}" for sentence in part.notes)
        shown += [f"{part.title}:", _table(part.columns, part.rows), part.lead, *notes, ""]
    return tuple(shown)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Names on the left, figures on the right."""
    from rich.table import Table

    table = Table()
    for number, name in enumerate(columns):
        table.add_column(name, overflow="fold", justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _confidence(folder: Path, task: str | None, accuracy: float | None) -> list[ArmConfidence]:
    from adaptkit.study.record import is_study, read_study

    if is_study(folder):
        audits = _of_study(folder, read_study(folder), task, accuracy)
    elif task is not None:
        raise DataError("--task picks from a study, and this is none", where=str(folder), fix="leave it out")
    else:
        audits = _of_run(folder, accuracy)
    if not audits:
        fix = "audit a classifier: kind classify, label_words or pairs"
        raise DataError(NO_PROBABILITIES, where=str(folder), fix=fix)
    return audits


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
