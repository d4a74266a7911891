"""The commands that look after labels: which are probably wrong, and what people decided about them.

adaptkit labels check tickets.csv --out review.csv
adaptkit labels apply tickets.csv review.csv --out tickets.reviewed.jsonl
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli import arguments, render
from adaptkit.cli.console import Outcome, command
from adaptkit.errors import ConfigError

if TYPE_CHECKING:
    from adaptkit.audit.label_review import CheckedLabels, StudyOpinion
    from adaptkit.data.readers import DataConfig

labels = typer.Typer(help="Look after labels.", no_args_is_help=True, rich_markup_mode=None)
LIMITS = (
    "A suspect is a row for people to look at, not an error: it may be rare, hard, or rightly unlike the "
    "others. Errors that word counts make too are not found.",
    "Shares of wrong labels are estimates: high where labels are hard to tell apart.",
)

File = Annotated[str, typer.Argument(metavar="FILE", help="Labelled rows: a file, folder or glob.")]
Column = Annotated[
    list[str] | None, typer.Option(help="ROLE=COLUMN, as in a config's `columns`. May be repeated.")
]


@command(
    labels,
    "check",
    [
        "adaptkit labels check tickets.csv",
        "adaptkit labels check tickets.csv --study runs/tickets-5e6f7a8b --out review.csv",
        "adaptkit labels check rows.jsonl --column text=body --column group=document --json",
    ],
)
def labels_check(
    file: File,
    column: Column = None,
    study: Annotated[
        Path | None, typer.Option(help="A study whose opinion of its dev and test rows stands beside.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Of the study, instead of the task that decides.")] = None,
    arm: Annotated[str | None, typer.Option(help="Of the study, instead of the recommended one.")] = None,
    folds: Annotated[int, typer.Option(help="Parts of the cross-validation.", min=2, max=50)] = 5,
    out: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Where to; FILE.review.csv if not given.")
    ] = None,
) -> Outcome:
    """Find labels that are probably wrong, and write them as a CSV for people.

    By confident learning (arXiv 1911.00068) over word counts, cross-validated: each row is judged by what the
    other rows taught. Fill the column `decision` with keep, remove or a label; `labels apply` puts it back.
    """
    from adaptkit.audit.label_review import check_labels_of, write_review

    config = config_of(file, column)
    if study is None and (task or arm):
        raise ConfigError("--task and --arm pick from a study", where="command line", fix="add --study")
    opinion = None
    if study is not None:
        opinion = _study_opinion(study, task, arm)
    checked = check_labels_of(config, study=opinion, num_folds=folds)
    path = out or Path(f"{Path(checked.dataset.rows[0].file).name}.review.csv")
    if path.exists() and path.resolve() in {Path(row["name"]).resolve() for row in checked.dataset.files}:
        raise ConfigError("this is the file that is checked", where="--out", fix="name another file")
    write_review(checked, path)
    next_step = shlex.join(["adaptkit", "labels", "apply", file, str(path), *repeated(column)])
    return Outcome((*_view(checked, path), f"next: {next_step}"), _as_json(checked, path))


@command(
    labels,
    "apply",
    [
        "adaptkit labels apply tickets.csv review.csv",
        "adaptkit labels apply tickets.csv review.csv --out tickets.reviewed.jsonl",
    ],
)
def labels_apply(
    file: File,
    review: Annotated[Path, typer.Argument(metavar="REVIEW.csv", help="What `labels check` wrote, filled.")],
    column: Column = None,
    out: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="Where to; FILE.reviewed.jsonl if not given.")
    ] = None,
) -> Outcome:
    """Write the rows anew, as JSON lines, with the labels that people decided on.

    Rows are found by their id. `keep`, or no decision, leaves a row as it is; `remove` leaves it out.
    """
    from adaptkit.audit.label_review import apply_review

    path = out or Path(f"{Path(file.rstrip('/')).name}.reviewed.jsonl")
    check_new(path)
    applied = apply_review(config_of(file, column), review, path)
    words = f"{applied.relabelled} relabelled, {applied.removed} removed, {applied.kept} kept"
    if applied.undecided:
        words += f", {applied.undecided} not decided and left as they are"
    data = {"file": str(path), **dataclasses.asdict(applied)}
    return Outcome(f"{path}: {applied.num_rows:,} rows; {words}", data)


def check_new(path: Path) -> None:
    """Raises: ConfigError for a file that is there: it may hold what people wrote."""
    if path.exists():
        raise ConfigError("is there already", where=str(path), fix="name another file with --out")


def config_of(file: str, column: list[str] | None) -> DataConfig:
    from adaptkit.data.readers import DataConfig

    return DataConfig(files=[file], columns=arguments.pairs(column or [], "--column"))


def _study_opinion(study: Path, task: str | None, arm: str | None) -> StudyOpinion:
    from adaptkit.audit.study_opinion import study_opinion
    from adaptkit.study.results import collect

    return study_opinion(collect(arguments.find_run(study, study=True)), task, arm)


def repeated(column: list[str] | None) -> list[str]:
    return [word for pair in column or [] for word in ("--column", pair)]


def _view(checked: CheckedLabels, path: Path) -> tuple[Any, ...]:
    """What was found, by label, and what it cannot say."""
    num_rows, num_suspects = len(checked.dataset.rows), len(checked.suspects)
    head = f"{path}: {num_suspects:,} of {num_rows:,} rows are suspect ({num_suspects / num_rows:.1%})"
    judged = f"word counts predict {checked.accuracy:.1%} of the labels of rows that they did not learn from"
    if checked.study_arm is not None:
        judged += f"; {checked.study_arm} judged {checked.num_seen_by_study:,} rows"
    rows = [("label", "rows", "suspect", "wrong, estimated")]
    for noise in checked.noise:
        wrong = "-" if noise.wrong is None else f"{noise.wrong:.1%}"
        rows.append((noise.label, f"{noise.num_rows:,}", f"{noise.num_suspects:,}", wrong))
    return head, judged, "", render.table(rows), "", *(f"- {limit}" for limit in LIMITS)


def _as_json(checked: CheckedLabels, path: Path) -> dict[str, object]:
    return {
        "file": str(path),
        "num_rows": len(checked.dataset.rows),
        "num_suspects": len(checked.suspects),
        "accuracy": checked.accuracy,
        "study_arm": checked.study_arm,
        "num_seen_by_study": checked.num_seen_by_study,
        "labels": [dataclasses.asdict(noise) for noise in checked.noise],
    }
