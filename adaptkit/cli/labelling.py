"""The commands that make labels: by people, row by row, or by rules.

adaptkit labels next pool.jsonl --labelled tickets.jsonl --count 50 --out to_label.csv
adaptkit labels add pool.jsonl to_label.csv --labelled tickets.jsonl --out tickets.2.jsonl
adaptkit labels weak pool.jsonl --rules rules.csv --labelled tickets.jsonl --out weak.jsonl
"""

from __future__ import annotations

import dataclasses
import shlex
import statistics
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptkit.cli import arguments, render
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.labels import Column, check_new, config_of, labels, repeated
from adaptkit.errors import ConfigError

if TYPE_CHECKING:
    from adaptkit.labelling.next_rows import NextRows
    from adaptkit.labelling.study_judge import StudyJudge
    from adaptkit.labelling.weak_labels import WeakLabels
    from adaptkit.study.statistics import Interval

MOST_RULES = 40
"""Rules that are shown; JSON has all."""
AGREEMENT = (
    "Rules were weighed by how well they agree, and those that repeat each other or err alike look right. "
    "Label a hundred rows drawn at random, and give them as --labelled."
)
WEAK_LIMITS = ("Never test on weak labels: test on rows that people labelled.",)
NO_SAMPLE = "Rows chosen so are no fair sample of all rows: test on rows that were drawn at random."
SIMULATED = (
    "What choosing saved on labelled rows, against drawing at random: docs/audits.md, 'What to label next'."
)

Unlabelled = Annotated[str, typer.Argument(metavar="FILE", help="Rows with a text: a file, folder or glob.")]
Labelled = Annotated[
    str | None, typer.Option(metavar="FILE", help="Rows that are labelled: a file, folder or glob.")
]


class By(StrEnum):
    """What rows are chosen by."""

    UNCERTAINTY = "uncertainty"
    BOTH = "both"
    DIVERSITY = "diversity"
    RANDOM = "random"


@command(
    labels,
    "next",
    [
        "adaptkit labels next pool.jsonl --labelled tickets.jsonl --count 50 --out to_label.csv",
        "adaptkit labels next pool.csv --labelled tickets.csv --column text=body --column label=queue",
        "adaptkit labels next pool.jsonl --labelled tickets.jsonl --study runs/tickets-5e6f7a8b",
        "adaptkit labels next pool.jsonl --by diversity",
    ],
)
def labels_next(
    file: Unlabelled,
    labelled: Labelled = None,
    column: Column = None,
    by: Annotated[By, typer.Option(help="What rows are chosen by.")] = By.UNCERTAINTY,
    count: Annotated[int, typer.Option(help="Rows to choose.", min=1)] = 50,
    study: Annotated[
        Path | None, typer.Option(help="A study whose best trained classifier says how sure it is.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Of the study, instead of the task that decides.")] = None,
    arm: Annotated[str | None, typer.Option(help="Of the study, instead of its best classifier.")] = None,
    seed: Annotated[int, typer.Option(help="Of random draws and ties.", min=0)] = 0,
    out: Annotated[Path, typer.Option(metavar="CSV", help="Where to.")] = Path("to_label.csv"),
) -> Outcome:
    """Choose the rows that people should label next, and write them as a CSV.

    Word counts learn the labelled rows and say how sure they are of the others; with --study an arm does.
    Fill the column `label`; `labels add` puts the rows behind those that are labelled.
    """
    from adaptkit.labelling.next_rows import choose_next, write_sheet

    check_new(out)
    if study is None and (task or arm):
        raise ConfigError("--task and --arm pick from a study", where="command line", fix="add --study")
    judge = None if study is None else _study_judge(study, task, arm)
    known = None if labelled is None else config_of(labelled, column)
    config = config_of(file, column)
    chosen = choose_next(config, known, strategy=by.value, count=count, seed=seed, judge=judge)
    write_sheet(chosen, out)
    words = ["adaptkit", "labels", "add", file, str(out), *(["--labelled", labelled] if labelled else [])]
    next_step = shlex.join([*words, *repeated(column)])
    data = {
        "file": str(out),
        "by": by.value,
        "judge": None if chosen.median_margin is None else _judge_name(judge),
        "num_chosen": len(chosen.rows),
        "num_unlabelled": chosen.num_unlabelled,
        "num_labelled": chosen.num_labelled,
        "num_repeated": chosen.num_repeated,
        "num_known": chosen.num_known,
        "median_margin": chosen.median_margin,
    }
    return Outcome((*_next_view(chosen, out, by, _judge_name(judge)), f"next: {next_step}"), data)


@command(
    labels,
    "add",
    ["adaptkit labels add pool.jsonl to_label.csv --labelled tickets.jsonl --out tickets.2.jsonl"],
)
def labels_add(
    file: Unlabelled,
    sheet: Annotated[Path, typer.Argument(metavar="TO_LABEL.csv", help="What `labels next` wrote, filled.")],
    labelled: Labelled = None,
    column: Column = None,
    out: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="Where to; FILE.labelled.jsonl if not given.")
    ] = None,
) -> Outcome:
    """Write the labelled rows and, behind them, those that people labelled, as JSON lines.

    Rows are found by their id; those without a label yet are left out. The file is a task's `train`.
    """
    from adaptkit.labelling.next_rows import add_labels

    path = out or Path(f"{Path(file.rstrip('/')).name}.labelled.jsonl")
    check_new(path)
    known = None if labelled is None else config_of(labelled, column)
    added = add_labels(config_of(file, column), sheet, known, path)
    words = f"{path}: {added.num_rows:,} rows, {added.added:,} of them new"
    if added.empty:
        words += f"; {added.empty:,} have no label yet and are left out"
    return Outcome(words, {"file": str(path), **dataclasses.asdict(added)})


@command(
    labels,
    "weak",
    [
        "adaptkit labels weak pool.jsonl --rules keywords.csv --out weak.jsonl",
        "adaptkit labels weak pool.jsonl --rules rules.py --labelled tickets.jsonl",
    ],
)
def labels_weak(
    file: Unlabelled,
    rules: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="A table label,pattern,is_regex; or Python functions of `text` or `row`."
        ),
    ],
    labelled: Labelled = None,
    column: Column = None,
    seconds: Annotated[float, typer.Option(help="What a Python file may take.", min=1.0)] = 600.0,
    out: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="Where to; FILE.weak.jsonl if not given.")
    ] = None,
) -> Outcome:
    """Label rows by rules, weighed by how often they are right, and write a task file.

    Rows that no rule speaks of, or on which rules are evenly torn, are counted and not written. Rules are
    measured on the rows of --labelled; without it their worth is guessed from how well they agree. A Python
    file runs in a process of its own; docs/audits.md shows one.
    """
    from adaptkit.labelling.weak_labels import weak_labels, write_task

    path = out or Path(f"{Path(file.rstrip('/')).name}.weak.jsonl")
    check_new(path)
    known = None if labelled is None else config_of(labelled, column)
    weak = weak_labels(config_of(file, column), rules, known, seconds)
    write_task(weak, path)
    data = {"file": str(path), "num_written": len(weak.rows), **_without_rows(weak)}
    return Outcome(_weak_view(weak, path), data)


def _study_judge(study: Path, task: str | None, arm: str | None) -> StudyJudge:
    from adaptkit.labelling.study_judge import study_judge
    from adaptkit.study.results import collect

    return study_judge(collect(arguments.find_run(study, study=True)), task, arm)


def _judge_name(judge: StudyJudge | None) -> str:
    return "word counts" if judge is None else judge.arm


def _next_view(chosen: NextRows, path: Path, by: By, judge: str) -> tuple[str, ...]:
    """What was chosen of what, how sure the judge is, and what the rows are not good for."""
    lines = [f"{path}: {len(chosen.rows):,} of {chosen.num_unlabelled:,} rows to label, by {_BY[by]}"]
    if chosen.margins is not None and chosen.median_margin is not None:
        apart = f"{statistics.median(chosen.margins):.2f} apart, {chosen.median_margin:.2f} in all rows"
        lines.append(f"{judge}: in the median of these rows the two likeliest labels lie {apart}")
    if chosen.num_known or chosen.num_repeated:
        left = f"{chosen.num_known:,} whose text is labelled already, {chosen.num_repeated:,} that repeat one"
        lines.append(f"left out: {left}")
    limits = [] if by is By.RANDOM else [f"- {NO_SAMPLE}", f"- {SIMULATED}"]
    return (*lines, "", *limits)


_BY = {
    By.UNCERTAINTY: "uncertainty (the smallest margins)",
    By.BOTH: "uncertainty and diversity (BADGE)",
    By.DIVERSITY: "diversity (k-centres)",
    By.RANDOM: "a random draw",
}


def _without_rows(weak: WeakLabels) -> dict[str, object]:
    return dataclasses.asdict(dataclasses.replace(weak, rows=()))


def _weak_view(weak: WeakLabels, path: Path) -> tuple[str, ...]:
    """How many rows got a label, how each rule does, and what that cannot say."""
    num_rows = len(weak.rows) + weak.num_silent + weak.num_tied
    lines = [f"{path}: {len(weak.rows):,} of {num_rows:,} rows labelled ({len(weak.rows) / num_rows:.1%})"]
    lines.append(f"not written: {weak.num_silent:,} of which no rule speaks, {weak.num_tied:,} evenly torn")
    if weak.num_known:
        lines.append(f"left out: {weak.num_known:,} whose text is labelled already")
    counts = Counter(str(row.label) for row in weak.rows)
    lines.append("labels: " + ", ".join(f"{name} {number:,}" for name, number in counts.most_common()))
    table: list[tuple[object, ...]] = [
        ("rule", "gives", "speaks of", "with others", "against others", "taken for right", "was right")
    ]
    for rule in sorted(weak.rules, key=lambda rule: -rule.covers)[:MOST_RULES]:
        shares = (f"{share:.1%}" for share in (rule.covers, rule.overlaps, rule.conflicts, rule.weight))
        measured = _interval(rule.measured, rule.num_measured)
        table.append((rule.name[:40], ", ".join(rule.labels) or "-", *shares, measured))
    lines += ["", render.table(table)]
    if len(weak.rules) > MOST_RULES:
        lines.append(f"... and {len(weak.rules) - MOST_RULES} rules that speak of less: --json has all")
    if weak.accuracy is not None and weak.majority is not None:
        both = f"{_interval(weak.accuracy, weak.num_measured)}; a majority of votes: {weak.majority.mean:.1%}"
        lines += ["", f"together, on labelled rows that they speak of: right on {both}"]
    if weak.missing:
        lines.append(f"no rule gives: {', '.join(weak.missing)}. Trained on this file alone, nothing will")
    if not weak.settled:
        lines.append("the weights of the rules had not come to rest")
    limits = WEAK_LIMITS if weak.num_labelled else (AGREEMENT, *WEAK_LIMITS)
    return (*lines, "", *(f"- {limit}" for limit in limits), f"next: {_weak_next(path)}")


def _weak_next(path: Path) -> str:
    """The command that makes a study of the file."""
    return shlex.join(["adaptkit", "init", str(path)])


def _interval(share: Interval | None, number: int) -> str:
    if share is None:
        return "-"
    return f"{share.mean:.1%} [{100 * share.low:.0f}, {100 * share.high:.0f}] of {number:,}"
